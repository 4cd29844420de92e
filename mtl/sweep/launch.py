"""Launching sweeps: tune the source's rate, expand, run what is missing, and say how far it is."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from mtl.config import Flat, Trial
from mtl.host.spawn import WorkerHandle
from mtl.sweep.evaluate import Progress
from mtl.sweep.expand import Changes
from mtl.sweep.fingerprint import changed
from mtl.sweep.plan import Plan, data_warnings, look_again, make_plan
from mtl.sweep.snapshots import Interrupt, Snapshots
from mtl.sweep.sources import sources_of
from mtl.sweep.store import StoreError, Workdir
from mtl.sweep.study import (
    Sweep,
    check_choices,
    left_out,
    make_sweep,
    missing,
    record,
    recorded,
    settle,
    source_trials,
    tuned_rate,
)
from mtl.sweep.workers import WorkerPool, total_work
from mtl.train.placement import Placement
from mtl.train.processes import agree, any_of_us

_AGAIN = "run again, each replaced when that is done"


@runtime_checkable
class Display(Protocol):
    """Where launching speaks to people."""

    def say(self, text: str) -> None:
        """Print a line."""
        ...

    def meter(self, title: str, work: float, trials: int) -> contextlib.AbstractContextManager[Progress]:
        """Return a progress display for so much work."""
        ...


@dataclasses.dataclass
class Summary:
    """What launching a sweep came to.

    Attributes:
      sweep: the expanded sweep.
      reused: trials that had a result already.
      ran: trials that were run.
      failed: reasons, by hash, of those that failed.
    """

    sweep: Sweep
    reused: int
    ran: int
    failed: dict[str, str]


#: From what sweeps came to, to what is to be run next: the changes of each trial, by sweep.
Further = Callable[[Sequence[Summary]], Mapping[str, list[Changes]]]


@dataclasses.dataclass(frozen=True)
class Preview:
    """What a sweep would do.

    Attributes:
      hashes: each trial's hash; empty while the source's rate is still to be tuned.
      changes: what the sweep changes for each.
      tuning: the trials that tune it.
      plan: of all the sweep's trials (with the config's own source rate while it is still to be tuned).
      to_run: how many have no result yet, or a stale one.
      news: what was found stale or damaged.
    """

    hashes: list[str]
    changes: list[Changes]
    tuning: int
    plan: Plan
    to_run: int
    news: list[str]


def preview(base: Flat, name: str, entries: list[Changes], workdir: Workdir) -> Preview:
    """Return what a sweep would do; nothing is written or compiled.

    Raises:
      ConfigError: for anything that cannot be.
    """
    look_again()
    sweep = _prepare(name, *settle(base, entries), workdir)
    waiting = bool(sweep.pairs) and sweep.tuning is None
    absent = sweep.trials if waiting else missing(sweep.trials, workdir)
    hashes = [] if waiting else [t.hash for t in sweep.trials]
    todo = sum(workdir.result(t.hash) is None for _, t in sweep.pairs)
    plan = make_plan(sweep.trials, workdir.sources)
    changes = [m.changes for m in sweep.members]
    return Preview(hashes, changes, todo, plan, len(absent), workdir.news("to be run again"))


def launch(
    base: Flat,
    sweeps: Mapping[str, list[Changes]],
    workdir: Workdir,
    *,
    jobs: int,
    config_file: str | None,
    display: Display,
    questions: Mapping[str, str] | None = None,
    placement: Placement | None = None,
    interrupt: Interrupt | None = None,
    retries: int = 0,
    hands: list[WorkerHandle] | None = None,
    meanwhile: Callable[[], object] = lambda: None,
    further: Further = lambda done: {},
) -> list[Summary]:
    """Run sweeps of a study to the end; what has a result is not run again.

    Args:
      base: the fields of the config.
      sweeps: the changes of each trial, by sweep.
      workdir: where results go.
      jobs: worker processes; 0 for none.
      config_file: the config file, which this process has executed, for what it registers.
      display: where progress is shown.
      questions: what each sweep asks, for its tables.
      placement: how packs run in this process, if not as the backend suggests.
      interrupt: told of signals.
      retries: how often a trial that failed by an exception is run again at once.
      hands: worker processes that wait already.
      meanwhile: called once, when workers have work and this process waits for them.
      further: called with what has run; the same workers then run what it returns, until that is nothing. A sweep may
        be there again with more trials.

    Raises:
      ConfigError: for anything in the config that cannot be; before anything is compiled.
      StoreError: if the work directory cannot be used.
      HeldError: if another process writes in it.
      FileError: if it cannot be written.
      Stopped: if it was interrupted.
    """
    look_again()
    workdir.sources = sources_of(config_file)

    def prepare(sweeps: Mapping[str, list[Changes]]) -> list[Sweep]:
        asked = questions or {}
        return [_prepare(name, *settle(base, of, asked.get(name, "")), workdir) for name, of in sweeps.items()]

    # Everything is checked before the directory is touched: every trial's config, and one replicate's plan.
    prepared = prepare(sweeps)
    workdir.open(base["name"])
    interrupt = interrupt or Interrupt()
    pool_of = WorkerPool(workdir, jobs, config_file, placement, interrupt, hands, meanwhile)
    with workdir.held(display.say, interrupt.ask), pool_of as pool:
        workdir.write_study(workdir.open(base["name"]))
        while True:
            done = [_one(sweep, workdir, pool, display, retries) for sweep in prepared]
            if not (sweeps := further(done)):
                return done
            prepared = prepare(sweeps)


def _prepare(name: str, base: Flat, entries: list[Changes], workdir: Workdir) -> Sweep:
    """Return a sweep that has been checked, with the source's rate if it has been tuned."""
    pairs = source_trials(base, entries)
    tuned = bool(pairs) and agree(not missing([t for _, t in pairs], workdir))
    sweep = make_sweep(name, base, entries, pairs, tuned_rate(pairs, workdir) if tuned else None)
    check_choices(sweep, set(agree(workdir.hashes())))
    make_plan([t for t in sweep.trials if t.seed == sweep.trials[0].seed], workdir.sources)
    return sweep


