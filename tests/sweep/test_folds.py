"""Trials whose n labels validate in folds: against phases composed by hand; shared, resumed, chosen by, and refused."""

import contextlib
import dataclasses
import re
import signal
import statistics

import numpy as np
import pytest

from mtl.config import ConfigError, default, flatten, override, resolve
from mtl.data import SOURCES, make_table, register, scaling
from mtl.data.folds import divided
from mtl.params import flatten as by_path
from mtl.report.collect import collect
from mtl.report.training import unconverged
from mtl.sweep import execute as executing
from mtl.sweep import product, sweep
from mtl.sweep.chosen import candidates, choose
from mtl.sweep.execute import execute, work_of
from mtl.sweep.launch import Silent, launch
from mtl.sweep.plan import load_table, look_again, make_plan, scaling_of, split_of, table_of, val_rows_of
from mtl.sweep.snapshots import Interrupt
from mtl.sweep.store import Workdir
from mtl.sweep.workers import shares
from mtl.tasks import Task
from mtl.train import loop
from mtl.train.begin import freshen
from mtl.train.dataset import make_data
from mtl.train.loop import Stopped
from mtl.train.placement import MAP
from mtl.train.trial import stages_of

BASE = override(
    flatten(default()),
    {
        "name": "folds",
        "data.target_size": 20,
        "data.target_pool": 60,
        "data.folds": 3,
        "model.options": {"hidden": (6,)},
        "model.head_init": "lecun_normal",
        "source.total_steps": 8,
        "target.total_steps": 12,
        "evaluations": 4,
        "batch_size": 8,
        "lr": 0.1,
        "optimizer.schedule": "cosine",
        "select": "best",
    },
)


def trial(**changes):
    """Return a trial; in keywords, two underscores stand for a dot."""
    flat = override(BASE, {k.replace("__", "."): v for k, v in changes.items()})
    return resolve(flat, load_table("digits", {}))


@pytest.fixture
def trained(monkeypatch):
    """What every phase came to that was trained, by its key."""
    found, train = {}, executing._train

    def kept(*args):
        found.update(outcomes := train(*args))
        return outcomes

    monkeypatch.setattr(executing, "_train", kept)
    return found


def by_hand(t, splits, steps, select):
    """Return the outcomes of a chain of phases, from the pure parts: each on a split, for so many steps."""
    table, model = table_of(t), t.model()
    shape = table.shape
    initial = loop.initial_weights(model, shape, [t.seed], MAP)[0]
    weights, found = initial, []
    for number, stage in enumerate(stages_of(t, shape)):
        kept = select if number else t.phases[0].select  # The first phase is the source's.
        stage = dataclasses.replace(
            stage, program=dataclasses.replace(stage.program, select=kept), steps=steps[number], select=kept
        )
        data = make_data(table, [splits[number]], [stage.program], 117, [scaling.fit(table, splits[number])])
        begin = freshen(weights, initial, stage.fresh)
        (outcome,) = loop.run_phase([t.seed], [stage], [0], [begin], data, evaluations=4, placement=MAP)
        weights = outcome.weights
        found.append(outcome)
    return found


def same(a, b):
    left, right = by_path(a.params), by_path(b.params)
    return left.keys() == right.keys() and all(left[k].tobytes() == right[k].tobytes() for k in left)


