"""What it costs to keep what there is: a large model's snapshots, and the disk in a sweep of tiny trials."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import figures

from mtl.config import default, flatten, override, resolve
from mtl.host import files, memory
from mtl.sweep import snapshots
from mtl.sweep.cache import enable_cache
from mtl.sweep.execute import execute
from mtl.sweep.plan import load_table, make_plan
from mtl.sweep.store import Workdir

#: ResNet-18 as it is trained on 32×32 images, with Adam's two moments and the best state beside the present one.
LARGE = {
    "data.name": "road_scenes",
    "data.options": {"examples": 400, "size": 32},
    "data.source": ("pedestrian",),
    "data.target": "stop_sign",
    "data.source_size": 100,
    "data.source_val_size": 20,
    "data.target_pool": 100,
    "data.target_size": 50,
    "data.test_size": 50,
    "model.name": "resnet",
    "model.options": {"depth": 18},
    "regime": "scratch",
    "select": "best",
    "batch_size": 4,
    "source.total_steps": 1,
    "target.total_steps": 256,
    "evaluations": 1,
}
TINY = {"regime": "scratch", "source.total_steps": 1, "target.total_steps": 200, "model.options": {"hidden": (16,)}}
TINY_TRIALS = 256
#: Long enough for one snapshot to be written before the next is due, as it is when there is one a minute.
EVERY_SECONDS = 6.0


def cost(rounds: int) -> dict[str, Any]:
    """Measure both in rounds that alternate with and without, and return the figures."""
    with tempfile.TemporaryDirectory(prefix="mtl-cost-") as folder:
        os.environ.setdefault("MTL_CACHE_DIR", folder)
        enable_cache()
        memory.keep()  # As whoever trains does.
        return figures.circumstances() | {"snapshots": _snapshots(rounds), "fsync": _fsync(rounds)}


def _snapshots(rounds: int) -> dict[str, Any]:
    """More snapshots than one a minute, to be seen above the noise; what one takes is then charged to a minute."""
    run = _runner([LARGE])
    run()  # Compiles.
    off, on, kept, sizes = [], [], list[float](), list[int]()
    for _ in range(rounds):
        snapshots.EVERY_SECONDS = math.inf
        off.append(run()[0])
        snapshots.EVERY_SECONDS = EVERY_SECONDS
        with _boundaries(kept), _sizes(sizes):
            on.append(run()[0])
    each = statistics.median(kept)
    hidden = statistics.median(b - a for a, b in zip(off, on, strict=True)) * rounds / len(kept)
    return {
        "MiB": round(statistics.median(sizes) / 2**20),
        "snapshots": len(kept),
        "seconds without": round(statistics.median(off), 2),
        "seconds with": round(statistics.median(on), 2),
        "seconds that training waits": round(each, 3),
        "seconds each, by difference": round(hidden, 3),
        "percent of a minute, waiting": round(100 * each / 60, 2),
        "percent of a minute, by difference": round(100 * hidden / 60, 2),
    }


def _fsync(rounds: int) -> dict[str, Any]:
    run = _runner([TINY | {"seed": seed} for seed in range(TINY_TRIALS)])
    run()
    off, on, waited = [], [], list[float]()
    for _ in range(rounds):
        with _without_sync():
            off.append(run()[0])
        with _timed(files, "_sync", waited):
            on.append(run()[0])
    differences = [100 * (b - a) / a for a, b in zip(off, on, strict=True)]
    return {
        "trials": TINY_TRIALS,
        "seconds without": round(statistics.median(off), 2),
        "seconds with": round(statistics.median(on), 2),
        "percent, by difference": round(statistics.median(differences), 1),
        "percent, timed": round(100 * sum(waited) / sum(on), 1),
    }


def _runner(changes: list[dict[str, Any]]) -> Any:
    """Return a function that trains trials in a new directory and returns (seconds, steps)."""
    flats = [override(flatten(default()), change) for change in changes]
    plan = make_plan([resolve(f, load_table(f["data.name"], f["data.options"]).tasks) for f in flats])

    def run() -> tuple[float, int]:
        with tempfile.TemporaryDirectory(prefix="mtl-cost-") as folder:
            begun = time.perf_counter()
            execute(plan, Workdir(Path(folder)))
            return time.perf_counter() - begun, plan.steps()

    return run


@contextlib.contextmanager
def _timed(owner: Any, name: str, into: list[float]) -> Iterator[None]:
    """Note how long each call of a function takes."""
    function = getattr(owner, name)

    def timed(*arguments: Any, **keywords: Any) -> Any:
        begun = time.perf_counter()
        try:
            return function(*arguments, **keywords)
        finally:
            into.append(time.perf_counter() - begun)

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, function)


@contextlib.contextmanager
def _boundaries(into: list[float]) -> Iterator[None]:
    """Note how long training waits at each boundary at which a snapshot is taken."""
    boundary = snapshots._DiskCheckpointer.boundary

    def timed(self: Any, take: Any) -> None:
        before, begun = self.kept, time.perf_counter()
        boundary(self, take)
        if self.kept != before:
            into.append(time.perf_counter() - begun)

    snapshots._DiskCheckpointer.boundary = timed
    try:
        yield
    finally:
        snapshots._DiskCheckpointer.boundary = boundary


@contextlib.contextmanager
def _sizes(into: list[int]) -> Iterator[None]:
    """Note how large each snapshot is."""
    save = snapshots.save_tree

    def saving(path: Path, *rest: Any) -> None:
        save(path, *rest)
        into.append(path.stat().st_size)

    snapshots.save_tree = saving
    try:
        yield
    finally:
        snapshots.save_tree = save


@contextlib.contextmanager
def _without_sync() -> Iterator[None]:
    """Wait for no disk."""
    sync = files._sync
    files._sync = lambda paths: None
    try:
        yield
    finally:
        files._sync = sync
