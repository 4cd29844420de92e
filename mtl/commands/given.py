"""What `mtl init` and `mtl compare` are given: a file or a name of data, its tasks, and a time."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl.commands.proposal import Proposal, propose
from mtl.commands.usage import UsageError

#: What a name of a file that holds one table of named columns may end in.
TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".xlsx", ".parquet")

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(text: str) -> float:
    """Return the seconds that a budget says.

    Raises:
      UsageError: for anything but a number above 0 with its unit.

    >>> seconds_of("10m"), seconds_of("1.5h"), seconds_of("90s")
    (600.0, 5400.0, 90.0)
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([smh])", str(text).strip())
    if not found or float(found[1]) == 0:
        raise UsageError(f"budget = {text}: must be a number above 0 with its unit, s, m or h, such as 10m")
    return float(found[1]) * _UNITS[found[2]]


def names_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of columns in a text with commas between them, or in a sequence."""
    parts = given.split(",") if isinstance(given, str) else given
    return tuple(name.strip() for name in parts if name.strip())


def given(
    data: str, target: str, also: str | Sequence[str] = (), name: str = "", options: Mapping[str, Any] | None = None
) -> Proposal:
    """Return what is proposed for a file or a name of data.

    Of a file the target and the others are its labels, and whatever else it holds is input.

    Args:
      data: the path of a file, or a name of ``mtl data list``.
      target: the column or task that is asked about; ``ill:binary`` says its kind too.
      also: the others; one text with commas, or several.
      name: of the study; by default that of the file and the target.
      options: of the reader.

    Raises:
      UsageError: for a file or a name that there is not, and options that cannot be.
      DataError: for what is wrong with the data.
    """
    from mtl import data as library
    from mtl.tasks import suggest

    path, others, options = Path(data), names_of(also), dict(options or {})
    if not target.strip():
        raise UsageError("target: is empty: name the column to predict")
    if twice := sorted({n for n in others if n == target or others.count(n) > 1}):
        raise UsageError(f"also: names {', '.join(twice)} twice, or the target: name each once")
    if path.is_dir():
        raise UsageError(f"{data}: is a folder: give a table; of images, a config with data.name = 'images'")
    source = _source(path) if path.is_file() else ""
    if not source and data not in library.SOURCES and not data.startswith("tfds:"):
        if path.is_file():
            raise UsageError(f"{data}: its name must end in one of {', '.join((*TABLES, '.npz', '.arff'))}")
        raise UsageError(f"{data}: is no file, and no data: {suggest(data, library.SOURCES)}")
    if not source:
        table = _loaded(data, options)
        return propose(table, (data, options), target, others, name or f"{data}_{target}")
    if "labels" in options:
        raise UsageError(f"labels = {options['labels']}: the target, and also, say which columns are labels")
    options = {"path": str(path.absolute()), "labels": (target, *others)} | options
    if source in ("csv", "parquet"):
        options.setdefault("missing_inputs", "flag")
    table = _loaded(source, options)
    first, *rest = (task.name for task in table.tasks)  # Patterns have become columns, and kinds are known.
    return propose(table, (source, options), first, rest, name or f"{path.name.partition('.')[0]}_{first}")


def _source(path: Path) -> str:
    """Return the name of the source that reads a file; nothing if none does."""
    from mtl.commands.data import ENDINGS
    from mtl.data import SOURCES

    lower = path.name.lower()
    if "table" in SOURCES and lower.endswith(TABLES):
        return "table"
    return next((ENDINGS[end] for end in sorted(ENDINGS, key=len, reverse=True) if lower.endswith(end)), "")


def _loaded(source: str, options: Mapping[str, Any]) -> Any:
    from mtl import data
    from mtl.data.problems import DataError

    try:
        return data.load(source, **options)
    except DataError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(str(error).splitlines()[0] if str(error) else f"{source}: an option cannot be") from None


def proposal_of(arguments: argparse.Namespace) -> Proposal:
    """Return what is proposed for what a command line says."""
    from mtl import data
    from mtl.commands.data import options_of, texts_of

    path = Path(arguments.data)
    source = _source(path) if path.is_file() else arguments.data
    function = data.SOURCES.get("tfds" if source.startswith("tfds:") else source)
    options = options_of(arguments.options, texts_of(function) if function else set())
    return given(arguments.data, arguments.target, arguments.also, arguments.name, options)
