"""Interleaved rounds: every side runs once a round, in a process of its own, while the others wait."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Order:
    """Which side a worker builds.

    Attributes:
      module, function: of this package, returns the ``Side``.
      options: what it is called with.
    """

    module: str
    function: str = "make"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Timed:
    """What the rounds came to.

    Attributes:
      seconds: of a unit of work, by side, one a round.
      about: what each side says of itself.
    """

    seconds: dict[str, list[float]]
    about: dict[str, dict[str, Any]]

    def ratio(self, over: str, under: str) -> tuple[float, float, float]:
        """Return the quartiles (lower, median, upper) over rounds of one side's time over the other's."""
        ratios = np.asarray(self.seconds[over]) / np.asarray(self.seconds[under])
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        return float(low), float(middle), float(high)

    def median(self, side: str) -> float:
        """Return a side's median seconds."""
        return float(np.median(self.seconds[side]))


class Worker:
    """A process that times one side. Use as a context manager."""

    def __init__(self, order: Order, cores: list[int], seconds: float) -> None:
        """Start it; it builds and warms up its side at once, so start one after the other's ``ready``."""
        threads = str(len(cores))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment() | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )
        what = {"module": order.module, "function": order.function, "options": dict(order.options)}
        self.about: dict[str, Any] = self._ask({**what, "cores": cores, "seconds": seconds})

    def round(self) -> float:
        """Run one round and return the seconds of a unit."""
        return float(self._ask("run"))

    def _ask(self, what: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a worker ended with exit code {self.process.wait()}: {what}")
        return json.loads(answer)

    def end(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def environment() -> dict[str, str]:
    """Return the environment of every process that is timed; byte code is kept, as it is for who installs a package."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'scripts'}"}


def cores_of(threads: int) -> list[int]:
    """Return the cores that so many threads are pinned to."""
    return sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_getaffinity") else list(range(threads))


def timed(sides: Mapping[str, Order], threads: int, rounds: int, seconds: float = 0.4) -> Timed:
    """Time sides in turn.

    The order turns round every round, so that what comes and goes on the machine falls on all alike.

    Args:
      sides: what is compared.
      threads: that each side may use, pinned to as many cores.
      rounds: how many.
      seconds: that a round of a side takes, about.
    """
    workers: dict[str, Worker] = {}
    try:
        for name, order in sides.items():
            workers[name] = Worker(order, cores_of(threads), seconds)
        found: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(rounds):
            for name in list(sides) if number % 2 else reversed(list(sides)):
                found[name].append(workers[name].round())
        return Timed(found, {name: worker.about for name, worker in workers.items()})
    finally:
        for worker in workers.values():
            worker.end()
