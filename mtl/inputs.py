"""What one input is: an array of numbers, an array of ids, or several of them by name.

Inputs are a pytree: an array [N, …], or a dict of arrays ``{leaf: [N, …]}``. A leaf holds numbers, float32 where a
network sees them, or ids (of words, of categories), int32 from end to end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Structure:
    """One input that is more than an array of numbers; hashable.

    Attributes:
      leaves: of each leaf (its name, its sizes, how many ids there are, 0 for numbers), sorted; an array is one leaf
        without a name.

    >>> print(Structure((("", (12,), 1000),)))
    (12,) of ids below 1,000
    >>> print(Structure((("image", (8, 8, 1), 0), ("words", (12,), 1000))))
    {image: (8, 8, 1), words: (12,) of ids below 1,000}
    """

    leaves: tuple[tuple[str, tuple[int, ...], int], ...]

    def __str__(self) -> str:
        """Return it as sentences say it."""
        said = [f"{sizes} of ids below {count:,}" if count else str(sizes) for _, sizes, count in self.leaves]
        names = [name for name, _, _ in self.leaves]
        if names == [""]:
            return said[0]
        return f"{{{', '.join(f'{name}: {what}' for name, what in zip(names, said, strict=True))}}}"


#: What one input is: the sizes of an array of numbers, or what else it is.
Shape = tuple[int, ...] | Structure


def each(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Return what a function makes of each leaf of some inputs, as a dict if these are one.

    Args:
      function: takes a leaf, and what the others have for it.
      tree: an array, or ``{leaf: array}``.
      others: a value, or ``{leaf: value}``; None for a leaf that is not there.

    >>> each(lambda a, b: (a, b), {"x": 1, "y": 2}, {"y": 3}), each(lambda a, b: (a, b), 1, None)
    ({'x': (1, None), 'y': (2, 3)}, (1, None))
    """
    if not isinstance(tree, Mapping):
        return function(tree, *others)
    own = {name: [None if o is None else o.get(name) for o in others] for name in tree}
    return {name: function(leaf, *own[name]) for name, leaf in tree.items()}


def by_name(tree: Any) -> dict[str, Any]:
    """Return the leaves of some inputs by their names; that of an array has none.

    >>> by_name(1), by_name({"x": 1, "y": 2}), by_name(None)
    ({'': 1}, {'x': 1, 'y': 2}, {})
    """
    return dict(tree) if isinstance(tree, Mapping) else {} if tree is None else {"": tree}


def leaves(tree: Any) -> list[Any]:
    """Return the leaves of some inputs.

    >>> leaves({"x": 1, "y": 2})
    [1, 2]
    """
    return list(by_name(tree).values())


def count(x: Any) -> int:
    """Return N, of how many examples some inputs are.

    >>> count([1, 2, 3]), count({"x": [1, 2], "y": [3, 4]})
    (3, 2)
    """
    return len(leaves(x)[0])


def structure(x: Any, vocabulary: Any = None) -> Shape:
    """Return what one of some inputs is.

    Args:
      x: an array [N, …], or ``{leaf: array}``.
      vocabulary: how many ids there are of a leaf that holds ids.

    >>> import numpy as np
    >>> structure(np.zeros((5, 8))), structure(np.zeros((5, 12), np.int32), 9)
    ((8,), Structure(leaves=(('', (12,), 9),)))
    """
    if not isinstance(x, Mapping):
        sizes = tuple(x.shape[1:])
        return Structure((("", sizes, vocabulary),)) if vocabulary else sizes
    counts = vocabulary or {}
    return Structure(tuple((name, tuple(x[name].shape[1:]), counts.get(name, 0)) for name in sorted(x)))


def leaf_shapes(shape: Shape) -> list[tuple[int, ...]]:
    """Return the shape of each leaf of one input.

    >>> leaf_shapes((8,)), leaf_shapes(Structure((("image", (8, 8, 1), 0), ("words", (12,), 1000))))
    ([(8,)], [(8, 8, 1), (12,)])
    """
    return [leaf[1] for leaf in shape.leaves] if isinstance(shape, Structure) else [shape]


def vocabularies(shape: Shape) -> list[int]:
    """Return how many ids there are of each leaf that holds ids.

    >>> vocabularies((8,)), vocabularies(Structure((("image", (8, 8, 1), 0), ("words", (12,), 1000))))
    ([], [1000])
    """
    return [count for _, _, count in shape.leaves if count] if isinstance(shape, Structure) else []


def like(shape: Shape, rows: int, make: Callable[[tuple[int, ...], str], Any]) -> Any:
    """Return so many inputs of that kind.

    Args:
      shape: what one input is.
      rows: how many.
      make: from sizes and a dtype to an array, such as ``jnp.zeros`` or ``jax.ShapeDtypeStruct``.

    >>> import numpy as np
    >>> like((8,), 2, np.zeros).shape
    (2, 8)
    """
    if not isinstance(shape, Structure):
        return make((rows, *shape), "float32")
    made = {name: make((rows, *sizes), "int32" if ids else "float32") for name, sizes, ids in shape.leaves}
    return made.get("", made)


def image_leaf(x: Any) -> Any:
    """Return the leaf that holds images: the only one of four axes, and of numbers; None if there is none or several.

    >>> import numpy as np
    >>> image_leaf({"a": np.zeros((5, 8)), "b": np.zeros((5, 8, 8, 1))}).shape, image_leaf(np.zeros((5, 8)))
    ((5, 8, 8, 1), None)
    """
    found = [leaf for leaf in leaves(x) if leaf.ndim == 4 and leaf.dtype.kind == "f"]
    return found[0] if len(found) == 1 else None
