"""Results of many trials, of every task, in one file: what is written is read, and of several the newest counts."""

import dataclasses
import errno
import pathlib

import hypothesis.extra.numpy as hnp
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss

import mtl
from mtl import checkpoint, metrics, tasks
from mtl.config import default, flatten, load, override
from mtl.host.files import DamagedError, FileError
from mtl.sweep import evaluate, shards, store
from mtl.sweep.launch import Silent, launch
from mtl.sweep.shards import NewResult
from mtl.sweep.store import StoreError, Workdir
from tests.sweep import by_hand

#: The source task of small.py.
SOURCE = ("identity",)
SMALL = pathlib.Path(__file__).parents[1] / "fixtures" / "small.py"


def run(workdir, entries):
    config, _module = load(str(SMALL))
    base = override(flatten(config), {"save_model": False})
    (summary,) = launch(base, {"main": entries}, workdir, jobs=0, config_file=None, display=Silent())
    assert not summary.failed
    return summary


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A result as one comes out of a run."""
    workdir = Workdir(tmp_path_factory.mktemp("shards") / "work")
    run(workdir, [{"regime": "scratch"}])
    (found,) = by_hand.results(workdir.path).values()
    return found


def new(result, number, **changes):
    """Return a result of a trial of that number, with predictions of its target."""
    rows = np.arange(3, dtype=np.int32)
    arrays = {"outputs": np.full((3, 1), number, np.float32), "rows": rows, "labels": rows % 2, "scores": 1.0 * rows}
    return NewResult({**result, "hash": f"{number:016x}", **changes}, {result["config"]["data"]["target"]: arrays})


kinds = st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8])


@settings(deadline=None, max_examples=50)
@given(data=st.data(), n=st.integers(0, 4), k=st.integers(1, 3))
def test_what_is_written_is_read_bit_by_bit(data, n, k, result, tmp_path_factory):
    arrays = {
        name: data.draw(hnp.arrays(data.draw(kinds), shape))
        for name, shape in (("outputs", (n, k)), ("rows", (n,)), ("labels", (n,)), ("scores", (n,)))
    }
    (task,) = result["test"]
    file = tmp_path_factory.mktemp("shard") / "00000001-a.safetensors"
    other = "even" if task != "even" else "identity"
    file.write_bytes(shards.dump([NewResult(result, {task: arrays, other: arrays}, b"model")]))
    shard = shards.load(file)
    ((digest, found),) = shard.results.items()
    assert {k: v for k, v in found.items() if k != "files"} == {k: v for k, v in result.items() if k != "files"}
    assert found["files"]["model.safetensors"]["bytes"] == 5
    for own in shard.predictions[digest].values():
        assert {k: (a.dtype, a.shape, a.tobytes()) for k, a in own.items()} == {
            k: (a.dtype, a.shape, a.tobytes()) for k, a in arrays.items()
        }


def test_every_task_that_was_trained_on_and_has_test_labels_is_tested(tmp_path, monkeypatch):
    """No data set has test rows of a source yet: they are given here, to a joint trial and to one of the target."""
    split_of = evaluate.split_of

    def with_sources(trial):
        split = split_of(trial)
        tested = split.test[trial.target]
        return dataclasses.replace(split, test=dict.fromkeys(split.test, tested))  # All rows have labels of all tasks.

    monkeypatch.setattr(evaluate, "split_of", with_sources)
    workdir = Workdir(tmp_path / "work")
    summary = run(workdir, [{"regime": "multitask"}, {"regime": "scratch"}])
    joint, alone = (m.trial for m in summary.sweep.members)
    assert set(workdir.result(joint.hash)["test"]) == {joint.target, *SOURCE}
    assert set(workdir.result(alone.hash)["test"]) == {alone.target}
    for task, said in workdir.result(joint.hash)["test"].items():
        arrays = workdir.predictions(joint.hash, task)
        outputs, labels = arrays["outputs"].astype(np.float64), arrays["labels"].astype(int)
        if outputs.shape[1] == 1:
            outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=1)
        p = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        assert said["accuracy"] == pytest.approx(accuracy_score(labels, p.argmax(axis=1)))
        assert said["log_loss"] == pytest.approx(log_loss(labels, p, labels=range(p.shape[1])), rel=1e-5)
    frame = mtl.results(workdir.path, "predictions")
    rows = frame[frame.hash == joint.hash].groupby("task").size()
    tested = (joint.target, *SOURCE)
    assert dict(rows) == {task: len(workdir.predictions(joint.hash, task)["rows"]) for task in tested}
    trials = mtl.results(workdir.path).set_index("hash")
    assert (
        trials.loc[joint.hash, "test_accuracy_of_identity"]
        == workdir.result(joint.hash)["test"]["identity"]["accuracy"]
    )
    assert np.isnan(trials.loc[alone.hash, "test_accuracy_of_identity"])


def test_many_trials_take_few_files_and_each_has_its_own(result, tmp_path):
    workdir, packs = Workdir(tmp_path), 40
    for pack in range(packs):
        workdir.write_results([new(result, 25 * pack + i, val_score=float(i)) for i in range(25)])
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == packs  # 10,000 trials: 400 files.
    again = Workdir(tmp_path)
    assert again.hashes() == [f"{i:016x}" for i in range(25 * packs)]
    (task,) = result["test"]
    for i in (0, 24, 25, 999):
        assert again.result(f"{i:016x}")["val_score"] == i % 25
        assert again.predictions(f"{i:016x}", task)["outputs"].tolist() == [[i]] * 3


def test_the_newest_result_counts_and_what_nobody_needs_goes(result, tmp_path):
    reader, writer = Workdir(tmp_path), Workdir(tmp_path)
    assert reader.hashes() == []
    writer.write_results([new(result, 1, val_score=1.0), new(result, 2, val_score=1.0)])
    assert reader.result(f"{1:016x}") is None  # It has looked before.
    reader.look()
    assert reader.result(f"{1:016x}")["val_score"] == 1
    writer.write_results([new(result, 1, val_score=2.0)])
    reader.look()
    (task,) = result["test"]
    for workdir in (reader, writer, Workdir(tmp_path)):
        assert [workdir.result(f"{i:016x}")["val_score"] for i in (1, 2)] == [2.0, 1.0]
        assert workdir.predictions(f"{2:016x}", task)["outputs"].tolist() == [[2]] * 3
    reader.tidy()
    assert len(by_hand.shards(tmp_path)) == 2  # Trial 2 is in the old one only.
    writer.write_results([new(result, 2, val_score=3.0)])
    reader.look()
    Workdir(tmp_path, writes=False).tidy()
    reader.tidy()
    assert [file.name[:8] for file in by_hand.shards(tmp_path)] == ["00000002", "00000003"]
    assert [Workdir(tmp_path).result(f"{i:016x}")["val_score"] for i in (1, 2)] == [2.0, 3.0]


def test_a_damaged_shard_takes_its_own_trials_only_and_goes_when_they_have_run_again(result, tmp_path):
    writer = Workdir(tmp_path)
    writer.write_results([new(result, 1), new(result, 2)])
    writer.write_results([new(result, 3)])
    file = by_hand.shards(tmp_path)[0]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    workdir = Workdir(tmp_path)
    assert workdir.hashes() == [f"{3:016x}"]
    (said,) = workdir.news("")
    assert str(file) in said and said.endswith("the trials in it count as not done")
    with pytest.raises(DamagedError):
        shards.load(file)
    workdir.write_results([new(result, 1), new(result, 2)])
    assert len(workdir.hashes()) == 3
    workdir.tidy()
    assert not file.exists() and len(Workdir(tmp_path).hashes()) == 3


def test_a_disk_that_fails_to_answer_is_no_damage(result, tmp_path, monkeypatch):
    writer = Workdir(tmp_path)
    writer.write_results([new(result, 1)])
    workdir = Workdir(tmp_path)

    def fail(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(checkpoint, "open_plain", fail)
    with pytest.raises(FileError, match="Input/output error"):
        workdir.result(f"{1:016x}")
    workdir.tidy()
    monkeypatch.undo()
    workdir.look()
    assert workdir.hashes() == [f"{1:016x}"] and not workdir.damaged


def test_a_table_reads_a_shard_once_and_holds_no_more_than_it_may(result, tmp_path, monkeypatch):
    for first in (1, 3, 5):
        Workdir(tmp_path).write_results([new(result, first), new(result, first + 1)])
    loaded, load = [], shards.load
    monkeypatch.setattr(shards, "load", lambda file: loaded.append(file) or load(file))
    (task,) = result["test"]
    order = (1, 3, 5, 2, 4, 6)  # From shard to shard and back.
    workdir = Workdir(tmp_path)
    for i in order:
        assert workdir.predictions(f"{i:016x}", task)["outputs"].tolist() == [[i]] * 3
    assert len(loaded) == 3
    monkeypatch.setattr(store, "_HELD_BYTES", 1)  # One is held whatever its size.
    workdir = Workdir(tmp_path)
    for i in order:
        assert workdir.predictions(f"{i:016x}", task)["outputs"].tolist() == [[i]] * 3
        assert len(workdir._held) == 1


def test_numbers_of_shards_grow_past_those_that_are_there(result, tmp_path):
    workdir = Workdir(tmp_path)
    workdir.write_results([new(result, 1, val_score=1.0)])
    (file,) = by_hand.shards(tmp_path)
    file.rename(file.with_name("99999999-x.safetensors"))
    for value in (2.0, 3.0):
        workdir = Workdir(tmp_path)
        workdir.write_results([new(result, 1, val_score=value)])
        assert Workdir(tmp_path).result(f"{1:016x}")["val_score"] == value


def test_two_processes_that_write_at_once_do_not_write_over_each_other(result, tmp_path, monkeypatch):
    one, two = Workdir(tmp_path), Workdir(tmp_path)
    monkeypatch.setattr(Workdir, "_names", lambda self: [])  # Neither sees the other's file.
    one.write_results([new(result, 1)])
    two.write_results([new(result, 2)])
    monkeypatch.undo()
    assert len(Workdir(tmp_path).hashes()) == 2


def test_asking_for_predictions_that_are_not_there_says_so(result, tmp_path):
    workdir = Workdir(tmp_path)
    workdir.write_results([new(result, 1)])
    with pytest.raises(StoreError, match="holds no result of trial 2"):
        workdir.predictions("2", "even")
    with pytest.raises(StoreError, match="was not tested on task weather"):
        workdir.predictions(f"{1:016x}", "weather")


def test_a_registered_metric_of_a_regression_is_in_the_labels_unit(tmp_path):
    """Values and scores: a mean absolute error, and one that is relative, which no shift leaves alone."""
    before = dict(metrics.METRICS), dict(tasks.KINDS)

    def error(weigh):
        def value(outputs, labels, mask, weights=None):
            w = jnp.where(mask, 1.0 if weights is None else weights, 0.0)
            return jnp.sum(w * jnp.abs(outputs[:, 0] - labels) * weigh(labels)) / jnp.sum(w)

        return value

    x = np.random.default_rng(0).normal(size=(200, 3))
    y = 1000 + 300 * x[:, 0]

    @mtl.data.register("prices_of_a_test")
    def prices():
        return mtl.data.make_table("prices_of_a_test", x, [tasks.Task("y", "regression")], {"y": y})

    try:
        metrics.register("mae", ("regression",), (0, np.inf), higher_is_better=False)(error(jnp.ones_like))
        metrics.register("mape", ("regression",), (0, np.inf), higher_is_better=False)(error(lambda y: 1 / y))
        c = default()
        c.name, c.data.name, c.data.target, c.data.source, c.regime = "p", "prices_of_a_test", "y", (), "scratch"
        c.data.test_size, c.data.target_pool, c.data.target_size = 50, 100, 60
        c.source.total_steps, c.target.total_steps, c.evaluations = 1, 20, 1
        for name in ("mae", "mape"):
            found = mtl.run(c, tmp_path / name, changes={"metric": name}, quiet=True)
            arrays = Workdir(tmp_path / name).predictions(found["hash"], "y")
            errors = np.abs(arrays["outputs"][:, 0] - arrays["labels"])
            want = {"mae": errors.mean(), "mape": (errors / arrays["labels"]).mean()}
            assert found["test"]["y"]["mae"] == pytest.approx(want["mae"], rel=1e-5)
            assert found["test"]["y"]["mape"] == pytest.approx(want["mape"], rel=1e-5)
            assert arrays["scores"].mean() == pytest.approx(want[name], rel=1e-4)
            assert found["metrics"][name]["range"] == [0.0, None]
    finally:
        for names, was in zip((metrics.METRICS, tasks.KINDS), before, strict=True):
            names.clear()
            names.update(was)
        del mtl.data.SOURCES["prices_of_a_test"]


def test_a_shard_is_checked_once_and_verified_always(result, tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_CACHE_DIR", str(tmp_path / "cache"))
    work, looked, check = tmp_path / "work", [], shards.check
    monkeypatch.setattr(shards, "check", lambda *of: looked.append(of) or check(*of))
    Workdir(work).write_results([new(result, 1), new(result, 2)])
    (task,), (file,) = result["test"], by_hand.shards(work)

    def read():
        workdir = Workdir(work)
        return [(workdir.result(d), workdir.predictions(d, task)["outputs"].tolist()) for d in workdir.hashes()]

    first = read()
    assert len(first) == len(looked) == 2
    assert read() == first and len(looked) == 2
    monkeypatch.setattr(shards, "version", lambda: "another")
    assert read() == first and len(looked) == 4
    monkeypatch.setenv("MTL_CACHE_DIR", "off")
    assert read() == first and len(looked) == 6
    monkeypatch.undo()
    good = file.read_bytes()
    workdir = Workdir(work)
    assert len(workdir.hashes()) == 2
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(StoreError, match="its sha256 is not the one it was written with"):  # Damaged since it was read.
        workdir.predictions(f"{1:016x}", task)
    assert read() == []


def test_what_is_wrong_or_may_be_obeyed_is_looked_at_each_time(result, tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_CACHE_DIR", str(tmp_path / "cache"))
    work = tmp_path / "work"
    Workdir(work).write_results([new(result, 1, val_score="low"), new(result, 2), new(result, 3, cpu="\x1b[2J")])
    for _ in range(2):
        workdir = Workdir(work)
        assert workdir.hashes() == [f"{2:016x}", f"{3:016x}"] and len(workdir.damaged) == 1
        assert "\x1b" not in workdir.result(f"{3:016x}")["cpu"]
