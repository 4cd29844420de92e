"""What is read from a work directory, without its lease: ``mtl status | table | plot | report``, and a sweep's end.

It reads JSON, safetensors and NPZ, and executes nothing that it finds.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import sys
from collections.abc import Sequence

from mtl.canvas import own_settings
from mtl.commands.display import error_line
from mtl.sweep.store import Workdir


def command() -> str:
    """Return the command line, for the page to say what made it."""
    return shlex.join(["mtl", *sys.argv[1:]])


def _status(arguments: argparse.Namespace) -> int:
    from mtl.sweep.frames import counts

    found = counts(Workdir(arguments.workdir))
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    print(f"study {found['study']} in {arguments.workdir}")
    for name, c in found["sweeps"].items():
        parts = [f"{c[k]:,} {k}" for k in ("done", "diverged", "failed", "stale", "missing") if c[k] or k == "done"]
        print(f"  {name}: {', '.join(parts)} of {c['trials']:,} trials")
        print(f"    {c['steps']:,} steps in {c['phases']:,} distinct phases ({c['steps_unshared']:,} without sharing)")
        for reason, n in c["reasons"].items():
            print(f"    {n} failed: {reason}")
    for sentence in found["damaged"]:
        print(f"  {sentence}")
    return 0


def _table(arguments: argparse.Namespace) -> int:
    from mtl.report.publish import analyses_of
    from mtl.report.show import FORMATS, print_analysis, tables_of

    workdir = Workdir(arguments.workdir)
    analyses = analyses_of(workdir, [arguments.sweep] if arguments.sweep else [])
    _tell_damage(workdir)
    if arguments.format == "console":
        for analysis in analyses:
            more = f"mtl table --full {arguments.workdir}"
            print_analysis(analysis, arguments.kind, arguments.width, arguments.full, more)
    else:
        print(FORMATS[arguments.format](tables_of(analyses, arguments.kind or "all")), end="")
    return 0


def _plot(arguments: argparse.Namespace) -> int:
    from mtl.report.publish import analyses_of, publish_figures

    workdir = Workdir(arguments.workdir)
    analyses = analyses_of(workdir, [arguments.sweep] if arguments.sweep else [])
    _tell_damage(workdir)
    for path in [path for analysis in analyses for path in publish_figures(workdir, analysis)]:
        print(path)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from mtl.report.methods import methods
    from mtl.report.publish import analyses_of, report

    workdir = Workdir(arguments.workdir)
    if arguments.methods:
        for analysis in analyses_of(workdir):
            entry = workdir.study()["sweeps"][analysis.scores.sweep]
            results = filter(None, (workdir.result(t["hash"]) for t in entry["trials"]))
            print(methods(analysis, entry["base"], results))
        _tell_damage(workdir)
        return 0
    page = report(workdir, command())
    _tell_damage(workdir)
    print(page)
    return 0


def import_for_tables() -> None:
    """Import what tables and figures are made with, while workers train, so that nobody waits for it in the end."""
    with own_settings():
        for name in ("backend_agg", "backend_svg"):
            importlib.import_module(f"matplotlib.backends.{name}")
    for name in ("rich.console", "mtl.report.page", "mtl.report.publish", "mtl.report.show"):
        importlib.import_module(name)


def print_study(workdir: Workdir, sweeps: Sequence[str]) -> list[str]:
    """Print each sweep's tables and verdict, and the paths of what was written; return why others have none."""
    from mtl.report.publish import analyses_of, publish
    from mtl.report.show import print_analysis
    from mtl.sweep.store import NoResultError

    analyses, without = [], []
    for name in sweeps:
        try:
            analyses += analyses_of(workdir, [name])
        except NoResultError as error:  # All of its trials failed: the other sweeps have their tables all the same.
            without.append(str(error))
    written = publish(workdir, analyses, command())  # First: printing may fail, or be interrupted.
    for analysis in analyses:
        print_analysis(analysis, more=f"mtl table --full {workdir.path}")
    for path in written:
        if path.suffix == ".html":
            print(f"tables  {workdir.path / 'tables'}")
        print(f"{'report' if path.suffix == '.html' else 'figure'}  {path}")
    return without


def _tell_damage(workdir: Workdir) -> None:
    """Say which results were found damaged or stale and are left out."""
    for sentence in workdir.news("left out; run `mtl sweep` again"):
        error_line(sentence)


COMMANDS = {"status": _status, "table": _table, "plot": _plot, "report": _report}
