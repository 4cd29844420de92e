"""Drawing rows so that the labels of many tasks at once are in the draw as often as in all of them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

#: How many candidates, drawn at random, each step looks at: most of them are not the most typical rows there are.
_CANDIDATES = 32


def stratified(
    marks: Bool[np.ndarray, "M L"], size: int, rng: np.random.Generator, groups: Int[np.ndarray, " M"] | None = None
) -> Int[np.ndarray, " size"]:
    """Return ``size`` rows in an order in which every prefix has each mark about as often as all M rows have it.

    With p the share of each mark and d = Σ (φ_i − p) over the rows taken, the next row is, of 32 that chance draws,
    the one with the least Σ_l (d + φ_i − p)_l² / √p_l: the more a mark has fallen behind, and the rarer it is, the
    sooner comes a row that has it. Counts stray by a row or two, of dozens of tasks too. Iterative stratification
    (Sechidis et al. 2011), the usual way, gives neither exact sizes nor an order whose prefixes are subsets.

    Rows of a group come together. The sizes of groups (by powers of two) are marks too, or none but small groups would
    be drawn. If no group that is left fits into what is wanted, the smallest gives some of its rows; the others must
    then be used nowhere (see ``grouped.others``).

    Args:
      marks: true where a row has a mark: a class or a quantile of a task. A missing label is no mark.
      size: how many rows, at most M.
      rng: decides.
      groups: of each row.

    Returns:
      Positions in 0 … M − 1. Without groups those of a smaller size are the first of those of a larger one.

    >>> marks = np.eye(2, dtype=bool)[np.arange(40) % 2]
    >>> marks[stratified(marks, 10, np.random.default_rng(0))].sum(axis=0)
    array([5, 5])
    """
    names = np.arange(len(marks)) if groups is None else groups
    _, unit, count = np.unique(names, return_inverse=True, return_counts=True)
    if groups is not None:
        power = np.log2(count[unit]).astype(int)
        marks = np.concatenate([marks, power[:, None] == np.unique(power)], axis=1)
    share = marks.mean(axis=0)
    marks, share = marks[:, share > 0], share[share > 0]
    # Of each unit (a row, or a group): its rows, and by how much taking it moves d, in the scale of the sum above.
    members, starts = np.argsort(unit, kind="stable"), np.cumsum(count) - count
    moves = (marks - share) / share**0.25
    moves = moves if groups is None else np.add.reduceat(moves[members], starts)
    length = np.square(moves).sum(axis=1)
    left, room, taken = np.arange(len(count)), size, [members[:0]]
    off = np.zeros(moves.shape[1])
    while room:
        places = rng.integers(len(left), size=min(_CANDIDATES, len(left))) if len(left) else left
        fit = places[count[left[places]] <= room]
        if not len(fit):
            left = left[count[left] <= room]  # The others never will: room only shrinks.
            if not len(left):
                break
            continue
        some = left[fit]
        best = int(np.argmin((2 * moves[some] @ off + length[some]) / count[some]))
        chosen = some[best]
        left[fit[best]] = left[-1]
        left = left[:-1]
        off += moves[chosen]
        room -= int(count[chosen])
        taken.append(members[starts[chosen] : starts[chosen] + count[chosen]])
    if room:
        rest = np.setdiff1d(np.arange(len(marks)), np.concatenate(taken))
        smallest = unit[rest[np.argmin(count[unit[rest]])]]
        taken.append(rng.permutation(rest[unit[rest] == smallest])[:room])
    return np.concatenate(taken)