@pytest.mark.parametrize(("repeats", "patience"), [(1, 4), (2, 4), (2, 1)])
def test_folds_and_what_is_kept_have_the_bits_of_phases_composed_by_hand(tmp_path, trained, repeats, patience):
    """With patience, phases on folds end early, and those on all labels never."""
    t = trial(regime="lp_ft", data__fold_repeats=repeats, patience=patience)
    plan = make_plan([t])
    execute(plan, workdir := Workdir(tmp_path))
    result, one = workdir.result(t.hash), split_of(trial(regime="lp_ft", data__folds=0))
    best, kept, spent = [[], []], [], []
    for fold, keys in enumerate(plan.folds[t.hash]):
        own = divided(one, table_of(t), ["even"], t.seed, 3, fold)
        assert own.train["even"].sum() + own.val["even"].sum() == 20 and 6 <= own.val["even"].sum() <= 7
        outcomes = by_hand(t, [own] * 3, [8, 6, 6], "best")
        for key, outcome in zip(keys, outcomes, strict=True):
            assert same(trained[key].weights, outcome.weights)
            assert trained[key].about["val_loss"] == outcome.val_loss
            assert trained[key].about["val_score"] == outcome.val_score
        curves = [o.val_score["even"] for o in outcomes[1:]]
        for at, curve, outcome in zip(best, curves, outcomes[1:], strict=True):
            at.append(outcome.steps[int(np.argmin(curve))])
            spent.append(outcome.steps[-1])
        kept.append(min(curves[-1]))
    assert result["val_score"] == pytest.approx(np.mean(kept), rel=1e-12)
    assert result["validated"] == {"even": [6, min(result["validated"]["even"][1], 3)]}
    steps = [outcomes[0].steps[-1], *(int(statistics.median(at) + 0.5) for at in best)]
    assert [p["steps"] for p in result["phases"]] == steps
    assert steps[1:] != [6, 6], "some best state must be no last one, or it shows nothing"
    assert (sum(spent) < 12 * 3 * repeats) == (patience == 1)
    nothing = {**one.val, "even": np.zeros_like(one.val["even"])}
    whole = dataclasses.replace(one, train={**one.train, "even": one.train["even"] | one.val["even"]}, val=nothing)
    outcomes = by_hand(t, [whole] * 3, [8, *steps[1:]], "last")
    for key, outcome in zip(plan.chains[t.hash], outcomes, strict=True):
        assert same(trained[key].weights, outcome.weights)
    assert np.isnan(outcomes[-1].val_loss["even"]).all() and result["phases"][-1]["val_loss"]["even"] == [None] * len(
        outcomes[-1].steps
    )
    assert result["cost"]["fold_examples"] == 8 * sum(spent) and (patience == 1 or sum(spent) == 12 * 3 * repeats)
    assert result["cost"]["fold_steps"] == sum(spent) and result["cost"]["rows"] == 700 + 20
    assert result["cost"]["examples"] == 8 * sum(steps)


@pytest.mark.parametrize(("regime", "steps"), [("finetune", [8, 12]), ("ridge_probe", [8, 1])])
def test_with_the_last_state_all_labels_train_for_all_steps(tmp_path, regime, steps):
    t = trial(regime=regime, select="last")
    execute(make_plan([t]), workdir := Workdir(tmp_path))
    assert [p["steps"] for p in workdir.result(t.hash)["phases"]] == steps


def test_numbers_of_groups_are_trained_on_in_the_unit_of_the_labels_that_each_chain_has(tmp_path, trained):
    def table():
        rng = np.random.default_rng(0)
        x = rng.normal(size=(300, 4))
        labels = {"y": 100 + 30 * x[:, 0] + rng.normal(size=300), "kind": (x[:, 1] > 0).astype(float)}
        tasks = [Task("y", "regression"), Task("kind", "binary")]
        return make_table("of_groups", x, tasks, labels, groups=rng.integers(0, 120, 300))

    register("of_groups")(table)
    try:
        data = {"name": "of_groups", "source": ("kind",), "target": "y", "test_size": 60, "source_size": 60}
        data |= {"source_val_size": 10, "target_pool": 80, "target_size": 40, "folds": 4}
        changes = {"regime": "finetune", **{f"data.{k}": v for k, v in data.items()}}
        flat = override(BASE, changes)
        t = resolve(flat, load_table("of_groups", {}))
        table = table_of(t)
        plan = make_plan([t])
        execute(plan, workdir := Workdir(tmp_path))
        result, kept, errors = workdir.result(t.hash), [], []
        for part, chain in zip(t.folds, plan.folds[t.hash], strict=True):
            split, unit = split_of(part), scaling_of(part).units["y"]
            assert not set(table.groups[split.train["y"]].tolist()) & set(table.groups[split.val["y"]].tolist())
            assert split.val["y"].sum() <= val_rows_of(part)
            assert unit[0] == pytest.approx(table.labels["y"][split.train["y"]].mean())
            kept.append(min(trained[chain[-1]].about["val_score"]["y"]))
            errors.append(min(trained[chain[-1]].about["val_loss"]["y"]))
        assert result["val_score"] == pytest.approx(np.mean(kept)) and 0 < result["val_score"] < 3
        assert 100 < np.mean(errors) < 3000  # In the square of the labels' own unit.
        whole = split_of(t).train["y"]
        assert whole.sum() == 40 and scaling_of(t).units["y"][0] == pytest.approx(table.labels["y"][whole].mean())
    finally:
        SOURCES.pop("of_groups")
        look_again()


