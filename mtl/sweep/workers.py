"""Running a plan in worker processes, one a core on a CPU, and following what they do."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from mtl.spawn import Hand, start
from mtl.sweep.conclude import Progress
from mtl.sweep.execute import execute, work_of
from mtl.sweep.plan import Plan
from mtl.sweep.snapshots import Interrupt
from mtl.sweep.store import StoreError, Workdir
from mtl.train.executor import Executor
from mtl.train.loop import Stopped

#: How long workers that are told to end may take to keep what they have.
SECONDS_TO_KEEP = 10.0


def shares(plan: Plan, jobs: int) -> list[list[str]]:
    """Return the trials of each worker: those that share a first phase stay together, longest first.

    So no worker ever waits for another, and no shared phase is trained twice, unless all trials share one first
    phase: then they are dealt out evenly and each worker trains it.
    """
    families: dict[str, list[str]] = {}
    for digest, chain in plan.chains.items():
        families.setdefault(chain[0], []).append(digest)
    # Families of one replicate draw the same splits: keep the packs of all workers alike by dealing seeds out.
    by_seed: dict[int, list[str]] = {}
    for members in families.values():
        by_seed.setdefault(plan.trials[members[0]].seed, []).extend(members)
    parts = list(by_seed.values()) if len(by_seed) >= jobs else list(families.values())
    if len(parts) < jobs:
        every = list(plan.chains)
        parts = [every[i::jobs] for i in range(jobs)]
    work = {digest: sum(plan.nodes[k].stage.steps for k in chain) for digest, chain in plan.chains.items()}
    bins: list[tuple[int, list[str]]] = [(0, []) for _ in range(jobs)]
    for part in sorted(parts, key=lambda p: -sum(work[d] for d in p)):
        lightest = min(range(jobs), key=lambda i: bins[i][0])
        load, held = bins[lightest]
        bins[lightest] = (load + sum(work[d] for d in part), held + part)
    return [held for _, held in bins if held]


class Pool:
    """Worker processes that take jobs one after the other, and keep what they have compiled between them.

    Use as a context manager. Without jobs, everything runs in this process.
    """

    def __init__(
        self,
        workdir: Workdir,
        jobs: int,
        config_file: str | None,
        executor: Executor | None = None,
        interrupt: Interrupt | None = None,
        hands: list[Hand] | None = None,
    ) -> None:
        """Prepare a pool; processes start with the first job.

        Args:
          workdir: where results go.
          jobs: worker processes; each is pinned to a core of its own where the system allows it. 0: none.
          config_file: the config file, executed in each worker for what it registers.
          executor: how packs run in this process, if not as the backend suggests.
          interrupt: told of signals.
          hands: worker processes that wait already; they are taken from the list.
        """
        self.hands = [] if hands is None else hands
        self.workdir, self.jobs, self.config_file = workdir, jobs, config_file
        self.executor, self.interrupt = executor, interrupt or Interrupt()
        self._events: queue.Queue[tuple[int, str | None]] = queue.Queue()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._early: list[IO[bytes]] = []

    def __enter__(self) -> Pool:
        """Return the pool."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers; those at work keep what they have first."""
        for process in self._workers:
            if process.poll() is None:
                process.terminate()
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):  # A worker that died has left its job unread.
                    process.stdin.close()
        deadline = time.monotonic() + SECONDS_TO_KEEP
        for process in self._workers:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        for early in self._early:
            early.close()

    def run(
        self, plan: Plan, progress: Progress = lambda *_: None, say: Callable[[str], None] = lambda text: None
    ) -> None:
        """Run a plan's trials to the end.

        Args:
          plan: what is missing.
          progress: told of work done.
          say: told what a user should know.

        Raises:
          StoreError: if a worker dies, with the end of its log.
          Stopped: if it was interrupted.
        """
        if not self.jobs:
            execute(plan, self.workdir, executor=self.executor, interrupt=self.interrupt, progress=progress, say=say)
            return
        parts = shares(plan, self.jobs)
        self._start()
        running = set()
        for number, part in enumerate(parts):
            job = {
                "workdir": str(self.workdir.path),
                "reverse": bool(number % 2),
                "trials": [plan.trials[d].config for d in part],
            }
            self._send(number, job)
            running.add(number)
        while running:
            if self.interrupt.number:
                raise Stopped
            try:
                number, line = self._events.get(timeout=0.2)
            except queue.Empty:
                continue
            if line is None:
                raise self._died(number)
            event = json.loads(line)
            if event == "end":
                running.discard(number)
            elif isinstance(event, str):
                say(event)
            else:
                progress(*event)

    def _start(self) -> None:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        pinned = len(cores) >= self.jobs
        self._log(0).parent.mkdir(parents=True, exist_ok=True)
        for number in range(len(self._workers), self.jobs):
            hand = self.hands.pop() if self.hands else start(self.jobs)[0]
            self._workers.append(hand.process)
            self._early.append(hand.early)
            self._log(number).write_bytes(b"")
            threading.Thread(target=_follow, args=(number, hand.process, self._events), daemon=True).start()
            setup = {"config_file": self.config_file, "core": cores[number] if pinned else None}
            self._send(number, setup | {"log": str(self._log(number).absolute())})

    def _send(self, number: int, message: dict[str, Any]) -> None:
        pipe = self._workers[number].stdin
        assert pipe is not None
        try:
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()
        except BrokenPipeError:
            raise self._died(number) from None

    def _died(self, number: int) -> StoreError:
        code = self._workers[number].wait()
        self._early[number].seek(0)
        with self._log(number).open("ab") as log:
            log.write(self._early[number].read())  # What it said before it knew of the log.
        return StoreError(
            f"worker {number} ended with exit code {code}; finished trials are kept, run again for the rest; "
            f"its log, {self._log(number)}, ends: {_tail(self._log(number))}"
        )

    def _log(self, number: int) -> Path:
        return self.workdir.path / "logs" / f"worker-{number}.log"


def on_disk(plan: Plan, workdir: Workdir) -> set[str]:
    """Return the phases of a plan that are there from an earlier run, and are loaded."""
    return {key for key in plan.nodes if plan.saved(key) and workdir.prefix(key).is_file()}


def total_work(plan: Plan, workdir: Workdir) -> float:
    """Return the work of the phases that are still to be trained, in the unit that progress is told in.

    A phase that is on disk is no work, nor are those before it: counted as done at once, they would make the time
    left look shorter than it is.
    """
    there = on_disk(plan, workdir)
    needed: set[str] = set()
    for chain in plan.chains.values():
        begin = max((i + 1 for i, key in enumerate(chain) if key in there), default=0)
        needed.update(chain[begin:])
    return sum(work_of(plan.nodes[key]) for key in needed)


def _follow(number: int, process: subprocess.Popen[bytes], events: queue.Queue[tuple[int, str | None]]) -> None:
    assert process.stdout is not None
    with contextlib.suppress(ValueError):  # The pipe is closed when the pool ends.
        for line in process.stdout:
            events.put((number, line.decode()))
    events.put((number, None))


def _tail(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "(it is empty)"
