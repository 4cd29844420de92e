"""References: scikit-learn's models on a trial's own rows, against loops written by hand, and as trials of a study."""

import re

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score, roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold

import mtl
import mtl.data
from mtl.checkpoint import CheckpointError
from mtl.cli import main
from mtl.config import ConfigError, default, flatten, override, resolve
from mtl.regimes import REFERENCES, Phase
from mtl.report.publish import analyses_of
from mtl.sweep import product, sweep
from mtl.sweep import reference as fitting
from mtl.sweep.execute import execute
from mtl.sweep.launch import Silent, launch, preview
from mtl.sweep.plan import load_table, make_plan, split_of
from mtl.sweep.snapshots import Interrupt
from mtl.sweep.store import Workdir
from mtl.tasks import Task
from mtl.train.loop import Stopped
from mtl.train.placement import MAP
from tests.sweep.by_hand import forget

N = 300


@mtl.data.register("rows_with_gaps")
def rows_with_gaps():
    """Inputs far from zero, some missing; tasks of each kind on the same rows, a third of whose labels are missing."""
    rng = np.random.default_rng(7)
    z = rng.normal(size=(N, 5))
    x = np.column_stack([500 + 3 * z[:, 0], z[:, 1], 1e-3 * z[:, 2], z[:, 3] > 0, z[:, 4]])
    x[rng.random(N) < 0.1, 0] = np.nan
    tasks = [
        *(Task("ill", "binary"), Task("worse", "binary", metric="auroc")),
        *(Task("kind", "multiclass", num_classes=4), Task("price", "regression")),
    ]
    noise = rng.normal(size=(N, 4))
    labels = {
        "ill": (z[:, 0] + z[:, 1] + 0.5 * noise[:, 0] > 0) * 1.0,
        "worse": (z[:, 0] * z[:, 2] + 0.5 * noise[:, 1] > 0) * 1.0,
        "kind": np.digitize(z[:, 1] + 0.3 * noise[:, 2], (-1, 0, 1)),
        "price": 1e5 + 2e4 * (z[:, 0] - z[:, 3] + 0.3 * noise[:, 3]),
    }
    for name, y in labels.items():
        y[rng.random(N) < 1 / 3] = -1 if name == "kind" else np.nan
    return mtl.data.make_table("rows with gaps", x, tasks, labels, missing_inputs="flag")


ALONE = {"data.source": (), "data.target_size": 60, "data.target_pool": 80, "data.test_size": 60}
STEPS = {"source.total_steps": 4, "target.total_steps": 4}
BASE = override(flatten(default()), {"name": "references", "data.name": "rows_with_gaps", **STEPS, **ALONE})
TOGETHER = {"data.targets": ("all",), "data.target_size": 120, "data.target_pool": 150, "data.test_size": 100}


def trial(**changes):
    flat = override(BASE, changes)
    return resolve(flat, load_table(flat["data.name"], flat["data.options"]))


def inputs(table, pool):
    """Return inputs with gaps filled by the pool's means, measured columns standardised by the pool."""
    x = np.array(table.x, np.float64)
    for column in range(x.shape[1]):
        of = x[pool, column]
        mean, spread = np.nanmean(of), np.nanstd(of)
        x[np.isnan(x[:, column]), column] = mean
        if table.measured[column]:
            x[:, column] = (x[:, column] - mean) / spread
    return x.astype(np.float32).astype(np.float64)


