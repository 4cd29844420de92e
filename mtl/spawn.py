"""Worker processes, started before anything heavy is imported: they import while the command line does."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@dataclasses.dataclass(frozen=True)
class Hand:
    """A worker process that waits for its setup.

    Attributes:
      process: the process.
      early: what it says on standard error until its setup names a log.
    """

    process: subprocess.Popen[bytes]
    early: IO[bytes]


def start(count: int, jobs: int) -> list[Hand]:
    """Start so many worker processes of the ``jobs`` that run together."""
    return [_start(jobs) for _ in range(count)]


def _start(jobs: int) -> Hand:
    early = tempfile.TemporaryFile()  # noqa: SIM115 — open as long as the process
    process = subprocess.Popen(
        [sys.executable, "-m", "mtl.sweep.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=early,
        env=os.environ | {"MTL_WORKERS": str(jobs)},  # They share the memory there is.
    )
    return Hand(process, early)


@contextlib.contextmanager
def started(jobs: int) -> Iterator[list[Hand]]:
    """Start worker processes and, in the end, those of the list that nobody took."""
    hands = start(jobs, jobs)
    try:
        yield hands
    finally:
        for hand in hands:
            hand.process.kill()
            hand.process.communicate()
            hand.early.close()


def default_jobs() -> int:
    """Return how many worker processes suit this machine: one a core on a CPU, none on accelerators.

    An accelerator belongs to one process, which runs its packs side by side.
    """
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and "cpu" not in platforms:
        return 0
    if any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0")):
        return 0
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
