"""What the tables, figures, verdict and page are made from: the scores of a sweep, and what was inferred from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from mtl.hypothesis import Hypothesis
from mtl.report.estimates import OverSizes, Power, Worth

#: A row whose budget is doubled is named after the row that it is the control of: ``scratch@2``.
DOUBLED = "@2"


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one trial of a regime cost on average; the source phases it rests on are charged in full.

    So is the training of the weights that it begins from, where that is known.

    Attributes:
      examples: training examples seen (rows of batches), all phases.
      flops: floating-point operations of all phases' steps, from XLA's cost analysis of one step.
      seconds: seconds of training, all phases.
      source_examples: the part of ``examples`` seen in phases before the target's labels enter, and by loaded weights.
      seconds_low, seconds_high: the least and the most of the replicates' mean ``seconds``.
      updates: steps of the optimizer, all phases.
      rows: distinct rows that have a training label of a task that some phase trains on.
      parameters, bytes: of the model that is kept, its heads included; bytes also of its batch statistics.
    """

    examples: float
    flops: float
    seconds: float
    source_examples: float
    seconds_low: float = math.nan
    seconds_high: float = math.nan
    updates: float = math.nan
    rows: float = math.nan
    parameters: float = math.nan
    bytes: float = math.nan


class Sizes(tuple[float, ...]):
    """The columns of a table: numbers that ascend, and the field of the config that they are of.

    >>> Sizes.of("data.source_size", (10.0, 20.0)).field
    'data.source_size'
    """

    field = "data.target_size"

    @classmethod
    def of(cls, field: str, values: Iterable[float]) -> Sizes:
        """Return the values of a field."""
        made = cls(values)
        made.field = field
        return made


@dataclasses.dataclass(frozen=True)
class Scores:
    """Per-example test scores of a sweep's chosen trials, aligned so that everything can be paired.

    Axes: G regimes (rows), S target sizes (columns), R replicates, I test examples.

    Attributes:
      study: the study's name.
      sweep: the sweep's name.
      question: one sentence: what the sweep asks.
      notes: sentences that a reader of the table must know (sampling, budgets, how rates were chosen).
      metric: the metric's name, for instance ``accuracy``.
      higher_is_better: whether more is better.
      unit: factor that turns the metric into what tables print: 100 for accuracy (points), 1 for log loss.
      regimes: row names, in the order of the table.
      sizes: column values, target sizes or ``Sizes`` of another field.
      replicates: seeds.
      values: float64 [G, S, R, I], one score per test example whose mean over I is the metric; NaN over all of
        I where the trial is missing or failed.
      missing: int [G, S], replicates without a result.
      failed: int [G, S], replicates whose trial failed or diverged.
      chosen: float64 [G, S, R], the tuned value (learning rate) that validation chose; NaN where none was.
      baseline: the regime that others are compared with.
      margin: half-width of the equivalence region, in the metric's own unit (0.02 for 2 points of accuracy).
      cost: per regime.
      controls: regimes that are controls, not contenders (``random_probe``, ``scratch@2``).
      data_notes: sentences that stand under the table itself: labels hidden on purpose, copies in the test set.
      groups: int [I], the group of each test example (a person, a scaffold) where rows of one are alike; groups are
        resampled as wholes.
      rarer: test examples of the rarer class of a binary task.
      bounds: where the metric can be; ends of intervals of it lie within.
      task: the target that was tested.
      rows: int [I], the rows of the data set that the test examples are.
      unconverged: int [G, S], replicates whose last phase was at its best when it ended.
      overfitted: int [G, S], replicates whose last phase kept a state much worse than its best.
      few_validated: the sizes at which validation had too few labels to choose by the metric.
      hypothesis: what the study stated before it ran.
      row: what a row is: a regime, or a value of another field.
      looks: at the test set, as was planned: the level is spent in equal parts over them.
    """

    study: str
    sweep: str
    question: str
    notes: tuple[str, ...]
    metric: str
    higher_is_better: bool
    unit: float
    regimes: tuple[str, ...]
    sizes: tuple[float, ...]
    replicates: tuple[int, ...]
    values: np.ndarray
    missing: np.ndarray
    failed: np.ndarray
    chosen: np.ndarray
    baseline: str
    margin: float
    cost: dict[str, Cost]
    controls: tuple[str, ...] = ()
    data_notes: tuple[str, ...] = ()
    groups: np.ndarray | None = None
    rarer: int | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)
    task: str = ""
    rows: np.ndarray | None = None
    unconverged: np.ndarray | None = None
    overfitted: np.ndarray | None = None
    few_validated: tuple[float, ...] = ()

    @property
    def doubled(self) -> tuple[str, ...]:
        """The rows whose budget is doubled."""
        return tuple(r for r in self.regimes if r in self.controls and r.endswith(DOUBLED))

    def rival(self, regime: str) -> str:
        """Return the row that a regime's gain is over: the baseline, of a doubled budget the doubled baseline."""
        twice = f"{self.baseline}{DOUBLED}"
        return twice if regime in self.doubled and regime != twice and twice in self.regimes else self.baseline

    hypothesis: Hypothesis | None = None
    row: str = "regime"
    looks: int = 1


