"""Labels hidden on purpose: at random, by task, by source, by the label itself; the truth stays, test labels too.

Each function takes masks ``{task: [N]}`` of the labels that are present and returns those that are left; none
turns a missing label into a present one. Whether a label is hidden depends on the seed, the task's name and the
row, never on the other tasks or rows there are, and with the seed fixed the labels hidden at one rate are hidden
at every higher rate. ``masked`` applies such masks to a split, where they reach training and validation alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mtl.data.counter import Counter
from mtl.data.splits import Split
from mtl.tasks import suggest

Masks = Mapping[str, np.ndarray]


def at_random(mask: Masks, rate: float | Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Hide labels completely at random (MCAR): each with probability ``rate``.

    Args:
      mask: ``{task: [N]}``, labels present.
      rate: in [0, 1], one for all tasks, or ``{task: rate}``, where a task left out keeps its labels.
      seed: decides which.

    Raises:
      ValueError: for a rate out of range, or one for a task that does not exist.

    Source: D. B. Rubin 1976, Inference and missing data, Biometrika 63, 581-592 (the terms MCAR and MNAR).

    >>> mask = {"a": np.ones(1000, bool), "b": np.ones(1000, bool)}
    >>> left = at_random(mask, {"a": 0.9}, seed=0)
    >>> bool(50 < left["a"].sum() < 150), int(left["b"].sum())
    (True, 1000)
    """
    rates = _rates("rate", rate, mask)
    return {task: present & ~_below(task, len(present), rates[task], seed) for task, present in mask.items()}


def one_task_each(
    mask: Masks, seed: int, rate: float = 1.0, shares: Mapping[str, float] | None = None
) -> dict[str, np.ndarray]:
    """Leave each example the label of one task, as if every task's data came from a source of its own.

    The task is drawn among those whose label the example has, in proportion to ``shares``; an example without
    a label stays so.

    Args:
      mask: ``{task: [N]}``, labels present.
      seed: decides which.
      rate: share of the examples that this befalls; the others keep all their labels.
      shares: ``{task: weight}``, at least 0; equal if left out.

    Raises:
      ValueError: for a rate out of range, or shares that are negative, all 0, or of other tasks.

    >>> mask = {"a": np.ones(4, bool), "b": np.array([True, True, False, False])}
    >>> left = one_task_each(mask, seed=0)
    >>> (left["a"].astype(int) + left["b"]).tolist(), left["a"][2:].tolist()
    ([1, 1, 1, 1], [True, True])
    """
    _rates("rate", rate, mask)
    weights = {task: 1.0 for task in mask} if shares is None else {task: 0.0 for task in mask} | _known(shares, mask)
    if min(weights.values()) < 0 or not np.isfinite(sum(weights.values())) or sum(weights.values()) <= 0:
        raise ValueError(f"shares = {dict(shares or {})}: must be at least 0, finite, and not all 0")
    names = list(mask)
    there = np.stack([mask[task] for task in names])
    # Exponential races: the task with the least e / weight wins with probability weight / sum of weights, and the
    # order of the tasks does not matter.
    race = np.full(there.shape, np.inf)
    for row, task in enumerate(names):
        if weights[task] > 0:
            race[row] = -np.log1p(-_uniform(f"source of {task}", there.shape[1], seed)) / weights[task]
    race[~there] = np.inf
    left = there & (np.arange(len(names))[:, None] == np.argmin(race, axis=0)) & np.isfinite(race)
    spared = ~_below("one task", there.shape[1], rate, seed)
    return {task: np.where(spared, there[row], left[row]) for row, task in enumerate(names)}


