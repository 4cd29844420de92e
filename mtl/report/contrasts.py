"""Direct paired comparisons of regimes: every pair once, from the same replicates, examples and draws."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mtl.report import bootstrap, statistics
from mtl.report.analysis import Crossover


@dataclasses.dataclass(frozen=True)
class Pairs:
    """All pairs of regimes: entry [a, b, s] is the gain of a over b at size s on the replicates both have.

    Attributes:
      gain, se, df: [G, G, S]; NaN where the two share too few replicates (one for ``gain``, two for the
        others).
      replicates: int [G, G, S], the replicates they share.
      draws: [G, G, S, B], bootstrap draws of the gain; NaN where a draw holds none of the replicates.
    """

    gain: np.ndarray
    se: np.ndarray
    df: np.ndarray
    replicates: np.ndarray
    draws: np.ndarray

    def p(self, a: int, b: int, s: int) -> float:
        """The two-sided p value of the gain of a over b at size s; see `mtl.report.statistics.p_value`."""
        return statistics.p_value(
            float(self.gain[a, b, s]),
            float(self.se[a, b, s]),
            float(self.df[a, b, s]),
            int(self.replicates[a, b, s]),
        )

    def interval(self, a: int, b: int, s: int, level: float = 0.95) -> tuple[float, float]:
        """The two-way interval of the gain of a over b; see `mtl.report.bootstrap.two_way_interval`."""
        return bootstrap.two_way_interval(
            self.draws[a, b, s],
            float(self.gain[a, b, s]),
            float(self.se[a, b, s]),
            float(self.df[a, b, s]),
            level,
        )


@dataclasses.dataclass(frozen=True)
class Contrast:
    """One direct comparison, corrected within its family.

    Attributes:
      first, second: regimes.
      size: the target size.
      gain, low, high: paired gain of the first over the second and its 95 % interval, in the metric's own
        unit.
      p, p_holm: two-sided p value, and after Holm over the family.
    """

    first: str
    second: str
    size: float
    gain: float
    low: float
    high: float
    p: float
    p_holm: float

    @property
    def sign(self) -> int:
        """+1 where the first is better, −1 where the second is (Holm at 5 %), 0 where neither is shown."""
        return int(np.sign(self.gain)) if self.p_holm <= 0.05 else 0


def compare(
    better: Float[np.ndarray, "G S R I"],
    draws: Float[np.ndarray, "B G S"],
    seed: int = 0,
) -> Pairs:
    """Compares every regime with every other at each size, paired in replicates and test examples.

    Args:
      better: scores, signed so that more is better; NaN over I where a replicate is missing.
      draws: `mtl.report.bootstrap.two_way_bootstrap` of them.
      seed: the one ``draws`` were made with.

    Returns:
      The pairs. Where two cells have the same replicates the draws of the gain are the difference of theirs;
      elsewhere they are made anew, with the same weights, from the replicates that both have.

    >>> x = np.random.default_rng(0).normal(size=(3, 1, 6, 9))
    >>> pairs = compare(x, bootstrap.two_way_bootstrap(x, 100))
    >>> pairs.gain.shape, bool(np.isclose(pairs.gain[0, 1, 0], (x[0] - x[1]).mean()))
    ((3, 3, 1), True)
    """
    groups, sizes, _, _ = better.shape
    count = len(draws)
    present = bootstrap.present_replicates(better)
    gain, se, df = (np.full((groups, groups, sizes), np.nan) for _ in range(3))
    shared = np.zeros((groups, groups, sizes), dtype=np.int64)
    of_gain = np.full((groups, groups, sizes, count), np.nan)
    for a, b in itertools.combinations(range(groups), 2):
        difference = better[a] - better[b]
        mean, error, freedom, replicates = statistics.two_way_error(difference)
        gain[a, b], gain[b, a] = mean, -mean
        se[a, b] = se[b, a] = error
        df[a, b] = df[b, a] = freedom
        shared[a, b] = shared[b, a] = replicates
        same = (present[a] == present[b]).all(axis=-1)
        drawn = draws[:, a] - draws[:, b]
        if not same.all():
            anew = bootstrap.two_way_bootstrap(difference[~same], count, seed)
            drawn[:, ~same] = anew
        of_gain[a, b], of_gain[b, a] = drawn.T, -drawn.T
    return Pairs(gain, se, df, shared, of_gain)


def family(
    pairs: Pairs,
    names: Sequence[str],
    sizes: Sequence[float],
    firsts: Sequence[str],
    seconds: Sequence[str],
) -> tuple[Contrast, ...]:
    """Each of ``firsts`` against each of ``seconds`` at each size, with Holm over them all.

    Args:
      pairs: of `compare`.
      names: the regimes, in the order of ``pairs``.
      sizes: the target sizes, in its order.
      firsts, seconds: regimes among ``names``; a regime is not compared with itself.

    Returns:
      Contrasts that were measured, in the order firsts, seconds, sizes.

    >>> x = np.random.default_rng(0).normal(size=(2, 1, 6, 9)) + np.array([3.0, 0.0])[:, None, None, None]
    >>> pairs = compare(x, bootstrap.two_way_bootstrap(x, 100))
    >>> [(c.first, c.second, c.sign) for c in family(pairs, ["a", "b"], [10.0], ["a"], ["b"])]
    [('a', 'b', 1)]
    """
    index = {name: i for i, name in enumerate(names)}
    keys = [
        (index[a], index[b], s)
        for a in firsts
        for b in seconds
        for s in range(len(sizes))
        if a != b and not np.isnan(pairs.gain[index[a], index[b], s])
    ]
    p = np.array([pairs.p(*key) for key in keys], dtype=np.float64)
    return tuple(
        Contrast(
            names[a],
            names[b],
            sizes[s],
            float(pairs.gain[a, b, s]),
            *pairs.interval(a, b, s),
            float(raw),
            float(adjusted),
        )
        for (a, b, s), raw, adjusted in zip(keys, p, statistics.holm(p), strict=True)
    )


def crossovers(
    pairs: Pairs, names: Sequence[str], sizes: Sequence[float], among: Sequence[str]
) -> tuple[Crossover, ...]:
    """The crossings of learning curves that the data support.

    A crossover says two things: that the leader is better at some size, and that the overtaker is better at a
    larger one. It is supported if both are shown by paired tests, with Holm over all pairs of ``among`` ×
    sizes, and if every size where the leader is shown better lies below every size where the overtaker is. So
    the chance of *any* false crossover among them is at most 5 %; a curve that merely meets another makes
    none, however often the means cross by chance.

    Where it lies: whole curves of the difference are drawn (the same replicates and examples at all sizes),
    their deviations set to the unbiased standard error, and the interval goes from the 2.5 % quantile of the
    first upward crossing to the 97.5 % quantile of the last (`mtl.report.bootstrap.crossing_sizes`), so
    curves that touch zero several times make it wider. It ends at the grid's ends.

    Args:
      pairs: of `compare`.
      names: the regimes, in the order of ``pairs``.
      sizes: the target sizes, ascending, in its order.
      among: the regimes whose pairs are considered.

    Returns:
      Crossovers, by where they lie.

    Source: Holm, 1979; Owen, 2007, arXiv:0712.1111.

    >>> n, x = [10.0, 100.0], np.random.default_rng(0).normal(size=(2, 2, 8, 9))
    >>> x[0, 0] += 5; x[0, 1] -= 5
    >>> (found,) = crossovers(compare(x, bootstrap.two_way_bootstrap(x, 200)), "ab", n, "ab")
    >>> found.leader, found.overtaker, found.between, found.share
    ('a', 'b', (10.0, 100.0), 1.0)
    """
    index = [i for i, name in enumerate(names) if name in among]
    couples = list(itertools.combinations(index, 2))
    p = np.array([[pairs.p(a, b, s) for s in range(len(sizes))] for a, b in couples], dtype=np.float64)
    found = []
    for (a, b), adjusted in zip(couples, statistics.holm(p), strict=True):
        shown = np.where(adjusted <= 0.05, np.sign(pairs.gain[a, b]), 0.0)
        ups, downs = np.flatnonzero(shown > 0), np.flatnonzero(shown < 0)
        if not (ups.size and downs.size):
            continue
        leader, overtaker = (a, b) if ups[0] < downs[0] else (b, a)
        early, late = (ups, downs) if leader == a else (downs, ups)
        if early[-1] > late[0]:
            continue
        measured = np.flatnonzero(~np.isnan(pairs.se[a, b]))
        mean = pairs.gain[overtaker, leader, measured]
        draws = pairs.draws[overtaker, leader, measured].T
        draws = draws[~np.isnan(draws).any(axis=1)]
        if not len(draws):
            continue
        spread = draws.std(axis=0)
        scale = np.divide(pairs.se[a, b, measured], spread, out=np.zeros_like(spread), where=spread > 0)
        ticks = np.asarray(sizes, dtype=np.float64)[measured]
        first, last, count = bootstrap.crossing_sizes(ticks, mean + (draws - mean) * scale)
        # Between the last size that the leader wins and the first that the overtaker wins the means turn at
        # least once; where noise makes them turn more often, the steepest turn is named.
        start, stop = np.searchsorted(measured, [early[-1], late[0]])
        turns = [k for k in range(start, stop) if mean[k] < 0 <= mean[k + 1]]
        k = max(turns, key=lambda t: float(mean[t + 1] - mean[t]))
        found.append(
            Crossover(
                leader=names[leader],
                overtaker=names[overtaker],
                low=float(np.quantile(first, 0.025)),
                high=float(np.quantile(last, 0.975)),
                between=(float(ticks[k]), float(ticks[k + 1])),
                share=float(np.mean(count == 1)),
            )
        )
    return tuple(sorted(found, key=lambda c: (c.between, c.leader, c.overtaker)))