def test_source_phases_are_shared_by_all_chains_and_with_trials_without_folds():
    few, many, plain = (trial(regime="lp_ft", **c) for c in ({}, {"data__target_size": 30}, {"data__folds": 0}))
    repeated = trial(regime="finetune", data__fold_repeats=2)
    alone = make_plan([few])
    # The source; a head and all of it on each of 3 folds, and on all labels.
    assert len(alone.nodes) == 1 + 2 * (3 + 1)
    assert alone.steps() == alone.steps_unshared() == 8 + 12 * (3 + 1)
    plan = make_plan([few, many, plain, repeated])
    assert len(plan.nodes) == 1 + 2 * 2 * (3 + 1) + 2 + (6 + 1)
    assert len({chain[0] for chain in plan.chains.values()}) == 1
    assert {chain[0] for chains in plan.folds.values() for chain in chains} == {plan.chains[few.hash][0]}
    source = plan.nodes[plan.chains[few.hash][0]]
    assert source.source_only and not source.after and plan.saved(source.key)
    assert plan.programs() == make_plan([plain, trial(regime="finetune", data__folds=0)]).programs()
    # A trial is one worker's, whatever it takes.
    assert sorted(d for part in shares(plan, 2) for d in part) == sorted(plan.trials)


def test_a_trial_without_folds_is_what_it_was():
    one = trial(data__folds=1, data__fold_repeats=2)
    assert one.hash == trial(data__folds=0).hash and not {"folds", "fold_repeats"} & one.config["data"].keys()
    assert not one.folds and one.chosen_by == (one,)


def bits(workdir, plan):
    def of(digest):
        result = workdir.result(digest)
        phases = [(p["steps"], p["train_loss"], p["val_loss"]) for p in result["phases"]]
        model = (workdir.trial(digest) / "model.safetensors").read_bytes()
        return result["val_score"], phases, model, workdir.predictions(digest, "even")["outputs"].tobytes()

    return {digest: of(digest) for digest in plan.trials}


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_killed_in_the_middle_it_goes_on_to_the_same_bits(tmp_path, monkeypatch, every):
    """The signal comes before every fifth boundary, each time in a run of its own that then goes on."""
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    plan = make_plan([trial(regime=r, seed=s) for r in ("lp_ft", "finetune") for s in range(2)])
    execute(plan, undisturbed := Workdir(tmp_path / "undisturbed"))
    workdir, stops, told = Workdir(tmp_path / "killed"), 0, []
    entries = product(sweep("regime", ("lp_ft", "finetune")), sweep("seed", range(2)))
    while any(workdir.result(digest) is None for digest in plan.trials):
        interrupt, calls = Interrupt(), 0

        def progress(work, done, failed, interrupt=interrupt):
            nonlocal calls
            calls += bool(work)
            if calls == every:
                interrupt.number = signal.SIGTERM

        display = Silent()
        display.say, display.meter = told.append, lambda *_, told=progress: contextlib.nullcontext(told)
        try:
            launch(
                *(BASE, {"sizes": entries}, workdir),
                **{"jobs": 0, "config_file": None, "display": display, "placement": MAP, "interrupt": interrupt},
            )
        except Stopped:
            stops += 1
    assert stops >= 3 and not told
    assert bits(workdir, plan) == bits(undisturbed, plan)
    assert not list((tmp_path / "killed" / "snapshots").glob("*"))


def test_a_shared_phase_that_is_damaged_is_trained_anew_and_those_after_it_are_not(tmp_path, trained):
    """Two trials that begin alike on the target's labels keep these phases on disk, folds included."""
    probe = {"regimes": {"on": [{"trainable": "head", "total_steps": 5}, {"total_steps": 6}],
                         "off": [{"trainable": "head", "total_steps": 5}, {"total_steps": 7}]}}  # fmt: skip
    trials = [trial(regime=r, **probe) for r in ("on", "off")]
    workdir, plan = Workdir(tmp_path), make_plan(trials)
    execute(plan, workdir)
    before = bits(workdir, plan)
    fold = plan.folds[trials[0].hash][1][0]
    assert fold == plan.folds[trials[1].hash][1][0] and workdir.prefix(fold).is_file()
    again = Workdir(tmp_path / "again")
    for file in tmp_path.glob("prefixes/*"):
        again.prefix(file.stem).parent.mkdir(parents=True, exist_ok=True)
        again.prefix(file.stem).write_bytes(file.read_bytes()[: 100 if file.stem == fold else None])
    trained.clear()
    execute(plan, again, say=lambda text: None)
    assert fold in trained and plan.chains[trials[0].hash][0] not in trained
    assert bits(again, plan) == before


def test_progress_comes_to_all_the_work_whatever_the_folds_say(tmp_path):
    plan, told = make_plan([trial(regime="lp_ft", seed=s) for s in range(2)]), []
    execute(plan, Workdir(tmp_path), progress=lambda work, done, failed: told.append(work))
    assert sum(told) == pytest.approx(sum(map(work_of, plan.nodes.values())))


