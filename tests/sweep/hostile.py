"""What hostile files are made of, and bounds on what reading them may take."""

import contextlib
import functools
import io
import json
import os
import pathlib
import shutil
import signal
import struct
import tempfile
import tracemalloc
import zipfile

import numpy as np
import pandas  # noqa: F401  # Before memory is counted.
import safetensors.numpy

from mtl.checkpoint import load_tree
from mtl.config import flatten, load
from mtl.host.files import DIGEST, seal
from mtl.params import flatten as flat
from mtl.sweep import sweeps_of
from mtl.sweep.launch import Silent, launch
from mtl.sweep.snapshots import Interrupt, Snapshots
from mtl.sweep.store import Workdir
from mtl.train.loop import Snapshot
from mtl.train.placement import VMAP
from tests.sweep import by_hand

MIB = 2**20
SMALL = pathlib.Path(__file__).parents[1] / "fixtures" / "small.py"


@functools.cache
def _small_study():
    work = pathlib.Path(tempfile.mkdtemp()) / "work"
    config, module = load(str(SMALL))
    entries = {"even": sweeps_of(module)["even"]()}
    launch(flatten(config), entries, Workdir(work), jobs=0, config_file=str(SMALL), display=Silent(), placement=VMAP)
    loss = [np.ones((2, 1), np.float32)] * 3
    kept = Snapshot({"w": np.ones((2, 3), np.float32)}, 3, loss, list(loss), list(loss), 0.0, 1)
    Snapshots(work / "snapshots", Interrupt(), print).save(["a", "b"], kept)
    return work


def small_study(to):
    """Copy a work directory that has something of everything: two regimes, two seeds, side by side, and a snapshot."""
    return pathlib.Path(shutil.copytree(_small_study(), to))


def unsealed(work):
    """Take the digests out of a work directory's weights, so that what is damaged in them gets as far as it can."""
    for file in work.rglob("*.safetensors"):
        tree, about = load_tree(file)
        safetensors.numpy.save_file(flat(tree), file, {"mtl": json.dumps(about | {"format": 1})})


STUDY = "study.json"


def parts(work):
    """Return what a study has of JSON: the name of ``study.json``, and the hashes of results."""
    return [STUDY, *sorted(by_hand.results(work))]


def file_of(work, part):
    """Return the file that holds a part."""
    return work / STUDY if part == STUDY else by_hand.shard_of(work, part)


def content_of(work, part):
    """Return the JSON value of a part, without a digest."""
    if part != STUDY:
        return by_hand.facts(file_of(work, part))[part]
    return {k: v for k, v in json.loads((work / STUDY).read_bytes()).items() if k != DIGEST}


def reseal(work, part, content):
    """Put another value in place of a part, in a file whose digest is right."""
    if part == STUDY:
        (work / STUDY).write_bytes(seal(content))
    else:
        by_hand.change(work, part, lambda found: content)


@contextlib.contextmanager
def restored(file):
    """Undo what happens to a file, whose bytes these are."""
    good = file.read_bytes()
    try:
        yield good
    finally:
        file.write_bytes(good)


@contextlib.contextmanager
def bounded(size, slack=20 * MIB):
    """Fail if more memory is taken for a file than twice its size, and a little."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2 * size + slack, peak


class Bomb:
    """What pickle would execute."""

    def __reduce__(self):
        return (os.system, ("touch executed",))


def npz(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(header, body=b""):
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


NPY = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }"


@contextlib.contextmanager
def within(seconds):
    """Fail if it takes longer, in processor time, or three times as long: what waits for a pipe waits for ever."""

    def late(*_):
        raise AssertionError(f"still not done after {seconds} s")

    before = {n: signal.signal(n, late) for n in (signal.SIGALRM, signal.SIGPROF)}
    signal.alarm(3 * seconds)  # Beside other work a second of work takes longer.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for n, handler in before.items():
            signal.signal(n, handler)


def weights(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def tensor(shape, end, begin=0, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