def _one(sweep: Sweep, workdir: Workdir, pool: WorkerPool, display: Display, retries: int) -> Summary:
    name = sweep.name
    if sweep.pairs:
        if sweep.tuning is None:
            trials = [t for _, t in sweep.pairs]
            run_missing(trials, workdir, pool, display, retries, f"{name}: tuning the source's learning rate")
            changes = [m.changes for m in sweep.members]
            sweep = make_sweep(name, sweep.base, changes, sweep.pairs, tuned_rate(sweep.pairs, workdir))
        rate, seeds = sweep.base["source_lr"], len(sweep.base["tune.seeds"])
        display.say(f"{name}: source_lr = {rate:g}, by mean source validation score over {seeds} seeds")
    trials = sweep.trials
    ran = 0
    for sentence in workdir.news(_AGAIN):
        display.say(sentence)
    if agree(bool(missing(trials, workdir)) or not recorded(workdir, sweep)):
        plan = make_plan(trials, workdir.sources)
        warnings = [*data_warnings(trials), *left_out(sweep)]
        for said in warnings:
            display.say(f"{name}: warning: {said}")
        record(workdir, sweep, plan, warnings)
        ran = run_missing(trials, workdir, pool, display, retries, name, plan)
        if agree(all(workdir.failure(t.hash) is None for t in trials)):
            # What packs that were interrupted kept of trials that ended in several runs.
            Snapshots(workdir.inside("snapshots"), pool.interrupt, display.say).discard(plan.nodes)
    failed = {t.hash: reason for t in trials if (reason := workdir.failure(t.hash)) is not None}
    return Summary(sweep, len(trials) - ran, ran, failed)


def absent_of(trials: Sequence[Trial], workdir: Workdir) -> list[Trial]:
    """Return the trials without a result; with several processes, those that the first one misses.

    Raises:
      StoreError: if processes that run together have other data, code or weights.
    """
    absent = missing(trials, workdir)
    own = list({id(f): f for t in trials for f in [workdir.expected[t.hash]]}.values())
    other = next(filter(None, map(changed, agree(own), own)), "")
    if any_of_us(bool(other)):
        where = f"in this process {other}" if other else "in another one something changed"
        raise StoreError(f"the processes of this run do not have the same: {where}: give all the same files")
    hashes = set(agree([t.hash for t in absent]))
    any_of_us(False)  # Nobody writes before all have looked.
    return [t for t in trials if t.hash in hashes]


def run_missing(
    trials: Sequence[Trial],
    workdir: Workdir,
    pool: WorkerPool,
    display: Display,
    retries: int,
    title: str,
    whole: Plan | None = None,
) -> int:
    """Run the trials that have no result and return how many there were; those that fail are tried again.

    Args:
      trials: what must have a result.
      workdir: where results are kept.
      pool: what runs them.
      display: where progress is shown.
      retries: how often a trial that failed is run again.
      title: what is being run.
      whole: the plan of all the trials, if it is there already.
    """
    absent = absent_of(trials, workdir)
    for sentence in workdir.news(_AGAIN):
        display.say(sentence)
    if not absent:
        return 0
    plan = whole if whole is not None and len(absent) == len(trials) else make_plan(absent, workdir.sources)
    for again in range(retries + 1):
        with display.meter(title, total_work(plan, workdir), len(plan.trials)) as meter:
            pool.run(plan, meter, display.say)
        any_of_us(False)  # The process that writes has written.
        workdir.look()
        if again == retries or not (failed := agree([t.hash for t in absent if workdir.failure(t.hash) is not None])):
            break
        plan = make_plan([t for t in absent if t.hash in set(failed)], workdir.sources)
        display.say(f"{title}: {len(failed):,} failed; tried again ({again + 1} of {retries})")
    return len(absent)


class Silent:
    """A display that shows nothing."""

    def say(self, text: str) -> None:
        """Print nothing."""

    def meter(self, title: str, work: float, trials: int) -> contextlib.AbstractContextManager[Progress]:
        """Return a meter that shows nothing."""
        return contextlib.nullcontext(lambda work, done, failed: None)
