"""What every reader can be told, in one place; and how a reader becomes a function that takes its options by name."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from mtl.data.paths import MAX_BYTES
from mtl.data.readers.cells import Markers
from mtl.data.readers.labels import ClassNames
from mtl.data.table import Table

Labels = Mapping[str, str] | Sequence[str] | str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What readers share; a reader's own options are a subclass, with the fields that it adds.

    Args:
      labels: ``{column: kind}``, or a list of ``column`` or ``column:kind``; the kind is ``binary``, ``multiclass``,
        ``regression`` or left out, to be inferred. Patterns may stand for columns.
      inputs: names or patterns of input columns; ``*``, the default, for all that are nothing else.
      ignore: names or patterns of columns that are neither; none by default.
      groups: a column whose equal cells make rows that no split may part, such as a person's number; empty for none.
      part: a column whose cells say which rows are for training, validation and testing (``train``, ``val…`` or
        ``dev…``, ``test``), for ``data.split = "official"``; empty for none.
      missing: markers that mean missing in labels and inputs, texts or numbers, beside blanks, NaN and None; none by
        default.
      missing_inputs: ``error``, the default, or ``flag``: the mean of the training rows in place of a missing input,
        and one more input for each column that has any, 1 where it is missing.
      classes: ``{column: names}`` or a list of (column, name, name, ...): the classes in order of their ids; where a
        column has none, its own values, sorted.
      directory: the data directory, see ``mtl.data.paths.resolve``; empty for the environment's, or the present one.
      sha256: of the file, to refuse any other; empty to take any.
      name: of the table; the file's if empty.
      about: what the data are, their source and licence.
      max_bytes: the most the file may hold, decompressed, and its cells in memory; 2³¹ by default.
    """

    labels: Labels
    inputs: Sequence[str] | str = "*"
    ignore: Sequence[str] | str = ()
    groups: str = ""
    part: str = ""
    missing: Markers | str = ()
    missing_inputs: str = "error"
    classes: ClassNames = ()
    directory: str = ""
    sha256: str = ""
    name: str = ""
    about: str = ""
    max_bytes: int = MAX_BYTES

    def named(self, name: str) -> ReadOptions:
        """Return the same options with a name for the table, if they give none."""
        return dataclasses.replace(self, name=self.name or name)


def reader(
    options: type[ReadOptions], without: Collection[str] = ()
) -> Callable[[Callable[[Any, Any], Table]], Callable[..., Table]]:
    """Make a function of a path and options one that takes the options by name, as configs give them; a decorator.

    The parameters of what it makes are the path, the options without a default, and the others.

    Args:
      options: what the function takes behind the path.
      without: shared options that its data cannot have; they keep their defaults.

    >>> @reader(ReadOptions, without=("groups",))
    ... def read(path: str, options: ReadOptions) -> Table:
    ...     raise ValueError(f"{path} and {options.labels}")
    >>> read("a.csv", labels="y")
    Traceback (most recent call last):
    ...
    ValueError: a.csv and y
    >>> [*inspect.signature(read).parameters][:4]
    ['path', 'labels', 'inputs', 'ignore']
    """

    def decorate(read: Callable[[Any, Any], Table]) -> Callable[..., Table]:
        path = next(iter(inspect.signature(read).parameters.values()))
        hints = {**typing.get_type_hints(read), **typing.get_type_hints(options, include_extras=True)}
        fields = [p for p in inspect.signature(options).parameters.values() if p.name not in without]
        taken = [path, *sorted(fields, key=lambda p: p.default is not p.empty)]
        signature = inspect.Signature(
            [p.replace(kind=p.POSITIONAL_OR_KEYWORD, annotation=hints[p.name]) for p in taken],
            return_annotation=Table,
        )

        @functools.wraps(read)
        def table(*given: Any, **by_name: Any) -> Table:
            values = signature.bind(*given, **by_name).arguments
            return read(values.pop(path.name), options(**values))

        vars(table).update(__signature__=signature, options=options)  # The second says what they mean.
        return table

    return decorate
