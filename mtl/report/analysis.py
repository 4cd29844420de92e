"""What the tables, figures, verdict and page are made from: the scores of a sweep, and what was inferred from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from mtl.hypothesis import Hypothesis


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
      parameters, bytes: of the model that is kept, its heads included; bytes also of its batch statistics.
    """

    examples: float
    flops: float
    seconds: float
    source_examples: float
    seconds_low: float = math.nan
    seconds_high: float = math.nan
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
      grid: the candidate values of what was tuned, ascending.
      baseline: the regime that others are compared with.
      margin: half-width of the equivalence region, in the metric's own unit (0.02 for 2 points of accuracy).
      cost: per regime.
      controls: regimes that are controls, not contenders (``scratch_matched``, ``random_probe``).
      data_notes: sentences that stand under the table itself: labels hidden on purpose, copies in the test set.
      groups: int [I], the group of each test example (a person, a scaffold) where rows of one are alike; groups are
        resampled as wholes.
      rarer: test examples of the rarer class of a binary task.
      bounds: where the metric can be; ends of intervals of it lie within.
      task: the target that was tested.
      rows: int [I], the rows of the data set that the test examples are.
      hypothesis: what the study stated before it ran.
      row: what a row is: a regime, or a value of another field.
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
    grid: tuple[float, ...]
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
    hypothesis: Hypothesis | None = None
    row: str = "regime"


@dataclasses.dataclass(frozen=True)
class Cell:
    """What is known of one regime at one target size. Differences are *gains*: positive is better.

    Attributes:
      mean: the metric, averaged over replicates and test examples; NaN when nothing was measured.
      low, high: ends of its 95 % interval (two-way bootstrap).
      replicates: how many replicates it rests on.
      missing, failed: replicates without a result, and of these those that failed.
      gain, gain_low, gain_high: paired gain over the baseline and its 95 % interval; NaN for the baseline.
      p, p_holm: two-sided p value of the gain, and after Holm's step-down over the whole sweep.
      p_margin, p_margin_holm: p value of a true gain outside ± margin (the larger of two one-sided tests), and after
        Holm's step-down over the whole sweep.
      claim: ``gain`` or ``harm`` (Holm at 5 %), ``equivalent`` (within ± margin, Holm at 5 %), ``inconclusive``, or
        empty for the baseline and for cells that were not measured.
      best: whether its mean is the column's best.
      not_worse: whether it is in the set that holds the column's best with 95 % confidence (Hsu).
      at_edge: replicates whose tuned value lies at an end of the grid.
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
    at_edge: int
    chosen: float


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
class Analysis:
    """Everything a table, a figure or the page says about one sweep.

    Attributes:
      scores: what it was computed from.
      cells: ``cells[regime][size]``.
      crossovers: those that are supported by the data.
      verdict: sentences in plain words, computed from the same numbers; the first is the answer.
      warnings: sentences about what weakens it (edge of the grid, missing trials, few replicates).
      resamples: bootstrap resamples.
      extra: figures a study adds, by name.
      answers: what became of the hypothesis at each size.
    """

    scores: Scores
    cells: dict[str, dict[float, Cell]]
    crossovers: tuple[Crossover, ...]
    verdict: tuple[str, ...]
    warnings: tuple[str, ...]
    resamples: int
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    answers: tuple[Answer, ...] = ()
