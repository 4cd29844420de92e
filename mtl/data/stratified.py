"""Drawing rows so that the labels of many tasks at once are in the draw as often as in all of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

#: How often which of a pair goes first is decided, given all other pairs of a division.
_PASSES = 3


def stratified(
    marks: Bool[np.ndarray, "M L"], size: int, rng: np.random.Generator, groups: Int[np.ndarray, " M"] | None = None
) -> Int[np.ndarray, " size"]:
    """Return ``size`` rows in an order in which every prefix has each mark about as often as all M rows have it.

    A row is about as likely as any other to be among the first m, whatever marks it has: what is decided is which rows
    come together, so that what is in no mark (which labels meet in one row, how hard a row is) is drawn as by chance.
    Taking always the row that fits best would leave out those that are positive for many tasks. Rows are halved, and
    halved again. In each division rows of like marks are paired and a pair is parted; with p the share
    of each mark and d = Σ (φ_i − p) over the rows before the division and in its first half, which of a pair goes first
    is what leaves the least Σ_l d_l² / √p_l. Counts stray by a row or two of a dozen tasks, by three or four of forty.
    Iterative stratification (Sechidis et al. 2011), the usual way, gives neither exact sizes nor an order whose
    prefixes are subsets.

    Rows of a group come together. The sizes of groups (by powers of two) are marks too. A group that does not fit into
    what is still wanted is passed over; if none that is left fits, the smallest gives some of its rows; the others must
    then be used nowhere (see ``grouped.others``).

    Args:
      marks: true where a row has a mark: a class or a quantile of a task. A missing label is no mark.
      size: how many rows, at most M.
      rng: decides.
      groups: of each row.

    Returns:
      Positions in 0 … M − 1. Without groups those of a smaller size are the first of those of a larger one.

    Source: equal chances and equal shares at once are what balanced sampling is (J.-C. Deville and Y. Tillé 2004,
    Efficient balanced sampling: the cube method, Biometrika 91, 893-912).

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
    room, taken, passed = size, [members[:0]], list[int]()
    for one in _order(moves, rng):
        if not room:
            break
        if count[one] > room:
            passed.append(one)
            continue
        taken.append(members[starts[one] : starts[one] + count[one]])
        room -= int(count[one])
    if room:
        smallest = min(passed, key=lambda one: count[one])
        taken.append(rng.permutation(members[starts[smallest] : starts[smallest] + count[smallest]])[:room])
    return np.concatenate(taken)


def _order(moves: Float[np.ndarray, "units L"], rng: np.random.Generator) -> Iterator[int]:
    """Yield all units, by dividing them in halves, the first half first."""
    shuffled = rng.permutation(len(moves))
    # Like beside like, by the rarest mark first: it moves d most. Units that are alike stay in random order.
    alike = shuffled[np.lexsort(moves[shuffled][:, np.argsort(moves.max(axis=0, initial=0))].T)]
    off, left = np.zeros(moves.shape[1]), [alike] * bool(len(alike))
    while left:
        units = left.pop()
        if len(units) == 1:
            off += moves[units[0]]
            yield int(units[0])
            continue
        left += _halves(units, moves, off, rng)[::-1]


def _halves(
    units: Int[np.ndarray, " units"],
    moves: Float[np.ndarray, "all L"],
    off: Float[np.ndarray, " L"],
    rng: np.random.Generator,
) -> list[Int[np.ndarray, " half"]]:
    """Return both halves of some units, each in the order that it came in; ``off`` is d before them."""
    first = np.zeros(len(units), bool)
    paired = np.arange(len(units))
    if len(units) % 2:
        odd = rng.integers(len(units))
        first[odd] = rng.integers(2)
        paired = np.delete(paired, odd)
    pairs = paired.reshape(-1, 2)
    sides = rng.integers(2, size=len(pairs))  # Which of each pair goes first, decided anew where it moves d.
    change = moves[units[pairs[:, 1]]] - moves[units[pairs[:, 0]]]
    unlike = rng.permutation(np.flatnonzero(change.any(axis=1)))
    d = off + moves[units[first]].sum(axis=0) + moves[units[pairs]].sum(axis=(0, 1)) / 2
    d += (sides - 0.5)[unlike] @ change[unlike]
    second = sides.tolist()
    halves = zip(-0.5 * change[unlike], 0.5 * change[unlike], strict=True)  # What a pair adds to d, by its side.
    decided = list(zip(unlike.tolist(), change[unlike], halves, strict=True))
    for _ in range(_PASSES):
        for pair, whole, half in decided:
            d -= half[second[pair]]
            slope = d @ whole
            if slope:
                second[pair] = int(slope < 0)
            d += half[second[pair]]
    sides = np.array(second, int)
    first[pairs[np.arange(len(pairs)), sides]] = True
    return [units[first], units[~first]]
