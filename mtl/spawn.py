"""Processes: workers that are started before anything heavy is imported, and how a process ends."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NoReturn


@dataclasses.dataclass(frozen=True)
class Hand:
    """A worker process that waits for its setup.

    Attributes:
      number: which of the workers it is, from 0.
      process: the process.
      early: what it says on standard error until its setup names a log.
    """

    number: int
    process: subprocess.Popen[bytes]
    early: IO[bytes]


def start(number: int, jobs: int) -> Hand:
    """Start one of the ``jobs`` worker processes that run together, on a core of its own if there is one for each."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    core = [str(cores[number])] if len(cores) >= jobs else []
    early = tempfile.TemporaryFile()  # noqa: SIM115 — open as long as the process
    process = subprocess.Popen(
        [sys.executable, "-m", "mtl.sweep.worker", *core],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=early,
        env=os.environ | {"MTL_WORKERS": str(jobs)},  # They share the memory there is.
    )
    return Hand(number, process, early)


@contextlib.contextmanager
def started(jobs: int) -> Iterator[list[Hand]]:
    """Start worker processes and, in the end, kill those of the list that nobody took."""
    hands = [start(number, jobs) for number in range(jobs)]
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


def leave(code: int) -> NoReturn:
    """End this process as Python would, but without taking it apart, which takes 0.1 to 0.3 s once JAX was there."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            with contextlib.suppress(OSError):  # A reader that has seen enough, a full disk: it has been said.
                stream.flush()
    os._exit(code)
