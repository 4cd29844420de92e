"""Damage is seen: no flipped bit is ever averaged, predicted with, or gone on from."""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save

import mtl
from mtl.checkpoint import CheckpointError, dump_tree, load_tree, load_weights
from mtl.cli import main
from mtl.config import flatten, load
from mtl.host.files import seal
from mtl.params import flatten as flat
from mtl.report.publish import analyses_of
from mtl.sweep import evaluate, store, sweeps_of
from mtl.sweep.execute import execute
from mtl.sweep.launch import Silent, launch
from mtl.sweep.plan import make_plan
from mtl.sweep.snapshots import Interrupt, Snapshots
from mtl.sweep.store import StoreError, Workdir
from mtl.train.loop import Snapshot, Stopped
from mtl.train.placement import VMAP
from tests.sweep import by_hand
from tests.sweep.resealed import change

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"


class Told(Silent):
    """A display that keeps what it is told."""

    def __init__(self):
        self.told = []

    def say(self, text):
        self.told.append(text)


def run(workdir, **how):
    config, module = load(str(FIXTURES / "small.py"))
    display = Told()
    entries = {"even": sweeps_of(module)["even"]()}
    (summary,) = launch(
        flatten(config), entries, Workdir(workdir), **{"jobs": 0, "config_file": None, "display": display} | how
    )
    return summary, display.told


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study of four trials, the results of each regime in a shard."""
    path = tmp_path_factory.mktemp("integrity") / "work"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "_TRIALS_TOGETHER", 2)
        summary, told = run(path)
    assert (summary.ran, summary.failed, told) == (4, {}, [])
    assert [len(by_hand.facts(shard)) for shard in by_hand.shards(path)] == [2, 2]
    return path, summary


@pytest.fixture
def copied(whole, tmp_path):
    return pathlib.Path(shutil.copytree(whole[0], tmp_path / "work"))


def flip(file, bit):
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def meant(path):
    """Return what each result says, its time left out, and its predictions; none of those that count as not done."""
    workdir, found = Workdir(path), {}
    for digest in workdir.hashes():
        result = workdir.result(digest)
        found[digest] = str((result["val_score"], result.get("test"), workdir.predictions(digest, "even")))
    return found


@pytest.mark.slow
def test_a_flipped_bit_of_a_result_is_never_silent(whole, copied):
    """Of bits at random, and of each before the names of arrays: the header's length, its key, the sha256."""
    file, right = by_hand.shards(copied)[0], meant(copied)
    good, others = file.read_bytes(), right.keys() - by_hand.facts(file).keys()
    assert len(others) == 2 < len(right)
    begin = 8 * good.index(b"format")
    for bit in (*range(begin), *np.random.default_rng(0).choice(8 * len(good), 240, replace=False)):
        flip(file, int(bit))
        assert meant(copied) == {digest: right[digest] for digest in others}, bit
        file.write_bytes(good)


def test_without_digests_the_same_flips_are_silent(whole, copied, monkeypatch):
    """The control: what a table would have averaged if nothing were verified."""
    file, right = by_hand.shards(copied)[0], meant(copied)
    good = file.read_bytes()
    written = good[good.index(b"sha256") :].split(b'"')[2][:64].decode()
    always = SimpleNamespace(update=lambda data: None, hexdigest=lambda: written)
    monkeypatch.setenv("MTL_CACHE_DIR", "off")  # Where a digest says that all has been checked.
    monkeypatch.setattr("mtl.checkpoint.hashlib", SimpleNamespace(sha256=lambda data: always))
    wrong = 0
    for bit in np.random.default_rng(0).choice(8 * len(good), 240, replace=False):
        flip(file, int(bit))
        with contextlib.suppress(StoreError):
            wrong += any(right[digest] != said for digest, said in meant(copied).items())
        file.write_bytes(good)
    assert wrong >= 20


