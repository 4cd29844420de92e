"""Processes that die or are told to end: at random times, and at every file operation."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from outcome import Outcome
from study import Study, bits, kill, read, run_again, snapshots_often, stamps, twice, wait


def kills(study: Study, number: int, rng: random.Random) -> Outcome:
    """Kill −9 at random times; after up to five kills of one work directory it must come to the undisturbed bits."""
    outcome = Outcome("kill -9 at random times", "0 lost, 0 duplicate, bits equal")
    work, hits = study.new(), 0
    # At any time of a run, and every other time at any time since it first kept something: most of a small run is its
    # start. As long as either takes now: other work comes and goes, and a kill after the end is none.
    longest = [study.seconds, study.seconds / 2]
    for i in itertools.count():
        if outcome.runs == number:
            break
        begun, late = time.time(), i % 2
        child, _ = study.begin(work, snapshots_often)
        while late and not kept_since(work, begun) and os.waitid(os.P_PID, child, _ENDED) is None:
            time.sleep(0.002)
        time.sleep(wait_for := rng.uniform(0.0, longest[late]))
        kill(child)
        killed = wait(child) == -signal.SIGKILL
        if killed:
            longest[late] *= 1.02
        elif not late or kept_since(work, begun):
            longest[late] = wait_for
        outcome.runs += killed
        outcome.count("after its end", not killed)
        outcome.count("with a snapshot left", killed and any(work.glob("snapshots/*.safetensors")))
        before = stamps(work)
        outcome.count("with some trials done", killed and 0 < len(before) < len(study.bits))
        hits += 1
        if hits == 5 or not killed or outcome.runs == number:
            wrong = study.is_right(work)
            outcome.expect(not wrong, f"{work}: {wrong}")
            again = run_again(work, before)
            outcome.expect(not again, f"{work}: trials that were done ran again: {again}")
            outcome.expect(not twice(work), f"{work}: in two shards: {twice(work)}")
            outcome.count("directories")
            work, hits = study.new(), 0
    return outcome


#: To ask whether a child has ended, and leave it to be waited for.
_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


def kept_since(work: Path, begun: float) -> bool:
    """Return whether a run has kept anything since then: a snapshot, a shared phase, a result."""
    for pattern in ("snapshots/*.safetensors", "prefixes/*.safetensors", "trials/*/*", "results/*"):
        for file in work.glob(pattern):
            with contextlib.suppress(FileNotFoundError):  # It may just be given up.
                if file.stat().st_mtime >= begun:
                    return True
    return False


def operations(study: Study, every: int) -> Outcome:
    """Die at the N-th operation on files, for every N (or every few); the next run must need no help."""
    outcome = Outcome("crash at every N-th file operation", "recovers with no manual step, bits equal")
    at = 1
    while True:
        work = study.new()
        code, text = study.run(work, lambda at=at: die_at(at))
        if code == 0:
            break
        outcome.expect(code == 137, f"operation {at}: exit code {code}: {text[-200:]}")
        wrong = study.is_right(work)
        outcome.expect(not wrong, f"operation {at}: {wrong}")
        outcome.expect(not list(work.rglob(".*.tmp")), f"operation {at}: half a file is left")
        outcome.runs += 1
        shutil.rmtree(work)
        at += every
    outcome.figures["operations in a sweep"] = f"{at - every} to {at - 1}"
    return outcome


def die_at(number: int) -> None:
    """Make this process die in place of its ``number``-th operation that changes files."""
    snapshots_often()
    left = [number]

    def instead(function: Callable[..., object]) -> Callable[..., object]:
        def guarded(*arguments: object, **keywords: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                os._exit(137)
            return function(*arguments, **keywords)

        return guarded

    opened = os.open

    def opening(path: object, flags: int, *rest: object, **keywords: object) -> int:
        return instead(opened)(path, flags, *rest, **keywords) if flags & os.O_CREAT else opened(path, flags, *rest)

    os.open = opening
    for name in ("replace", "fsync", "unlink", "mkdir"):
        setattr(os, name, instead(getattr(os, name)))


def signals(study: Study, number: int, rng: random.Random) -> Outcome:
    """SIGTERM and SIGINT at random times: what is done is kept, within ten seconds, and gone on from."""
    outcome = Outcome("SIGTERM / SIGINT", "saved, <= 10 s, exit 143/130, bits equal")
    longest = study.seconds  # Measured at first use: not while the first of those that are told to end runs.
    for i in range(number):
        which = (signal.SIGTERM, signal.SIGINT)[i % 2]
        work = study.new()
        child, said = study.begin(work)
        time.sleep(rng.uniform(0.1, longest))
        begun = time.monotonic()
        kill(child, which)
        code = wait(child)
        outcome.most("slowest, s", time.monotonic() - begun)
        outcome.expect(time.monotonic() - begun <= 10, f"{work}: took {time.monotonic() - begun:.1f} s")
        # Before the command listens, the signal ends it as it ends any process; nothing is written then.
        good = code in (0, 128 + which) or (code == -which and not (work / "study.json").exists())
        outcome.expect(good, f"{work}: exit code {code}: {read(said)[-200:]}")
        outcome.count("with a snapshot", any(work.glob("snapshots/*")))
        wrong = study.is_right(work)
        outcome.expect(not wrong, f"{work}: {wrong}")
        outcome.runs += 1
    return outcome


def workers(study: Study, sweeps: int, jobs: int, rng: random.Random) -> Outcome:
    """Kill workers at random while many trials run; the command is given again while it says that some failed."""
    outcome = Outcome(f"{jobs} workers, {len(study.bits)} trials, random kills", "exactly once, bits as serial")
    for _ in range(sweeps):
        work = study.new()
        done: dict[str, list[tuple[str, int]]] = {}
        for attempt in range(6):
            child, said = study.begin(work, snapshots_often, jobs)
            end = time.monotonic() + 300
            next_kill = time.monotonic() + rng.uniform(1, 4)
            while not (ended := os.waitpid(child, os.WNOHANG))[0]:
                time.sleep(0.05)
                if time.monotonic() > end:
                    kill(child)
                if time.monotonic() >= next_kill and not attempt:
                    if victims := children_of(child):
                        kill(rng.choice(victims))
                        outcome.count("workers killed")
                    next_kill = time.monotonic() + rng.uniform(1, 4)
            code = os.waitstatus_to_exitcode(ended[1])
            outcome.expect(code in (0, 1), f"{work}: exit code {code}: {read(said)[-300:]}")
            again = run_again(work, done)
            outcome.expect(not again, f"{work}: done and run again: {again}")
            outcome.expect(not twice(work), f"{work}: in two shards: {twice(work)}")
            done = stamps(work)
            if code == 0:
                break
        outcome.expect(code == 0 and bits(work) == study.bits, f"{work}: other bits than serial")
        outcome.runs += 1
        shutil.rmtree(work)
    return outcome


def children_of(parent: int) -> list[int]:
    """Return the worker processes of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and b"mtl.sweep.worker" in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
