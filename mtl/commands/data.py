"""``mtl data list | describe | check | prepare``: what data there are, what is in them, what is wrong with them."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  mtl data list                                                 what can be named, and how to get it
  mtl data describe digits                                      tasks, missing labels, duplicates, pictures
  mtl data describe --config=configs/digits.py                  the data and the split of a config
  mtl data describe pets.csv labels=ill:binary,breed ignore=id  a file; options as in data.options
  mtl data describe table path=pets.csv labels=ill              columns of all kinds, and what each is taken for
  mtl data check pets.csv labels=ill:binary,breed missing=?     everything that is wrong with it, with lines
  mtl data prepare road_scenes --data-dir=data examples=70000 size=32
  mtl data prepare tox21 --data-dir=data directory=downloads      from DeepChem's tox21.csv.gz; or download=true

Exit codes: 0 right, 2 the command or the data are wrong.
"""

#: Sources of files, by how the file's name ends.
ENDINGS = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "table",
    ".txt": "table",
    ".xlsx": "table",
    ".parquet": "parquet",
    ".npz": "npz",
    ".arff": "arff",
    ".arff.gz": "arff",
}


class DataCommandError(ValueError):
    """A wrong ``mtl data`` command: one sentence."""


class _Intermixed(argparse.ArgumentParser):
    """A parser that takes OPTION=VALUE before and after other options, which argparse's own cannot."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Set OPTION=VALUE aside, and read the rest."""
        words = [a for a in args or () if "=" in a and not a.startswith("-")]
        found, unknown = super().parse_known_args([a for a in args or () if a not in words], namespace)
        if hasattr(found, "options"):
            found.options += words
        else:
            unknown += words
        return found, unknown


def add_data_command(commands: Any) -> None:
    """Add ``data`` to the commands of the command line."""
    what = "Say what data there are and what is in them; check a file; write a drawn set."
    shape: dict[str, Any] = {"epilog": _EPILOG, "formatter_class": argparse.RawDescriptionHelpFormatter}
    data = commands.add_parser("data", help=what, description=what, **shape)
    intermixed = type("Intermixed", (_Intermixed, type(data)), {})  # errors are those of the command line
    actions = data.add_subparsers(
        dest="action", metavar="list | describe | check | prepare", required=True, parser_class=intermixed
    )

    def action(name: str, help: str, data: str = "", optional: bool = False) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = actions.add_parser(name, help=help, description=help, **shape)
        if data:
            sub.add_argument("data", metavar=data, nargs="?" if optional else None, help="a name of `mtl data list`")
            sub.add_argument("options", metavar="OPTION=VALUE", nargs="*", help="what the data set takes")
        if name != "prepare":
            sub.add_argument("--json", action="store_true", help="as JSON")
        return sub

    action("list", "List the data that a config can name.")
    describe = action("describe", "Say what is in data, and draw it.", "NAME|FILE", optional=True)
    describe.add_argument("--config", metavar="FILE.py[:ARG]", default="", help="of a config, with its split")
    describe.add_argument("--out", metavar="DIR", default="", help="where pictures go (default: runs/data/NAME)")
    describe.add_argument("--no-pictures", action="store_true", help="print only")
    action("check", "Say everything that is wrong with a file of data.", "FILE")
    prepare = action("prepare", "Write a data set for TFDS, in ArrayRecord files.", "NAME")
    prepare.add_argument("--data-dir", metavar="DIR", default="", help="default: where tfds:NAME looks")


