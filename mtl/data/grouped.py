"""Drawing rows by whole groups, so that copies of one molecule or scans of one person never meet across roles."""

from __future__ import annotations

import numpy as np


def draw(
    rows: np.ndarray, strata: np.ndarray, shares: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return exactly ``shares[c]`` rows of each stratum c, by whole groups as far as that goes.

    Groups come in random order, and each that fits into what is left of the shares is taken whole. If shares
    are still open after the last, the groups that are left come again, smallest first, and give some of
    their rows; the others of their rows must then be used nowhere (see ``others``).

    Args:
      rows: candidates, [M] indices.
      strata: [N] stratum of each row of the table, at least 0 for candidates.
      shares: [C] rows wanted of each stratum, at most as many as there are.
      groups: [N] group of each row of the table.
      rng: decides the order.

    Returns:
      [sum of shares] indices, in the order they were drawn.

    >>> groups = np.array([0, 0, 1, 1, 2, 2])
    >>> rows = draw(np.arange(6), np.zeros(6, int), np.array([4]), groups, np.random.default_rng(0))
    >>> len(rows), len(np.unique(groups[rows]))
    (4, 2)
    """
    left = [int(n) for n in shares]
    order = rng.permutation(rows)
    _, codes = np.unique(groups[order], return_inverse=True)
    members: list[list[int]] = [[] for _ in range(codes.max(initial=-1) + 1)]
    for row, code in zip(order.tolist(), codes.tolist(), strict=True):
        members[code].append(row)
    in_random_order = [members[code] for code in rng.permutation(len(members))]
    stratum = strata.tolist()
    taken: list[int] = []
    passed: list[list[int]] = []
    for group in in_random_order:
        need = [0] * len(left)
        for row in group:
            need[stratum[row]] += 1
        if all(n <= room for n, room in zip(need, left, strict=True)):
            left = [room - n for n, room in zip(need, left, strict=True)]
            taken += group
        else:
            passed.append(group)
    for group in sorted(passed, key=len):  # a stable sort: groups of one size stay in random order
        for row in group if any(left) else []:
            if left[stratum[row]]:
                left[stratum[row]] -= 1
                taken.append(row)
    return np.array(taken, dtype=np.int64)


def others(rows: np.ndarray, taken: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the rows, in order, of which no member of the group has been taken.

    >>> others(np.arange(4), np.array([0]), np.array([5, 6, 5, 7]))
    array([1, 3])
    """
    return rows[~np.isin(groups[rows], groups[taken])]
