"""Expanding a sweep: plain dictionaries, three combinators, and the ``get_hyper`` convention."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mtl.config import ConfigError

Changes = dict[str, Any]


def sweep(key: str, values: Iterable[Any]) -> list[Changes]:
    """Return one change for each value of a field.

    >>> sweep("seed", range(2))
    [{'seed': 0}, {'seed': 1}]
    """
    return [{key: value} for value in values]


def product(*parts: Iterable[Mapping[str, Any]]) -> list[Changes]:
    """Return every combination of one entry of each part.

    Raises:
      ConfigError: if two parts change the same field.

    >>> product(sweep("a", [1, 2]), sweep("b", [3]))
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    """
    return [_union(chosen, "product") for chosen in itertools.product(*(list(p) for p in parts))]


def zipit(*parts: Iterable[Mapping[str, Any]]) -> list[Changes]:
    """Return the first entries of all parts together, the second ones, and so on.

    Raises:
      ConfigError: if the parts differ in length, or two change the same field.

    >>> zipit(sweep("a", [1, 2]), sweep("b", [3, 4]))
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}]
    """
    lists = [list(p) for p in parts]
    if len({len(p) for p in lists}) > 1:
        raise ConfigError(f"zipit: parts of {[len(p) for p in lists]} entries: must all have the same number")
    return [_union(chosen, "zipit") for chosen in zip(*lists, strict=True)]


def chain(*parts: Iterable[Mapping[str, Any]]) -> list[Changes]:
    """Return the entries of all parts, one part after the other.

    >>> chain(sweep("a", [1]), sweep("b", [2]))
    [{'a': 1}, {'b': 2}]
    """
    return [dict(changes) for changes in itertools.chain(*parts)]


def _union(parts: Sequence[Mapping[str, Any]], what: str) -> Changes:
    merged: Changes = {}
    for part in parts:
        for key in part:
            if key in merged:
                raise ConfigError(f'{what}: "{key}" is changed by two parts: name each field once')
        merged.update(part)
    return merged


class Hyper:
    """The object that ``get_hyper(hyper)`` of sweep files written for other JAX codebases expects.

    Keys may begin with ``config.``, as they do there.
    """

    def sweep(self, key: str, values: Iterable[Any], length: int | None = None) -> list[Changes]:
        """Return one change for each value (of the first ``length`` ones)."""
        found = sweep(key, values)
        return found if length is None else found[:length]

    def fixed(self, key: str, value: Any, length: int = 1) -> list[Changes]:
        """Return ``length`` times the same change."""
        return [{key: value} for _ in range(length)]

    def product(self, parts: Iterable[Iterable[Mapping[str, Any]]]) -> list[Changes]:
        """Return every combination."""
        return product(*parts)

    def chainit(self, parts: Iterable[Iterable[Mapping[str, Any]]]) -> list[Changes]:
        """Return one part after the other."""
        return chain(*parts)

    def zipit(self, parts: Iterable[Iterable[Mapping[str, Any]]]) -> list[Changes]:
        """Return first with first, second with second; a part of one entry goes with all, as it does there."""
        lists = [list(p) for p in parts]
        longest = max((len(p) for p in lists), default=0)
        return zipit(*(p * longest if len(p) == 1 else p for p in lists))


@dataclasses.dataclass(frozen=True)
class Defined:
    """A sweep that a config file defines; calling it expands it.

    Attributes:
      question: what it asks: the first line of the function's docstring.
      expand: the function.
    """

    question: str
    expand: Callable[[], Iterable[Any]]

    def __call__(self) -> list[Changes]:
        """Return the changes of each trial.

        Raises:
          ConfigError: if the sweep is empty, names a trial twice, or yields what is no dictionary.
        """
        return _checked(self.expand())


def sweeps_of(module: Any) -> dict[str, Defined]:
    """Return the sweeps that a config file defines, by name, in the order of the file.

    ``sweep_NAME()`` yields flat dictionaries of changes; ``get_hyper(hyper)`` becomes the sweep ``hyper``.

    Raises:
      ConfigError: for a sweep named ``all``.
    """
    found: dict[str, Defined] = {}
    for name, fn in vars(module).items():
        if name.startswith("sweep_") and callable(fn) and getattr(fn, "__module__", None) == module.__name__:
            found[name.removeprefix("sweep_")] = Defined((fn.__doc__ or "").strip().split("\n")[0], fn)
    if callable(getattr(module, "get_hyper", None)):
        found["hyper"] = Defined("", lambda: module.get_hyper(Hyper()))
    if "all" in found:
        raise ConfigError("sweep_all(): --sweep=all means every sweep: give this one another name")
    return found


def _checked(entries: Iterable[Any]) -> list[Changes]:
    """Return the entries as changes without the prefix ``config.``, refusing what is not one."""
    changes: list[Changes] = []
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise ConfigError(f"a sweep yields dictionaries of changes, not {entry!r}")
        changes.append({k.removeprefix("config."): v for k, v in entry.items()})
    if not changes:
        raise ConfigError("the sweep is empty: it must yield at least one dictionary of changes")
    seen = set()
    for entry in changes:
        key = repr(sorted(entry.items(), key=lambda kv: kv[0]))
        if key in seen:
            raise ConfigError(f"the sweep yields {entry} twice: each trial must be named once")
        seen.add(key)
    return changes
