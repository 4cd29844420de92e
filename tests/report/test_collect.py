"""From a small study of persons to its scores: whose rows they are, what is read of it, and what it cost."""

import dataclasses
import json
import shutil
import tracemalloc

import numpy as np
import pytest

import mtl
from mtl.config import default, flatten
from mtl.data import SOURCES, make_table
from mtl.report.analyse import analyse
from mtl.report.collect import _refuse_other_examples, collect
from mtl.report.publish import publish_page
from mtl.report.show import FORMATS, tables_of
from mtl.report.training import few_validated
from mtl.sweep import product, sweep
from mtl.sweep.evaluate import regression_scores
from mtl.sweep.launch import Silent, launch
from mtl.sweep.plan import split_of
from mtl.sweep.store import StoreError, Workdir
from mtl.tasks import Task
from tests.sweep import by_hand
from tests.sweep.resealed import change

PERSONS, EACH = 50, 8


def persons():
    """Rows of persons: what is ill is a person, and how it shows differs from person to person."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(PERSONS), EACH)
    ill = rng.integers(0, 2, PERSONS)[who]
    x = rng.normal(size=(len(who), 4)) * 0.3 + rng.normal(size=(PERSONS, 4))[who]
    x[:, 0] += ill
    tasks = (Task("side", "binary"), Task("ill", "binary"))
    return make_table(
        "persons", x.astype(np.float32), tasks, {"side": np.arange(len(who)) % 2, "ill": ill}, groups=who + 7
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    mtl.data.register("persons")(persons)
    config = default()
    config.name, config.model.options = "persons", {"hidden": (4,)}
    config.data.name, config.data.options = "persons", {}
    config.data.source, config.data.target = ("side",), "ill"
    config.data.target_size, config.data.target_pool, config.data.test_size = 40, 80, 120
    config.data.source_size, config.data.source_val_size = 60, 20
    config.source.total_steps, config.target.total_steps, config.evaluations = 4, 12, 1
    entries = product(sweep("regime", ("scratch", "finetune")), sweep("seed", range(3)), sweep("lr", (1e-3, 1e-2)))
    workdir = Workdir(tmp_path_factory.mktemp("persons") / "work")
    (summary,) = launch(flatten(config), {"ill": entries}, workdir, jobs=0, config_file=None, display=Silent())
    yield workdir, summary
    SOURCES.pop("persons")


def chosen(workdir):
    """The hashes of what validation chose, from the data frame alone."""
    frame = mtl.results(workdir.path)
    return set(frame.loc[frame.groupby(["regime", "seed"])["val_score"].idxmin(), "hash"])


def test_groups_go_with_the_test_rows(study):
    workdir, summary = study
    table = persons()
    for member in summary.sweep.members:
        arrays = workdir.predictions(member.trial.hash, "ill")
        np.testing.assert_array_equal(arrays["groups"], table.groups[arrays["rows"]])
    scores = collect(workdir, "ill")
    np.testing.assert_array_equal(scores.groups, arrays["groups"])
    assert scores.rarer == min(np.bincount(arrays["labels"].astype(int)))
    frame = mtl.results(workdir.path, "predictions")
    np.testing.assert_array_equal(frame["group"], table.groups[frame["row"]])
    assert set(frame["task"]) == {"ill"}


def test_intervals_are_over_groups_and_say_so(study):
    scores = collect(study[0], "ill")
    of_groups, of_rows = analyse(scores), analyse(dataclasses.replace(scores, groups=None))
    for regime in scores.regimes:
        wide, narrow = of_groups.cells[regime][40.0], of_rows.cells[regime][40.0]
        assert wide.mean == pytest.approx(narrow.mean)
        assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)  # Persons are right or wrong as wholes.
    count = len(np.unique(scores.groups))
    assert f"the {count} groups of the 120 test examples, each group as a whole" in " ".join(scores.notes)
    assert of_groups.details[-1].endswith("over replicates and groups of test examples.")
    ((_, table),) = tables_of([of_groups], "result")
    assert f"3 replicates and the {count} groups of test examples" in table.footnotes[0]


def test_tests_of_what_was_not_chosen_are_neither_read_nor_shown(study, monkeypatch):
    workdir, summary = study
    picked, hashes = chosen(workdir), {m.trial.hash for m in summary.sweep.members}
    assert len(picked) == 6 and len(hashes) == 12
    read, predictions = set(), Workdir.predictions
    monkeypatch.setattr(Workdir, "predictions", lambda self, *of: read.add(of[0]) or predictions(self, *of))
    analysis = analyse(collect(workdir, "ill"), 200)
    assert set(mtl.results(workdir.path, "predictions")["hash"]) == picked
    frame = mtl.results(workdir.path).set_index("hash")
    assert set(frame.index[frame["chosen"]]) == picked
    assert frame.loc[list(hashes - picked), "test_accuracy"].isna().all()
    assert frame.loc[list(picked), "test_accuracy"].notna().all()
    rows = []
    monkeypatch.setattr("mtl.report.page.page", lambda *_, trials, **__: rows.extend(trials) or "")
    publish_page(workdir, [analysis], "mtl report")
    assert {row["hash"] for row in rows if row["test"] is not None} == picked
    assert len(rows) == 12
    assert read == picked
    text = "".join(write(tables_of([analysis])) for write in FORMATS.values())
    assert not any(digest in text for digest in hashes)


def test_a_missing_candidate_leaves_nothing_chosen(study, tmp_path):
    workdir = Workdir(shutil.copytree(study[0].path, tmp_path / "work"))
    lost = next(m for m in study[1].sweep.members if m.changes["regime"] == "scratch" and m.changes["seed"] == 1)
    by_hand.forget(workdir.path, lost.trial.hash)
    scores = collect(workdir, "ill")
    assert scores.missing[scores.regimes.index("scratch"), 0] == 1
    frame = mtl.results(workdir.path)
    gone = frame[(frame["regime"] == "scratch") & (frame["seed"] == 1)]
    assert frame["chosen"].dtype == bool and not gone["chosen"].any() and gone["test_accuracy"].isna().all()


def test_each_task_that_was_tested_is_in_the_data_frames(study, tmp_path):
    """A second one, by hand; the table stays one of the target."""
    workdir = Workdir(shutil.copytree(study[0].path, tmp_path / "work"))
    digest = min(chosen(workdir))
    by_hand.change(
        workdir.path,
        digest,
        lambda found: found | {"test": {**found["test"], "side": {"accuracy": 0.25}}},
        lambda found: found | {"side": {k: found["ill"][k][:3] for k in ("outputs", "rows", "labels", "scores")}},
    )
    frame = mtl.results(workdir.path).set_index("hash")
    assert frame["test_accuracy_of_side"].dropna().to_dict() == {digest: 0.25}
    assert frame.loc[sorted(chosen(workdir)), "test_accuracy"].notna().all()
    frame = mtl.results(workdir.path, "predictions").set_index(["hash", "task"])
    assert frame.groupby(level="task").size().to_dict() == {"ill": 6 * 120, "side": 3}
    side, ill = (frame.loc[(digest, task), ["row", "label", "output"]].to_numpy() for task in ("side", "ill"))
    np.testing.assert_array_equal(side, ill[:3])
    np.testing.assert_array_equal(collect(workdir, "ill").values, collect(study[0], "ill").values)


def grown(study, to, more):
    """The study with further trials in study.json, which have no results."""
    workdir = Workdir(shutil.copytree(study[0].path, to))

    def add(content):
        trials = content["sweeps"]["ill"]["trials"]
        one = trials[0]
        trials += [one | {"hash": f"{i:016x}", "changes": one["changes"] | changes} for i, changes in enumerate(more)]
        return content

    change(workdir.study_file, add)
    return workdir


@pytest.mark.slow
def test_memory_for_a_study_file_is_bounded(study, tmp_path):
    """A few hundred lines that name hundreds of regimes: 270 MB for the draws of all pairs, before."""
    workdir = grown(study, tmp_path / "work", [{"regime": f"r{i}"} for i in range(90)])
    tracemalloc.start()
    try:
        analysis = analyse(collect(workdir, "ill"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert analysis.cells["scratch"][40.0].mean == collect(study[0], "ill").values[0].mean()
    assert peak < 90e6 < 92**2 * 4000 * 8 / 3


def test_a_table_of_holes_is_refused(study, tmp_path):
    more = [{"regime": f"r{i}"} for i in range(200)] + [{"data.target_size": 50 + i} for i in range(200)]
    workdir = grown(study, tmp_path / "work", more)
    with pytest.raises(StoreError, match=r"202 regimes, 201 target sizes and 3 replicates for 412 trials"):
        collect(workdir, "ill")


def test_seconds_are_told_with_their_range_over_replicates(study):
    workdir = study[0]
    frame = mtl.results(workdir.path)
    cost = collect(workdir, "ill").cost
    for regime, rows in frame[frame["chosen"]].groupby("regime"):
        means = rows.groupby("seed")["seconds"].mean()
        assert cost[regime].seconds == pytest.approx(rows["seconds"].mean())
        assert (cost[regime].seconds_low, cost[regime].seconds_high) == pytest.approx((means.min(), means.max()))
    (_, table) = tables_of([analyse(collect(workdir, "ill"), 50)], "cost")[0]
    assert all(row[-1].detail.startswith("[") for row in table.rows)
    assert any("the least and the most of the replicates' means" in note for note in table.footnotes)
    assert json.loads(FORMATS["json"]([("ill", table)]))[0]["records"][0]["seconds_low"] <= cost["scratch"].seconds


def test_updates_and_distinct_rows_are_charged(study):
    """32 rows of the target; finetune has 40 rows of the source before, which are none of these."""
    workdir, cost = study[0], collect(study[0], "ill").cost
    assert (cost["scratch"].rows, cost["finetune"].rows) == (32, 72)
    picked = [workdir.result(digest) for digest in chosen(workdir)]
    for regime in cost:
        updates = [sum(p["steps"] for p in r["phases"]) for r in picked if r["config"]["regime"] == regime]
        assert len(updates) == 3 and cost[regime].updates == np.mean(updates)
    assert cost["finetune"].updates == 4 + 12


def test_how_training_ended_is_read_off_the_chosen_trials(study, tmp_path):
    workdir = Workdir(shutil.copytree(study[0].path, tmp_path / "work"))
    frame = mtl.results(workdir.path).set_index("hash")
    scores = {"scratch": (0.9, 0.8, 0.7), "finetune": (0.9, 0.5, 0.7)}

    def ended(found):
        regime, seed = found["config"]["regime"], found["config"]["seed"]
        phase = found["phases"][-1]
        curve = scores[regime] if seed else (0.7, 0.7, 0.7)  # One replicate has nothing to tell.
        phase |= {"evaluated_at": [4, 8, 12], "train_loss": {"ill": [1.0] * 3}, "val_loss": {"ill": [1.0] * 3}}
        phase["val_score"] = {"ill": curve}
        found["config"]["phases"][-1]["select"] = "last"
        return found

    assert collect(workdir, "ill").unconverged.sum() == 0  # One evaluation tells nothing.
    for digest in frame.index:
        by_hand.change(workdir.path, digest, ended)
    found = collect(Workdir(workdir.path), "ill")
    at = {regime: found.regimes.index(regime) for regime in scores}
    assert (found.unconverged[at["scratch"], 0], found.overfitted[at["scratch"], 0]) == (2, 0)
    assert (found.unconverged[at["finetune"], 0], found.overfitted[at["finetune"], 0]) == (0, 2)
    told = " ".join(analyse(found, 50).warnings)
    assert "at the last evaluation: scratch with 40 labels. A larger budget may do better." in told
    assert "finetune with 40 labels. select = " in told


def test_too_few_validation_labels_are_told_once(study):
    workdir, summary = study
    for member in summary.sweep.members:
        split = split_of(member.trial)
        labels = persons().labels["ill"][split.val["ill"]]
        assert workdir.result(member.trial.hash)["validated"] == {"ill": [8, min(labels.sum(), 8 - labels.sum())]}
    assert collect(workdir, "ill").few_validated == (40.0,)
    (told,) = (w for w in analyse(collect(workdir, "ill"), 50).warnings if "for validation" in w)
    assert told.startswith("Too few labels for validation (fewer than 50, or 10 of a class) with 40 labels: states and")


@pytest.mark.parametrize(
    ("counts", "few"), [([50], False), ([49], True), ([50, 10], False), ([500, 9], True), ([60, 0], True), ([], False)]
)
def test_what_few_validation_labels_are(counts, few):
    assert few_validated({"validated": {"even": counts}}, "even") == few
    assert not few_validated({"validated": {"even": counts}}, "odd")


def test_scores_of_other_examples_are_not_paired():
    one = {"rows": np.arange(4), "groups": np.array([0, 0, 1, 1])}
    work = Workdir("somewhere")
    _refuse_other_examples(work, "s", one, {k: a.copy() for k, a in one.items()})
    for other in (
        {"rows": np.arange(4)},
        one | {"rows": np.array([0, 1, 3, 2])},
        one | {"groups": np.array([0, 1, 1, 1])},
    ):
        with pytest.raises(StoreError, match="several sets of examples"):
            _refuse_other_examples(work, "s", one, other)


def test_labels_that_are_constant_to_rounding_have_finite_scores():
    """The standard deviation of .1, .1, … is 1e-17 and not 0."""
    task = Task("y", "regression", metric="squared_error")
    scores = regression_scores(task, np.full((50, 1), 3.1), np.full(50, 0.1))
    np.testing.assert_allclose(scores, 9.0, rtol=1e-12)