@dataclasses.dataclass(frozen=True)
class Cell:
    """What is known of one regime at one target size. Differences are *gains*: positive is better.

    Attributes:
      mean: the metric, averaged over replicates and test examples; NaN when nothing was measured.
      low, high: ends of its 95 % interval (two-way bootstrap).
      replicates: how many replicates it rests on.
      missing, failed: replicates without a result, and of these those that failed.
      gain, gain_low, gain_high: paired gain over the baseline (see ``Scores.rival``) and its 95 % interval; NaN for the
        baseline.
      p, p_holm: two-sided p value of the gain, and after Holm's step-down over the whole sweep.
      p_margin, p_margin_holm: p value of a true gain outside ± margin (the larger of two one-sided tests), and after
        Holm's step-down over the whole sweep.
      claim: ``gain`` or ``harm`` (Holm at 5 %), ``equivalent`` (within ± margin, Holm at 5 %), ``inconclusive``, or
        empty for the baseline and for cells that were not measured.
      best: whether its mean is the column's best.
      not_worse: whether it is in the set that holds the column's best with 95 % confidence (Hsu).
      unconverged, overfitted: replicates whose last phase was at its best when it ended, and whose last phase kept a
        state much worse than its best; see `mtl.report.training`.
      chosen: the tuned value most often chosen, NaN if none.
    """

    mean: float
    low: float
    high: float
    replicates: int
    missing: int
    failed: int
    gain: float
    gain_low: float
    gain_high: float
    p: float
    p_holm: float
    p_margin: float
    p_margin_holm: float
    claim: str
    best: bool
    not_worse: bool
    unconverged: int
    overfitted: int
    chosen: float

    @property
    def not_converged(self) -> bool:
        """Whether half of the replicates or more were at their best when training ended."""
        return self.replicates > 0 and self.unconverged >= self.replicates / 2


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of a hypothesis at one target size.

    Attributes:
      size: the target size.
      gain, low, high: the contrast, and its interval at a level at which those of all sizes (and targets) hold
        together; NaN if it was not measured.
      finding: ``holds``, ``is refuted`` or ``is open``.
    """

    size: float
    gain: float
    low: float
    high: float
    finding: str


@dataclasses.dataclass(frozen=True)
class Crossover:
    """Where one regime overtakes another as the target grows.

    Attributes:
      leader: the regime that is better at small target sizes.
      overtaker: the one that is better at large ones.
      low, high: 95 % interval of the size at which the curves cross (log-linear between sizes), by bootstrapping
        whole curves.
      between: the two neighbouring sizes of the grid between which the mean curves cross.
      share: share of the bootstrap curves that have exactly this kind of crossing.
    """

    leader: str
    overtaker: str
    low: float
    high: float
    between: tuple[float, float]
    share: float


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


@dataclasses.dataclass(frozen=True)
class Decision:
    """What to do at one target size.

    Attributes:
      size: the target size.
      do: the row to take; empty where nothing was measured.
      gain, low, high: its paired gain over the baseline and the 95 % interval; NaN of the baseline itself.
      p: p value of the gain, corrected.
      claim: what the gain lets us claim, as of a `Cell`; empty of the baseline.
      operations: how many times the baseline's; NaN where that is not known.
      also: the other rows that cannot be told from the best.
      harm: contenders that are shown to be worse than the baseline.
    """

    size: float
    do: str = ""
    gain: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    claim: str = ""
    operations: float = math.nan
    also: tuple[str, ...] = ()
    harm: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        """Whether neither a gain nor equivalence of what to do is shown, though there is something to show."""
        return self.claim in ("inconclusive", "harm")


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Everything a table, a figure or the page says about one sweep.

    Attributes:
      scores: what it was computed from.
      cells: ``cells[regime][size]``.
      crossovers: those that are supported by the data.
      verdict: what to do, in at most three sentences; of several targets' analyses nothing.
      warnings: sentences about what weakens it (missing trials, few replicates, budgets that were too small).
      resamples: bootstrap resamples.
      extra: figures a study adds, by name.
      against: regimes (first) against controls (second), one family.
      answers: what became of the hypothesis at each size.
      decisions: what to do at each size.
      details: all that is claimed, in sentences computed from the same numbers.
      power: ``power[regime][size]``, of regimes and sizes that were compared with a baseline in two replicates or more.
      worth: ``worth[regime][size]``, likewise of one replicate or more; empty where columns are not target sizes.
      over_sizes: by regime, what it comes to over all sizes.
    """

    scores: Scores
    cells: dict[str, dict[float, Cell]]
    crossovers: tuple[Crossover, ...]
    verdict: tuple[str, ...]
    warnings: tuple[str, ...]
    resamples: int
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    against: tuple[Contrast, ...] = ()
    answers: tuple[Answer, ...] = ()
    decisions: tuple[Decision, ...] = ()
    details: tuple[str, ...] = ()
    power: dict[str, dict[float, Power]] = dataclasses.field(default_factory=dict)
    worth: dict[str, dict[float, Worth]] = dataclasses.field(default_factory=dict)
    over_sizes: dict[str, OverSizes] = dataclasses.field(default_factory=dict)