@pytest.mark.parametrize("where", ["facts", "predictions", "one trial"])
def test_a_damaged_result_is_left_out_of_the_table_and_run_again(whole, copied, capsys, where):
    """With a flipped bit anywhere in a shard, all that it holds is; with a right sha256, what is no result."""
    digest = whole[1].sweep.members[0].trial.hash
    before = {p: p.read_bytes() for p in copied.glob("trials/*/model.safetensors")}
    file = by_hand.shard_of(copied, digest)
    if where == "one trial":
        count, said = 1, f"trial {digest} counts as not done"
        by_hand.change(copied, digest, lambda found: found | {"val_score": "low"})
    else:
        count, said = 2, f"{file} is not a readable safetensors file: it is damaged"
        content = file.read_bytes()
        header = int.from_bytes(content[:8], "little")
        flip(file, 8 * (content.index(b'"val_score"') if where == "facts" else 8 + header))
    (analysis,) = analyses_of(Workdir(copied))
    assert analysis.scores.missing.sum() == count
    assert main(["status", str(copied)]) == 0
    text = capsys.readouterr().out
    assert f"{4 - count} done, {count} missing of 4 trials" in text and said in text
    assert main(["table", str(copied)]) == 0
    assert said in capsys.readouterr().err
    summary, told = run(copied)
    assert (summary.ran, summary.reused) == (count, 4 - count)
    assert len(told) == 1 and said in told[0] and "as not done" in told[0]
    assert {p: p.read_bytes() for p in before} == before
    assert meant(copied) == meant(whole[0])
    assert file.exists() is (where == "one trial")  # It holds the other's result.
    summary, told = run(copied)
    assert (summary.ran, told) == (0, [])


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_damaged_model_is_refused_and_a_cut_one_is_made_again(whole, copied, damage):
    digest = whole[1].sweep.members[0].trial.hash
    file = copied / "trials" / digest / "model.safetensors"
    good = file.read_bytes()
    for bit in (3, 200, 8 * len(good) // 2, 8 * len(good) - 9):
        if damage == "flip":
            flip(file, bit)
        else:
            file.write_bytes(good[: bit // 8])
        with pytest.raises(CheckpointError, match=r"remove .* and run the sweep again"):
            mtl.load(file.parent)
        if damage == "flip":
            file.write_bytes(good)
    if damage == "cut":
        assert run(copied)[0].ran == 1
        assert file.read_bytes() == good
    # A model that somebody removed to make room is not missed.
    file.unlink()
    assert run(copied)[0].ran == 0


@pytest.mark.parametrize("bytes_read", [2**30, 0])
def test_a_damaged_model_is_told_by_the_sweep_or_where_it_is_read(whole, copied, monkeypatch, bytes_read):
    """Of so many bytes of models the sweep reads all; of others the length only, and then whoever reads them tells."""
    monkeypatch.setattr(store, "_MODEL_BYTES", bytes_read)
    member = whole[1].sweep.members[0]
    folder = copied / "trials" / member.trial.hash
    good = (folder / "model.safetensors").read_bytes()
    flip(folder / "model.safetensors", 8 * len(good) - 9)
    assert Workdir(copied).complete(member.trial.hash) is (bytes_read == 0)
    with pytest.raises(CheckpointError, match="is damaged"):
        mtl.load(folder)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_weights(folder)
    (folder / "model.safetensors").write_bytes(good[:-1])
    assert not Workdir(copied).complete(member.trial.hash)


def test_a_damaged_shared_phase_is_said_and_trained_anew(whole, copied):
    before = {p: p.read_bytes() for p in copied.glob("*/*/model.safetensors")}
    for file in copied.glob("prefixes/*"):
        flip(file, 8 * len(file.read_bytes()) - 30)
    shutil.rmtree(copied / "trials")
    summary, told = run(copied)
    assert summary.ran == 4
    assert sum("is damaged" in line and "trained anew" in line for line in told) == 2
    assert {p: p.read_bytes() for p in before} == before


def test_of_two_snapshots_the_newest_good_one_is_gone_on_from(whole, tmp_path, monkeypatch):
    _, summary = whole
    trials = [m.trial for m in summary.sweep.members if m.changes["regime"] == "scratch"]
    monkeypatch.setattr("mtl.sweep.snapshots.EVERY_SECONDS", 0.0)
    calls = []

    def progress(work, done, failed):
        calls.append(work)
        if len(calls) == 3:
            interrupt.number = signal.SIGTERM

    interrupt = Interrupt()
    workdir = Workdir(tmp_path)
    # In chunks of 8, 64, 512 and the rest.
    long = [type(t)({**t.config, "phases": [{**t.config["phases"][0], "total_steps": 2000}]}) for t in trials]
    plan = make_plan(long)
    with pytest.raises(Stopped):
        execute(plan, workdir, interrupt=interrupt, progress=progress)
    _, new = sorted((tmp_path / "snapshots").iterdir())
    told = []
    kept = Snapshots(tmp_path / "snapshots", Interrupt(), told.append)
    flip(new, 8 * new.stat().st_size - 30)
    before = Snapshots(tmp_path / "snapshots", Interrupt(), told.append)
    assert {(before.at(key), kept.at(key)) for key in plan.nodes} == {(72, 584)}
    assert not new.exists()
    assert len(told) == 1 and new.name in told[0] and "earlier snapshot" in told[0]
    execute(plan, workdir)
    alone = Workdir(tmp_path / "alone")
    execute(plan, alone)
    for t in long:
        model = "model.safetensors"
        assert (workdir.trial(t.hash) / model).read_bytes() == (alone.trial(t.hash) / model).read_bytes()


def test_a_snapshot_that_is_damaged_after_it_was_found_gives_way_to_the_one_before(tmp_path):
    state = Snapshot({"w": np.ones((1, 3), np.float32)}, 8, [], [], [], 0.0, 1)
    told = []
    snapshots = Snapshots(tmp_path, Interrupt(), told.append)
    for at in (8, 72):
        snapshots.save(["a"], dataclasses.replace(state, at=at))
    for at, left in ((72, 2), (8, 1)):
        assert snapshots.load(["a"]).at == at
        newest = sorted(tmp_path.iterdir())[-1]
        flip(newest, 8 * newest.stat().st_size - 30)
        assert len(list(tmp_path.iterdir())) == left
    assert snapshots.load(["a"]) is None
    assert not list(tmp_path.iterdir())
    assert len(told) == 2 and all("earlier snapshot" in line for line in told)


@pytest.mark.parametrize("damage", ["lost", "flipped", "cut"])
def test_study_json_is_made_again(whole, copied, capsys, damage):
    file = copied / "study.json"
    right = json.loads(file.read_text())["sweeps"]
    if damage == "lost":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:500])
    else:
        file.write_bytes(file.read_bytes().replace(b'"small"', b'"smaml"'))
    assert main(["table", str(copied)]) == 2
    line = capsys.readouterr().err
    assert "run `mtl sweep` with the same config" in line and line.count("\n") == 1
    summary, told = run(copied)
    assert (summary.ran, summary.reused) == (0, 4)
    assert len(told) == 1 and "study.json" in told[0] and "written anew" in told[0]
    assert json.loads(file.read_text())["sweeps"] == right
    assert main(["table", str(copied)]) == 0


def test_a_directory_of_something_else_is_not_taken_for_a_study_that_lost_its_index(tmp_path):
    for name in ("results", "trials"):
        (tmp_path / name).mkdir()
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(StoreError, match=r"holds other files \(thesis\.tex\)"):
        Workdir(tmp_path).open("small")


def test_a_study_that_another_process_of_the_run_writes_in_this_moment_is_no_strangers(tmp_path, monkeypatch):
    """Of processes that run together one writes ``study.json`` while the others look whether it is there."""
    listed = pathlib.Path.iterdir

    def late(folder):
        Workdir(tmp_path).write_study({"study": "small", "created": "2026-11-24T00:00:00+00:00", "sweeps": {}})
        return listed(folder)

    monkeypatch.setattr(pathlib.Path, "iterdir", late)
    assert Workdir(tmp_path, writes=False).open("small")["created"] == "2026-11-24T00:00:00+00:00"
    (tmp_path / "study.json").unlink()
    with pytest.raises(StoreError, match='belongs to the study "small", not to "large"'):
        Workdir(tmp_path, writes=False).open("large")


def test_the_width_of_a_pack_is_found_again_in_its_results(whole, tmp_path):
    path = tmp_path / "work"
    run(path, placement=VMAP)
    packs = sorted((path / "packs").iterdir())
    right = [(p, json.loads(p.read_text())["widths"]) for p in packs]
    packs[0].unlink()
    packs[1].write_bytes(packs[1].read_bytes()[:-9])
    workdir = Workdir(path)
    assert [workdir.width(p.stem, "vmap") for p, _ in right] == [w["vmap"] for _, w in right]
    assert len(workdir.damaged) == 1


# --- other formats ---


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_study_of_an_older_format_is_refused_in_a_sentence_and_loses_nothing(tmp_path, capsys, number):
    """That of format 1 has no digests."""
    about, trial = {"format": number}, tmp_path / "trials" / "1ad66d15a20c9fef"
    study = {**about, "study": "small", "created": "2026-11-24T00:00:00+00:00", "sweeps": {}}
    written = seal if number > 1 else lambda content: json.dumps(content).encode()
    weights = {"params": {"w": np.ones(2, np.float32)}}
    model = dump_tree(weights, about) if number > 1 else save(flat(weights), {"mtl": json.dumps(about)})
    contents = {
        tmp_path / "study.json": written(study),
        trial / "result.json": written(about | {"val_score": 0.5}),
        trial / "model.safetensors": model,
    }
    trial.mkdir(parents=True)
    for file, content in contents.items():
        file.write_bytes(content)
    sweep = ["sweep", f"--config={FIXTURES / 'small.py'}", f"--workdir={tmp_path}", "--jobs=0"]
    for command in (["status", str(tmp_path)], ["table", str(tmp_path)], ["report", str(tmp_path)], sweep):
        assert main(command) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1
        assert f"is of format {number}, and this version of mtl reads 6" in said.err
        assert "choose another --workdir" in said.err
    with pytest.raises(CheckpointError, match=f"is of format {number}"):
        mtl.load(trial)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == contents


@pytest.mark.parametrize("where", ["study.json", "a shard"])
def test_a_later_format_is_refused_by_name(whole, copied, capsys, where):
    if where == "study.json":
        change(copied / where, lambda c: c | {"format": 7})
    else:
        file = by_hand.shards(copied)[0]
        tree, about = load_tree(file)
        file.write_bytes(dump_tree(tree, about | {"format": 7}))
    assert main(["table", str(copied)]) == 2
    assert "is of format 7, and this version of mtl reads 6" in capsys.readouterr().err
