"""Paths of parameters as texts: the keys of a leaf joined by ``/``; see ``mtl.params``. JAX is not needed for them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any


def escaped(name: str, mark: str = "/") -> str:
    """Return a name without the mark that names are joined by: joined, different names stay different.

    Args:
      name: any text.
      mark: one character.

    >>> escaped("NR/AR 50%"), escaped("a+b", "+")
    ('NR%2FAR 50%25', 'a%2Bb')
    """
    return name.replace("%", "%25").replace(mark, f"%{ord(mark):02X}")


def join(*keys: str) -> str:
    """Return the path that some keys are.

    >>> join("heads", "NR/AR", "kernel")
    'heads/NR%2FAR/kernel'
    """
    return "/".join(map(escaped, keys))


def exactly(path: str) -> str:
    """Return the pattern that matches a path and nothing else.

    >>> exactly(join("heads", "log(P)"))
    'heads/log\\\\(P\\\\)'
    """
    # Not `re.escape`: what it escapes beyond need, as the "-" of "NR-AR", would give such studies another address.
    return re.sub(r"[\\.^$*+?{}\[\]|()]", r"\\\g<0>", path)


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested dictionary whose paths are the keys of ``flat``: the inverse of ``flatten``.

    Raises:
      ValueError: for a path that goes through a leaf, as ``a/b`` beside ``a``.

    >>> unflatten({"a/b": 1, "c": 2})
    {'a': {'b': 1}, 'c': 2}
    """
    keys = {path: [part.replace("%2F", "/").replace("%25", "%") for part in path.split("/")] for path in flat}
    known: dict[str, str] = {}  # By the path as `join` writes it: a file of others may hold a bare "%".
    for path in flat:
        if (same := known.setdefault(join(*keys[path]), path)) != path:
            raise ValueError(f'"{same}" and "{path}" are one path')
    for path in known:
        for above in itertools.accumulate(path.split("/")[:-1], "{}/{}".format):
            if above in known:
                raise ValueError(f'path "{known[path]}" goes through the leaf "{known[above]}"')
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = keys[path]
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree
