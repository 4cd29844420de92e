"""Parameters by path: select, split and combine (structural freezing), merge (loading), counts, a report.

A path is the keys of a leaf joined by ``/``, e.g. ``backbone/dense_0/kernel``; it never begins with ``/``. A ``/`` or
``%`` inside of a key is written as ``%2F`` or ``%25``, as in a URL, so that two keys never look like one: the head of a
task "NR/AR" is at ``heads/NR%2FAR``. Patterns are regular expressions that match the *whole* path, and one that matches
nothing is an error; what a program knows by name it writes with ``exactly``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax

from mtl.paths import escaped as escaped
from mtl.paths import exactly as exactly
from mtl.paths import join as join
from mtl.paths import unflatten as unflatten

PyTree = Any


def path_of(key_path: tuple[Any, ...]) -> str:
    """Return the path of a leaf, ``a/b/c``, from JAX's key path."""
    return join(*(jax.tree_util.keystr((key,), simple=True) for key in key_path))


def flatten(tree: PyTree) -> dict[str, Any]:
    """Return ``{path: leaf}`` in the tree's own order; ``None`` is no leaf.

    Raises:
      ValueError: for two leaves with one path, as of ``{"1": 1, 1: 2}``.

    >>> flatten({"b": {"w": 1}, "a": 2})
    {'a': 2, 'b/w': 1}
    """
    flat: dict[str, Any] = {}
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path = path_of(key_path)
        if path in flat:
            raise ValueError(f'two leaves have the path "{path}": keys must differ as texts')
        flat[path] = leaf
    return flat


def select(tree: PyTree, patterns: Sequence[str]) -> PyTree:
    """Return a tree of booleans: true where any of ``patterns`` matches the leaf's whole path.

    Args:
      tree: parameters, any pytree of dictionaries.
      patterns: regular expressions; ``("heads/.*",)`` selects every head.

    Raises:
      ValueError: for a pattern that matches no leaf, naming the paths there are, or is no regular expression.

    >>> select({"backbone": {"w": 1}, "heads": {"even": 2}}, ["heads/.*"])
    {'backbone': {'w': False}, 'heads': {'even': True}}
    """
    paths = list(flatten(tree))
    _check_patterns(patterns)
    chosen: set[str] = set()
    for pattern in patterns:
        match = re.compile(pattern, re.DOTALL).fullmatch  # Once: of many patterns, the module forgets the first ones.
        found = [path for path in paths if match(path)]
        if not found:
            raise ValueError(f'pattern "{pattern}" matches no parameter; paths: {_some(paths)}')
        chosen.update(found)
    return jax.tree_util.tree_map_with_path(lambda p, _: path_of(p) in chosen, tree)


def split(tree: PyTree, chosen: PyTree) -> tuple[PyTree, PyTree]:
    """Split a tree into (chosen, rest), each of the same shape with ``None`` where the other has the leaf.

    ``None`` is no leaf to JAX, so whatever is computed from the first part (gradients, optimizer slots,
    decay, norms) does not exist for the second: this is how freezing is done here.

    >>> split({"a": 1, "b": 2}, {"a": True, "b": False})
    ({'a': 1, 'b': None}, {'a': None, 'b': 2})
    """
    keep = jax.tree.map(lambda c, x: x if c else None, chosen, tree)
    rest = jax.tree.map(lambda c, x: None if c else x, chosen, tree)
    return keep, rest


def combine(first: PyTree, second: PyTree) -> PyTree:
    """Undo ``split``: take each leaf from whichever tree has it.

    >>> combine({"a": 1, "b": None}, {"a": None, "b": 2})
    {'a': 1, 'b': 2}
    """
    return jax.tree.map(lambda x, y: y if x is None else x, first, second, is_leaf=lambda v: v is None)