def by_hand(regime, table, split, task, seed):
    """Return (what scikit-learn predicts for a task's test rows, its labels), chosen and fitted in a plain loop."""
    number = task.kind == "regression"
    rows = np.flatnonzero(split.train[task.name] | split.val[task.name])
    test = np.flatnonzero(split.test[task.name])
    x, y = inputs(table, split.pool), table.labels[task.name]
    models = {
        ("logistic_regression", False): [LogisticRegression(C=c, max_iter=1000) for c in (0.001, 0.01, 0.1, 1, 10)],
        ("logistic_regression", True): [Ridge(alpha=a) for a in (0.1, 1, 10, 100, 1000)],
        ("forest", False): [RandomForestClassifier(min_samples_leaf=k, random_state=seed) for k in (1, 3, 10)],
        ("forest", True): [RandomForestRegressor(min_samples_leaf=k, random_state=seed) for k in (1, 3, 10)],
    }[regime, number]
    folds = (KFold if number else StratifiedKFold)(5, shuffle=True, random_state=seed)
    train = y[split.train[task.name]]
    mean, spread = (train.mean(), train.std()) if number else (0.0, 1.0)
    y = ((y - mean) / spread).astype(np.float32) if number else y
    best, least = None, np.inf
    for model in models:
        losses = []
        for fit, held in folds.split(rows, y[rows]):
            model.fit(x[rows[fit]], y[rows[fit]])
            if number:
                losses.append(mean_squared_error(y[rows[held]], model.predict(x[rows[held]])))
            else:
                p = model.predict_proba(x[rows[held]])
                losses.append(log_loss(y[rows[held]], p, labels=model.classes_))
        if np.mean(losses) < least:
            best, least = model, np.mean(losses)
    best.fit(x[rows], y[rows])
    if number:
        return mean + spread * best.predict(x[test]), table.labels[task.name][test], least * spread**2
    return best.predict_proba(x[test]), y[test], least


def check(result, target, found, labels, least):
    """Hold a target's metrics against scikit-learn's of what the loop predicts."""
    test = result["test"][target]
    assert result["phases"][0]["val_loss"][target] == pytest.approx([least], rel=1e-5)
    if "r2" in test:
        assert test["r2"] == pytest.approx(r2_score(labels, found), abs=1e-5)
        return
    assert test["accuracy"] == pytest.approx(accuracy_score(labels, found.argmax(axis=1)), abs=1e-6)
    assert test["log_loss"] == pytest.approx(log_loss(labels, found), rel=1e-5)
    if found.shape[1] == 2:
        assert test["auroc"] == pytest.approx(roc_auc_score(labels, found[:, 1]), abs=1e-6)


def run(path, trials, **more):
    workdir = Workdir(path)
    workdir.open("references")
    execute(make_plan(trials), workdir, placement=MAP, **more)
    return workdir


@pytest.mark.parametrize("regime", REFERENCES)
@pytest.mark.parametrize("target", ["ill", "kind", "price"])
def test_a_reference_is_scikit_learns_on_the_rows_of_scratch(regime, target, tmp_path):
    own, network = (trial(**{"regime": r, "data.target": target, "seed": 3}) for r in (regime, "scratch"))
    workdir = run(tmp_path, [own, network])
    result, split, table = workdir.result(own.hash), split_of(own), load_table("rows_with_gaps", {})
    task = table.task(target)
    check(result, target, *by_hand(regime, table, split, task, 3))
    arrays, other = (workdir.predictions(t.hash, target) for t in (own, network))
    np.testing.assert_array_equal(arrays["rows"], other["rows"])
    np.testing.assert_array_equal(arrays["labels"], other["labels"])
    cost = result["cost"]
    assert (cost["examples"], cost["source_examples"], cost["flops"]) == (60, 0, None) and cost["seconds"] > 0
    assert "scikit-learn" in result["versions"]


@pytest.mark.parametrize("regime", ["logistic_regression", pytest.param("forest", marks=pytest.mark.slow)])
def test_several_targets_have_a_reference_each_on_the_labels_that_are_there(regime, tmp_path):
    names = ("ill", "worse", "kind", "price")
    trials = [trial(**{**TOGETHER, "regime": regime, "data.target": name}) for name in names]
    workdir, table = run(tmp_path, trials), load_table("rows_with_gaps", {})
    for own, name in zip(trials, names, strict=True):
        result = workdir.result(own.hash)
        assert list(result["test"]) == [name]
        check(result, name, *by_hand(regime, table, split_of(own), table.task(name), 0))
        assert result["cost"]["examples"] < 120  # Some of the n rows have no label of it.


def test_pictures_are_flat_and_classes_that_have_no_label_are_never_certain(tmp_path):
    own = {"data.name": "tiny_pictures", "data.target": "kind", "data.target_size": 12, "data.test_size": 60}
    workdir = run(tmp_path, trials := [trial(**own, regime=regime) for regime in REFERENCES])
    for t in trials:
        labelled = split_of(t).train["kind"] | split_of(t).val["kind"]
        seen = np.unique(load_table("tiny_pictures", {}).labels["kind"][labelled])
        assert len(seen) < 12
        outputs = workdir.predictions(t.hash, "kind")["outputs"]
        assert np.isfinite(outputs).all() and outputs.shape == (60, 12)
        assert (np.exp(outputs).sum(axis=1) == pytest.approx(1, abs=1e-5)) and not set(outputs.argmax(axis=1)) - {*seen}


