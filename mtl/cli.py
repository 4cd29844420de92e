"""The command line: ``mtl compare | init | run | sweep | status | table | plot | report | predict | data | config``."""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # Of `python -m mtl.cli` the current directory: nothing is imported from there; see mtl.host.spawn.

import argparse
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from mtl.commands.arguments import overrides_of, parser
from mtl.commands.compare import compare_command
from mtl.commands.config import config_command
from mtl.commands.data import DataCommandError, data_command
from mtl.commands.init import init_command
from mtl.commands.predict import predict_command
from mtl.commands.start import begin, end_alone, in_this_process, takes_devices, together
from mtl.commands.usage import UsageError
from mtl.host import streams
from mtl.host.spawn import WorkerHandle, collect_seldom, default_jobs, leave, started
from mtl.tasks import suggest


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    with together():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    from mtl.commands.display import error_line

    try:
        known, unknown = parser().parse_known_args(list(sys.argv[1:] if argv is None else argv))
        known.own = argv is None
        overrides = overrides_of(unknown, hasattr(known, "config"))
        if known.command is None:
            parser().print_help()
            return 2
        code = int(_COMMANDS[known.command](known, overrides))
        if unseen := streams.lost():
            error_line(unseen)
            return end_alone(1)
        return code
    except KeyboardInterrupt:
        error_line("interrupted; finished trials are kept, run the same command again for the rest")
        return end_alone(130)
    except ValueError as error:
        if not _is_ours(error):
            raise
        error_line(str(error))
        return end_alone(2)


def _is_ours(error: ValueError) -> bool:
    """Return whether an error is about input: any other is a bug, and shows its traceback."""
    from mtl.checkpoint import CheckpointError
    from mtl.config import ConfigError
    from mtl.data import DataError
    from mtl.host.files import FileError
    from mtl.sweep.store import StoreError

    ours = (UsageError, DataCommandError, DataError, CheckpointError, ConfigError, FileError, StoreError)
    if isinstance(error, ours) or "mtl.train.placement" not in sys.modules:  # Its errors are of who has imported it:
        return isinstance(error, ours)  # to say that a file is not there must not take the seconds that JAX does.
    from mtl.train.placement import PlacementError
    from mtl.train.processes import StartError

    return isinstance(error, PlacementError | StartError)


def _base(arguments: argparse.Namespace, overrides: dict[str, str]) -> tuple[Any, ModuleType]:
    """Return (the fields of the config with the command line's changes, the config's module)."""
    from mtl.config import ConfigError, flatten, is_ours, load, override, parse

    config, module = load(arguments.config)
    if not is_ours(config):
        raise ConfigError(
            f"--config={arguments.config}: get_config() must begin with mtl.config.default(); configs of other "
            "codebases can be expanded with `mtl sweep --dry-run` only"
        )
    flat = flatten(config)
    return override(flat, {path: parse(path, text, flat) for path, text in overrides.items()}), module


def _config_file(arguments: argparse.Namespace) -> str:
    from mtl.config import file_of

    path, arg = file_of(arguments.config)
    return f"{Path(path).absolute()}:{arg}".removesuffix(":")  # A worker calls get_config as we do.


