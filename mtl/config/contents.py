"""What tuples and dictionaries of a config hold: their types alone do not say it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mtl.config.augmentation import parse
from mtl.config.default import FREE, ConfigError, refused
from mtl.ranges import finite


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def _pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_text, value))


#: (tuple, what each of its items must be, that in words)
_ITEMS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("data.source", _text, "names of tasks"),
    ("data.targets", _text, "names of tasks"),
    ("init.fresh", _text, "patterns (texts)"),
    ("init.rename", _pair, "pairs of texts (pattern, replacement)"),
    ("tune.source_lr", lambda v: finite(v) and v > 0, "finite numbers above 0"),
    ("tune.seeds", _seed, "integers from 0 to 4294967295"),
    ("report.notes", _text, "texts"),
)


def check_contents(flat: Mapping[str, Any]) -> None:
    """Check what the tuples and dictionaries of a config hold; that they are such has been checked before.

    Raises:
      ConfigError: for the first item or key that cannot be, naming the field, the item and what would be right.

    >>> from mtl.config.fields import KNOWN
    >>> check_contents(KNOWN | {"tune.seeds": (0, -1)})
    Traceback (most recent call last):
    ...
    mtl.config.default.ConfigError: config.tune.seeds holds -1: must hold integers from 0 to 4294967295
    """
    for path, accepts, right in _ITEMS:
        for item in flat[path]:
            if not accepts(item):
                raise ConfigError(f"config.{path} holds {item!r}: must hold {right}")
    if flat["tune.source_lr"] and not flat["tune.seeds"]:
        raise ConfigError("config.tune.seeds = (): must hold at least one replicate, as tune.source_lr is set")
    if flat["tune.source_lr"] and not flat["data.source"]:
        raise ConfigError(
            f"config.tune.source_lr = {flat['tune.source_lr']}: must be empty, as data.source = () names no task"
        )
    with refused():
        parse(flat["augment"])
    for section in FREE:
        _check_keys(section, flat[section])
    for name, weight in flat["loss.weights"].items():
        if not finite(weight) or weight < 0:
            raise ConfigError(f"config.loss.weights.{name} = {weight!r}: must be a finite number, at least 0")
    for pattern, multiple in flat["optimizer.rates"].items():
        if not finite(multiple) or multiple < 0:
            raise ConfigError(
                f"config.optimizer.rates[{pattern!r}] = {multiple!r}: must be a finite number, at least 0"
            )
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"config.optimizer.rates: {pattern!r} is no regular expression: {error}") from None


def _check_keys(path: str, value: Any) -> None:
    """Refuse keys that are no texts, at any depth: JSON would turn them into texts without a word."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"config.{path} has the key {key!r}: keys must be texts")
            _check_keys(f"{path}.{key}", inner)
    elif isinstance(value, (tuple, list)):
        for inner in value:
            _check_keys(path, inner)
