"""What is estimated of a comparison beside its gain: its power, what labels are worth, what sizes come to together."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Power:
    """What would settle whether a regime is better than its baseline at one target size.

    Settled is: a gain or a harm is shown, or equivalence within ± margin. All that is needed is needed for a power of
    80 %, were the true gain the one that was observed, and counts what the study has already; inf is never (more than
    1,000 times of what there is).

    Attributes:
      settled: whether the study's claim is one.
      shows: what more of everything would come to show: ``gain``, ``harm`` or ``equivalent``.
      level: of the two-sided test, after Holm's correction.
      effect: minimum detectable effect, in the metric's own unit: the least true gain that this study shows with a
        power of 80 %. With few replicates it can be more than the metric can differ by.
      test_share: share of the gain's variance that is the test examples', and that no replicate takes away.
      replicates, examples: what there is: replicates that both have, and test examples, or groups of them.
      replicates_needed: with the same test examples.
      examples_needed: with the same replicates; groups of test examples, where there are groups.
      both_needed: factor by which both have to grow together.
      labels_needed: the target size at which the comparison is expected to be settled, with the same replicates and
        test examples; inf beyond the sizes measured, NaN where columns are not target sizes.
      labels_low, labels_high: its 95 % interval, likewise.
    """

    settled: bool
    shows: str
    level: float
    effect: float
    test_share: float
    replicates: int
    examples: int
    replicates_needed: float
    examples_needed: float
    both_needed: float
    labels_needed: float
    labels_low: float
    labels_high: float


@dataclasses.dataclass(frozen=True)
class Worth:
    """How many times the labels the baseline needs to reach what a regime has; see `mtl.report.efficiency`.

    Attributes:
      least, most: bounds of the multiplier, the same where the baseline's curve reaches the regime's metric; (x, inf)
        where it stays below it at all sizes measured, up to x times the labels; (0, x) where it is above it at all,
        down to x times.
      low, high: its 95 % interval; 0 and inf where the sizes measured do not bound it.
    """

    least: float
    most: float
    low: float
    high: float

    @property
    def times(self) -> float:
        """The multiplier; NaN where it is only bounded."""
        return self.least if self.least == self.most else math.nan


@dataclasses.dataclass(frozen=True)
class OverSizes:
    """What a regime comes to over the target sizes; gains are over the baseline, in the metric's own unit.

    Attributes:
      sizes: those at which both were measured.
      replicates: replicates that both have at all of them.
      worth: the geometric mean of the multipliers; nothing where columns are not target sizes.
      gain, gain_low, gain_high: the mean of the gains over sizes, and its 95 % interval; NaN without replicates.
      iqm, iqm_low, iqm_high: their interquartile mean over sizes × replicates, likewise.
      improvement, improvement_low, improvement_high: the probability that the regime is better than the baseline, at
        one of the sizes and in one replicate.
    """

    sizes: tuple[float, ...]
    replicates: int
    worth: Worth | None
    gain: float = math.nan
    gain_low: float = math.nan
    gain_high: float = math.nan
    iqm: float = math.nan
    iqm_low: float = math.nan
    iqm_high: float = math.nan
    improvement: float = math.nan
    improvement_low: float = math.nan
    improvement_high: float = math.nan
