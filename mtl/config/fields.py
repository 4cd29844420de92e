"""A config as a flat dictionary of fields: overriding, and reading from the command line.

Sweeps resolve thousands of trials, so everything past the config file works on plain flat dictionaries:
``{"data.target_size": 20, "model.options": {"hidden": (64, 64)}, …}``, where free sections are values of their own.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Mapping
from typing import Any

from mtl.config.declaration import FIELDS
from mtl.config.default import FREE, Config
from mtl.config.problems import ConfigError, refused
from mtl.regimes import REGIMES, plain
from mtl.tasks import suggest

Flat = dict[str, Any]


def flatten(config: Config) -> Flat:
    """Return a config's fields, ``{"a.b": value}``; free sections are plain dictionaries.

    Raises:
      ConfigError: for a regime that is none.

    >>> from mtl.config import default
    >>> flatten(default())["data.target_size"]
    100
    """
    flat: Flat = {}

    def visit(node: Config, prefix: str) -> None:
        for key, value in node.items():
            path = f"{prefix}{key}"
            if isinstance(value, Config) and path not in FREE:
                visit(value, f"{path}.")
            else:
                flat[path] = value.to_dict() if isinstance(value, Config) else value

    visit(config, "")
    if flat.get("regimes"):
        flat["regimes"] = _regimes(flat["regimes"])
    return flat


def _regimes(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the regimes that a config writes itself as what JSON can hold."""
    found = {}
    for name, value in given.items():
        with refused(f"config.regimes.{name}: "):
            if name in REGIMES or "@" in name:
                taken = "there is a regime of that name already" if name in REGIMES else "a name must have no @"
                raise ValueError(f"{taken}; choose another")
            found[name] = plain(value)
    return found


#: The default's fields.
KNOWN: Flat = {path: field.default for path, field in FIELDS.items()}


def override(flat: Flat, changes: Mapping[str, Any]) -> Flat:
    """Return the fields with some changed.

    Args:
      flat: as ``flatten`` returns them.
      changes: ``{"data.target_size": 20}``; keys inside free sections may be new.

    Raises:
      ConfigError: for a field that does not exist or a value of another type.

    >>> override(KNOWN, {"data.target_size": 20})["data.target_size"]
    20
    >>> override(KNOWN, {"data.targt_size": 20})
    Traceback (most recent call last):
    ...
    mtl.config.problems.ConfigError: config.data.targt_size does not exist; did you mean "data.target_size"?
    """
    new = dict(flat)
    for path, value in changes.items():
        section = next((s for s in FREE if path.startswith(f"{s}.")), None)
        if section:
            new[section] = _set_inside(new[section], _keys(section, path.removeprefix(f"{section}."), value), value)
            if section == "regimes":
                new[section] = _regimes(new[section])
        elif path in flat:
            new[path] = coerce(path, value, flat[path])
            if path == "regimes":
                new[path] = _regimes(new[path])
        else:
            raise ConfigError(unknown(path, flat))
    return new


def _keys(section: str, path: str, value: Any) -> list[str]:
    """Return the keys that a path inside a free section stands for: names of tasks may hold dots."""
    if section == "task_options":
        name, dot, option = path.rpartition(".")
        return [name, option] if dot and not isinstance(value, Mapping) else [path]
    nested = section == "regimes" or section.endswith(".options")
    return path.split(".") if nested else [path]


def _set_inside(node: Any, keys: list[str], value: Any) -> dict[str, Any]:
    node = dict(node) if isinstance(node, Mapping) else {}
    node[keys[0]] = value if len(keys) == 1 else _set_inside(node.get(keys[0]), keys[1:], value)
    return node


def unknown(path: str, known: Mapping[str, Any]) -> str:
    """Return the sentence for a field that does not exist."""
    inside = [k for k in known if k.startswith(f"{path}.")]
    if inside:
        more = f", and {len(inside) - 16} more" if len(inside) > 20 else ""
        return f"config.{path} is a section; its fields: {', '.join(inside[:16] if more else inside)}{more}"
    sections = set() if "." in path else {k.partition(".")[0] for k in known}
    hint = suggest(path, {*known, *sections}).split("Valid:")[0].strip()
    if not hint:  # Perhaps the section was left out.
        section, _, last = path.rpartition(".")
        near = [k for k in known if k.rsplit(".", 1)[-1] == last]
        beside = [k for k in known if section and k.startswith(f"{section}.")]
        names = beside or sorted({k.partition(".")[0] for k in known})
        hint = f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(names)}"
    return f"config.{path} does not exist; {hint}"


