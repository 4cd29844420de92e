"""What data can be named: one line each, the licence, whether they can be read here, and how to get them."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import re
from collections.abc import Callable
from typing import Any

from mtl.data.paths import resolve
from mtl.data.problems import DataError
from mtl.data.registry import SOURCES
from mtl.data.sets.about import About
from mtl.data.sets.mnist import FASHION_MNIST, MNIST, find
from mtl.data.sets.spam_assassin import SPAM_ASSASSIN, find_mails
from mtl.data.sets.tox21 import TOX21, TOXCAST
from mtl.data.sets.yeast import YEAST, find_yeast
from mtl.data.tfds.source import root


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a catalogue says of a data set.

    Args:
      name: by which a config names it.
      line: what it is.
      licence: of the data; empty where they are the user's own.
      available: whether it can be read here and now.
      how: how to get it, or the options it needs.
    """

    name: str
    line: str
    licence: str
    available: bool
    how: str


_ABOUT = {
    "tox21": TOX21,
    "toxcast": TOXCAST,
    "yeast": YEAST,
    "mnist": MNIST,
    "fashion_mnist": FASHION_MNIST,
    "multi_mnist": MNIST,
    "spam_assassin": SPAM_ASSASSIN,
}

_LICENCES = {"digits": "CC BY 4.0 (UCI), as scikit-learn distributes it.", "latent": "drawn.", "road_scenes": "drawn."}

# What files need beside what is installed always: (module, extra).
_PACKAGES = {
    "parquet": ("pyarrow", "parquet"),
    "images": ("PIL", "images"),
    "tfds": ("tensorflow_datasets", "tfds"),
}


def catalogue() -> list[Entry]:
    """Return an entry for every data set there is a name for, those of the user last.

    >>> [entry.name for entry in catalogue() if entry.available][:2]
    ['digits', 'latent']
    """
    return [_entry(name, source) for name, source in SOURCES.items()]


def _entry(name: str, source: Callable[..., Any]) -> Entry:
    about = _ABOUT.get(name)
    line = (inspect.getdoc(source) or "").partition("\n")[0]
    if about is not None and name != "multi_mnist":
        line = about.title
    # Plain text: a docstring's code marks, and what it says of others ("Return the table of …"), are not for lists.
    line = re.sub(r"``?", "", line).removeprefix("Return ").removeprefix("Draw ").removeprefix("Generate ")
    line = line[:1].upper() + line[1:] or f"{source.__module__}.{source.__qualname__}, without a docstring."
    needed = [p.name for p in inspect.signature(source).parameters.values() if p.default is p.empty]
    options = f"Options: {', '.join(f'{n}=…' for n in needed)}." if needed else ""
    if name in _PACKAGES:
        module, extra = _PACKAGES[name]
        there = importlib.util.find_spec(module) is not None
        prepared = ""
        if name == "tfds" and there:
            found = sorted({path.parents[1].name for path in root().glob("*/*/dataset_info.json")})
            found += sorted({f"{path.parents[2].name}/{path.parents[1].name}" for path in _configs()})
            prepared = f" Prepared in {root()}: {', '.join(found) or 'nothing'}."
        return Entry(name, line, "", there, (options if there else f'pip install "mtl[{extra}]"') + prepared)
    if about is None:
        return Entry(name, line, _LICENCES.get(name, ""), True, options)
    there = _is_there(name, about)
    return Entry(name, line, about.licence, there, "" if there else about.obtained)


def _configs() -> list[Any]:
    return [path for path in root().glob("*/*/*/dataset_info.json") if "incomplete" not in path.parent.name]


def _is_there(name: str, about: About) -> bool:
    try:
        if name == "yeast":
            find_yeast()
        elif name == "spam_assassin":
            find_mails()
        elif name in ("tox21", "toxcast"):
            resolve(about.sha256[0][0])
        else:
            find("mnist" if name == "multi_mnist" else name, about)
    except DataError:
        return False
    return True
