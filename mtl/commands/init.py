"""``mtl init``: a config file for a table, written for editing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mtl.commands.usage import UsageError, add_data_arguments

_EPILOG = """\
examples:
  mtl init pets.csv --target ill                              a network, and models without one
  mtl init pets.csv --target ill --also breed,weight -o pets.py   does it help to learn these too?
  mtl init pets.csv --target ill:binary ignore=id missing=?   options of the reader, as in data.options
  mtl sweep --config=pets.py                                  then runs it

Exit codes: 0 written, 2 the command or the data are wrong.
"""

#: Replicates of a config that is written for editing.
REPLICATES = 10


def add_init_command(commands: Any) -> None:
    """Add ``init`` to the commands of the command line."""
    what = "Write a config file for a table, each choice with a comment."
    shape: dict[str, Any] = {"epilog": _EPILOG, "formatter_class": argparse.RawDescriptionHelpFormatter}
    init = commands.add_parser("init", help=what, description=what, **shape)
    add_data_arguments(init)
    init.add_argument("-o", "--out", metavar="FILE.py", default="study.py", help="the config file (default: study.py)")


def init_command(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Run ``mtl init …`` and return its exit code.

    Raises:
      UsageError: for a command that cannot be.
      DataError: for data that cannot be used.
    """
    from mtl.commands.given import proposal_of
    from mtl.commands.proposal import config_text, first_wave

    out = Path(arguments.out)
    if out.suffix != ".py":
        raise UsageError(f"--out={out}: must end in .py: a config is a Python file")
    if out.exists():
        raise UsageError(f"--out={out}: is there already: choose another name, or remove it")
    proposal = proposal_of(arguments)
    made_by = f"Written by `mtl init`.\n\n  mtl sweep --config={out} --dry-run   what would be run\n"
    made_by += f"  mtl sweep --config={out}             runs it\n"
    text = config_text(proposal, made_by, 1, "compare", first_wave(proposal, REPLICATES))
    try:
        out.write_text(text)
    except OSError as error:
        raise UsageError(f"--out={out}: cannot be written ({error.strerror or error})") from None
    print(out)
    return 0
