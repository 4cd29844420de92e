"""Running a config from Python as the command line does: one trial, or a sweep."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from mtl.commands.display import Terminal
from mtl.config import ConfigError, Flat, file_of, flatten, is_ours, load, override
from mtl.sweep import sweeps_of
from mtl.sweep.cache import make_cache
from mtl.sweep.expand import Changes
from mtl.sweep.frames import results
from mtl.sweep.launch import Display, Silent, absent_of, launch, run_missing
from mtl.sweep.lease import Lease
from mtl.sweep.plan import Plan, make_plan, trial_of
from mtl.sweep.snapshots import Interrupt
from mtl.sweep.sources import sources_of
from mtl.sweep.store import Workdir
from mtl.sweep.study import check_base, default_workdir, record_run
from mtl.sweep.workers import WorkerPool
from mtl.train.loop import Stopped
from mtl.train.placement import Placement

if TYPE_CHECKING:
    import pandas

#: A ``ConfigDict`` that began with ``mtl.config.default()``, or ``FILE.py[:ARG]``.
Config = Any


class TrialError(RuntimeError):
    """A trial that failed: why, in one sentence."""


def run(
    config: Config,
    workdir: str | Path = "",
    *,
    changes: Mapping[str, Any] | None = None,
    retries: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run one trial and return its result; one that has a result is not run again.

    Args:
      config: as ``mtl.config.default()`` and changed, or the path of a config file, ``FILE.py[:ARG]``. What is
        registered outside of a config file is no part of a trial's identity: after a change of it take another
        directory.
      workdir: where results are kept; by default where the command line keeps them.
      changes: of fields, by path, such as ``{"seed": 1, "data.target_size": 50}``.
      retries: how often it is run again if it fails by an exception.
      quiet: whether nothing is shown while it runs.

    Returns:
      What ``mtl run`` prints and more: ``status``, ``test`` ({task: {metric: value}}), ``val_score``, ``cost``,
      ``phases`` with their curves, ``config``, ``hash``; its model is in ``WORKDIR/trials/HASH``, see ``mtl.load``.

    Raises:
      ConfigError: for anything in the config that cannot be; before anything is compiled.
      StoreError, HeldError, FileError: if the directory cannot be used, or another process writes in it.
      TrialError: if the trial failed.
      KeyboardInterrupt: if it was interrupted; what was done is kept.
    """
    base, file, _ = _base(config, changes)
    where = _open(base, file, workdir)
    trial = trial_of(base)
    plan = make_plan([trial], where.sources)
    where.open(base["name"])
    make_cache()
    with interruptible() as interrupt:
        run_trial(base, plan, where, Silent() if quiet else Terminal(), interrupt, retries=retries)
    if (reason := where.failure(trial.hash)) is not None:
        raise TrialError(f"trial {trial.hash} failed: {reason}")
    return where.result(trial.hash) or {}


def run_trial(
    base: Flat,
    plan: Plan,
    workdir: Workdir,
    display: Display,
    interrupt: Interrupt,
    placement: Placement | None = None,
    retries: int = 0,
) -> bool:
    """Run the one trial of a plan in this process, and return whether it had to be run.

    Args:
      base: the fields of its config.
      plan: of it.
      workdir: where its result goes.
      display: where progress is shown.
      interrupt: told of signals.
      placement: how it runs, if not as the backend suggests.
      retries: how often it is run again if it fails by an exception.

    Raises:
      Stopped: if it was interrupted.
    """
    trials = list(plan.trials.values())
    with workdir.held(display.say, interrupt.ask):
        absent = absent_of(trials, workdir)
        record_run(workdir, base, trials[0])
        with WorkerPool(workdir, 0, None, placement, interrupt) as pool:
            run_missing(trials, workdir, pool, display, retries, trials[0].config["regime"], plan)
    return bool(absent)


def run_sweep(
    config: Config,
    sweep: str | Sequence[Changes] = "",
    workdir: str | Path = "",
    *,
    name: str = "sweep",
    jobs: int = 0,
    retries: int = 0,
    quiet: bool = False,
) -> pandas.DataFrame:
    """Run a sweep to its end and return its trials as ``mtl.results`` does; what has a result is not run again.

    Args:
      config: as in ``run``.
      sweep: the name of one of the config file's, by default its first; or the changes of each trial, as ``product``
        and ``sweep`` of ``mtl.sweep`` make them.
      workdir: as in ``run``; ``mtl table`` and ``mtl report`` read it.
      name: of a sweep that is given by its changes.
      jobs: worker processes, which execute the config file; 0 for none.
      retries, quiet: as in ``run``.

    Raises:
      ConfigError, StoreError, HeldError, FileError, KeyboardInterrupt: as ``run``. Trials that failed are in the frame.
    """
    base, file, module = _base(config, None)
    if jobs and file is None:
        raise ConfigError(f"jobs = {jobs}: worker processes execute a config file: give its path, or jobs = 0")
    question = ""
    if isinstance(sweep, str):
        available = sweeps_of(module) if module is not None else {}
        name = sweep or next(iter(available), "")
        if name not in available:
            raise ConfigError(f'sweep = "{name}": the config has {", ".join(available) or "no sweep"}')
        entries, question = available[name](), available[name].question
    else:
        entries = list(sweep)
    where = _open(base, file, workdir)
    make_cache()
    with interruptible() as interrupt:
        launch(
            base, {name: entries}, where, jobs=jobs, config_file=file, display=Silent() if quiet else Terminal(),
            questions={name: question},
            interrupt=interrupt, retries=retries,
        )  # fmt: skip
    return results(where.path, sweep=name)


def _base(config: Config, changes: Mapping[str, Any] | None) -> tuple[Flat, str | None, Any]:
    """Return (a config's fields, its file, the file's module); no file for one that was made in Python."""
    file, module = None, None
    if isinstance(config, str | Path):
        path, arg = file_of(str(config))
        file = f"{Path(path).absolute()}:{arg}".removesuffix(":")
        config, module = load(file)
    if not (isinstance(config, ConfigDict) and is_ours(config)):
        raise ConfigError("config: must begin with mtl.config.default(), or be the path of a config file")
    flat = override(flatten(config), dict(changes or {}))
    check_base(flat)
    return flat, file, module


def _open(base: Flat, file: str | None, workdir: str | Path) -> Workdir:
    where = Workdir(workdir or default_workdir(base))
    where.sources = sources_of(file)
    Lease(where.path).look()
    return where


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Take signals while the context lasts, if this thread can, and raise ``KeyboardInterrupt`` after one."""
    here = threading.current_thread() is threading.main_thread()  # No other takes signals.
    with Interrupt().listening() if here else contextlib.nullcontext(Interrupt()) as interrupt:
        try:
            yield interrupt
        except Stopped:
            raise KeyboardInterrupt("interrupted; what was done is kept, run the same again for the rest") from None
