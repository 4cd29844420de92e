"""Commands that read a work directory and need no lease: ``mtl status | table | plot | report``.

They read JSON, safetensors and NPZ, and execute nothing that they find.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys

from mtl.display import error_line
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
        parts = [f"{c[k]:,} {k}" for k in ("done", "diverged", "failed", "missing") if c[k] or k == "done"]
        print(f"  {name}: {', '.join(parts)} of {c['trials']:,} trials")
        print(f"    {c['steps']:,} steps in {c['phases']:,} distinct phases ({c['steps_unshared']:,} without sharing)")
        for reason, n in c["reasons"].items():
            print(f"    {n} failed: {reason}")
    if found["unverified"]:
        print(f"  {found['unverified']:,} results were written before mtl kept digests: damage to them is not seen")
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
            print_analysis(analysis, arguments.kind, arguments.width)
    else:
        print(FORMATS[arguments.format](tables_of(analyses, arguments.kind)), end="")
    return 0


def _plot(arguments: argparse.Namespace) -> int:
    from mtl.report.publish import analyses_of, publish_figures

    workdir = Workdir(arguments.workdir)
    analyses = analyses_of(workdir, [arguments.sweep] if arguments.sweep else [])
    _tell_damage(workdir)
    for analysis in analyses:
        for path in publish_figures(workdir, analysis):
            print(path)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from mtl.report.publish import analyses_of, publish_page

    workdir = Workdir(arguments.workdir)
    analyses = analyses_of(workdir)
    _tell_damage(workdir)
    print(publish_page(workdir, analyses, command()))
    return 0


def _tell_damage(workdir: Workdir) -> None:
    """Say which results were found damaged and are left out."""
    for sentence in workdir.news_of_damage():
        error_line(sentence)


COMMANDS = {"status": _status, "table": _table, "plot": _plot, "report": _report}
