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
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import special

from mtl.report import statistics

#: The power that is asked for.
POWER = 0.8
#: What more than this many times the replicates, test examples or both would be needed for is never shown.
MOST = 1000.0
_HALVINGS = 18
_AT, _WEIGHTS = (x / 2 for x in np.polynomial.legendre.leggauss(16))
_AT = _AT + 0.5


Numbers = Float[np.ndarray, "..."]


class Components(NamedTuple):
    """Variances of paired differences, in the metric's unit squared; arrays are of as many comparisons.

    Attributes:
      replicate, example, interaction: σ_a², σ_b², σ_e².
      df: degrees of freedom of the examples' mean square, for each example: at most (I − 1)/I.
    """

    replicate: Numbers
    example: Numbers
    interaction: Numbers
    df: Numbers


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


def error(parts: Components, replicates: Numbers, examples: Numbers) -> tuple[Numbers, Numbers]:
    """Return the standard error √V(R, I), and the degrees of freedom ν of its estimate (not bounded by R − 1)."""
    joint = parts.interaction / (replicates * examples)
    main, extra = parts.replicate / replicates + joint, parts.example / examples
    own = np.maximum(parts.df * examples, 1.0)
    noise = main**2 / (replicates - 1) + (extra + joint) ** 2 / own
    square = main + extra
    df = np.divide(square**2, noise, out=np.full(square.shape, 1e6), where=noise > 0)
    return np.sqrt(square), np.clip(df, 1.0, 1e6)


class Design(NamedTuple):
    """What a study of so many replicates and test examples can tell.

    Attributes:
      se: √V.
      df: degrees of freedom of Student's t that its tests compare with, min(ν, R − 1).
      s: nodes of the error's distribution, as a multiple of √V.
    """

    se: Numbers
    df: Numbers
    s: Float[np.ndarray, "... nodes"]

    def bound(self, tail: Numbers) -> Float[np.ndarray, "... nodes"]:
        """Return by how many √V a gain has to be off; ``tail`` is what t leaves above: α/2, or α if one-sided."""
        return np.asarray(special.stdtrit(self.df, 1 - tail)[..., None] * self.s)

    def off(self, distance: Numbers) -> Float[np.ndarray, "... 1"]:
        """Return a distance as a multiple of √V; where that is 0, all but no distance is very far."""
        return np.asarray((distance / np.maximum(self.se, 1e-200))[..., None])


def design(parts: Components, replicates: Numbers, examples: Numbers) -> Design:
    """Return what a study of R replicates and I test examples can tell."""
    se, df = error(parts, replicates, examples)
    half = df[..., None] / 2
    return Design(se, np.minimum(df, replicates - 1), np.sqrt(special.gammaincinv(half, _AT) / half))


def shown(design: Design, gain: Numbers, level: Numbers) -> Numbers:
    """Return the probability that a true gain is shown, with its sign, by a two-sided test."""
    return _shown(design.off(np.abs(gain)), design.bound(level / 2))


def equivalent(design: Design, gain: Numbers, margin: float, level: Numbers) -> Numbers:
    """Return the probability that two one-sided tests place a true gain within ± margin."""
    return _within(design.off(margin - gain), design.off(margin + gain), design.bound(level))


def _shown(off: np.ndarray, bound: np.ndarray) -> Numbers:
    return np.asarray(special.ndtr(off - bound) @ _WEIGHTS)


def _within(above: np.ndarray, below: np.ndarray, bound: np.ndarray) -> Numbers:
    return np.asarray(np.maximum(special.ndtr(above - bound) - special.ndtr(bound - below), 0.0) @ _WEIGHTS)


def _least(enough: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the least value between two at which something that only grows is enough; inf if it is not at ``high``."""
    never = ~enough(high)
    there = enough(low)
    a, b = low, high
    for _ in range(_HALVINGS):
        middle = (a + b) / 2
        good = enough(middle)
        a, b = np.where(good, a, middle), np.where(good, middle, b)
    return np.where(there, low, np.where(never, np.inf, b))


def detectable(design: Design, level: Numbers, power: float = POWER) -> Numbers:
    """Return the minimum detectable effect: the least true gain that is shown with a power, in the metric's unit.

    >>> one = Components(*(np.array([v]) for v in (1.0, 0.0, 0.0, 1.0)))
    >>> float(detectable(design(one, np.array([1e6]), np.array([10.0])), np.array([0.05]))[0] * 1e3)  # z.975 + z.8
    2.80162...
    """
    bound = design.bound(level / 2)
    most = 4 + 4 * bound.max(axis=-1)
    return design.se * _least(lambda x: _shown(x[..., None], bound) >= power, 0 * most, most)


def within(design: Design, margin: float, level: Numbers, power: float = POWER) -> Numbers:
    """Return the greatest true gain that is placed within ± margin with a power; −1 if not even 0 is."""
    high, bound = np.full(design.se.shape, max(margin, 0.0)), design.bound(level)
    left = _least(lambda d: _within(design.off(d), design.off(2 * margin - d), bound) >= power, 0 * high, high)
    return np.where(np.isinf(left), -1.0, margin - left)


class Asked(NamedTuple):
    """What is asked of comparisons: the level of each test, and the margin of equivalence in the metric's unit."""

    level: Numbers
    margin_level: Numbers
    margin: float


def chances(
    parts: Components,
    gain: Numbers,
    replicates: Numbers,
    examples: Numbers,
    asked: Asked,
) -> tuple[Numbers, Numbers]:
    """Return the probabilities that a true gain is shown, and that it is shown to lie within the margin."""
    own = design(parts, replicates, examples)
    return shown(own, gain, asked.level), equivalent(own, gain, asked.margin, asked.margin_level)


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
