"""Names, links, pipes and second names in a stranger's work directory: nothing is followed out, or waited for."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket

import numpy as np
import pytest

import mtl
from mtl.checkpoint import CheckpointError, load_about, load_tree, load_weights, save_tree
from mtl.cli import main
from mtl.data import DataError
from mtl.data.readers.csv_file import csv_table
from mtl.host import files
from mtl.host.files import FileError, seal
from mtl.report.publish import analyses_of, publish
from mtl.sweep import documents, lease
from mtl.sweep.lease import Lease, held
from mtl.sweep.shards import NewResult
from mtl.sweep.snapshots import Interrupt, Snapshots
from mtl.sweep.store import FORMAT, StoreError, Workdir
from mtl.sweep.workers import WorkerPool
from tests.sweep import by_hand
from tests.sweep.hostile import bounded, within
from tests.sweep.resealed import change
from tests.sweep.test_integrity import FIXTURES, whole  # noqa: F401

NAMES = ["..", "../x", "/etc", "a/b", "", ".", "a\0b", "a" * 300, "a b", "ü", "a\n", "~", "$(x)", "-" * 101]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_could_lead_out_is_refused(tmp_path, name):
    workdir = Workdir(tmp_path)
    for use in (workdir.trial, workdir.prefix, workdir.result, workdir.failure, workdir.complete):
        with pytest.raises(StoreError):
            use(name)
    with pytest.raises(StoreError, match="name"):
        workdir.predictions(name, "even")
    with pytest.raises(StoreError, match="name"):
        workdir.write_results([NewResult({"hash": name}, {}, b"model")])
    assert not list(tmp_path.iterdir())
    with pytest.raises(StoreError):
        workdir.width(name, "map")


@pytest.mark.parametrize("name", NAMES)
def test_a_trial_in_a_shard_whose_name_could_lead_out_counts_as_not_done(whole, tmp_path, name):  # noqa: F811
    work = pathlib.Path(shutil.copytree(whole[0], tmp_path / "work"))
    own = sorted(by_hand.results(work))
    shard = by_hand.shard_of(work, own[0])
    (tree, about), facts = load_tree(shard), by_hand.facts(shard)
    facts[name] = facts.pop(own[0]) | {"hash": name}
    tree["predictions"][name] = tree["predictions"].pop(own[0])
    save_tree(shard, tree | {"results": np.frombuffer(json.dumps(facts).encode(), np.uint8)}, about)
    workdir = Workdir(work)
    assert workdir.hashes() == own[1:] and workdir.width("a", "vmap") is None
    (told,) = workdir.damaged.values()
    assert told.endswith("counts as not done") and "\n" not in told and len(told) < 500


@pytest.mark.parametrize("name", NAMES)
def test_names_in_study_json_are_refused_by_every_command(whole, tmp_path, capsys, name):  # noqa: F811
    work = pathlib.Path(shutil.copytree(whole[0], tmp_path / "work"))
    before = sorted(tmp_path.rglob("*"))

    def rename(study):
        study["sweeps"][name] = study["sweeps"].pop("even")
        return study

    change(work / "study.json", rename)
    for command in ("status", "table", "plot", "report"):
        assert main([command, str(work)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_without_the_rule_a_table_is_written_outside(whole, tmp_path, monkeypatch):  # noqa: F811
    """The control."""
    work = pathlib.Path(shutil.copytree(whole[0], tmp_path / "work"))

    def rename(study):
        study["sweeps"]["../../stolen"] = study["sweeps"].pop("even")
        return study

    change(work / "study.json", rename)
    monkeypatch.setattr(documents, "IDENTIFIER", re.compile(r"(?s).*"))
    monkeypatch.setattr("mtl.sweep.store.IDENTIFIER", re.compile(r"(?s).*"))
    monkeypatch.setattr("mtl.sweep.store.inside", lambda root, *parts: root.joinpath(*parts))
    assert main(["plot", str(work)]) == 0
    assert list(tmp_path.glob("stolen-*.png"))


LINKS = [
    "study.json",
    "trials",
    "trials/HASH",
    "trials/HASH/model.safetensors",
    "results",
    "results/SHARD",
    "lease",
    "prefixes",
]
LINKS += ["snapshots", "packs", "figures", "tables", "published.json", "report.html"]


@pytest.fixture
def blank(monkeypatch):
    """Figures are blank: where they are written is what counts, and drawing them is most of the time."""
    size = 'width="1pt" height="1pt"'

    def write(figure, target, kind, fonttype="path"):
        target.write(f"<svg {size}></svg>" if fonttype == "none" else b"blank")

    monkeypatch.setattr("mtl.report.drawing.write", write)
    monkeypatch.setattr("mtl.report.figures.write", write)


@pytest.mark.usefixtures("blank")
@pytest.mark.parametrize("link", LINKS)
def test_a_link_that_leads_out_is_not_followed(whole, tmp_path, capsys, link):  # noqa: F811
    work = pathlib.Path(shutil.copytree(whole[0], tmp_path / "work"))
    digest = next(m.trial.hash for m in whole[1].sweep.members if m.changes["regime"] == "finetune")
    place, outside = places(work, link, digest), tmp_path / "outside"
    if place.exists():
        place.rename(outside)
    elif place.suffix:
        outside.write_text("mine")
    else:
        outside.mkdir()
    place.symlink_to(outside)
    before = {p: (p.read_bytes() if p.is_file() else None) for p in [outside, *outside.rglob("*")]}
    if not link.startswith(("trials", "results", "study.json")):
        shutil.rmtree(work / "trials" / digest)
        if link != "prefixes":
            shutil.rmtree(work / "prefixes")
    if link == "packs":  # Used where packs run side by side.
        with pytest.raises(StoreError, match="link"):
            Workdir(work).width("a", "vmap")
    main(["sweep", f"--config={FIXTURES / 'small.py'}", f"--workdir={work}", "--jobs=0"])
    for command in ("status", "table", "plot", "report"):
        main([command, str(work)])
    told = capsys.readouterr().err
    assert "leads out" in told or link == "packs", told
    assert {p: (p.read_bytes() if p.is_file() else None) for p in [outside, *outside.rglob("*")]} == before


def test_a_link_planted_under_a_name_that_is_written_is_replaced_and_not_written_through(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    target = tmp_path / "file"
    target.symlink_to(outside)
    number = next(files._number)
    (tmp_path / f".file.{os.getpid()}.{number + 1}.tmp").symlink_to(outside)
    files.write_atomically(target, b"ours")
    assert outside.read_text() == "mine"
    assert target.read_bytes() == b"ours" and not target.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "outside"]


# --- what is no file ---

KINDS = ["a pipe", "a directory", "a socket"]
PLACES = ["study.json", "results", "results/SHARD", "trials", "trials/HASH/model.safetensors"]
PLACES += ["trials/HASH/failed.json", "lease/000001.json", "snapshots/x.safetensors", "prefixes/KEY", "packs/x.json"]
PLACES += ["published.json", "report.html", "figures/even-metric.png", "tables/even-result.md"]


def json_of(path):
    return files.read(path, 100)


def csv_of(path):
    return csv_table(str(path), "y")


READERS = [load_tree, load_about, load_weights, files.sha256_of_file, json_of, csv_of]


def put(place, kind):
    """Put something that is no file in a place, and let it be old."""
    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "a pipe":
        os.mkfifo(place)
    elif kind == "a directory":
        place.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(place.parent):
            bound.bind(place.name)
    os.utime(place, (1, 1))


def places(work, place, digest):
    """Return a place with the names of a trial, its shard, and a shared phase that are there."""
    key, shard = next((work / "prefixes").iterdir()).name, by_hand.shard_of(work, digest).name
    return work / place.replace("HASH", digest).replace("KEY", key).replace("SHARD", shard)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_pipe_in_place_of_a_file_is_not_waited_for(whole, tmp_path, monkeypatch, capsys, place):  # noqa: F811
    work = pathlib.Path(shutil.copytree(whole[0], tmp_path / "work"))
    monkeypatch.setattr(lease, "WATCH_SECONDS", 0.1)
    digest = next(m.trial.hash for m in whole[1].sweep.members if m.changes["regime"] == "finetune")
    put(places(work, place, digest), "a pipe")
    with within(60):
        for command in ("plot",) if place.startswith("figures") else ("status", "report"):
            assert main([command, str(work)]) in (0, 2)
        with contextlib.suppress(StoreError):
            mtl.results(work, "predictions")
        with contextlib.suppress(CheckpointError):
            mtl.load(work / "trials" / digest)
        if not place.startswith(("figures", "tables", "report", "published")):
            code = main(["sweep", f"--config={FIXTURES / 'small.py'}", f"--workdir={work}", "--jobs=0"])
            assert code in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_in_place_of_a_shard_is_said_and_its_trials_run_again(whole, tmp_path, capsys, kind):  # noqa: F811
    work = pathlib.Path(shutil.copytree(whole[0], tmp_path / "work"))
    own, shard = by_hand.results(work).keys(), by_hand.shards(work)[0]
    put(shard, kind)
    with within(60):
        assert main(["status", str(work)]) == 0
        assert f"{shard} is not a readable" in capsys.readouterr().out
        assert main(["sweep", f"--config={FIXTURES / 'small.py'}", f"--workdir={work}", "--jobs=0"]) == 0
    assert Workdir(work).hashes() == sorted(own)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_what_is_no_file_is_refused_in_a_sentence_by_each_way_to_read(tmp_path, reader, kind):
    put(tmp_path / "x.csv", kind)
    with within(10), pytest.raises((FileError, CheckpointError, DataError, OSError)) as error:
        reader(tmp_path / "x.csv")
    assert "x.csv" in str(error.value)


def test_a_device_without_an_end_is_refused():
    with bounded(0), within(10), pytest.raises(DataError, match="must be a file"):
        csv_table("/dev/zero", "y")


def test_without_looking_at_what_it_is_a_pipe_is_waited_for(tmp_path, monkeypatch):
    """The control."""
    os.mkfifo(tmp_path / "x.csv")
    monkeypatch.setattr("mtl.data.paths.open_plain", lambda path: path.open("rb"))
    with pytest.raises(AssertionError, match="still not done"), within(1):
        csv_table(str(tmp_path / "x.csv"), "y")


# --- second names ---


@pytest.mark.slow
@pytest.mark.parametrize("name", ["figures/even-metric.png", "tables/even-result.md", "report.html", "published.json"])
def test_a_file_with_a_second_name_outside_is_replaced_and_not_written_through(whole, tmp_path, name):  # noqa: F811
    work = pathlib.Path(shutil.copytree(whole[0], tmp_path / "work"))
    outside, inside = tmp_path / "outside", work / name
    outside.write_text("mine")
    inside.parent.mkdir(exist_ok=True)
    inside.unlink(missing_ok=True)
    os.link(outside, inside)
    publish(Workdir(work), analyses_of(Workdir(work)), "test")
    assert main(["plot", str(work)]) == main(["report", str(work)]) == 0
    assert outside.read_text() == "mine" and inside.read_bytes() != b"mine"


@pytest.mark.parametrize("kind", ["a second name", *KINDS])
def test_a_workers_log_that_is_no_log_is_not_written(tmp_path, kind):
    (tmp_path / "outside").write_text("mine")
    log = tmp_path / "work" / "logs" / "worker-0.log"
    log.parent.mkdir(parents=True)
    if kind == "a second name":
        os.link(tmp_path / "outside", log)
    else:
        put(log, kind)
    with WorkerPool(Workdir(tmp_path / "work"), 1, None) as pool, within(10), pytest.raises(StoreError, match="no log"):
        pool._start(0)
    assert (tmp_path / "outside").read_text() == "mine"


# --- leases ---

HELD = {"host": "h", "where": "elsewhere", "process": [1, "x"], "workers": [], "released": False}
BAD_LEASES = {
    "no place": {k: v for k, v in HELD.items() if k != "where"},
    "no workers": {k: v for k, v in HELD.items() if k != "workers"},
    "workers that are null": HELD | {"workers": None},
    "workers that are an object": HELD | {"workers": {"a": 1}},
    "a worker that is a number": HELD | {"workers": [5]},
    "a process that is a word": HELD | {"process": "all"},
    "process 0, which is the whole group": HELD | {"process": [0, "x"]},
    "a place that is a number": HELD | {"where": 5},
}


@pytest.mark.slow
@pytest.mark.parametrize("content", BAD_LEASES.values(), ids=BAD_LEASES)
def test_a_lease_that_is_none_is_no_traceback_and_is_taken_in_time(tmp_path, monkeypatch, content):
    monkeypatch.setattr(lease, "WATCH_SECONDS", 0.1)
    (tmp_path / "lease").mkdir()
    (tmp_path / "lease" / "000001.json").write_bytes(seal(content))
    os.utime(tmp_path / "lease" / "000001.json", (1, 1))
    mine = Lease(tmp_path)
    mine.look()
    mine.acquire()
    assert mine.number == 2
    mine.release()


@pytest.mark.parametrize("name", ["9" * 250 + ".json", "\u0663.json", "7.json", "-00001.json", "000001.json.json"])
def test_a_name_that_is_no_number_of_a_lease_stands_in_nobodys_way(tmp_path, name):
    (tmp_path / "lease").mkdir()
    (tmp_path / "lease" / name).touch()
    with held(tmp_path, print, lambda: None) as mine:
        assert mine.number == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_that_is_no_file_is_taken_over_when_it_is_old(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(lease, "WATCH_SECONDS", 0.1)
    put(tmp_path / "lease" / "000001.json", kind)
    for number in (2, 3):
        with within(20), held(tmp_path, print, lambda: None) as mine:
            assert mine.number == number


# --- snapshots, whole and sealed, of what nobody trained ---

GOOD = {
    "moving": {"a": np.zeros((1, 2))},
    "train": np.zeros((3, 1, 1), np.float32),
    "val": np.zeros((3, 1, 1), np.float32),
    "score": np.zeros((3, 1, 1), np.float32),
}
BAD_SNAPSHOTS = {
    "fewer lanes than phases": (GOOD, {"keys": ["k", "l"]}),
    "no lanes": (GOOD | {"moving": {"a": np.zeros(())}}, {}),
    "an array for a state": (GOOD | {"moving": np.zeros((1, 2))}, {}),
    "a curve of no lanes": (GOOD | {"train": np.zeros(3)}, {}),
    "a tree for a curve": (GOOD | {"train": {"x": np.zeros(3)}}, {}),
    "no tasks": (GOOD | {"val": np.zeros((3, 1))}, {}),
    "curves of several lengths": (GOOD | {"train": np.zeros((4, 1, 1))}, {}),
    "no curve": ({k: v for k, v in GOOD.items() if k != "val"}, {}),
    "no scores": ({k: v for k, v in GOOD.items() if k != "score"}, {}),
    "no time": (GOOD, {"seconds": None}),
    "half a step": (GOOD, {"at": 2.5}),
    "steps before the first": (GOOD, {"at": -5}),
    "no phases": (GOOD, {"keys": []}),
}


@pytest.mark.parametrize(("tree", "changes"), BAD_SNAPSHOTS.values(), ids=BAD_SNAPSHOTS)
def test_a_snapshot_of_another_shape_is_not_gone_on_from(tmp_path, tree, changes):
    about = {"format": FORMAT, "keys": ["k"], "at": 5, "data": 0, "seconds": 1.0}
    save_tree(tmp_path / "a-000000000005.safetensors", GOOD, about)
    assert Snapshots(tmp_path, Interrupt(), print).load(["k"]).at == 5
    save_tree(tmp_path / "a-000000000005.safetensors", tree, about | changes)
    assert Snapshots(tmp_path, Interrupt(), print).load((about | changes)["keys"] or ["k"]) is None