def merge(init: PyTree, loaded: PyTree, fresh: Sequence[str] = (), rename: Sequence[tuple[str, str]] = ()) -> PyTree:
    """Load parameters into a freshly initialised tree, every leaf accounted for.

    Args:
      init: the tree the model wants, with its shapes and dtypes.
      loaded: the tree that was found.
      fresh: patterns of paths that keep their initial value, whatever was loaded for them.
      rename: (pattern, replacement) pairs applied in order to the loaded paths, each to a whole path.

    Returns:
      ``init`` with every leaf replaced by its loaded value, but for those that ``fresh`` matches.

    Raises:
      ValueError: one error that lists all of: leaves missing, extra, of another shape or dtype, two loaded
        leaves renamed to one path, and patterns of ``fresh`` and ``rename`` that match nothing.

    >>> import numpy as np
    >>> init = {"w": np.zeros((2,)), "head": np.zeros((5,))}
    >>> merge(init, {"w": np.ones((2,)), "head": np.ones((3,))}, fresh=["head"])["w"]
    array([1., 1.])
    >>> merge(init, {"w": np.ones((2,)), "head": np.ones((3,))})
    Traceback (most recent call last):
    ...
    ValueError: parameters do not fit: shape of head: loaded (3,), wanted (5,)
    """
    _check_patterns([*fresh, *(pattern for pattern, _ in rename)])
    wanted = flatten(init)
    problems: list[str] = []
    found: dict[str, Any] = {}
    used = {pattern: False for pattern, _ in rename}
    for path, leaf in flatten(loaded).items():
        target = path
        for pattern, replacement in rename:
            # Expanded from the whole match: `re.sub` would search anew and stop at a shorter one ("a|ab").
            if match := _match(pattern, target):
                target, used[pattern] = match.expand(replacement), True
        if target in found:
            problems.append(f"two loaded leaves become {target}")
        found[target] = leaf
    problems += [f'rename pattern "{p}" matches nothing' for p, hit in used.items() if not hit]
    problems += [f'fresh pattern "{p}" matches nothing' for p in fresh if not any(_match(p, k) for k in wanted)]

    def is_fresh(path: str) -> bool:
        return any(_match(p, path) for p in fresh)

    missing = [k for k in wanted if k not in found and not is_fresh(k)]
    extra = [k for k in found if k not in wanted and not is_fresh(k)]
    if missing:
        problems.append(f"missing {_some(missing)}")
    if extra:
        problems.append(f"extra {_some(extra)}")
    for path, leaf in wanted.items():
        if path in found and not is_fresh(path):
            if tuple(found[path].shape) != tuple(leaf.shape):
                problems.append(f"shape of {path}: loaded {tuple(found[path].shape)}, wanted {tuple(leaf.shape)}")
            elif found[path].dtype != leaf.dtype:
                problems.append(f"dtype of {path}: loaded {found[path].dtype}, wanted {leaf.dtype}")
    if problems:
        raise ValueError("parameters do not fit: " + "; ".join(problems))
    return jax.tree_util.tree_map_with_path(lambda p, x: x if is_fresh(path_of(p)) else found[path_of(p)], init)


def count(tree: PyTree) -> int:
    """Return the number of scalars in a tree.

    >>> import numpy as np
    >>> count({"w": np.zeros((3, 4)), "b": None})
    12
    """
    return sum(math.prod(getattr(x, "shape", ())) for x in jax.tree.leaves(tree))


def report(params: PyTree, trainable: PyTree) -> str:
    """Return a readable account of what trains and what is frozen, a line a parameter.

    Args:
      params: the parameters.
      trainable: the booleans of ``select``.

    >>> import numpy as np
    >>> p = {"backbone": {"kernel": np.zeros((4, 8))}, "heads": {"even": np.zeros((8,))}}
    >>> print(report(p, select(p, ["heads/.*"])))
    frozen     backbone/kernel  (4, 8)  32
    trainable  heads/even       (8,)     8
    8 of 40 parameters train (20.0 %)
    """
    rows = []
    for (path, leaf), moves in zip(flatten(params).items(), jax.tree.leaves(trainable), strict=True):
        rows.append(("trainable" if moves else "frozen", path, str(tuple(leaf.shape)), str(count(leaf))))
    aligns: tuple[Callable[[str, int], str], ...] = (str.ljust, str.ljust, str.ljust, str.rjust)
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
    lines = ["  ".join(a(c, w) for a, c, w in zip(aligns, row, widths, strict=True)) for row in rows]
    total, moving = count(params), count(split(params, trainable)[0])
    return "\n".join([*lines, f"{moving} of {total} parameters train ({100 * moving / max(total, 1):.1f} %)"])


def _match(pattern: str, path: str) -> re.Match[str] | None:
    return re.fullmatch(pattern, path, re.DOTALL)  # A name may hold the end of a line.


def _check_patterns(patterns: Sequence[str]) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f'pattern "{pattern}" is not a regular expression: {error}') from None


def _some(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
