"""Trials of several targets, run: one state for a joint network, every task tested, one table of results."""

import json

import numpy as np
import pytest

import mtl
from mtl.commands.read import print_study
from mtl.config import default
from mtl.data import SOURCES, make_table, register
from mtl.regimes import Phase
from mtl.report.collect import collect
from mtl.report.publish import analyses_of, publish
from mtl.report.show import print_analysis
from mtl.sweep import product, sweep
from mtl.sweep.plan import split_of, table_of, trial_of
from mtl.sweep.store import Workdir
from mtl.tasks import Task

TARGETS = ("even", "prime", "at_least_five")


def config(**changes):
    c = default()
    c.name, c.data.source, c.data.targets = "several", (), TARGETS
    c.data.target_size, c.data.test_size, c.data.target_pool = 60, 200, 300
    c.model.options, c.evaluations, c.select = {"hidden": (8,)}, 5, "best"
    c.source.total_steps, c.target.total_steps, c.lr, c.source_lr = 40, 60, 0.1, 0.1
    for key, value in changes.items():
        c[key] = value
    return c


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A sweep of two seeds, of which every trial has run."""
    where = tmp_path_factory.mktemp("several")
    entries = product(
        sweep("regime", ("scratch", "multitask", "multitask_finetune")),
        sweep("seed", range(2)),
        sweep("lr", (0.1, 0.01)),
    )
    return where, mtl.run_sweep(config(), entries, where, quiet=True)


def bounded(split, task, p):
    """Return the sum of the losses of few validation labels, each at most 2 nats, over that of the prior's."""
    y, train = (split.labels[task][role[task]] for role in (split.val, split.train))
    prior = (train.sum() + 0.5) / (len(train) + 1)
    model, guess = (-np.log(np.where(y == 1, q, 1 - q)) for q in (p, np.full(len(y), prior)))
    return np.minimum(model, 2.0).sum() / np.minimum(guess, 2.0).sum()


def results_of(where):
    workdir = Workdir(where)
    trials = workdir.study()["sweeps"]["sweep"]["trials"]
    return [(t["changes"], workdir.result(t["hash"])) for t in trials]


@pytest.mark.slow
def test_a_network_is_tested_on_every_task_it_has_seen(study):
    where, _ = study
    for changes, result in results_of(where):
        tested = [changes["data.target"]] if changes["regime"] == "scratch" else list(TARGETS)
        assert sorted(result["test"]) == sorted(tested)
        assert result["config"]["targets"] == ([changes["data.target"]] if "data.target" in changes else list(TARGETS))


def test_a_joint_network_has_the_state_of_the_least_mean_relative_validation_error(study):
    where, _ = study
    seen = 0
    for changes, result in results_of(where):
        if changes["regime"] != "multitask":
            continue
        trial = mtl.config.Trial(result["config"])
        table, split = table_of(trial), split_of(trial)
        (phase,) = result["phases"]
        means = np.mean([phase["val_score"][t] for t in TARGETS], axis=0)
        assert result["val_score"] == pytest.approx(means.min(), rel=1e-12)
        assert phase["best_at"] == phase["evaluated_at"][means.argmin()]
        # The state that was kept is that one: its scores and losses, computed anew, are those of that evaluation.
        model = mtl.load(where / "trials" / result["hash"])
        best = int(means.argmin())
        for task in TARGETS:
            rows = np.flatnonzero(split.val[task])
            p = model.predict(table.x[rows], task)
            y = table.labels[task][rows]
            loss = -np.mean(np.log(np.where(y == 1, p, 1 - p)))
            assert loss == pytest.approx(phase["val_loss"][task][best], rel=1e-3)
            assert bounded(split, task, p) == pytest.approx(phase["val_score"][task][best], rel=1e-3)
        seen += means.argmin() != len(means) - 1
    assert seen  # Of some trial the best state is not the last.


def test_a_network_for_one_target_is_judged_by_it(study):
    where, _ = study
    for changes, result in results_of(where):
        if changes["regime"] == "scratch":
            assert result["val_score"] == min(result["phases"][0]["val_score"][changes["data.target"]])


def test_each_network_has_its_own_rate_and_validation_chooses_one_of_its_trials(study):
    _, frame = study
    chosen = frame[frame.chosen]
    assert len(frame) == 2 * 2 * (3 + 1 + 3) and len(chosen) == 2 * (3 + 1 + 3)
    groups = frame.fillna({"data.target": ""}).groupby(["regime", "seed", "data.target"])
    for _, group in groups:
        assert group.chosen.sum() == 1
        assert group.val_score[group.chosen].item() == group.val_score.min()
    joint = chosen[chosen.regime == "multitask"]
    assert joint[[f"test_accuracy_of_{t}" for t in TARGETS]].notna().all(axis=None)


