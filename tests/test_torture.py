"""The fault matrix in its short form, and that each of its rows sees when what it is about is turned off."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from mtl.host import files

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
def test_the_short_matrix_holds(tmp_path):
    done = subprocess.run(
        [ROOT / "scripts" / "torture", "--size=short", f"--json={tmp_path / 'figures.json'}"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    outcomes = json.loads((tmp_path / "figures.json").read_text())
    assert len(outcomes) >= 12 and all(o["runs"] and not o["broken"] for o in outcomes)


#: Tries a row in a process of its own, as the rows fork: the study is made first, then a protection is turned off. It
#: ends once the row has said what it should.
TRY = """
import contextlib, dataclasses, json, os, pathlib, random, runpy, sys, time
sys.path.insert(0, {root!r})
sys.path.insert(0, {root!r} + "/scripts/torturing")
import outcome
torture = runpy.run_path({root!r} + "/scripts/torturing/__main__.py", run_name="torture")
from mtl import checkpoint
from mtl.host import files
from mtl.sweep import evaluate, documents, lease, snapshots, store
from mtl.sweep.store import Workdir
os.environ["MTL_CACHE_DIR"] = {cache!r}
steps, environment = torture["_kind"]({row!r})
study = torture["Study"](pathlib.Path({folder!r}) / "study", steps, **dict(environment))
{off}
class Said(Exception):
    pass
class Broken(list):
    def append(self, sentence):
        super().append(sentence)
        if {said!r} in sentence:
            raise Said
    def __iadd__(self, sentences):
        for sentence in sentences:
            self.append(sentence)
        return self
broken = Broken()
def begin(self, fault, holds):
    vars(self).update(fault=fault, holds=holds, runs=0, figures={{}}, broken=broken)
outcome.Outcome.__init__ = begin
with contextlib.suppress(Said):
    torture["ROWS"][{row!r}](study, {times}, random.Random(0))
print(json.dumps(broken))
"""

UNVERIFIED_DOCUMENTS = """
def unverified(data):
    found = files.parse(data)
    found.pop("sha256", None)
    return found
documents.unseal = unverified
"""

# Of shards, or of all other files of arrays.
UNVERIFIED = """
verified = checkpoint._facts
def facts(path):
    if (path.parent.name == "results") is not OF_SHARDS:
        return verified(path)
    content = path.read_bytes()
    header = files.parse(content[8 : 8 + int.from_bytes(content[:8], "little")])
    about = files.parse(header["__metadata__"]["mtl"].encode())
    about.pop("sha256", None)
    return about
checkpoint._facts = facts
"""

NEWEST_BY_CLOCK = """
def read(self):
    self._where.clear()
    for file in sorted(self.folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime):
        about = checkpoint.load_about(file)
        for lane, key in enumerate(about["keys"]):
            self._where[key] = (file, lane, about["at"])
snapshots.Snapshots._read = read
snapshots.Snapshots._generations = lambda self, file: sorted(
    self.folder.glob(file.name.partition("-")[0] + "-*.safetensors"), key=lambda file: file.stat().st_mtime)
"""

FORGETFUL = """
restore = snapshots._DiskCheckpointer.restore
def forgetful(self):
    kept = restore(self)
    moving = {k: v * 0 if v.dtype.kind == "f" else v for k, v in kept.moving.items()} if kept else {}
    return kept and dataclasses.replace(kept, moving=moving)
snapshots._DiskCheckpointer.restore = forgetful
"""

UNHELPFUL = """
from mtl.config import fields
fields.suggest = lambda name, valid: "Valid: "
"""

UNHELD = """
lease.Lease.look = lambda self: None
store.held = lambda *a: contextlib.nullcontext()
"""

UNEXCLUSIVE = """
is_held = lease.Lease._is_held
lease.Lease._is_held = lambda *a: (is_held(*a), time.sleep(0.05))[0]
lease.os.O_EXCL = 0
"""

PLAINLY = """
def plainly(contents, durable=True):
    for path, content in contents:
        path.parent.mkdir(parents=True, exist_ok=True)
        files._write_new(path, content)
