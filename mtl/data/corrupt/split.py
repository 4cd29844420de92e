"""What a config hides, skews or makes wrong among the training labels of a split, in one place and one order."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from mtl.data.corrupt import missing
from mtl.data.corrupt.noise import flip
from mtl.data.splits import Split
from mtl.data.table import Table

#: Ways of hiding labels, by the name that a config gives them.
Way = Literal["at_random", "one_task_each", "by_rank", "by_class", "positive_only"]
WAYS: tuple[str, ...] = get_args(Way)


def corrupt(
    split: Split,
    table: Table,
    seed: int,
    *,
    hide: str = "",
    hide_rate: float = 0.0,
    hide_rates: Mapping[str, float | Sequence[float]] | None = None,
    hide_skew: float = 0.0,
    hide_in_validation: bool = False,
    label_noise: Mapping[str, float] | None = None,
    label_noise_asymmetry: float = 0.0,
    imbalance: Mapping[str, float] | None = None,
) -> Split:
    """Return a split some of whose training labels are wrong or hidden; test labels all stay as they are.

    In this order: labels are made wrong; labels are hidden, by what they are recorded as; and of what is left so
    many are hidden that the share of positives is as asked. The seed is the replicate's: another replicate
    hides other labels, and within a replicate every regime and every target size n sees the same ones hidden
    (n counts labels before any is hidden). With the seed fixed, what is hidden or wrong at one rate is so at
    every higher rate; the imbalance alone depends on n, as a share must.

    Validation labels keep the truth unless ``hide_in_validation``: rates are then chosen equally well whatever
    is hidden from training, so that a sweep over the rate measures training alone. With it, validation is as
    poor as training, which is what a user has whose labels are missing before anything is split.

    Args:
      split: of ``table``.
      table: the data.
      seed: of the replicate.
      hide: one of ``WAYS``, or empty; see ``mtl.data.corrupt.missing``. ``one_task_each`` chooses among the tasks whose
        label a row shows in this split, so that target rows keep theirs.
      hide_rate: share of rows that lose all labels but one, with ``one_task_each``.
      hide_rates: ``{task: rate}``; ``{task: (rate of class 0, ...)}`` with ``by_class``; ``{task: rate of
        negatives}`` with ``positive_only``.
      hide_skew: of ``by_rank``.
      hide_in_validation: whether all of this befalls validation labels too.
      label_noise: ``{task: rate}``, see ``mtl.data.corrupt.noise.flip``.
      label_noise_asymmetry: of binary tasks.
      imbalance: ``{task: share of positives}`` among training labels.

    Raises:
      ValueError: for a value that cannot be, and for a task of which no training label is left.

    >>> from mtl.data.sets.digits import digits_table
    >>> from mtl.data.asked import Asked
    >>> from mtl.data.splits import transfer_split
    >>> table = digits_table()
    >>> asked = Asked(source=("prime",), targets=("even",), target_size=100, test_size=500, source_size=700,
    ...     source_val_size=100, target_pool=500, val_fraction=0.2)
    >>> split = transfer_split(table, asked)
    >>> poor = corrupt(split, table, seed=0, hide="at_random", hide_rates={"prime": 0.9})
    >>> [int(part["prime"].sum()) for part in (split.train, poor.train, poor.val)]
    [600, 37, 100]
    """
    noise, shares, rates = label_noise or {}, imbalance or {}, hide_rates or {}
    labels = dict(split.labels)
    for name, rate in noise.items():
        task = table.task(name)
        asymmetry = label_noise_asymmetry if task.labels == "binary" else 0.0
        labels[name] = flip(task, labels[name], table.mask[name], rate, seed, asymmetry)
    left = _left(split, table, labels, seed, hide, hide_rate, rates, hide_skew)
    if shares:
        left = _skewed(split, left, labels, shares, seed, hide_in_validation)
    return missing.masked(split, left, labels, hide_in_validation)


#: The fields of a config's data section that it takes.
FIELDS = tuple(name for name, p in inspect.signature(corrupt).parameters.items() if p.kind is p.KEYWORD_ONLY)


def without(spec: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Return a data section without what it says of one task's labels: what a phase that never sees them rests on.

    >>> without({"name": "digits", "hide": "at_random", "hide_rates": {"even": 0.5}}, "even")
    {'name': 'digits'}
    """
    kept = dict(spec)
    for field in ("hide_rates", "label_noise", "imbalance"):
        kept[field] = {name: value for name, value in spec.get(field, {}).items() if name != task}
        if not kept[field]:
            kept.pop(field)
    if "hide_rate" not in kept and "hide_rates" not in kept:
        for field in ("hide", "hide_skew"):
            kept.pop(field, None)
    if "label_noise" not in kept:
        kept.pop("label_noise_asymmetry", None)
    if not {"hide", "label_noise", "imbalance"} & kept.keys():
        kept.pop("hide_in_validation", None)
    return kept


def _left(
    split: Split,
    table: Table,
    labels: Mapping[str, np.ndarray],
    seed: int,
    way: str,
    rate: float,
    rates: Mapping[str, Any],
    skew: float,
) -> dict[str, np.ndarray]:
    """Return the labels that a way of hiding leaves, among all that the table has of the split's tasks."""
    # Of the whole table, not of the split: a label's rank must not depend on n.
    mask = {name: table.mask[name] for name in labels}
    if way == "at_random":
        return missing.at_random(mask, rates, seed)
    if way == "by_rank":
        return missing.by_rank(labels, mask, rates, skew, seed)
    if way == "one_task_each":
        return missing.one_task_each({name: split.train[name] | split.val[name] for name in labels}, seed, rate)
    if way in ("by_class", "positive_only"):
        for name, each in rates.items():
            mask |= missing.by_class(labels, mask, (each, 0.0) if way == "positive_only" else each, seed, [name])
        return mask
    if way:
        raise ValueError(f'hide = "{way}": must be one of {", ".join(WAYS)}')
    return mask


def _skewed(
    split: Split,
    left: dict[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    shares: Mapping[str, float],
    seed: int,
    validation: bool,
) -> dict[str, np.ndarray]:
    """Return the labels left of which each role has the share of positives that was asked for."""
    found = dict(left)
    for name, share in shares.items():
        for role in (split.train, split.val) if validation else (split.train,):
            mask = {name: role[name] & left[name]}
            kept = missing.imbalance({name: labels[name]}, mask, share, seed)[name]
            found[name] = found[name] & (kept | ~role[name])
    return found
