"""Checking a config before anything is compiled: each field against its declaration, and fields against each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

from mtl.config.augmentation import parse
from mtl.config.declaration import FIELDS, Duration
from mtl.config.default import FREE
from mtl.config.fields import KNOWN, Flat, coerce, unknown
from mtl.config.problems import ConfigError, refused
from mtl.hypothesis import hypothesis_of
from mtl.options import fits, tuples, words
from mtl.ranges import Range
from mtl.regimes import get

#: What a duration is in.
UNITS = Duration._fields


def check(flat: Flat) -> None:
    """Check every field's name, type and range, and what fields must be to each other.

    Raises:
      ConfigError: for the first value that cannot be, naming the field, the value and what would be right.

    >>> check(KNOWN | {"lr": -1.0})
    Traceback (most recent call last):
    ...
    mtl.config.problems.ConfigError: config.lr = -1.0: must be a finite number above 0
    >>> check(KNOWN | {"tune.seeds": (0, -1)})
    Traceback (most recent call last):
    ...
    mtl.config.problems.ConfigError: config.tune.seeds holds -1: must hold integers from 0 to 4294967295
    """
    for path in flat:
        if path not in KNOWN:
            raise ConfigError(unknown(path, KNOWN))
    if missing := KNOWN.keys() - flat.keys():
        raise ConfigError(f"config.{min(missing)} is missing: a config begins with mtl.config.default()")
    for path, (hint, default, _) in FIELDS.items():
        value = flat[path]
        if value is not _right_before.get(path, default):
            coerce(path, value, default)
            _check_value(path, hint, value)
            _right_before[path] = value
    for pattern in flat["optimizer.rates"]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"config.optimizer.rates: {pattern!r} is no regular expression: {error}") from None
    with refused():
        parse(flat["augment"])
        stated = hypothesis_of(flat)
    if not flat["data.test_size"] and flat["data.split"] != "official":
        raise ConfigError("config.data.test_size = 0: must be at least 1")
    if flat["data.split"] == "scaffold" and flat["data.options"].get("groups") != "scaffold":
        raise ConfigError(
            'config.data.split = "scaffold": scaffolds must be groups: set config.data.options.groups = "scaffold" too'
        )
    for name in (flat["report.rows"], flat["report.columns"]):
        if name not in KNOWN and not any(name.startswith(f"{section}.") for section in FREE):
            raise ConfigError(f"config.report: {unknown(name, KNOWN)}")
    of_regimes = flat["report.rows"] == "regime"
    for name in (stated.first, stated.second) if stated and of_regimes else ():
        with refused(f'config.report.contrast = "{flat["report.contrast"]}": '):
            get(name, flat["regimes"])
    if flat["data.source"] and not flat["data.source_size"]:
        raise ConfigError("config.data.source_size = 0: must be at least 1")
    if flat["batch_size"] % flat["accumulate"]:
        raise ConfigError(
            f"config.accumulate = {flat['accumulate']}: must divide batch_size = {flat['batch_size']} evenly"
        )
    for section in ("source", "target"):
        duration(section, flat)
    if flat["tune.source_lr"] and not flat["tune.seeds"]:
        raise ConfigError("config.tune.seeds = (): must hold at least one replicate, as tune.source_lr is set")
    if flat["tune.source_lr"] and not flat["data.source"]:
        raise ConfigError(
            f"config.tune.source_lr = {flat['tune.source_lr']}: must be empty, as data.source = () names no task"
        )


#: The last value of each field that was right: trials of a sweep share most of them.
_right_before: dict[str, Any] = {}


def _check_value(path: str, hint: Any, value: Any) -> None:
    """Refuse a value that a field's type and range do not allow: the item that is wrong, where it holds some."""
    if isinstance(value, Mapping):
        _check_keys(path, value)
    if fits(hint, tuples(value)):
        return
    if isinstance(value, Mapping):
        each = get_args(hint)[1]
        key = next(key for key in value if not fits(each, value[key]))
        where = f"[{key!r}]" if path == "optimizer.rates" else f".{key}"
        raise ConfigError(f"config.{path}{where} = {value[key]!r}: must be {_right(each)}")
    limits = getattr(hint, "__metadata__", ())
    if isinstance(value, (tuple, list)) and not any(isinstance(limit, Range) for limit in limits):
        each = get_args(hint.__origin__)[0]
        item = next(item for item in value if not fits(each, tuples(item)))
        raise ConfigError(f"config.{path} holds {item!r}: must hold {_right(hint)}")
    raise ConfigError(f"config.{path} = {value!r}: must be {_right(hint)}")


def _right(hint: Any) -> str:
    """Return what a value of the right type must be: what the declaration says, or else what the range does."""
    said = [limit for limit in getattr(hint, "__metadata__", ()) if isinstance(limit, str)]
    return said[-1] if said else re.sub("^a (whole )?number,? ", "", words(hint))


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


def duration(section: str, flat: Mapping[str, Any]) -> tuple[str, float]:
    """Return (unit, amount) of a section's duration.

    Raises:
      ConfigError: unless exactly one of the three units is set; of the source, none need be if it has no tasks.
    """
    given = {unit: flat[f"{section}.{unit}"] for unit in UNITS if flat[f"{section}.{unit}"]}
    if not given and section == "source" and not flat["data.source"]:
        return "total_steps", 0.0
    if len(given) != 1:
        what = " and ".join(f"{section}.{unit} = {amount:g}" for unit, amount in given.items()) or "nothing"
        raise ConfigError(
            f"config.{section}: {what} set: set exactly one of total_steps, total_epochs, total_examples (0: not set)"
        )
    ((unit, amount),) = given.items()
    return unit, float(amount)
