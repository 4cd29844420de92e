"""Direct paired comparisons of regimes: every pair once, from the same replicates, examples and draws."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from mtl.report import bootstrap, statistics
from mtl.report.analysis import Contrast, Crossover

#: Draws that are enough for the ends of an interval that is said in two digits.
FEWER = 1000


@dataclasses.dataclass(frozen=True)
class Pairs:
    """All pairs of regimes: entry [a, b, s] is the gain of a over b at size s on the replicates both have.

    Draws of gains are made when they are asked for: those of all pairs would fill G² S B numbers.

    Attributes:
      gain, se, df: [G, G, S]; NaN where the two share too few replicates (one for ``gain``, two for the
        others).
      replicates: int [G, G, S], the replicates they share.
      better: [G, S, R, K], what they were computed from.
      present: bool [G, S, R], the replicates that each has.
      draws: [B, G, S], bootstrap draws of the means.
      seed: of the draws.
      sizes: [K], the relative sizes of the groups of test examples.
    """

    gain: np.ndarray
    se: np.ndarray
    df: np.ndarray
    replicates: np.ndarray
    better: np.ndarray
    present: np.ndarray
    draws: np.ndarray
    seed: int
    sizes: np.ndarray

    def p(self, a: int, b: int, s: int) -> float:
        """The two-sided p value of the gain of a over b at size s; see `mtl.report.statistics.p_value`."""
        return statistics.p_value(
            float(self.gain[a, b, s]),
            float(self.se[a, b, s]),
            float(self.df[a, b, s]),
            int(self.replicates[a, b, s]),
        )

    def drawn(self, a: int, b: int, s: int) -> Float[np.ndarray, " B"]:
        """Bootstrap draws of the gain of a over b at size s; NaN where a draw holds none of their replicates.

        Where the two have the same replicates they are the differences of the draws of their means; elsewhere they
        are made anew, with the same weights, from the replicates that both have.
        """
        if (self.present[a, s] == self.present[b, s]).all():
            return self.draws[:, a, s] - self.draws[:, b, s]
        difference = self.better[a, s] - self.better[b, s]
        return bootstrap.two_way_bootstrap(difference, len(self.draws), self.seed, self.sizes)

    @functools.cached_property
    def _first(self) -> Float[np.ndarray, "G S B"]:
        """The first of the draws."""
        return np.ascontiguousarray(np.moveaxis(self.draws[:FEWER], 0, -1))

    @functools.cached_property
    def _subsets(self) -> bootstrap.Drawn:
        """The first draws of means over any of the replicates."""
        return bootstrap.Drawn(self.better, min(len(self.draws), FEWER), self.seed, self.sizes)

    def means_drawn(self, g: int, s: int, of: Bool[np.ndarray, " R"]) -> Float[np.ndarray, " B"]:
        """The first ``FEWER`` draws of the mean of a regime at size s over some replicates, which it has.

        Their differences are draws of gains, and whole curves where they are of the same replicates.
        """
        if (self.present[g, s] == of).all():
            return np.asarray(self._first[g, s])
        return self._subsets.mean((g, s), of)

    def interval(self, a: int, b: int, s: int, level: float = 0.95) -> tuple[float, float]:
        """The two-way interval of the gain of a over b; see `mtl.report.bootstrap.two_way_interval`."""
        return bootstrap.two_way_interval(
            self.drawn(a, b, s),
            float(self.gain[a, b, s]),
            float(self.se[a, b, s]),
            float(self.df[a, b, s]),
            level,
        )

    def directions(self, others: Sequence[int], b: int, s: int) -> Float[np.ndarray, "J F"]:
        """Vectors whose products are the covariances of the gains of ``others`` over b at size s.

        With α_r and β_k the deviations of a difference's replicate and example means, f = (α / √(R(R−1)),
        β / √(K(K−1))): ⟨f, f⟩ = U_a + U_b of `mtl.report.statistics.two_way_error`, and products of two rows estimate
        the covariance alike. What a replicate that one of the two lacks would add is 0.
        """
        found = np.zeros((len(others), sum(self.better.shape[-2:])))
        for row, a in zip(found, others, strict=True):
            shared = self.present[a, s] & self.present[b, s]
            self._direct(row, self.better[a, s] - self.better[b, s], shared)
        return found

    def means(self, s: int) -> Float[np.ndarray, "G F"] | None:
        """Vectors of the means at size s, whose differences are the ``directions``; zeros where nothing was measured.

        Nothing if the regimes that were measured do not all have the same replicates.
        """
        here = np.asarray(self.present[:, s])
        measured, shared = np.asarray(here.any(axis=1)), np.asarray(here.any(axis=0))
        if not (here[measured] == shared).all():
            return None
        found = np.zeros((len(measured), sum(self.better.shape[-2:])))
        for a in np.flatnonzero(measured):
            self._direct(found[a], self.better[a, s], shared)
        return found

    def _direct(self, row: np.ndarray, x: np.ndarray, shared: np.ndarray) -> None:
        """Writes a direction into ``row``, of scores [R, K] and the replicates that count."""
        replicates, groups = x.shape
        x = x[shared]
        x = x + (1 - self.sizes) * x.mean()
        r = len(x)
        row[:replicates][shared] = (x.mean(axis=1) - x.mean()) / np.sqrt(r * max(r - 1, 1))
        row[replicates:] = (x.mean(axis=0) - x.mean()) / np.sqrt(groups * max(groups - 1, 1))


def compare(
    better: Float[np.ndarray, "G S R K"],
    draws: Float[np.ndarray, "B G S"],
    seed: int = 0,
    sizes: Float[np.ndarray, " K"] | None = None,
) -> Pairs:
    """Compares every regime with every other at each size, paired in replicates and test examples.

    Args:
      better: scores, signed so that more is better; NaN over K where a replicate is missing.
      draws: `mtl.report.bootstrap.two_way_bootstrap` of them.
      seed: the one ``draws`` were made with.
      sizes: where K are groups of examples, their relative sizes (`mtl.report.bootstrap.by_group`).

    Returns:
      The pairs.

    >>> x = np.random.default_rng(0).normal(size=(3, 1, 6, 9))
    >>> pairs = compare(x, bootstrap.two_way_bootstrap(x, 100))
    >>> pairs.gain.shape, bool(np.isclose(pairs.gain[0, 1, 0], (x[0] - x[1]).mean()))
    ((3, 3, 1), True)
    """
    regimes, columns, _, groups = better.shape
    sizes = np.ones(groups) if sizes is None else sizes
    gain, se, df = (np.full((regimes, regimes, columns), np.nan) for _ in range(3))
    shared = np.zeros((regimes, regimes, columns), dtype=np.int64)
    for a, b in itertools.combinations(range(regimes), 2):
        mean, error, freedom, replicates = statistics.two_way_error(better[a] - better[b], sizes)
        gain[a, b], gain[b, a] = mean, -mean
        se[a, b] = se[b, a] = error
        df[a, b] = df[b, a] = freedom
        shared[a, b] = shared[b, a] = replicates
    return Pairs(gain, se, df, shared, better, bootstrap.present_replicates(better), draws, seed, sizes)


def family(
    pairs: Pairs,
    names: Sequence[str],
    sizes: Sequence[float],
    couples: Sequence[tuple[str, str]],
    looks: int = 1,
) -> tuple[Contrast, ...]:
    """The first of each couple against the second at each size, with Holm over them all.

    Args:
      pairs: of `compare`.
      names: the regimes, in the order of ``pairs``.
      sizes: the target sizes, in its order.
      couples: regimes among ``names``.
      looks: at the data, as was planned.

    Returns:
      Contrasts that were measured, in the order of couples and sizes.

    >>> x = np.random.default_rng(0).normal(size=(2, 1, 6, 9)) + np.array([3.0, 0.0])[:, None, None, None]
    >>> pairs = compare(x, bootstrap.two_way_bootstrap(x, 100))
    >>> [(c.first, c.second, c.sign) for c in family(pairs, ["a", "b"], [10.0], [("a", "b")])]
    [('a', 'b', 1)]
    """
    index = {name: i for i, name in enumerate(names)}
    keys = [
        (index[a], index[b], s)
        for a, b in couples
        for s in range(len(sizes))
        if not np.isnan(pairs.gain[index[a], index[b], s])
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
        for (a, b, s), raw, adjusted in zip(keys, p, statistics.holm(p, looks), strict=True)
    )


def crossovers(
    pairs: Pairs, names: Sequence[str], sizes: Sequence[float], among: Sequence[str], looks: int = 1
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
      looks: at the data, as was planned.

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
    for (a, b), adjusted in zip(couples, statistics.holm(p, looks), strict=True):
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
        draws = np.stack([pairs.drawn(overtaker, leader, s) for s in measured.tolist()], axis=1)
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