def by_rank(
    labels: Mapping[str, np.ndarray], mask: Masks, rate: float | Mapping[str, float], skew: float, seed: int
) -> dict[str, np.ndarray]:
    """Hide labels not at random (MNAR): the more likely, the higher (or the lower) the label itself is.

    A label whose mid-rank among its task's present labels is r ∈ (0, 1) is hidden with probability

        rate · (1 + skew · (2 r − 1)),

    whose mean over the labels is ``rate`` whatever they are, for mid-ranks have mean 1/2. Of a binary task with
    prevalence p, positives are hidden with probability rate · (1 + skew · (1 − p)), negatives with
    rate · (1 − skew · p).

    Args:
      labels: ``{task: [N]}``; class ids count as numbers.
      mask: ``{task: [N]}``, labels present.
      rate: as in ``at_random``; at most 1 / (1 + |skew|).
      skew: in [−1, 1]; positive to hide high labels, 0 to hide at random.
      seed: decides which.

    Raises:
      ValueError: for a rate or skew out of range, or a rate for a task that does not exist.

    >>> labels, mask = {"a": np.repeat([0.0, 1.0], 5000)}, {"a": np.ones(10000, bool)}
    >>> left = by_rank(labels, mask, rate=0.4, skew=1.0, seed=0)["a"]
    >>> [round(float(1 - left[labels["a"] == c].mean()), 1) for c in (0, 1)]
    [0.2, 0.6]
    """
    if not -1.0 <= skew <= 1.0:
        raise ValueError(f"skew = {skew}: must be from -1 to 1")
    import pandas as pd  # here: it takes 0.2 s to import, and not every study needs it

    rates = _rates("rate", rate, mask, 1.0 / (1.0 + abs(skew)))
    left = {}
    for task, present in mask.items():
        rank = np.full(len(present), 0.5)
        if present.any():
            ranks = pd.Series(labels[task][present].astype(np.float64)).rank().to_numpy()
            rank[present] = (ranks - 0.5) / present.sum()
        chance = rates[task] * (1.0 + skew * (2.0 * rank - 1.0))
        left[task] = present & ~_below(task, len(present), chance, seed)
    return left


