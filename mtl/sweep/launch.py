"""Launching sweeps: tune the source's rate, expand, run what is missing, and say how far it is."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from mtl.config import Flat, Trial, override
from mtl.sweep.expand import Changes
from mtl.sweep.plan import Plan, make_plan
from mtl.sweep.store import Workdir
from mtl.sweep.study import Sweep, make_sweep, missing, record, settle, source_trials, tuned_rate
from mtl.sweep.workers import Pool, total_work


@runtime_checkable
class Meter(Protocol):
    """What shows progress: told of work done, it knows the rest."""

    def __call__(self, work: float, done: int, failed: int) -> None:
        """Add work done."""
        ...


@runtime_checkable
class Display(Protocol):
    """Where launching speaks to people."""

    def say(self, text: str) -> None:
        """Print a line."""
        ...

    def meter(self, title: str, work: float, trials: int) -> contextlib.AbstractContextManager[Meter]:
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


@dataclasses.dataclass(frozen=True)
class Preview:
    """What a sweep would do.

    Attributes:
      name: the sweep's name.
      entries: the changes of each trial.
      hashes: each trial's hash; empty while the source's rate is still to be tuned.
      tuning: the trials that tune it.
      plan: of all the sweep's trials (with the config's own source rate while it is still to be tuned).
      to_run: how many have no result yet.
    """

    name: str
    entries: list[Changes]
    hashes: list[str]
    tuning: int
    plan: Plan
    to_run: int


def preview(base: Flat, name: str, entries: list[Changes], workdir: Workdir) -> Preview:
    """Return what a sweep would do; nothing is written or compiled.

    Raises:
      ConfigError: for anything that cannot be.
    """
    base, entries = settle(base, entries)
    pairs = source_trials(base, entries)
    tuned = base
    waiting = bool(pairs)
    if pairs and all(workdir.result(t.hash) is not None for _, t in pairs):
        tuned, waiting = override(base, {"source_lr": tuned_rate(pairs, workdir)[0]}), False
    sweep = make_sweep(name, tuned, entries)
    trials = [m.trial for m in sweep.members]
    absent = trials if waiting else missing(trials, workdir)
    hashes = [] if waiting else [t.hash for t in trials]
    todo = sum(workdir.result(t.hash) is None for _, t in pairs)
    return Preview(name, entries, hashes, todo, make_plan(trials), len(absent))


def launch(
    base: Flat,
    sweeps: Mapping[str, list[Changes]],
    workdir: Workdir,
    *,
    jobs: int,
    config_file: str | None,
    display: Display,
    questions: Mapping[str, str] | None = None,
) -> list[Summary]:
    """Run sweeps of a study to the end; what has a result is not run again.

    Args:
      base: the fields of the config.
      sweeps: the changes of each trial, by sweep.
      workdir: where results go.
      jobs: worker processes; 0 for none.
      config_file: the config file, for what it registers.
      display: where progress is shown.
      questions: what each sweep asks, for its tables.

    Raises:
      ConfigError: for anything in the config that cannot be; before anything is compiled.
      StoreError: if the work directory cannot be used, or a worker dies.
    """
    # Everything is checked before the directory is touched: every trial's config, and one replicate's plan.
    settled = {name: settle(base, entries, (questions or {}).get(name, "")) for name, entries in sweeps.items()}
    for name, (own, entries) in settled.items():
        source_trials(own, entries)
        members = make_sweep(name, own, entries).members
        make_plan([m.trial for m in members if m.trial.seed == members[0].trial.seed])
    workdir.write_study(workdir.open(base["name"]))
    summaries = []
    with Pool(workdir, jobs, config_file) as pool:
        for name, (own, entries) in settled.items():
            summaries.append(_one(own, name, entries, workdir, pool, display))
    return summaries


def _one(base: Flat, name: str, entries: list[Changes], workdir: Workdir, pool: Pool, display: Display) -> Summary:
    pairs = source_trials(base, entries)
    tuning: dict[str, Any] | None = None
    if pairs:
        _run([t for _, t in pairs], workdir, pool, display, f"{name}: tuning the source's learning rate")
        rate, means = tuned_rate(pairs, workdir)
        tuning = {"source_lr": rate, "val_loss": {f"{r:g}": v for r, v in means.items()}}
        base = override(base, {"source_lr": rate})
        display.say(
            f"{name}: source_lr = {rate:g}, by mean source validation loss over {len(base['tune.seeds'])} seeds"
        )
        if rate in (min(means), max(means)) and len(means) > 1:
            display.say(f"{name}: warning: source_lr = {rate:g} lies at the edge of its grid; widen tune.source_lr")
    sweep = make_sweep(name, base, entries)
    trials = [m.trial for m in sweep.members]
    plan = make_plan(trials)
    record(workdir, sweep, tuning, plan)
    ran = _run(trials, workdir, pool, display, name, plan)
    failed = {t.hash: reason for t in trials if (reason := workdir.failure(t.hash)) is not None}
    return Summary(sweep, len(trials) - ran, ran, failed)


def _run(
    trials: Sequence[Trial],
    workdir: Workdir,
    pool: Pool,
    display: Display,
    title: str,
    whole: Plan | None = None,
) -> int:
    """Run the trials that have no result and return how many there were."""
    absent = missing(trials, workdir)
    if not absent:
        return 0
    plan = whole if whole is not None and len(absent) == len(trials) else make_plan(absent)
    with display.meter(title, total_work(plan), len(absent)) as meter:
        pool.run(plan, meter)
    return len(absent)


@contextlib.contextmanager
def silent_meter() -> Iterator[Meter]:
    """Return a meter that shows nothing."""
    yield lambda work, done, failed: None


class Silent:
    """A display that shows nothing."""

    def say(self, text: str) -> None:
        """Print nothing."""

    def meter(self, title: str, work: float, trials: int) -> contextlib.AbstractContextManager[Meter]:
        """Return a meter that shows nothing."""
        return silent_meter()