def pictures(classes=12, side=4, **more):
    rng = np.random.default_rng(1)
    kind = rng.choice(classes, 200, p=np.array([0.4, *[0.6 / (classes - 1)] * (classes - 1)]))
    x = rng.uniform(size=(200, side, side, 1)).astype(np.float32)
    x[:, 0, 0, 0] = kind / classes
    return x, kind, more


@mtl.data.register("tiny_pictures")
def tiny_pictures():
    x, kind, _ = pictures()
    return mtl.data.make_table("tiny pictures", x, [Task("kind", "multiclass", num_classes=12)], {"kind": kind})


@mtl.data.register("large_pictures")
def large_pictures():
    x, kind, _ = pictures(side=65)
    return mtl.data.make_table("large pictures", x, [Task("kind", "multiclass", num_classes=12)], {"kind": kind})


@mtl.data.register("ids_only")
def ids_only():
    _, kind, _ = pictures()
    x = np.random.default_rng(0).integers(0, 9, (200, 5))
    return mtl.data.make_table(
        "ids only", x, [Task("kind", "multiclass", num_classes=12)], {"kind": kind}, vocabulary=9
    )


@mtl.data.register("two_leaves")
def two_leaves():
    x, kind, _ = pictures()
    x = {"image": x, "numbers": x[:, :, 0, 0]}
    return mtl.data.make_table("two leaves", x, [Task("kind", "multiclass", num_classes=12)], {"kind": kind})


@mtl.data.register("streamed_pictures")
def streamed_pictures():
    x, kind, _ = pictures()
    streamed = mtl.data.Streamed(x.shape, lambda rows: x[rows])
    return mtl.data.make_table("streamed", streamed, [Task("kind", "multiclass", num_classes=12)], {"kind": kind})


@mtl.data.register("maps_of_pictures")
def maps_of_pictures():
    x, kind, _ = pictures()
    return mtl.data.arrays_table(x, {"kind": (x[..., 0] > 0.5).astype(np.int32), "few": kind % 2}, name="maps")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("large_pictures", "the inputs of large pictures are 4,225 numbers each"),
        ("ids_only", "the inputs of ids only are ids"),
        ("two_leaves", "the inputs of two leaves are several arrays"),
        ("streamed_pictures", "the inputs of streamed are streamed"),
        ("maps_of_pictures", "kind has many labels an example"),
    ],
)
def test_what_scikit_learn_cannot_take_is_refused_in_one_sentence(name, why):
    wanted = f'^config.regime = "forest": scikit-learn takes tables .*; {why}: must be a network\'s regime$'
    with pytest.raises(ConfigError, match=wanted):
        trial(**{"data.name": name, "data.target": "kind", "data.test_size": 60, "regime": "forest"})


def test_sources_of_any_kind_may_stand_beside_a_reference():
    own = {"data.name": "maps_of_pictures", "data.source": ("kind",), "data.source_size": 40, "data.source_val_size": 9}
    found = trial(**own, **{"data.target": "few", "data.test_size": 60, "data.target_pool": 60, "regime": "forest"})
    assert [t.name for t in found.tasks] == ["few"]


def test_a_loss_of_the_configs_own_is_refused():
    mtl.losses.register("absolute", "regression")(lambda outputs, labels: abs(outputs[:, 0] - labels))
    own = {"regime": "forest", "data.target": "price", "task_options": {"price": {"loss": "absolute"}}}
    with pytest.raises(ConfigError, match=r'^config\.regime = "forest": .*; price has a kind or a loss of the config'):
        trial(**own)


@pytest.mark.parametrize(
    "phases",
    [
        (Phase(tasks="source"), Phase(trainable="head", solver="forest")),
        (Phase(trainable="head", solver="forest"), Phase()),
        (Phase(tasks=("ill", "price"), trainable="head", solver="forest"),),
    ],
)
def test_a_reference_is_a_regime_of_one_phase_on_the_target(phases):
    with pytest.raises(ConfigError, match=r'^regime "mine": a model of scikit-learn is a regime of one phase'):
        trial(**{"regime": "mine", "regimes": {"mine": phases}, "data.source": ("kind",), "data.target": "ill"})


