"""``mtl config``: every field of a config as its declaration has it; with a file, the values that it sets."""

from __future__ import annotations

import argparse
import inspect
import json
import re
import textwrap
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from mtl.config import Flat
    from mtl.config.declaration import Field

_EPILOG = """\
examples:
  mtl config                            every field: default, type and range, meaning
  mtl config optimizer                  those of a section
  mtl config model.name                 one of them, with the names that it can be given
  mtl config model.options              what the model takes
  mtl config model.options --config.model.name=vit
  mtl config regimes                    what a phase of a regime of one's own takes
  mtl config configs/digits.py          every field; * marks what the file sets
  mtl config configs/digits.py data     those of a section

Exit codes: 0 right, 2 the command or the config is wrong.
"""

#: Columns of a line, and the column at which types begin.
WIDTH, COLUMN = 80, 40


def add_config_command(commands: Any) -> None:
    """Add ``config`` to the commands of the command line."""
    what = "Say what a config can hold: each field's default, type and range, and meaning; and what a file sets."
    shape: dict[str, Any] = {"epilog": _EPILOG, "formatter_class": argparse.RawDescriptionHelpFormatter}
    sub = commands.add_parser("config", help=what, description=what, **shape)
    sub.add_argument("file", metavar="FILE.py[:ARG]", nargs="?", default="", help="a config file (default: none)")
    sub.add_argument("field", metavar="FIELD", nargs="?", default="", help="a field or a section (default: all)")
    sub.set_defaults(config="")  # It takes --config.FIELD=VALUE, as commands do that have a config.


def config_command(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Run ``mtl config`` and return its exit code.

    Raises:
      ConfigError: for a file that cannot be read, and a field or a name that does not exist.
    """
    from mtl.config import ConfigError, flatten, is_ours, load, override, parse
    from mtl.config.declaration import FIELDS, SECTIONS
    from mtl.config.default import FREE
    from mtl.config.fields import KNOWN, unknown
    from mtl.tasks import suggest

    file, asked = arguments.file, arguments.field
    if not asked and ".py" not in file:
        file, asked = "", file
    flat = KNOWN
    if file:
        config, _ = load(file)
        if not is_ours(config):
            raise ConfigError(f"--config={file}: get_config() must begin with mtl.config.default()")
        flat = flatten(config)
    flat = override(flat, {path: parse(path, text, flat) for path, text in overrides.items()})
    if asked in FIELDS:
        _print_one(asked, FIELDS[asked], flat)
    elif free := next((path for path in FREE if asked.startswith(f"{path}.")), ""):
        options, option = _options(free, flat), asked.rpartition(".")[2]
        if options and option not in options:
            raise ConfigError(f"config.{asked} does not exist; {suggest(option, options)}")
        if options:
            _print(asked, options[option], flat[free].get(option, options[option].default))
        else:  # Its keys are names of tasks, or patterns.
            _print_one(free, FIELDS[free], flat)
    elif asked in SECTIONS:
        for section in [asked] if asked else SECTIONS:
            print(textwrap.fill(f"{section or 'config'}: {_about(SECTIONS[section])}", WIDTH))
            for path, field in FIELDS.items():
                if path.rpartition(".")[0] == section:
                    _print(path, field, flat[path])
    else:
        raise ConfigError(unknown(asked, KNOWN))
    return 0


def _print_one(path: str, field: Field, flat: Flat) -> None:
    """Print a field, what it can name, and what it takes."""
    names, options = _names(field), _options(path, flat)
    _print(path, field, flat[path])
    wide = max(map(len, names), default=0) + 4
    for name, entry in names.items():
        print(textwrap.fill(f"  {name:{wide - 2}}{_about(entry)}", WIDTH, subsequent_indent=" " * wide))
    where = {"regimes": "phase", "task_options": "task_options.TASK"}.get(path, path)
    for option, of in options.items():
        _print(f"{where}.{option}", of, flat[path].get(option, of.default))


def _print(path: str, field: Field, value: Any) -> None:
    """Print a field: its value, with a mark if that is not the default; its type and range; and what it means."""
    from mtl.host.escape import escape

    same = value is field.default or value == field.default
    left = escape(f"{' ' if same else '*'} {path} = {_shown(value)}")
    if len(left) > COLUMN - 2:
        print(textwrap.fill(left, WIDTH, subsequent_indent=" " * 6))
        left = ""
    print(textwrap.fill(_type(field), WIDTH, initial_indent=f"{left:{COLUMN}}", subsequent_indent=" " * COLUMN))
    meaning = field.meaning.replace("``", "") + ("" if same else f" (default: {_shown(field.default)})")
    if meaning:
        print(escape(textwrap.fill(meaning, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)))


def _shown(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "…"  # There is no default: it must be given.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _type(field: Field) -> str:
    """Return the type and range of a field in words."""
    from mtl.options import words
    from mtl.tasks import Kind

    if isinstance(field.default, str) and (names := _names(field)):
        few = len(names) <= 5 and not any(isinstance(entry, Kind) for entry in names.values())
        return f"a name: {', '.join(names)}" if few else "a name"
    return re.sub(", each (value|of it) of type Any", "", words(field.hint))


def _names(field: Field) -> dict[str, Any]:
    """Return what a field can name, from the registry beside its type; nothing if it names nothing."""
    registries = [known for known in getattr(field.hint, "__metadata__", ()) if isinstance(known, Mapping | tuple)]
    found = {name: known[name] if isinstance(known, Mapping) else None for known in registries for name in known}
    return {field.default: None, **found} if found and field.default else found


def _about(entry: Any) -> str:
    """Return a line about what a registry holds."""
    from mtl.tasks import Kind

    if isinstance(entry, Kind):
        return ", ".join(entry.metrics)
    text: str = getattr(entry, "summary", "") or inspect.getdoc(getattr(entry, "make", entry)) or ""
    return text.partition("\n")[0].replace("``", "")


def _options(path: str, flat: Flat) -> dict[str, Field]:
    """Return what a free dictionary takes, from the signature of what reads it; nothing if that is names of tasks."""
    from mtl import models, optim
    from mtl.config import ConfigError
    from mtl.config.declaration import FIELDS, Field
    from mtl.config.tasks import NOT_TASK_OPTIONS
    from mtl.options import meanings, parameters
    from mtl.regimes import Phase
    from mtl.tasks import Task, suggest

    without: dict[str, Collection[str]] = {
        "model.options": models.NOT_OPTIONS,
        "optimizer.options": optim.NOT_OPTIONS,
        "task_options": NOT_TASK_OPTIONS,
    }
    taker: Any = {"regimes": Phase, "task_options": Task}.get(path)
    if path.endswith(".options"):
        named = path.replace("options", "name")
        known, name = _names(FIELDS[named]), flat[named].partition(":")[0]  # Of ``tfds:mnist`` those of ``tfds``.
        if name not in known:
            raise ConfigError(f'config.{named} = "{name}": {suggest(name, known)}')
        taker = getattr(known[name], "make", known[name])
    if not taker:
        return {}
    said, found = meanings(getattr(taker, "options", None)) | meanings(taker), {}
    for name, (hint, default) in parameters(taker)[0].items():
        if name not in without.get(path, ()):
            if path == "optimizer.options" and isinstance(default, float):  # Optax says of them that they are arrays.
                hint = Annotated[float, optim.RANGES[name]] if name in optim.RANGES else float
            found[name] = Field(hint, default, said.get(name, ""))
    return found