def test_the_joint_phase_before_networks_for_one_is_trained_once(study):
    where, _ = study
    keys = {}
    for changes, result in results_of(where):
        if changes["regime"] == "multitask_finetune":
            keys.setdefault((changes["seed"],), set()).add(result["phases"][0]["key"])
    assert [len(k) for k in keys.values()] == [1, 1]  # It has the source's rate.


def test_a_single_run_of_a_joint_network_needs_no_target(tmp_path):
    result = mtl.run(config(regime="multitask"), tmp_path, quiet=True)
    assert result["status"] == "done" and set(result["test"]) == set(TARGETS)
    assert mtl.load(tmp_path / "trials" / result["hash"]).trial.targets == TARGETS


def test_it_is_resumed_to_the_same_bits(study, tmp_path):
    where, _ = study
    changes, kept = next((c, r) for c, r in results_of(where) if c["regime"] == "multitask")
    flat = mtl.config.override(mtl.config.flatten(config()), changes)
    assert trial_of(flat).hash == kept["hash"]
    again = mtl.run(config(), tmp_path, changes=changes, quiet=True)
    assert again["test"] == kept["test"] and again["val_score"] == kept["val_score"]


def test_each_target_has_the_scores_of_the_networks_that_are_for_it(study):
    where, frame = study
    workdir = Workdir(where)
    chosen = frame[frame.chosen].fillna({"data.target": ""}).set_index(["regime", "seed", "data.target"])
    for task in TARGETS:
        scores = collect(workdir, "sweep", task)
        assert scores.regimes == ("scratch", "multitask", "multitask_finetune") and scores.task == task
        for g, regime in enumerate(scores.regimes):
            for seed in range(2):
                own = chosen.loc[(regime, seed, "" if regime == "multitask" else task)]
                assert scores.values[g, 0, seed].mean() == pytest.approx(own[f"test_accuracy_of_{task}"])
        assert not scores.missing.any()


def test_a_sweep_ends_with_tables_a_figure_and_a_page(study, capsys):
    where, _ = study
    workdir = Workdir(where)
    assert print_study(workdir, ["sweep"]) == []
    told = capsys.readouterr().out
    assert "For all 3 targets together" in told and "What to do" in told
    (targets,) = analyses_of(workdir)
    print_analysis(targets, full=True)
    told = capsys.readouterr().out
    for words in (
        "accuracy (%) by target",
        "paired gain over scratch",
        "Δ_m (%)",
        "cost of all targets",
        "against scratch",
    ):
        assert words in told
    names = {path.name for path in where.rglob("*") if path.is_file()}
    assert {"sweep-result.md", "sweep-gain.csv", "sweep-cost.json", "sweep-gain.png", "report.html"} <= names
    assert targets.networks == {"scratch": 3, "multitask": 1, "multitask_finetune": 3}
    hidden = 64 * 8 + 8  # The trunk of 8 × 8 pixels, and a head of 8 + 1 a task.
    size = {regime: targets.cost[regime].parameters for regime in targets.networks}
    assert size == {"scratch": 3 * (hidden + 9), "multitask": hidden + 27, "multitask_finetune": 3 * (hidden + 27)}
    assert targets.cost["multitask"].bytes == 4 * size["multitask"]
    rows = json.loads((where / "tables" / "sweep-gain.json").read_text())["records"]
    assert {row["target"] for row in rows} == {*TARGETS, "mean over targets"}
    before = [path.stat().st_mtime_ns for path in sorted(where.glob("tables/*"))]
    publish(workdir, [targets], "again")  # Nothing is written twice.
    assert before == [path.stat().st_mtime_ns for path in sorted(where.glob("tables/*"))]