def test_what_a_network_is_trained_by_decides_nothing_about_a_reference():
    one = trial(**{"data.target": "ill", "regime": "forest"})
    other = {
        "lr": 0.5, "batch_size": 8, "model.options": {"hidden": (3,)}, "optimizer.weight_decay": 0.1, "evaluations": 2,
        "save_model": True, "select": "best", "augment": ("flip",), "trunk_mode": "train", "loss.denominator": "labels",
        "init.path": "nowhere.safetensors", "target.total_steps": 9, "balancer.name": "uncertainty",
    }  # fmt: skip
    assert trial(**{"data.target": "ill", "regime": "forest", **other}).hash == one.hash
    for changes in ({"seed": 1}, {"data.target_size": 50}, {"data.normalize": "none"}, {"regime": REFERENCES[0]}):
        assert trial(**{"data.target": "ill", "regime": "forest", **changes}).hash != one.hash


ENTRIES = product(
    sweep("regime", ("scratch", "multitask", *REFERENCES)),
    sweep("seed", range(2)),
    sweep("lr", (1e-3, 1e-2)),
)
DIGITS = override(
    flatten(default()),
    {"name": "beside", **STEPS, "model.options": {"hidden": (4,)}, "data.target_size": 20},
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    workdir = Workdir(tmp_path_factory.mktemp("beside") / "work")
    (summary,) = launch(DIGITS, {"even": ENTRIES}, workdir, jobs=0, config_file=None, display=Silent())
    return workdir, summary


def test_a_grid_of_rates_leaves_a_reference_one_trial_a_cell(study):
    workdir, summary = study
    frame = mtl.results(workdir.path)
    assert summary.failed == {} and len(frame) == 2 * (2 * 2 + 2)
    of = frame[frame.regime.isin(REFERENCES)]
    assert of.chosen.all() and of.lr.isna().all() and set(of.status) == {"done"}
    (again,) = launch(DIGITS, {"even": ENTRIES}, Workdir(workdir.path), jobs=0, config_file=None, display=Silent())
    assert (again.ran, again.reused) == (0, len(frame))
    seen = preview(DIGITS, "even", ENTRIES, Workdir(workdir.path))
    assert seen.plan.programs() == 2  # Of scratch and of multitask.


def test_references_are_controls_in_every_table_and_never_advised(study, capsys):
    workdir, _ = study
    (analysis,) = analyses_of(workdir, ["even"])
    assert analysis.scores.controls == REFERENCES
    assert not {c.leader for c in analysis.crossovers} & {*REFERENCES}
    told = "forest and logistic_regression: models of scikit-learn"
    assert any(note.startswith(told) for note in analysis.scores.notes)
    assert main(["table", str(workdir.path), "--format=markdown"]) == 0
    text = capsys.readouterr().out
    assert "| forest° |" in text and "| logistic_regression° |" in text
    row = next(line for line in text.splitlines() if line.startswith("| forest°") and "FLOP" not in line)
    assert re.search(r"\| forest° \| .*\d", row)


def test_no_model_of_a_reference_is_kept_and_loading_one_says_so(study, capsys):
    workdir, summary = study
    digest = next(m.trial.hash for m in summary.sweep.members if m.changes["regime"] == "forest")
    assert not (workdir.trial(digest) / "model.safetensors").exists()
    with pytest.raises(CheckpointError, match=r"forest, models of scikit-learn, none is kept: .* pickled$"):
        mtl.load(workdir.trial(digest))


@pytest.mark.slow
def test_workers_give_the_same_bits(study, tmp_path):
    workdir, summary = study
    other = Workdir(tmp_path / "work")
    entries = [e for e in ENTRIES if e["regime"] in REFERENCES and e["lr"] == 1e-2]
    (found,) = launch(DIGITS, {"even": entries}, other, jobs=2, config_file=None, display=Silent())
    known = {m.trial.hash for m in summary.sweep.members}
    assert found.failed == {} and len(found.sweep.members) == 4
    for m in found.sweep.members:
        assert m.trial.hash in known
        a, b = (w.predictions(m.trial.hash, "even")["outputs"] for w in (workdir, other))
        assert a.tobytes() == b.tobytes()


def test_one_that_is_lost_is_fitted_again_to_the_same_bits(study):
    workdir, summary = study
    digest = next(m.trial.hash for m in summary.sweep.members if m.changes["regime"] == "forest")
    before = workdir.predictions(digest, "even")["outputs"].tobytes()
    forget(workdir.path, digest)
    (again,) = launch(DIGITS, {"even": ENTRIES}, Workdir(workdir.path), jobs=0, config_file=None, display=Silent())
    assert again.ran == 1
    assert Workdir(workdir.path).predictions(digest, "even")["outputs"].tobytes() == before


def test_one_that_fails_is_written_down_and_the_others_run(tmp_path, monkeypatch):
    trials = [trial(**{"regime": "logistic_regression", "data.target": "ill", "seed": seed}) for seed in range(3)]
    fit = fitting.fit

    def failing(name, task, x, y, seed):
        if seed == 1:
            raise ValueError("no such fold")
        return fit(name, task, x, y, seed)

    monkeypatch.setattr(fitting, "fit", failing)
    workdir = run(tmp_path, trials)
    assert [workdir.failure(t.hash) for t in trials] == [None, "ValueError: no such fold", None]
    monkeypatch.setattr(fitting, "fit", fit)
    workdir = run(tmp_path, [trials[1]])
    assert workdir.failure(trials[1].hash) is None and workdir.result(trials[1].hash)["status"] == "done"


def test_what_was_fitted_before_an_interruption_is_kept(tmp_path, monkeypatch):
    trials = [trial(**{"regime": "logistic_regression", "data.target": "ill", "seed": seed}) for seed in range(3)]
    interrupt, fit, calls = Interrupt(), fitting.fit, []

    def counted(*args):
        calls.append(args)
        if len(calls) == 2:
            interrupt.ask()
        return fit(*args)

    monkeypatch.setattr(fitting, "fit", counted)
    with pytest.raises(Stopped):
        run(tmp_path, trials, interrupt=interrupt)
    assert [Workdir(tmp_path).result(t.hash) is not None for t in trials] == [True, True, False]
    run(tmp_path, [trials[2]])
    assert len(calls) == 3


def test_two_names_of_one_reference_share_it_also_from_disk(tmp_path, monkeypatch):
    phases = {"regimes": {"woods": {"phases": (Phase(trainable="head", begin="random", solver="forest"),)}}}
    trials = [trial(**{**phases, "regime": r, "data.target": "price"}) for r in ("forest", "woods")]
    calls, fit = [], fitting.fit
    monkeypatch.setattr(fitting, "fit", lambda *args: calls.append(args) or fit(*args))
    workdir = run(tmp_path, trials)
    forget(workdir.path, trials[1].hash)
    again = run(tmp_path, trials)
    assert len(calls) == 1
    first, second = (again.result(t.hash) for t in trials)
    assert first["test"] == second["test"] and first["cost"]["flops"] is second["cost"]["flops"] is None


@pytest.mark.parametrize("regime", REFERENCES)
def test_few_labels_and_labels_of_one_class_are_enough(regime):
    rng = np.random.default_rng(0)
    x, task = rng.normal(size=(6, 3)), Task("goal", "binary")
    for y, chosen in (([0, 0, 0, 0, 0, 1], False), ([0, 0, 0, 1, 1, 1], True), ([1] * 6, False)):
        found = fitting.fit(regime, task, x, np.array(y, np.float32), 0)
        assert bool(found.chosen) == chosen and np.isfinite(found.loss)
        outputs = found.outputs(x)
        assert outputs.shape == (6, 1) and np.isfinite(outputs).all()
    assert (outputs > 0).all()
    one = fitting.fit(regime, Task("goal", "regression"), x[:1], np.array([2.0], np.float32), 0)
    assert one.outputs(x)[:, 0] == pytest.approx(2.0)


def test_mtl_run_says_what_it_is(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "from mtl.config import default\n\n\ndef get_config():\n    c = default()\n"
        "    c.name, c.regime = 'mine', 'logistic_regression'\n"
        "    c.source.total_steps = c.target.total_steps = 4\n    return c\n"
    )
    assert main(["run", f"--config={tmp_path / 'mine.py'}", f"--workdir={tmp_path / 'work'}"]) == 0
    said = capsys.readouterr()
    assert "logistic_regression of scikit-learn" in said.out + said.err
    assert not re.search(r"\d parameters", said.out + said.err)
