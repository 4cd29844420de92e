"""Random numbers by counter: example i of a seed is the same in whatever batch, order or number it is made."""

from __future__ import annotations

import zlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: np.ndarray) -> np.ndarray:
    """Return uint64 numbers scrambled one by one: the finaliser of SplitMix64.

    Source: G. L. Steele, D. Lea and C. H. Flood 2014, Fast splittable pseudorandom number generators
    (doi:10.1145/2660193.2660195).

    >>> mix(np.array([1], np.uint64))
    array([6238072747940578789], dtype=uint64)
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Counter:
    """Draws for some examples, each named: a draw depends on seed, name and example alone.

    Args:
      seed: of the data set.
      index: [B], the examples' numbers.

    >>> both, one = Counter(0, np.arange(2)), Counter(0, np.array([1]))
    >>> bool(both("x")[1] == one("x")[0])
    True
    """

    def __init__(self, seed: int, index: np.ndarray) -> None:
        """Mix the seed and each example's number."""
        start = mix(np.array([seed], np.uint64) + _GOLDEN)
        self._state = mix(start ^ (index.astype(np.uint64) * _GOLDEN))

    def only(self, rows: np.ndarray) -> Counter:
        """Return the draws of some of the examples."""
        part = object.__new__(Counter)
        part._state = self._state[rows]
        return part

    def __call__(self, name: str, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Return [B] float64, uniform from ``low`` to ``high``, for the draw of that name."""
        word = np.uint64(zlib.crc32(name.encode()) * int(_GOLDEN) % 2**64)
        return low + (high - low) * ((mix(self._state ^ word) >> np.uint64(11)) * 2.0**-53)

    def integers(self, name: str, below: int) -> np.ndarray:
        """Return [B] int64 from 0 to ``below`` − 1, for the draw of that name."""
        return (self(name) * below).astype(np.int64)

    def chance(self, name: str, probability: float | np.ndarray) -> np.ndarray:
        """Return [B] booleans, each true with ``probability``; those true at p are true at every p' > p."""
        return self(name) < probability

    def pick(self, name: str, choices: np.ndarray) -> np.ndarray:
        """Return [B, ...] rows of ``choices``, uniformly."""
        return choices[self.integers(name, len(choices))]
