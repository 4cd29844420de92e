"""What can be written on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from mtl.commands.compare import add_compare_command
from mtl.commands.config import add_config_command
from mtl.commands.data import add_data_command
from mtl.commands.init import add_init_command
from mtl.commands.predict import add_predict_command
from mtl.commands.start import add_options
from mtl.commands.usage import UsageError
from mtl.tasks import suggest

_EPILOG = """\
examples:
  mtl compare pets.csv --target ill --also breed,weight     a table in, what to do and a model out
  mtl sweep --config=configs/digits.py --dry-run            what would be run
  mtl sweep --config=configs/digits.py                      run it; again: runs only what is missing
  mtl status runs/digits                                    how far it is
  mtl table runs/digits --format=latex                      the table for a paper
  mtl run --config=configs/digits.py --config.regime=lp_ft --config.data.target_size=50
  mtl predict runs/pets new.csv -o out.csv                  new rows, by the networks that the study advises

Any field of the config can be changed: --config.optimizer.weight_decay=0.01. `mtl config` says what they are.
Exit codes: 0 done, 1 some trials failed, 2 the command or its input is wrong, 130 or 143 interrupted (run it again:
it goes on where it was).
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage: one sentence is what people read."""
        raise UsageError(f"{message}; see `{self.prog} --help`")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Take OPTION=VALUE also after other options, where a command takes it at all."""
        found, unknown = super().parse_known_args(args, namespace)
        if hasattr(found, "options"):
            found.options = [*found.options, *(word for word in unknown if "=" in word and not word.startswith("-"))]
            unknown = [word for word in unknown if "=" not in word or word.startswith("-")]
        return found, unknown


def parser() -> argparse.ArgumentParser:
    """Return what reads a command line; it raises a ``UsageError`` for one that cannot be."""
    top = _Parser(
        prog="mtl",
        description="Should you transfer or train jointly, and how sure can you be?",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", metavar="command", parser_class=_Parser)

    def command(name: str, help: str, config: bool) -> argparse.ArgumentParser:
        about: dict[str, Any] = {"epilog": _EPILOG, "formatter_class": argparse.RawDescriptionHelpFormatter}
        sub = commands.add_parser(name, help=help, description=help, **about)
        if config:
            sub.add_argument("--config", required=True, metavar="FILE.py[:ARG]", help="the config file")
            sub.add_argument("--workdir", metavar="DIR", help="where results go (default: runs/NAME)")
            add_options(sub)
        else:
            sub.add_argument("workdir", metavar="WORKDIR", help="the study's work directory")
        return sub

    add_compare_command(commands)
    add_init_command(commands)
    run = command("run", "Run one trial and print its result.", True)
    run.add_argument("--retries", type=int, metavar="N", default=0, help="if it fails, run it again up to N times")
    run.add_argument("--quiet", action="store_true", help="print the result only")
    sweep = command("sweep", "Run a study's sweeps, or what is missing of them, and print the tables.", True)
    sweep.add_argument("--sweep", metavar="NAME[,NAME…]", help='which (default: the first; "all" for all)')
    sweep.add_argument("--jobs", type=int, metavar="N", help="worker processes (default: one a core; 0: none)")
    sweep.add_argument(
        "--retries", type=int, metavar="N", default=0, help="run trials that failed again, up to N times (default: 0)"
    )
    sweep.add_argument("--dry-run", action="store_true", help="list trials, programs and steps; run nothing")
    sweep.add_argument("--list", action="store_true", help="with --dry-run: every trial, one a line")
    status = command("status", "Say how many trials are done, failed and missing.", False)
    status.add_argument("--json", action="store_true", help="as JSON")
    table = command("table", "Print a sweep's verdict and what to do, or its tables.", False)
    table.add_argument("--sweep", metavar="NAME", help="which (default: all)")
    table.add_argument(
        "--format",
        default="console",
        choices=("console", "markdown", "latex", "csv", "json", "html"),
        help="default: console. Of several tables, json is one list, and csv one table whose first column says which",
    )
    table.add_argument(
        "--kind",
        default="",
        choices=("decision", "result", "gain", "cost", "all"),
        help="what to do, metric, gain over the baseline, cost (default: what to do, with the verdict; in files all)",
    )
    table.add_argument("--full", action="store_true", help="the verdict, all tables, all that is claimed, all warnings")
    table.add_argument("--width", type=int, metavar="COLUMNS", help="of the console table")
    plot = command("plot", "Draw a study's figures (PNG and SVG) and print their paths.", False)
    plot.add_argument("--sweep", metavar="NAME", help="which (default: all)")
    report = command("report", "Write the study's page, one self-contained HTML file, and print its path.", False)
    report.add_argument("--methods", action="store_true", help="print a paragraph for a paper instead: protocol, tests")
    add_predict_command(commands)
    add_data_command(commands)
    add_config_command(commands)
    return top


def overrides_of(unknown: Sequence[str], takes_config: bool) -> dict[str, str]:
    """Return ``{path: text}`` of the ``--config.path=text`` arguments, refusing anything else."""
    found: dict[str, str] = {}
    rest = list(unknown)
    while rest:
        argument = rest.pop(0)
        name, equals, text = argument.partition("=")
        if not takes_config or not name.startswith("--config."):
            options = ("--config", "--workdir", "--sweep", "--jobs", "--dry-run", "--format", "--kind", "--json")
            hint = suggest(name, options) if name.startswith("-") else "see `mtl --help`"
            raise UsageError(f"unknown argument {argument}: {hint}")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"{argument} has no value: write {argument}=VALUE")
            text = rest.pop(0)
        path = name.removeprefix("--config.")
        if path in found:
            raise UsageError(f"{name} is given twice")
        found[path] = text
    return found