store.write_all = files.write_all = plainly
"""

# What a worker that died has left counts as neither done nor undone.
FORGOTTEN = """
from mtl.sweep import workers
workers.WorkerPool._failure_stamp = lambda self, digest: object()
"""

MUTE = """
import mtl.commands.start, peers
peers.PATIENCE = 15
class Mute:
    def dismiss(self, word="ended"):
        pass
mtl.commands.start.Witness = Mute
"""

UNLOOKED = "Workdir.complete = lambda self, digest: self.result(digest) is not None"

# Neither what training or validation says counts, nor what the test's outputs do.
UNMARKED = """
import types
evaluate.next = lambda found, default: default
evaluate.np = types.SimpleNamespace(**{**vars(evaluate.np), "isfinite": lambda a: evaluate.jnp.ones(1, bool)})
"""

#: protection: (row, how often it is tried, how it is turned off, what the row then says).
OFF = {
    "the sha256 of study.json": ("flips", 20, UNVERIFIED_DOCUMENTS, "SILENT"),
    "the sha256 of results": ("flips", 20, "OF_SHARDS = True" + UNVERIFIED, "SILENT"),
    "the sha256 of weights": ("flips", 15, "OF_SHARDS = False" + UNVERIFIED, "SILENT"),
    "looking through models": ("files", 4, UNLOOKED, "other bits"),
    "the state in a snapshot": ("kills", 4, FORGETFUL, "other bits"),
    "the order of snapshots by steps": ("clocks", 5, NEWEST_BY_CLOCK, "goes on from step"),
    "removing halves of files": ("operations", 13, "lease.remove_halves = lambda workdir: None", "half a file is left"),
    "listening to signals": ("signals", 4, "snapshots.signal.signal = lambda *a: None", "exit code -"),
    "a sentence for a full disk": ("disk", 4, PLAINLY, "exit code"),
    "giving what a dead worker left to a new one": ("workers", 1, FORGOTTEN, "other bits than serial"),
    "the witness": ("peers", 1, MUTE, "/work-"),
    "the lease": ("writers", 1, UNHELD, "exit codes"),
    "one number of a lease for one": ("leases", 6, UNEXCLUSIVE, "exit codes"),
    "the nearest name of a field": ("mistakes", 5, UNHELPFUL, "right suggestions: 0"),
    "using what is done": ("grids", 1, "Workdir.result = lambda self, digest: None", "a done trial ran again"),
    "marking what diverges": ("diverging", 3, UNMARKED, "done"),
}


@pytest.mark.slow
@pytest.mark.parametrize("off", OFF)
def test_without_its_protection_a_row_says_so(tmp_path, off):
    row, times, code, said = OFF[off]
    places = {"root": str(ROOT), "folder": str(tmp_path), "cache": str(tmp_path.parent / "cache")}  # One of all rows.
    done = subprocess.run(
        [sys.executable, "-c", TRY.format(**places, row=row, times=times, off=code, said=said)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    broken = json.loads(done.stdout.splitlines()[-1])
    assert any(said in sentence for sentence in broken), broken


def full(path, content):
    """Write half a file, on a disk that is full then."""
    path.write_bytes(content[: len(content) // 2])
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("beside", [True, False])
def test_a_file_that_cannot_be_written_whole_is_as_it_was_if_it_is_written_beside(tmp_path, monkeypatch, beside):
    (tmp_path / "a").write_bytes(b"what was there")
    monkeypatch.setattr(files, "_write_new", full)
    if not beside:
        monkeypatch.setattr(pathlib.Path, "with_name", lambda self, name: self)
    with pytest.raises(files.FileError, match="No space left"):
        files.write_atomically(tmp_path / "a", b"what was to come")
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert (left == {"a": b"what was there"}) is beside


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_after(tmp_path, monkeypatch, durable):
    done = []
    fsync, replace = os.fsync, os.replace
    named = {}
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("named"), named.update({str(a): b}), replace(a, b)))
    files.write_atomically(tmp_path / "a", b"x", durable)
    (temporary,) = named
    assert done == ([temporary, "named", str(tmp_path)] if durable else ["named"])