def data_command(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Run ``mtl data …`` and return its exit code.

    Raises:
      DataCommandError: for a command that cannot be.
      DataError: for data that cannot be read.
    """
    if overrides and not getattr(arguments, "config", ""):
        raise DataCommandError(f"--config.{next(iter(overrides))}: is for `mtl data describe --config=FILE.py`")
    return _ACTIONS[arguments.action](arguments, overrides)


def _list(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    from mtl.data.catalogue import catalogue

    entries = catalogue()
    if arguments.json:
        print(json.dumps([dataclasses.asdict(e) for e in entries], indent=1))
        return 0
    wide = max(len(e.name) for e in entries)
    for e in entries:
        print(f"{e.name:{wide}}  {'here  ' if e.available else 'absent'}  {e.line}")
        for label, said in (("licence: ", e.licence), ("" if e.available else "get it: ", e.how)):
            if said:
                print(f"{'':{wide}}          {label}{said}")
    return 0


def _describe(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    from mtl.data.describe import description, text

    split = None
    if arguments.config:
        if arguments.data:
            raise DataCommandError(f"{arguments.data} and --config={arguments.config}: give one of the two")
        table, split = _of_config(arguments.config, overrides)
    elif not arguments.data:
        raise DataCommandError("nothing to describe: give a NAME of `mtl data list`, a FILE, or --config=FILE.py")
    else:
        table = _load(arguments.data, arguments.options)
    found = description(table, split)
    pictures = [] if arguments.no_pictures else _draw(table, arguments.out)
    if arguments.json:
        print(json.dumps(found | {"pictures": [str(p) for p in pictures]}, indent=1))
        return 0
    print(text(found))
    for path in pictures:
        print(f"picture  {path}")
    return 0


def _check(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    from mtl.commands.display import error_line
    from mtl.data.problems import DataError
    from mtl.data.summary import summary

    try:
        table = _load(arguments.data, arguments.options)
    except DataError as error:
        if arguments.json:
            print(json.dumps({"right": False, "count": error.count, "problems": error.sentences}, indent=1))
        else:
            for sentence in str(error).splitlines():
                error_line(sentence)
        return 2
    if arguments.json:
        print(json.dumps({"right": True, "count": 0, "problems": [], "examples": len(table)}, indent=1))
        return 0
    print(summary(table))
    print("nothing is wrong")
    return 0


def _prepare(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    from mtl.commands.display import LINE_SECONDS, Terminal
    from mtl.data.tfds.prepare import PREPARED, prepare

    recipe = PREPARED.get(arguments.data)
    texts = {k for k, default in recipe.options.items() if isinstance(default, str)} if recipe else set()
    options, display, told = options_of(arguments.options, texts), Terminal(), time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > LINE_SECONDS:
            told = time.monotonic()
            display.say(f"prepare {arguments.data}: {done:,} of {total:,} examples")

    folder = prepare(arguments.data, arguments.data_dir, progress, **options)
    print(folder)
    return 0


def _load(name: str, given: Sequence[str]) -> Any:
    """Return the table of a name of the catalogue or of a file."""
    from mtl import data
    from mtl.data.problems import DataError
    from mtl.tasks import suggest

    ending = next((e for e in sorted(ENDINGS, key=len, reverse=True) if name.endswith(e)), "")
    source = ENDINGS.get(ending, name)
    if not ending and name not in data.SOURCES and not name.startswith("tfds:"):
        if Path(name).exists():
            raise DataCommandError(f"{name}: its name must end in one of {', '.join(ENDINGS)}")
        raise DataCommandError(f"{name}: is no file and no data: {suggest(name, data.SOURCES)}")
    function = data.SOURCES["tfds" if name.startswith("tfds:") else source]
    options = options_of(given, texts_of(function))
    if ending:
        options.setdefault("path", str(Path(name).absolute()))
    try:
        return data.load(source, **options)
    except DataError:
        raise
    except ValueError as error:
        raise DataCommandError(str(error)) from None
    except TypeError as error:
        first = str(error).splitlines()[0] if str(error) else ""
        raise DataCommandError(f"{name}: an option is of another type ({first})") from None


def texts_of(function: Any) -> set[str]:
    """Return the options that a function declares to be texts.

    >>> def source(path: str, labels: Sequence[str], rows: int = 3): ...
    >>> texts_of(source)
    {'path'}
    """
    parameters = inspect.signature(function).parameters.items()
    return {k for k, p in parameters if str(p.annotation) in ("str", "<class 'str'>")}


def options_of(given: Sequence[str], texts: Collection[str]) -> dict[str, Any]:
    """Return ``{option: value}`` of ``option=value`` texts, of which some are taken as they stand.

    >>> options_of(["path=1.csv", "labels=a,b:binary", "rows=7"], {"path"})
    {'path': '1.csv', 'labels': ('a', 'b:binary'), 'rows': 7}
    """
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise DataCommandError(f"{text}: must be OPTION=VALUE")
        if name in found:
            raise DataCommandError(f"{name} is given twice")
        found[name] = value if name in texts else _value(value)
    return found


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return tuple(part.strip() for part in text.split(",") if part.strip()) if "," in text else text


def _of_config(spec: str, overrides: dict[str, str]) -> tuple[Any, Any]:
    """Return (the table, the split) of a config."""
    from mtl.config import ConfigError, flatten, is_ours, load, override, parse, resolve
    from mtl.sweep.plan import load_table, split_of

    config, _ = load(spec)
    if not is_ours(config):
        raise ConfigError(f"--config={spec}: get_config() must begin with mtl.config.default()")
    flat = flatten(config)
    flat = override(flat, {path: parse(path, text, flat) for path, text in overrides.items()})
    table = load_table(flat["data.name"], flat["data.options"])
    return table, split_of(resolve(flat, table))


def _draw(table: Any, out: str) -> list[Path]:
    """Write the pictures and return their paths."""
    import importlib.util
    import re

    from mtl.data.contact_sheet import contact_sheet, pictures
    from mtl.data.label_picture import label_picture

    folder = Path(out) if out else Path("runs") / "data" / (re.sub(r"[^\w.+-]", "_", table.name).strip(".") or "data")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = [folder / "labels.png"]
        label_picture(table, found[0])
        if pictures(table) is not None:
            if importlib.util.find_spec("PIL") is None:
                print('mtl: no contact sheet without Pillow: pip install "mtl[images]"', file=sys.stderr)
            else:
                found.append(folder / "images.png")
                contact_sheet(table, found[1])
    except OSError as error:
        raise DataCommandError(f"--out={folder}: cannot be written ({error.strerror or error})") from None
    return found


_ACTIONS = {"list": _list, "describe": _describe, "check": _check, "prepare": _prepare}
