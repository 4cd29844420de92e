"""Processes: workers that are started before anything heavy is imported, and how a process ends."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NoReturn

from mtl.host import machine
from mtl.host.files import FileError


@dataclasses.dataclass(frozen=True)
class WorkerHandle:
    """A worker process that waits for its setup.

    Attributes:
      number: which of the workers it is, from 0.
      process: the process.
      early: what it says on standard error until its setup names a log.
    """

    number: int
    process: subprocess.Popen[bytes]
    early: IO[bytes]


#: Runs the ``main`` of a module of the package at a path, with a given ``sys.path``.
_BEGIN = """\
import sys
from importlib import import_module, util
_, module, package, count, *rest = sys.argv
sys.path[:], sys.argv = rest[: int(count)], [module, *rest[int(count) :]]
spec = util.spec_from_file_location("mtl", package)
sys.modules["mtl"] = util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["mtl"])
import_module("mtl.host.spawn").leave(import_module(module).main())
"""

#: The file that the package begins with.
_PACKAGE = Path(__file__).parents[1] / "__init__.py"


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs the ``main`` of a module of this very package in another process.

    It imports from where this process does, and never from the current directory: a file there that is called as a
    module of Python's, or another checkout of ``mtl``, is not taken for it.
    """
    path = [entry for entry in sys.path if isinstance(entry, str) and entry]  # Empty: the current directory.
    return [sys.executable, "-P", "-c", _BEGIN, module, str(_PACKAGE), str(len(path)), *path, *arguments]


def start(number: int, jobs: int) -> WorkerHandle:
    """Start one of the ``jobs`` worker processes that run together, each to keep one core busy.

    Which one is the system's to say: it knows what else runs there.
    """
    try:
        early = tempfile.TemporaryFile()  # noqa: SIM115 — open as long as the process
    except OSError as error:
        raise FileError(f"no temporary file can be made ({error.strerror}): TMPDIR must name a directory") from None
    process = subprocess.Popen(
        python("mtl.sweep.worker"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=early,
        # So many threads XLA has; and they share the memory there is.
        env={"PJRT_NPROC": "1"} | os.environ | {"MTL_WORKERS": str(jobs)},
    )
    return WorkerHandle(number, process, early)


@contextlib.contextmanager
def started(jobs: int) -> Iterator[list[WorkerHandle]]:
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
    platform = os.environ.get("JAX_PLATFORMS", "").partition(",")[0].strip()  # JAX computes on the first one.
    if platform:
        return machine.cores() if platform == "cpu" else 0
    if any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0")):
        return 0
    return machine.cores()


def collect_seldom() -> None:
    """Look for garbage in circles a seventieth as often: importing JAX and what rests on it takes 0.2 s less."""
    gc.set_threshold(50_000)


@contextlib.contextmanager
def collect_later() -> Iterator[None]:
    """Look for garbage in circles afterwards: where thousands of objects are read that all stay, there is none."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def leave(code: int) -> NoReturn:
    """End this process as Python would, but without taking it apart, which takes 0.1 to 0.3 s once JAX was there."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            with contextlib.suppress(OSError):  # A reader that has seen enough, a full disk: it has been said.
                stream.flush()
    os._exit(code)
