"""What would settle a comparison: power, the least detectable effect, replicates, test examples and labels needed.

A paired difference of scores is x_ri = μ + a_r + b_i + e_ri, so its mean over R replicates and I test examples has the
variance

    V(R, I) = σ_a²/R + σ_b²/I + σ_e²/(RI).

More replicates remove the first and the last part, and never the second. With the components estimated from a study,
the tests that its claims rest on (`mtl.report.statistics`) have a known power at any other R and I:

    P(shown) = E_s Φ(|θ|/√V − t s),  t = t_{min(ν, R−1)}(1 − α/2),  s² ~ χ²_ν/ν,

for a true gain θ, with ν Satterthwaite's degrees of freedom of V's estimate; that of the two one-sided tests is

    P(equivalent) = E_s max(0, Φ((M − θ)/√V − t s) − Φ(t s − (M + θ)/√V)),  t = t_{min(ν, R−1)}(1 − α).

Source: Searle, Casella & McCulloch, "Variance Components", 1992, chapter 4; Owen, "A special case of a bivariate
non-central t-distribution", 1965; Phillips, "Power of the two one-sided tests procedure in bioequivalence", 1990.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import special

from mtl.report import statistics
from mtl.report.analysis import Power, Scores, Sizes
from mtl.report.contrasts import Pairs

#: The power that is asked for.
POWER = 0.8
#: What more than this many times the replicates, test examples or both would be needed for is never shown.
MOST = 1000.0
_LEVEL = 0.05
_DRAWS = 1000
_STEPS = 32  # Of the way between two sizes.
_AT, _WEIGHTS = (x / 2 for x in np.polynomial.legendre.leggauss(24))
_AT = _AT + 0.5


class Components(NamedTuple):
    """Variances of paired differences, in the metric's unit squared; arrays are of as many comparisons.

    Attributes:
      replicate, example, interaction: σ_a², σ_b², σ_e².
      df: degrees of freedom of the examples' mean square, for each example: at most (I − 1)/I.
    """

    replicate: Float[np.ndarray, "..."]
    example: Float[np.ndarray, "..."]
    interaction: Float[np.ndarray, "..."]
    df: Float[np.ndarray, "..."]


def components(x: Float[np.ndarray, "R I"]) -> Components:
    """Return the components of the variance of paired differences, unbiased up to the truncation at 0.

    Args:
      x: differences without gaps, of two replicates or more; where I are groups of examples in linear form
        (`mtl.report.statistics.two_way_error`).

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(0, 2, (400, 1)) + rng.normal(0, 1, (1, 900)) + rng.normal(0, 3, (400, 900))
    >>> [round(float(v), 1) for v in components(x)[:3]]
    [4.0, 1.0, 9.0]
    """
    r, examples = x.shape
    of = statistics.mean_squares(x)
    own, shared = r * (of.replicates - of.interaction), examples * (of.examples - of.interaction)
    parts = (max(own, 0.0), max(shared, 0.0), r * examples * of.interaction, of.df / examples)
    return Components._make(np.asarray(v) for v in parts)


def error(
    parts: Components, replicates: Float[np.ndarray, "..."], examples: Float[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Return the standard error √V(R, I), and the degrees of freedom ν of its estimate (not bounded by R − 1)."""
    joint = parts.interaction / (replicates * examples)
    main, extra = parts.replicate / replicates + joint, parts.example / examples
    own = np.maximum(parts.df * examples, 1.0)
    noise = main**2 / (replicates - 1) + (extra + joint) ** 2 / own
    square = main + extra
    df = np.divide(square**2, noise, out=np.full(square.shape, 1e6), where=noise > 0)
    return np.sqrt(square), np.clip(df, 1.0, 1e6)


class Design(NamedTuple):
    """What a study of so many replicates and test examples can tell, by one kind of test.

    Attributes:
      se: √V.
      bound: critical value × s, [*n, nodes]: how many √V a gain has to be off.
    """

    se: Float[np.ndarray, "..."]
    bound: Float[np.ndarray, "... nodes"]