def coerce(path: str, value: Any, old: Any) -> Any:
    """Return ``value`` with the type of ``old``, or refuse it."""
    if isinstance(old, bool) or isinstance(value, bool):
        ok = isinstance(value, bool) and isinstance(old, bool)
    elif isinstance(old, float):
        ok = isinstance(value, (int, float))
        value = float(value) if ok else value
    elif isinstance(old, tuple):
        ok = isinstance(value, (tuple, list))
        value = tuple(value) if ok else value
    elif isinstance(old, dict):
        ok = isinstance(value, Mapping)
        value = dict(value) if ok else value
    else:
        ok = isinstance(value, type(old))
    if not ok:
        raise ConfigError(f"config.{path} = {value!r}: must be of type {type(old).__name__}, like {old!r}")
    return value


def parse(path: str, text: str, flat: Flat) -> Any:
    """Return the value that ``--config.path=text`` stands for, by the type of the field's present value.

    Raises:
      ConfigError: if the text cannot be read as that type.

    >>> parse("data.source", "even,log(P)", KNOWN), parse("data.source", "1,1e3", KNOWN)
    (('even', 'log(P)'), ('1', '1e3'))
    >>> parse("init.fresh", "(heads|decoder)/.*, backbone/dense_[0-9]{1,2}/.*", KNOWN)
    ('(heads|decoder)/.*', 'backbone/dense_[0-9]{1,2}/.*')
    >>> parse("lr", "1e-4", KNOWN), parse("data.options.stream", "true", KNOWN)
    (0.0001, True)
    """
    old = flat.get(path)
    if isinstance(old, str):
        return text
    if isinstance(old, bool):
        words = {"true": True, "false": False, "1": True, "0": False}
        if text.lower() not in words:
            raise ConfigError(f"config.{path} = {text}: must be true or false")
        return words[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # As of "{[]: 1}" or 1000 brackets.
        if isinstance(old, float) and text.lower() in ("nan", "inf", "-inf", "+inf"):
            return float(text)  # Read, so that the range check can say what would be right.
        if isinstance(old, tuple):
            return _words(text)
        if old is None:
            return {"true": True, "false": False}.get(text.lower(), text)
        raise ConfigError(f"config.{path} = {text}: must be of type {type(old).__name__}, like {old!r}") from None
    if isinstance(old, tuple):
        if path in ("data.source", "data.targets") and text.lstrip()[:1] not in ("(", "[", '"', "'"):
            return _words(text)  # A task may be called 1, or None.
        return tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return value


def _words(text: str) -> tuple[str, ...]:
    """Return the words of a text, which are separated by commas and may stand in a pair of brackets as a whole.

    Words may be regular expressions: only a pair that closes at the very end is a pair around all of them, and a comma
    inside of brackets is a part of its word.
    """
    text = text.strip()
    commas, closes = _outside(text)
    if closes == len(text) - 1 and text[:1] in ("(", "["):
        text = text[1:-1]
        commas, _ = _outside(text)
    edges = [-1, *commas, len(text)]
    parts = [text[a + 1 : b].strip() for a, b in itertools.pairwise(edges)]
    return tuple(part for part in parts if part)


def _outside(text: str) -> tuple[list[int], int]:
    """Return (where the commas outside of all brackets are, where the first bracket closes or −1)."""
    ends = {"(": ")", "[": "]", "{": "}"}
    commas: list[int] = []
    awaited: list[str] = []
    closes, escaped = -1, False
    for i, char in enumerate(text):
        if escaped or char == "\\":
            escaped = not escaped
        elif awaited and char == awaited[-1]:
            awaited.pop()
            closes = i if closes < 0 and not awaited else closes
        elif char in ends and awaited[-1:] != ["]"]:  # Brackets in a set of characters, [(], are characters.
            awaited.append(ends[char])
        elif char == "," and not awaited:
            commas.append(i)
    return commas, closes