def test_a_phase_that_fails_on_a_fold_fails_its_trial_and_no_other(tmp_path, monkeypatch):
    t, other = trial(regime="scratch"), trial(regime="scratch", data__folds=0)
    plan, train = make_plan([t, other]), executing._train

    def failing(nodes, *rest):
        if any("fold" in n.trial.config["data"] for n in nodes):
            raise RuntimeError("by chance")
        return train(nodes, *rest)

    monkeypatch.setattr(executing, "_train", failing)
    apart = {k: (*kind[:-1], k) for k, kind in executing._kinds(plan.nodes).items()}
    monkeypatch.setattr(executing, "_kinds", lambda nodes: apart)  # Each is a pack of its own.
    execute(plan, workdir := Workdir(tmp_path))
    assert "by chance" in workdir.failure(t.hash) and workdir.result(other.hash)["status"] == "done"


def test_a_trial_that_diverges_on_a_fold_has_diverged(tmp_path):
    t = trial(regime="scratch", lr=1e30, optimizer__name="sgd", optimizer__schedule="constant")
    execute(make_plan([t]), workdir := Workdir(tmp_path))
    result = workdir.result(t.hash)
    assert result["status"] == "diverged" and "test" not in result


@pytest.mark.parametrize("tasks", [("even",), ("even", "prime")], ids=["one", "several"])
def test_a_sweep_chooses_by_the_mean_over_folds_and_says_so(tmp_path, tasks):
    several = {"data.targets": tasks, "data.source": ()} if len(tasks) > 1 else {}
    base = override(BASE, {**several, "data.fold_repeats": 2})
    regimes = ("multitask",) if several else ("scratch", "finetune")
    entries = product(sweep("regime", regimes), sweep("seed", range(2)), sweep("lr", (0.3, 0.1, 0.01)))
    workdir = Workdir(tmp_path)
    launch(base, {"sizes": entries}, workdir, jobs=0, config_file=None, display=Silent())
    entry = workdir.study()["sweeps"]["sizes"]
    for found in candidates(workdir, entry).values():
        scores = {t["changes"]["lr"]: result["val_score"] for t, result in found}
        assert len(set(scores.values())) == 3 and None not in scores.values()
        picked, result = choose(found, ["lr"])
        assert picked["changes"]["lr"] == min(scores, key=scores.get)
        assert not any(v is not None for task in tasks for v in result["phases"][-1]["val_loss"][task])
    notes = " ".join(collect(workdir, "sizes").notes)
    assert "each of 3 folds validates once what the others train, 2 times over; then all train" in notes
    assert "by mean validation over the folds, within each replicate and cell." in notes


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data__folds": -1}, "config.data.folds = -1: must be at least 0 (0: one split by val_fraction)"),
        ({"data__fold_repeats": 0}, "config.data.fold_repeats = 0: must be at least 1"),
        (
            {"data__folds": 21},
            "config.data: folds = 21: must be at most 20, as there are no more labelled rows",
        ),
        (
            {"regime": "ridge_probe", "ridge__choose": "validation"},
            'config.ridge.choose = "validation": trains by validation labels, and with data.folds = 3 all labels train '
            "in the end: must be another one, or data.folds = 0",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(changes, sentence):
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        make_plan([trial(**changes)])


@pytest.mark.parametrize("noise", [{}, {"data.label_noise": {"even": 0.4}}], ids=["right", "wrong"])
def test_a_reference_has_no_folds_and_is_fitted_to_the_labels_that_all_train_in_the_end(tmp_path, noise):
    changes = {"regime": "logistic_regression", "data.source": (), "data.val_fraction": 0.5, **noise}
    with_folds, without = (
        resolve(override(BASE, {**changes, "data.folds": k}), load_table("digits", {})) for k in (3, 0)
    )
    plan = make_plan([with_folds, without])
    assert not with_folds.folds and plan.folds[with_folds.hash] == [] and len(plan.nodes) == 2
    execute(plan, workdir := Workdir(tmp_path))
    ours, other = (workdir.predictions(t.hash, "even")["outputs"] for t in (with_folds, without))
    # Validation labels are never wrong, and with folds all labels train.
    assert (ours.tobytes() == other.tobytes()) == (not noise)
    result = workdir.result(with_folds.hash)
    assert result["cost"]["rows"] == 20 and not any(name.startswith("fold_") for name in result["cost"])


@pytest.mark.parametrize("rate", [1e-4, 0.5])
def test_it_is_not_converged_where_half_of_the_folds_were_best_at_their_end(tmp_path, rate):
    t = trial(regime="finetune", lr=rate, optimizer__schedule="constant", target__total_steps=60)
    execute(make_plan([t]), workdir := Workdir(tmp_path))
    result = workdir.result(t.hash)
    last = result["phases"][-1]
    assert last["most_steps"] == 60 and (last["steps"] == 60) == (rate == 1e-4)
    assert unconverged(result) == (rate == 1e-4)
    assert not unconverged(result | {"config": trial(regime="finetune", select="last").config})
