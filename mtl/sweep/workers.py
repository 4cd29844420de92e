"""Running a plan in worker processes, one a core on a CPU, and following what they do."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from mtl.host.spawn import WorkerHandle, start
from mtl.sweep.evaluate import Progress
from mtl.sweep.execute import execute, work_of
from mtl.sweep.plan import Plan
from mtl.sweep.snapshots import Interrupt
from mtl.sweep.store import StoreError, Workdir
from mtl.train.loop import Stopped
from mtl.train.placement import Placement

#: What workers say, a line each, and nothing when they are gone.
_Events = queue.Queue[tuple[WorkerHandle, str | None]]

#: How long workers that are told to end may take to keep what they have.
SECONDS_TO_KEEP = 10.0
# Of a log, which may have grown for days, so much is looked through for its last line.
_TAIL_BYTES = 2**16


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
    every = list(plan.chains)
    dealt = [every[i::jobs] for i in range(jobs)]
    parts = next((p for p in (by_seed, families) if len(p) >= jobs), dict(enumerate(dealt))).values()

    def work(part: list[str]) -> int:
        return sum(plan.nodes[key].stage.steps for digest in part for key in plan.phases_of(digest))

    loads, bins = [0] * jobs, [list[str]() for _ in range(jobs)]
    for part in sorted(parts, key=work, reverse=True):
        lightest = loads.index(min(loads))
        loads[lightest] += work(part)
        bins[lightest] += part
    return [part for part in bins if part]


class WorkerPool:
    """Worker processes that take jobs one after the other, and keep what they have compiled between them.

    Use as a context manager. Without jobs, everything runs in this process.
    """

    def __init__(
        self,
        workdir: Workdir,
        jobs: int,
        config_file: str | None,
        placement: Placement | None = None,
        interrupt: Interrupt | None = None,
        hands: list[WorkerHandle] | None = None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        """Prepare a pool; processes start with the first job.

        Args:
          workdir: where results go.
          jobs: worker processes, each of which keeps one core busy. 0: none.
          config_file: the config file, executed in each worker for what it registers.
          placement: how packs run in this process, if not as the backend suggests.
          interrupt: told of signals.
          hands: worker processes that wait already; they are taken from the list.
          meanwhile: called once, when workers have work and this process waits for them.
        """
        self.hands = hands or []
        self.workdir, self.jobs, self.config_file = workdir, jobs, config_file
        self.placement, self.interrupt = placement, interrupt or Interrupt()
        self._meanwhile = meanwhile
        self._events: _Events = queue.Queue()
        self._workers: dict[int, WorkerHandle] = {}

    def __enter__(self) -> WorkerPool:
        """Return the pool."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers; those at work keep what they have first."""
        for worker in self._workers.values():
            worker.process.terminate()
            _close(worker.process.stdin)
        deadline = time.monotonic() + SECONDS_TO_KEEP
        for worker in self._workers.values():
            try:
                worker.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            _close(worker.process.stdout, worker.early)

    def run(
        self, plan: Plan, progress: Progress = lambda *_: None, say: Callable[[str], None] = lambda text: None
    ) -> None:
        """Run a plan's trials to the end.

        What a worker that dies leaves undone is given to a new one, once; if that one dies too, those trials have
        failed.

        Args:
          plan: what is missing.
          progress: told of work done.
          say: told what a user should know.

        Raises:
          StoreError: if the work directory cannot be used or written; by a worker as by this process.
          Stopped: if it was interrupted.
        """
        if not self.jobs:
            execute(plan, self.workdir, placement=self.placement, interrupt=self.interrupt, progress=progress, say=say)
            return
        begun = {digest: self._failure_stamp(digest) for digest in plan.trials}
        running: dict[int, list[str]] = {}
        given_again: set[str] = set()
        for number, part in enumerate(shares(plan, self.jobs)):
            self._give(number, plan, part)
            running[number] = part
        self._meanwhile()
        self._meanwhile = lambda: None
        while running:
            if self.interrupt.number:
                raise Stopped
            try:
                worker, line = self._events.get(timeout=0.2)
            except queue.Empty:
                continue
            number = worker.number
            if worker is not self._workers[number] or number not in running:
                continue  # It died at rest: a new one starts with the next job.
            if line is None:
                why = self._why(number)
                part = running.pop(number)
                self.workdir.look()
                left = [d for d in part if self.workdir.result(d) is None and self._failure_stamp(d) == begun[d]]
                again = [d for d in left if d not in given_again]
                for digest in set(left) - set(again):
                    about = {"config": plan.trials[digest].config, "error": f"its worker died twice: {why}"}
                    self.workdir.write_failure(digest, about)
                    progress(0.0, 0, 1)
                if again:
                    say(f"{why}; a new worker runs the {len(again):,} trials that it had left")
                    given_again.update(again)
                    self._give(number, plan, again)
                    running[number] = again
                continue
            event = json.loads(line)
            if event == "end":
                running.pop(number)
            elif isinstance(event, dict):
                raise StoreError(event["error"])
            elif isinstance(event, str):
                say(event)
            else:
                progress(*event)

    def _start(self, number: int) -> None:
        """Start a worker, unless it lives."""
        before = self._workers.get(number)
        if before is not None and before.process.poll() is None:
            return
        log = self._log(number)
        log.parent.mkdir(parents=True, exist_ok=True)
        if before is None:
            log.write_bytes(b"")
        else:
            _close(before.process.stdin, before.process.stdout, before.early)
        worker = next((hand for hand in self.hands if hand.number == number), None) or start(number, self.jobs)
        self._workers[number] = worker
        self.hands[:] = [hand for hand in self.hands if hand is not worker]
        if self.workdir.lease is not None:
            self.workdir.lease.add_workers([worker.process.pid])
        threading.Thread(target=_follow, args=(worker, self._events), daemon=True).start()
        self._send(number, {"config_file": self.config_file, "log": str(log.absolute())})

    def _give(self, number: int, plan: Plan, digests: Sequence[str]) -> None:
        """Give a worker some trials; it is started if it does not live."""
        self._start(number)
        job = {
            "workdir": str(self.workdir.path),
            "reverse": bool(number % 2),
            "trials": [plan.trials[d].config for d in digests],
            "fingerprints": [plan.fingerprints[d] for d in digests],
        }
        self._send(number, job)

    def _send(self, number: int, message: dict[str, Any]) -> None:
        pipe = self._workers[number].process.stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # It has died: that it says no more is the event that counts.
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()

    def _failure_stamp(self, digest: str) -> tuple[int, int] | None:
        """Return what changes when a trial's failure is written."""
        file = self.workdir.trial(digest, "failed.json")
        if not file.is_file():
            return None
        stat = file.stat()
        return stat.st_ino, stat.st_mtime_ns

    def _why(self, number: int) -> str:
        worker = self._workers[number]
        code = worker.process.wait()
        worker.early.seek(0)
        with self._log(number).open("ab") as log:
            log.write(worker.early.read())  # What it said before it knew of the log.
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"worker {number} {how}; its log, {self._log(number)}, ends: {_tail(self._log(number))}"

    def _log(self, number: int) -> Path:
        """Return the file that a worker appends to.

        Raises:
          StoreError: if what lies there is no file, or has another name too, which may be one outside.
        """
        log = self.workdir.inside("logs", f"worker-{number}.log")
        if log.exists() and not (log.is_file() and log.stat().st_nlink == 1):
            raise StoreError(
                f"{log} is no log of a worker, but a directory, a pipe or a second name of a file: remove it"
            )
        return log


def on_disk(plan: Plan, workdir: Workdir) -> set[str]:
    """Return the phases of a plan that are there from an earlier run, and are loaded."""
    return {key for key in plan.nodes if plan.saved(key) and workdir.prefix(key).is_file()}


def total_work(plan: Plan, workdir: Workdir) -> float:
    """Return the work of the phases that are still to be trained, in the unit that progress is told in.

    A phase that is on disk is no work: counted as done at once, it would make the time left look shorter than it is.
    """
    return sum(work_of(plan.nodes[key]) for key in plan.nodes.keys() - on_disk(plan, workdir))


def _follow(worker: WorkerHandle, events: _Events) -> None:
    assert worker.process.stdout is not None
    with contextlib.suppress(ValueError):  # The pipe is closed when the pool ends.
        for line in worker.process.stdout:
            events.put((worker, line.decode()))
    events.put((worker, None))


def _close(*files: IO[bytes] | None) -> None:
    for file in files:
        if file is not None:
            with contextlib.suppress(BrokenPipeError):  # A worker that died has left what it was sent unread.
                file.close()


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = [line for line in file.read(_TAIL_BYTES).decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "(it is empty)"
