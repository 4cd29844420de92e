"""What ``mtl data prepare`` needs to know of a data set to write it for TFDS."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Options = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Contents:
    """Data to be written, known when their source has been opened.

    Attributes:
      features: a function to TFDS's features by name; called where TFDS is there.
      total: number of examples.
      bytes_each: about how many bytes one takes, for the size of files.
      examples: the examples from one to another, not included.
      description, citation: what the data are, and whose.
      digest: of everything that the files depend on.
    """

    features: Callable[[], dict[str, Any]]
    total: int
    bytes_each: int
    examples: Callable[[int, int], Iterator[dict[str, Any]]]
    description: str
    citation: str
    digest: str


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A data set that can be prepared.

    Attributes:
      options: its options with their defaults.
      named: the options that decide what is in it, and so name its configuration.
      whole: the options that must be whole numbers.
      check: refuses options out of range (TypeError, ValueError).
      open: from all options and the folder of prepared data to the contents.
    """

    options: Options
    named: tuple[str, ...]
    whole: tuple[str, ...]
    check: Callable[[Options], None]
    open: Callable[[Options, pathlib.Path], Contents]