def _run(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    placement = begin(arguments)
    import jax

    from mtl.commands.display import Terminal
    from mtl.commands.run import run_trial
    from mtl.config import augmentation
    from mtl.params import count, report
    from mtl.sweep.cache import make_cache
    from mtl.sweep.launch import Silent
    from mtl.sweep.lease import Lease
    from mtl.sweep.plan import data_warnings, make_plan, table_of, trial_of
    from mtl.sweep.snapshots import Interrupt
    from mtl.sweep.sources import sources_of
    from mtl.sweep.store import Workdir
    from mtl.sweep.study import check_base, default_workdir
    from mtl.train.loop import Stopped
    from mtl.train.processes import is_lead
    from mtl.train.trial import shapes

    retries = _retries(arguments)
    base, _ = _base(arguments, overrides)
    check_base(base)
    workdir = Workdir(arguments.workdir or default_workdir(base), writes=is_lead())
    workdir.sources = sources_of(_config_file(arguments))
    if placement is None:
        Lease(workdir.path).look()
    trial = trial_of(base)
    plan = make_plan([trial], workdir.sources)
    display = Silent() if arguments.quiet or not is_lead() else Terminal()
    workdir.open(base["name"])
    in_this_process(arguments.own)
    if slow := make_cache():
        display.say(f"warning: {slow}")
    display.say(f"trial {trial.hash} in {workdir.trial(trial.hash)}")
    params = shapes(trial.model(), table_of(trial).shape).params
    size = f"{trial.config['regime']} of scikit-learn" if trial.reference else f"{count(params):,} parameters"
    display.say(f"{jax.devices()[0].device_kind}, {len(jax.devices())} device(s); {size}")
    if base["init.path"]:
        begins = f"the weights at {trial.loads}" if trial.loads else "random weights: config.init.path is not for it"
        display.say(f"{base['regime']} begins from {begins}")
    for number, phase in enumerate(() if trial.reference else trial.phases):
        program = plan.nodes[plan.chains[trial.hash][number]].stage.program
        changed = f", images changed: {augmentation.described(program.augment)}" if program.augment else ""
        display.say(
            f"phase {number}: {' + '.join(phase.tasks)}, {phase.total_steps:,} steps of {phase.rows} examples, "
            f"lr {phase.lr:g}{changed}\n{report(params, program.chosen(params))}"
        )
    for said in data_warnings([trial]):
        display.say(f"warning: {said}")
    with Interrupt().listening() as interrupt:
        try:
            ran = run_trial(base, plan, workdir, display, interrupt, placement, retries)
        except Stopped:
            return _stopped(interrupt.number)
    if not is_lead():
        return 0
    if not ran:
        display.say("it is done already; its result is printed")
    reason = workdir.failure(trial.hash)
    if reason is not None:
        from mtl.commands.display import error_line

        error_line(f"the trial failed: {reason}")
        return 1
    result = workdir.result(trial.hash) or {}
    if (r2 := result.get("test", {}).get(trial.target, {}).get("r2")) is not None and r2 < 0:
        display.say(f"warning: it is worse than predicting the mean of the test labels (R² = {r2:.3g})")
    shown = {k: result.get(k) for k in ("hash", "status", "diverged_at", "val_score", "test", "cost")}
    print(json.dumps({k: v for k, v in shown.items() if v is not None}, indent=1))
    return 0 if result.get("status") == "done" else 1


def _retries(arguments: argparse.Namespace) -> int:
    if arguments.retries < 0:
        raise UsageError(f"--retries={arguments.retries}: must be at least 0")
    return int(arguments.retries)


def _stopped(number: int) -> int:
    """Say that a run was interrupted and return its exit code."""
    from mtl.commands.display import error_line

    number = number or signal.SIGTERM  # Another process of the run was told.
    error_line("interrupted; what was done is kept, run the same command again for the rest")
    return 128 + number


def _sweep(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    jobs = default_jobs() if arguments.jobs is None else arguments.jobs
    if jobs < 0:
        raise UsageError(f"--jobs={jobs}: must be at least 0 (0: in this process)")
    several = arguments.dry_run or takes_devices(arguments)
    # They import JAX while this process does, and wait.
    with started(0 if several else jobs) as hands:
        return _sweep_with(arguments, overrides, jobs, hands)


def _sweep_with(arguments: argparse.Namespace, overrides: dict[str, str], jobs: int, hands: list[WorkerHandle]) -> int:
    from mtl.commands import dry_run
    from mtl.commands.display import Terminal, error_line
    from mtl.commands.read import import_for_tables, print_study
    from mtl.config import ConfigError, is_ours, load
    from mtl.sweep import sweeps_of
    from mtl.sweep.cache import make_cache
    from mtl.sweep.launch import Silent, launch
    from mtl.sweep.lease import Lease
    from mtl.sweep.snapshots import Interrupt
    from mtl.sweep.sources import sources_of
    from mtl.sweep.store import Workdir
    from mtl.sweep.study import check_base, default_workdir
    from mtl.train.loop import Stopped
    from mtl.train.processes import is_lead

    if arguments.dry_run and not overrides:
        config, module = load(arguments.config)
        if not is_ours(config):
            available = sweeps_of(module)
            return dry_run.expand_only(config, arguments.config, available, _wanted(arguments.sweep, list(available)))
    base, module = _base(arguments, overrides)
    check_base(base)
    available = sweeps_of(module)
    if not available:
        raise ConfigError(f"--config={arguments.config} defines no sweep_NAME() and no get_hyper(hyper): use `mtl run`")
    wanted = _wanted(arguments.sweep, list(available))
    entries = {name: available[name]() for name in wanted}
    workdir = Workdir(arguments.workdir or default_workdir(base))
    if arguments.dry_run:
        workdir.sources = sources_of(_config_file(arguments))
        return dry_run.show(base, entries, workdir, arguments.list)
    placement = begin(arguments)
    if placement is None:  # Of several processes one looks, later, for all of them.
        Lease(workdir.path).look()
    jobs = 0 if placement is not None else jobs
    if placement is not None and arguments.jobs:
        raise UsageError(f"--jobs={arguments.jobs}: worker processes and --mesh or --hosts exclude each other")
    if not jobs:
        in_this_process(arguments.own)
    lead = placement is None or is_lead()
    workdir = Workdir(workdir.path, writes=lead)
    display = Terminal() if lead else Silent()
    if slow := make_cache():
        display.say(f"warning: {slow}")
    config_file = _config_file(arguments)
    questions = {name: available[name].question for name in wanted}
    with Interrupt().listening() as interrupt:
        try:
            summaries = launch(
                base, entries, workdir, jobs=jobs, config_file=config_file, display=display, questions=questions,
                placement=placement, interrupt=interrupt, retries=_retries(arguments), hands=hands,
                meanwhile=import_for_tables,
            )  # fmt: skip
        except Stopped:
            return _stopped(interrupt.number)
    if not lead:
        return 0
    for summary in summaries:
        display.say(f"{summary.sweep.name}: {summary.ran:,} trials run, {summary.reused:,} re-used")
    without = print_study(workdir, wanted)
    for sentence in without:
        error_line(sentence)
    for summary in summaries:  # Last, where they are seen.
        for digest, reason in list(summary.failed.items())[:3]:
            error_line(f"trial {digest} failed: {reason}")
    return 1 if without or any(summary.failed for summary in summaries) else 0


def _wanted(given: str | None, available: list[str]) -> list[str]:
    if given is None:
        return available[:1]
    if given == "all":
        return available
    names = [name.strip() for name in given.split(",")]
    for name in names:
        if name not in available:
            raise UsageError(f"--sweep={name}: the config has no such sweep: {suggest(name, [*available, 'all'])}")
    return names


def _reader(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    from mtl.commands import read as readers

    return readers.COMMANDS[arguments.command](arguments)


_COMMANDS = {
    "compare": compare_command,
    "init": init_command,
    "run": _run,
    "sweep": _sweep,
    "status": _reader,
    "table": _reader,
    "plot": _reader,
    "report": _reader,
    "predict": predict_command,
    "data": data_command,
    "config": config_command,
}


def console() -> NoReturn:
    """Run the command line as a program."""
    collect_seldom()
    streams.prepare()
    leave(main())


if __name__ == "__main__":
    console()
