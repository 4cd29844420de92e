"""The registry by which a config names data: a function that returns a table, and the options it takes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from mtl.data.paths import stamp
from mtl.data.table import Table
from mtl.options import checked, same, tuples
from mtl.tasks import suggest

Source = TypeVar("Source", bound=Callable[..., Table])

#: The data sets that a config can name; ``register`` adds to it.
SOURCES: dict[str, Callable[..., Table]] = {}


def register(name: str) -> Callable[[Source], Source]:
    """Make a function that returns a table loadable under a name, as a decorator.

    Running a config file twice registers the same function again, which is allowed: the later one counts.

    Args:
      name: what a config will call the data.

    Returns:
      A decorator that returns the function as it is; its parameters are the options of ``load``.

    Raises:
      ValueError: if another function has that name.

    >>> from mtl.data.table import make_table
    >>> from mtl.tasks import Task
    >>> @register("coin")
    ... def coin(rows: int = 4) -> Table:
    ...     x, heads = [[1.0]] * rows, [i % 2 for i in range(rows)]
    ...     return make_table("coin", x, [Task("heads", "binary")], {"heads": heads})
    >>> len(load("coin", rows=6))
    6
    >>> del SOURCES["coin"]
    """

    def decorate(source: Source) -> Source:
        present = SOURCES.get(name)
        if present is not None and not same(present, source):
            raise ValueError(
                f'data "{name}" is registered already, by {_described(present)}: give {_described(source)} another name'
            )
        SOURCES[name] = source
        return source

    return decorate


def load(name: str, **options: Any) -> Table:
    """Return the data registered under a name; the last 16 tables are kept, as long as their files stay the same.

    Args:
      name: a key of ``SOURCES``; ``tfds:NAME`` for ``tfds`` with the option ``builder="NAME"``.
      **options: what the data set's function takes; numbers, strings, booleans, lists or tuples of them, and
        dictionaries of these.

    Raises:
      ValueError: for a name or an option that does not exist (with a suggestion), an option left out that has
        no default, an option that cannot be hashed, and a function that returns no table.

    >>> from mtl.data import load
    >>> load("digits") is load("digits", images=False)
    True
    >>> load("digit")
    Traceback (most recent call last):
    ...
    ValueError: data "digit" does not exist: did you mean "digits"? Valid: ...
    """
    return load_with(name, options)


def load_with(name: str, options: Mapping[str, Any], where: str = "") -> Table:
    """Return what ``load`` returns.

    Args:
      name: as in ``load``.
      options: as in ``load``, ``{option: value}``.
      where: where a config has the options, for sentences about one.

    Raises:
      ValueError: as ``load``.
    """
    if name.startswith("tfds:"):
        return load_with("tfds", {**options, "builder": name.removeprefix("tfds:")}, where)
    if name not in SOURCES:
        raise ValueError(f'data "{name}" does not exist: {suggest(name, SOURCES)}')
    source = SOURCES[name]
    parameters = inspect.signature(source).parameters
    full = {k: tuples(p.default) for k, p in parameters.items() if p.default is not p.empty}
    full |= checked(source, options, where, f'data "{name}"')
    full = {
        k: _Frozen({of: tuples(v) for of, v in o.items()}) if isinstance(o, Mapping) else o for k, o in full.items()
    }
    for option, value in full.items():
        try:
            hash(value)
        except TypeError:
            at, kind = where or f'data "{name}": ', type(value).__name__
            right = "must be a number, a text, True or False, a list of them, or {name: one of these}"
            raise ValueError(f"{at}{option} is a {kind}: {right}") from None
    return _load(name, source, tuple(sorted(full.items())), stamp(full))


class _Frozen(dict[Any, Any]):
    """A dictionary that is a key of a cache, and is not changed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


def forget() -> None:
    """Let go of the tables that are kept: the next ``load`` reads its files again, whatever their times say."""
    _load.cache_clear()


@functools.lru_cache(maxsize=16)
def _load(
    name: str, source: Callable[..., Table], options: tuple[tuple[str, Hashable], ...], stamp: tuple[Hashable, ...]
) -> Table:
    del stamp  # part of the key alone
    table = source(**dict(options))
    if not isinstance(table, Table):
        raise ValueError(
            f'data "{name}": {_described(source)} returned a {type(table).__name__}: '
            "must be a table of mtl.data.make_table"
        )
    return table


def _described(source: Callable[..., Table]) -> str:
    return f"{getattr(source, '__module__', '?')}.{getattr(source, '__qualname__', repr(source))}"