def test_a_control_has_the_state_and_rate_that_are_best_for_each_target(tmp_path):
    entries = product(
        sweep("regime", ("scratch", "multitask", "multitask_best_each")),
        sweep("seed", range(2)),
        sweep("lr", (0.3, 0.01)),
    )
    c = config(patience=0)  # Or each would stop by its own curve.
    frame = mtl.run_sweep(c, entries, tmp_path, quiet=True).fillna({"data.target": ""})
    assert len(frame) == 2 * 2 * (3 + 1 + 3)
    workdir = Workdir(tmp_path)
    joint = {(row.seed, row.lr): row.hash for row in frame[frame.regime == "multitask"].itertuples()}
    own_state = 0
    for row in frame[frame.regime == "multitask_best_each"].to_dict("records"):
        result, same = workdir.result(row["hash"]), workdir.result(joint[row["seed"], row["lr"]])
        (phase,), (other,) = result["phases"], same["phases"]
        assert phase["val_loss"] == other["val_loss"]  # It trains the same: only what is kept differs.
        trial = mtl.config.Trial(result["config"])
        table, split, target = table_of(trial), split_of(trial), row["data.target"]
        own = np.array(phase["val_score"][target])
        assert result["val_score"] == own.min()
        rows = np.flatnonzero(split.val[target])
        p = mtl.load(tmp_path / "trials" / row["hash"]).predict(table.x[rows], target)
        loss = -np.mean(np.log(np.where(table.labels[target][rows] == 1, p, 1 - p)))
        assert loss == pytest.approx(phase["val_loss"][target][int(own.argmin())], rel=1e-3)
        own_state += result["test"] != same["test"]
    assert own_state
    (targets,) = analyses_of(workdir)
    assert targets.networks["multitask_best_each"] == 3 and "multitask_best_each" in targets.scores.controls
    for task, analysis in targets.of.items():
        at = frame[(frame.regime == "multitask_best_each") & frame.chosen & (frame["data.target"] == task)]
        assert analysis.cells["multitask_best_each"][60.0].mean == pytest.approx(at[f"test_accuracy_of_{task}"].mean())


def test_a_regime_of_some_targets_has_no_cells_of_others(tmp_path):
    c = config(regimes={"pair": (Phase(tasks=("even", "prime"), budget="target"),)}, select="last")
    entries = product(sweep("regime", ("scratch", "pair")), sweep("seed", range(2)))
    frame = mtl.run_sweep(c, entries, tmp_path, quiet=True)
    assert len(frame) == 2 * (3 + 1)
    (targets,) = analyses_of(Workdir(tmp_path))
    assert [a.cells["pair"][60.0].replicates for a in targets.of.values()] == [2, 2, 0]
    assert np.isnan(targets.means["pair"][60.0].gain)


def test_targets_of_several_kinds_are_weighed_by_their_priors(tmp_path):
    def mixed():
        rng = np.random.default_rng(0)
        x = rng.normal(size=(400, 5)).astype(np.float32)
        ill = (x[:, 0] + rng.normal(size=400) > 0).astype(float)
        ill[rng.random(400) < 0.3] = np.nan
        labels = {"ill": ill, "cost": 1e4 * (x[:, 1] + rng.normal(size=400))}
        tasks = [Task("ill", "binary"), Task("cost", "regression")]
        return make_table("mixed", x, tasks, labels, groups=rng.integers(0, 150, 400))

    register("mixed")(mixed)
    try:
        c = config(regime="multitask")
        c.data.name, c.data.options, c.data.targets = "mixed", {}, ("ill", "cost")
        c.data.test_size, c.data.target_pool = 100, 150
        result = mtl.run(c, tmp_path, quiet=True)
        trial = mtl.config.Trial(result["config"])
        table, split = table_of(trial), split_of(trial)
    finally:
        SOURCES.pop("mixed")
    (phase,) = result["phases"]
    means = np.mean([phase["val_score"]["ill"], phase["val_score"]["cost"]], axis=0)
    assert result["val_score"] == pytest.approx(means.min())
    # No unit decides: the errors of a cost of 10,000 are relative to those of its mean.
    kept, rows = mtl.load(tmp_path / "trials" / result["hash"]), np.flatnonzero(split.val["cost"])
    mean, spread = table.labels["cost"][split.train["cost"]].mean(), table.labels["cost"][split.train["cost"]].std()
    y = (table.labels["cost"][rows] - mean) / spread
    z = (kept.predict(table.x[rows], "cost") - mean) / spread
    of_cost = np.minimum((z - y) ** 2, 4.0).sum() / np.minimum(y**2, 4.0).sum()
    assert of_cost == pytest.approx(phase["val_score"]["cost"][means.argmin()], rel=1e-3)
    assert set(result["test"]) == {"ill", "cost"} and "r2" in result["test"]["cost"]
    arrays = Workdir(tmp_path).predictions(result["hash"], "ill")
    np.testing.assert_array_equal(arrays["rows"], np.flatnonzero(split.test["ill"]))  # Those that have a label.
    right = (arrays["outputs"][:, 0] > 0) == arrays["labels"]
    assert result["test"]["ill"]["accuracy"] == pytest.approx(right.mean()) == pytest.approx(arrays["scores"].mean())
    arrays = Workdir(tmp_path).predictions(result["hash"], "cost")
    errors = np.square(arrays["outputs"][:, 0] - arrays["labels"])
    assert result["test"]["cost"]["squared_error"] == pytest.approx(errors.mean(), rel=1e-5)
    assert result["test"]["cost"]["r2"] == pytest.approx(1 - errors.mean() / arrays["labels"].var(), rel=1e-4)