def design(
    parts: Components,
    replicates: Float[np.ndarray, "..."],
    examples: Float[np.ndarray, "..."],
    tail: Float[np.ndarray, "..."],
) -> Design:
    """Return what a study can tell.

    Args:
      parts: the variances.
      replicates, examples: R and I.
      tail: the probability that Student's t is left above the critical value: α/2, or α of a one-sided test.
    """
    se, df = error(parts, replicates, examples)
    critical = special.stdtrit(np.minimum(df, replicates - 1), 1 - tail)
    half = df[..., None] / 2
    return Design(se, critical[..., None] * np.sqrt(special.gammaincinv(half, _AT) / half))


def shown(design: Design, gain: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return the probability that a true gain is shown, with its sign, by a two-sided test."""
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.abs(gain) / design.se
    return special.ndtr(np.nan_to_num(far, nan=0.0)[..., None] - design.bound) @ _WEIGHTS


def equivalent(design: Design, gain: Float[np.ndarray, "..."], margin: float) -> Float[np.ndarray, "..."]:
    """Return the probability that two one-sided tests place a true gain within ± margin."""
    with np.errstate(divide="ignore", invalid="ignore"):
        above, below = (np.nan_to_num(d / design.se, nan=0.0)[..., None] for d in (margin - gain, margin + gain))
    return np.maximum(special.ndtr(above - design.bound) - special.ndtr(design.bound - below), 0.0) @ _WEIGHTS


def _least(enough: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the least value between two at which something that only grows is enough; inf if it is not at ``high``."""
    never = ~enough(high)
    there = enough(low)
    a, b = low, high
    for _ in range(30):
        middle = (a + b) / 2
        good = enough(middle)
        a, b = np.where(good, a, middle), np.where(good, middle, b)
    return np.where(there, low, np.where(never, np.inf, b))


def detectable(design: Design, power: float = POWER) -> Float[np.ndarray, "..."]:
    """Return the minimum detectable effect: the least true gain that is shown with a power, in the metric's unit.

    >>> one = Components(*(np.array([v]) for v in (1.0, 0.0, 0.0, 1.0)))
    >>> float(detectable(design(one, np.array([1e6]), np.array([10.0]), np.array([0.025])))[0] * 1e3)  # z.975 + z.8
    2.80158...
    """
    most = 4 + 4 * design.bound.max(axis=-1)
    return design.se * _least(
        lambda x: shown(Design(np.ones_like(design.se), design.bound), x) >= power, 0 * most, most
    )


def within(design: Design, margin: float, power: float = POWER) -> Float[np.ndarray, "..."]:
    """Return the greatest true gain that is placed within ± margin with a power; −1 if not even 0 is."""
    high = np.full(design.se.shape, max(margin, 0.0))
    left = _least(lambda d: equivalent(design, margin - d, margin) >= power, 0 * high, high)
    return np.where(np.isinf(left), -1.0, margin - left)


class Asked(NamedTuple):
    """What is asked of comparisons: the level of each test, and the margin of equivalence in the metric's unit."""

    level: Float[np.ndarray, "..."]
    margin_level: Float[np.ndarray, "..."]
    margin: float


def chances(
    parts: Components,
    gain: Float[np.ndarray, "..."],
    replicates: Float[np.ndarray, "..."],
    examples: Float[np.ndarray, "..."],
    asked: Asked,
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Return the probabilities that a true gain is shown, and that it is shown to lie within the margin."""
    return (
        shown(design(parts, replicates, examples, asked.level / 2), gain),
        equivalent(design(parts, replicates, examples, asked.margin_level), gain, asked.margin),
    )


def needed(
    parts: Components,
    gain: Float[np.ndarray, " N"],
    replicates: Float[np.ndarray, " N"],
    examples: Float[np.ndarray, " N"],
    asked: Asked,
    power: float = POWER,
) -> tuple[Float[np.ndarray, "3 N"], Bool[np.ndarray, " N"]]:
    """By how many times a study has to grow until a true gain is shown, or equivalence, with a power.

    Args:
      parts: the variances.
      gain: true gains.
      replicates, examples: R and I of the study.
      asked: the levels and the margin.
      power: of the one test or the other, whichever has more.

    Returns:
      Factors, 1 or more: of the replicates alone, of the test examples alone, of both; inf where none up to ``MOST``
      is enough. And whether both together come to show equivalence, not a gain.
    """
    grows = np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float64)[:, :, None]
    many = Components._make(np.broadcast_to(v, (3, len(gain))) for v in parts)
    level, margin_level = (np.broadcast_to(v, (3, len(gain))) for v in asked[:2])
    levels = Asked(level, margin_level, asked.margin)

    def both(log: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        times = np.exp(log[:, None] * grows)
        return chances(many, gain, replicates * times[:, 0], examples * times[:, 1], levels)

    most = np.full((3, len(gain)), math.log(MOST))
    log = _least(lambda x: np.maximum(*both(x)) >= power, 0 * most, most)
    at_gain, at_margin = both(np.minimum(log, most))
    return np.exp(log), (at_margin > at_gain)[2]


def powers(
    pairs: Pairs,
    scores: Scores,
    over: Mapping[int, int],
    p: Float[np.ndarray, "G S"],
    p_margin: Float[np.ndarray, "G S"],
) -> dict[str, dict[float, Power]]:
    """Return the power of each regime's comparison with its baseline, see `mtl.report.analysis.Power`.

    Each test is taken at the level that Holm's step-down asks of it while the others stay as they are: with m tests of
    which k others are shown, 5 %/(m − k); before anything is shown that is 5 %/m.

    The labels needed: the gain, and what of it is detectable or equivalent, are linear in log n between the sizes, and
    sizes at which the study made its claim count. Beyond the sizes nothing is said. The interval is that of whole
    curves of the gain (the same replicates and test examples at all sizes), their spread set to the standard error.

    Args:
      pairs: of `mtl.report.contrasts.compare`.
      scores: what they are of.
      over: of each regime that has one, the place of what its gain is over.
      p, p_margin: p values of the gain and of equivalence, NaN where there was no test.
    """
    holm, holm_margin = statistics.holm(p), statistics.holm(p_margin)
    keys = [(g, s) for g in over for s in range(len(scores.sizes)) if pairs.replicates[g, over[g], s] > 1]
    at = tuple(np.array(keys, dtype=np.int64).reshape(-1, 2).T)
    rival = np.array([over[g] for g, _ in keys], dtype=np.int64)
    gain, se, replicates = (x[at[0], rival, at[1]] for x in (pairs.gain, pairs.se, pairs.replicates.astype(np.float64)))
    examples = np.full(len(keys), float(len(pairs.sizes)))
    parts = Components(*np.array([components(_differences(pairs, g, over[g], s)) for g, s in keys]).reshape(-1, 4).T)
    asked = Asked(_asked(holm)[at], _asked(holm_margin)[at], scores.margin)
    told, close = holm[at] <= _LEVEL, holm_margin[at] <= _LEVEL
    settled = told | close
    own, margins = (design(parts, replicates, examples, tail) for tail in (asked.level / 2, asked.margin_level))
    effect, inside = detectable(own), within(margins, scores.margin)
    times, alike = needed(parts, gain, replicates, examples, asked)
    alone = np.divide(parts.example / examples, se**2, out=np.zeros_like(se), where=se > 0)
    exact = se == 0
    if exact.any():  # The sign test decides, by replicates alone.
        wanted = 1 + np.ceil(-np.log2(asked.level[exact]))
        grow, moves = np.maximum(wanted / replicates[exact], 1.0), np.abs(gain[exact]) > 0
        effect[exact] = np.where(grow > 1, np.inf, 0.0)
        inside[exact] = scores.margin
        alike[exact] = np.abs(gain[exact]) < scores.margin
        sign = np.array([grow, np.where(grow > 1, np.inf, 1.0), grow])
        times[:, exact] = np.where(alike[exact], 1.0, np.where(moves, sign, np.inf))

    alike = np.where(settled, ~told, alike)

    found: dict[str, dict[float, Power]] = {}
    for g in over:
        cells = np.flatnonzero(at[0] == g)
        labels = _labels(pairs, scores, (g, over[g]), at[1][cells], effect[cells], inside[cells], settled[cells])
        found[scores.regimes[g]] = {
            scores.sizes[at[1][i]]: Power(
                settled=bool(settled[i]),
                shows="equivalent" if alike[i] else "gain" if gain[i] > 0 else "harm",
                level=float(asked.level[i]),
                effect=float(effect[i]),
                test_share=float(alone[i]),
                replicates=int(replicates[i]),
                examples=int(examples[i]),
                replicates_needed=_whole(times[0, i] * replicates[i]),
                examples_needed=_whole(times[1, i] * examples[i]),
                both_needed=float(times[2, i]),
                labels_needed=float(labels[0, k]),
                labels_low=float(labels[1, k]),
                labels_high=float(labels[2, k]),
            )
            for k, i in enumerate(cells.tolist())
        }
    return found


def _differences(pairs: Pairs, a: int, b: int, s: int) -> Float[np.ndarray, "R K"]:
    """Return the differences of the replicates that both have, in linear form."""
    x = (pairs.better[a, s] - pairs.better[b, s])[pairs.present[a, s] & pairs.present[b, s]]
    return x + (1 - pairs.sizes) * x.mean()


def _asked(holm: Float[np.ndarray, "G S"]) -> Float[np.ndarray, "G S"]:
    """Return the level that each test has to reach while the others stay as they are."""
    done = holm <= _LEVEL
    return _LEVEL / np.maximum((~np.isnan(holm)).sum() - (done.sum() - done), 1)


def _whole(x: float) -> float:
    """Return the least whole number that is enough."""
    return float(np.ceil(x - 1e-6))


def _labels(
    pairs: Pairs,
    scores: Scores,
    pair: tuple[int, int],
    columns: np.ndarray,
    effect: np.ndarray,
    inside: np.ndarray,
    settled: np.ndarray,
) -> Float[np.ndarray, "3 S"]:
    """Return the labels with which each size's comparison is expected to be settled, and the ends of an interval."""
    found = np.full((3, len(columns)), np.nan)
    if getattr(scores.sizes, "field", Sizes.field) != Sizes.field or not len(columns):
        return found
    a, b = pair
    sizes = np.asarray(scores.sizes, dtype=np.float64)[columns]
    found[:, settled] = sizes[settled]
    mean, se = pairs.gain[a, b, columns], pairs.se[a, b, columns]
    draws = np.stack([pairs.drawn(a, b, s)[:_DRAWS] for s in columns.tolist()], axis=1)
    draws = draws[~np.isnan(draws).any(axis=1)]
    spread = draws.std(axis=0) if len(draws) else np.zeros(len(columns))
    scale = np.divide(se, spread, out=np.zeros_like(spread), where=spread > 0)
    curves = np.concatenate([mean[None], mean + (draws - mean) * scale])
    # Between sizes a and b of the grid lie steps, the last of which is b.
    last = len(columns) - 1
    step = np.arange(_STEPS * last + 1)
    low, share = np.minimum(step // _STEPS, max(last - 1, 0)), (step % _STEPS) / _STEPS
    share = np.where(step == _STEPS * last, 1.0 if last else 0.0, share)
    high = np.minimum(low + 1, last)

    def between(x: np.ndarray) -> np.ndarray:
        return np.asarray(x[..., low] * (1 - share) + x[..., high] * share)

    shift = 1.0 if sizes[0] == 0 else 0.0
    ticks = np.exp(between(np.log(sizes + shift))) - shift
    ticks[::_STEPS] = sizes
    off = np.abs(between(curves))
    enough = (off >= between(np.minimum(effect, 1e300))) | (off <= between(inside))
    enough[:, ::_STEPS] |= settled
    for k in np.flatnonzero(~settled).tolist():
        rest = enough[:, _STEPS * k + 1 :]
        some = rest.any(axis=1)
        first = np.where(some, ticks[_STEPS * k + 1 :][rest.argmax(axis=1)], np.inf) if rest.shape[1] else some + np.inf
        ends = np.quantile(first[1:], [0.025, 0.975], method="nearest") if len(draws) else [np.nan, np.nan]
        found[:, k] = (first[0], *ends)
    return found