def by_class(
    labels: Mapping[str, np.ndarray], mask: Masks, rates: Sequence[float], seed: int, tasks: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Hide labels by their class: one of class c with probability ``rates[c]``.

    ``rates = (1.0, 0.0)`` leaves binary tasks their positives alone.

    Args:
      labels: ``{task: [N]}``, class ids.
      mask: ``{task: [N]}``, labels present.
      rates: one for each class, in [0, 1].
      seed: decides which.
      tasks: those it befalls; all if empty.

    Raises:
      ValueError: for a rate out of range, a task that does not exist, or a label without a rate.

    Source: positive-only labels are C. Elkan and K. Noto's (2008, KDD, doi:10.1145/1401890.1401920).

    >>> labels, mask = {"a": np.array([0.0, 1.0, 1.0])}, {"a": np.ones(3, bool)}
    >>> by_class(labels, mask, rates=(1.0, 0.0), seed=0)["a"]
    array([False,  True,  True])
    """
    for rate in rates:
        _check("rates", rate)
    chosen = list(_known(dict.fromkeys(tasks, 0.0), mask)) or list(mask)
    left = dict(mask)
    for task in chosen:
        values = labels[task][mask[task]]
        ids = np.zeros(len(mask[task]), dtype=np.int64)
        ids[mask[task]] = values
        if not np.isin(values, np.arange(len(rates))).all():
            odd = values[~np.isin(values, np.arange(len(rates)))][0]
            raise ValueError(f'rates = {tuple(rates)}: task "{task}" has label {odd}: must have a rate for each class')
        left[task] = mask[task] & ~_below(task, len(ids), np.asarray(rates, float)[ids], seed)
    return left


def imbalance(
    labels: Mapping[str, np.ndarray], mask: Masks, prevalence: float, seed: int, tasks: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Hide just so many labels of one class that the share of positives is ``prevalence``, to the nearest label.

    Positives are hidden if there are too many, negatives if there are too few. At prevalences below the present
    one, labels hidden at one are hidden at every lower one; above, at every higher one.

    Args:
      labels: ``{task: [N]}``, 0 and 1.
      mask: ``{task: [N]}``, labels present.
      prevalence: in (0, 1).
      seed: decides which.
      tasks: those it befalls; all if empty.

    Raises:
      ValueError: for a prevalence out of range, a task that does not exist, labels that are not 0 and 1, and
        a task without labels of both classes.

    >>> labels, mask = {"a": np.repeat([0.0, 1.0], 50)}, {"a": np.ones(100, bool)}
    >>> left = imbalance(labels, mask, prevalence=0.1, seed=0)["a"]
    >>> int(left.sum()), int(labels["a"][left].sum())
    (56, 6)
    """
    if not 0.0 < prevalence < 1.0:
        raise ValueError(f"prevalence = {prevalence}: must be between 0 and 1, both excluded")
    chosen = list(_known(dict.fromkeys(tasks, 0.0), mask)) or list(mask)
    left = dict(mask)
    for task in chosen:
        present = mask[task]
        values = labels[task][present]
        if set(np.unique(values)) != {0, 1}:
            raise ValueError(f'task "{task}": labels {np.unique(values)[:5].tolist()}: must be 0 and 1, some of each')
        positive, negative = int((values == 1).sum()), int((values == 0).sum())
        fewer = positive > prevalence * (positive + negative)
        odds = prevalence / (1.0 - prevalence)
        keep = round(negative * odds) if fewer else round(positive / odds)
        rows = np.flatnonzero(present & (labels[task] == (1 if fewer else 0)))
        order = np.argsort(_uniform(task, len(present), seed)[rows], kind="stable")
        left[task] = present.copy()
        left[task][rows[order[keep:]]] = False
    return left


def masked(split: Split, left: Masks, labels: Mapping[str, np.ndarray] | None = None, validation: bool = True) -> Split:
    """Return a split whose training and validation labels are those that are left; test labels all stay.

    Args:
      split: of a table.
      left: ``{task: [N]}``, from the functions above; a task left out keeps its labels, one that the split
        does not have is nothing to it.
      labels: ``{task: [N]}``, the split's own with noise (``mtl.data.corrupt.noise.flip``), taken where they are not
        test labels.
      validation: whether validation labels are hidden and taken from ``labels`` too; if not, they stay as well.

    Raises:
      ValueError: for a task of whose training labels none is left.

    >>> from mtl.data.sets.digits import digits_table
    >>> from mtl.data.asked import Asked
    >>> from mtl.data.splits import transfer_split
    >>> table = digits_table()
    >>> asked = Asked(source=("prime",), targets=("even",), target_size=100, test_size=500, source_size=700,
    ...     source_val_size=100, target_pool=500, val_fraction=0.2)
    >>> split = transfer_split(table, asked)
    >>> hidden = masked(split, at_random(table.mask, {"prime": 0.9}, seed=0))
    >>> bool(hidden.train["prime"].sum() < 100), int(hidden.test["even"].sum())
    (True, 500)
    """
    train, val, values = {}, {}, {}
    for task in split.labels:
        kept = left.get(task, np.ones(len(split.train[task]), dtype=bool))
        train[task] = split.train[task] & kept
        val[task] = split.val[task] & kept if validation else split.val[task]
        if split.train[task].any() and not train[task].any():
            raise ValueError(
                f'task "{task}": none of its {int(split.train[task].sum())} training labels is left: '
                "hide fewer or leave the task out"
            )
        noisy = (labels or {}).get(task, split.labels[task])
        true = split.test[task] if validation else split.test[task] | split.val[task]
        values[task] = np.where(true, split.labels[task], noisy).astype(split.labels[task].dtype)
    return dataclasses.replace(split, labels=values, train=train, val=val)


def _uniform(name: str, length: int, seed: int) -> np.ndarray:
    return Counter(seed, np.arange(length))(f"missing: {name}")


def _below(name: str, length: int, rate: float | np.ndarray, seed: int) -> np.ndarray:
    return _uniform(name, length, seed) < rate


def _check(field: str, rate: float, most: float = 1.0) -> float:
    if not 0.0 <= rate <= most:
        raise ValueError(f"{field} = {rate}: must be from 0 to {most:.4g}")
    return float(rate)


def _rates(field: str, rate: float | Mapping[str, float], mask: Masks, most: float = 1.0) -> dict[str, float]:
    given = _known(rate, mask) if isinstance(rate, Mapping) else dict.fromkeys(mask, rate)
    return {task: _check(field, given.get(task, 0.0), most) for task in mask}


def _known(given: Mapping[str, float], mask: Mapping[str, object]) -> dict[str, float]:
    for task in given:
        if task not in mask:
            raise ValueError(f'there is no task "{task}": {suggest(task, mask)}')
    return dict(given)
