"""How good a state is on validation: losses for the curves, and the score by which states and candidates are chosen.

A task's score is an error relative to that of predicting the prior (the frequencies of its training labels, or their
mean), so that scores of several tasks have a mean: 1 for what has learned nothing, 0 for what makes no error::

    score = (best − m) / (best − m_prior)      m the study's metric, best its best value

Where validation is small, fewer than ``SMALL`` labels or ``RARE`` of a class, a metric is a matter of chance, and the
error is the loss instead, clipped for each example at ``NATS`` (of a standardised regression, at ``SQUARES``): no
example that is wrong and sure decides. So it is where the metric is undefined, and for dense tasks.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl import losses
from mtl.metrics import METRICS
from mtl.models import Model
from mtl.models.features import Features
from mtl.tasks import Task
from mtl.train.dataset import Data, inputs, pool_name
from mtl.train.program import Numbers, Weights
from mtl.train.pull import DATA_AXIS
from mtl.train.stacks import Columns, columns, in_one_matrix, outputs_of, together

#: Fewer validation labels, or fewer of any class, are too few for a metric to choose by.
SMALL, RARE = 50, 10

#: Where an example's loss is clipped: the log loss of p = 0.14; an error of two standard deviations, squared.
NATS, SQUARES = 2.0, 4.0

#: Metrics that are the same, or the same relative to the prior, in every unit of a regression's labels.
OF_SCALED = ("r2", "squared_error", "pixel_squared_error")

#: Validation runs in blocks of at most so many rows, so that a large set takes no more memory than a batch.
EVALUATION_ROWS = 512


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Found:
    """What validation comes to in some rows: sums, and what metrics need of each row.

    Attributes:
      loss, bounded, prior: sums of plain losses, of those clipped, of those of the prior clipped, [..., tasks].
      labels: how many labels they are over, [..., tasks].
      rows: of each group of tasks that a metric judges, (outputs [..., rows, tasks, outputs], labels and which are
        present [..., rows, tasks]).
    """

    loss: Numbers
    bounded: Numbers
    prior: Numbers
    labels: Numbers
    rows: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Judgement:
    """What a state is worth on validation, for each of a phase's tasks.

    Attributes:
      losses: mean plain losses, [tasks]; NaN without labels, and where training diverged.
      labels: validation labels, [tasks].
      scores: by which it is chosen, lower is better, [tasks]; NaN likewise.
    """

    losses: Numbers
    labels: Numbers
    scores: Numbers


def evaluate(
    model: Model,
    tasks: tuple[str, ...],
    standardize: bool,
    split: Array,
    weights: Weights,
    data: Data,
    shards: int = 1,
) -> Judgement:
    """Return what a state is worth on validation.

    Losses are the plain ones (log loss or squared error) on present labels, without weights, smoothing or focusing, so
    that they mean the same in every regime.

    Args:
      model: the model.
      tasks: the phase's tasks.
      standardize: whether inputs are standardised.
      split: which of the stacked splits.
      weights: all parameters and batch statistics.
      data: the stacked data.
      shards: devices that the rows are spread over, see ``step.update``.
    """
    count = evaluation_blocks(tasks, data, shards)[0]
    found = validate(model, tasks, standardize, split, weights, data, jnp.int32(0), count, shards)
    return judge(model, tasks, split, found, data, shards)


def evaluation_blocks(tasks: tuple[str, ...], data: Data, shards: int = 1) -> tuple[int, int]:
    """Return (blocks that a device's share of validation runs in, rows of a block)."""
    share = -(-int(data.val_rows[pool_name(tasks)].rows.shape[-1]) // shards)
    size = min(share, EVALUATION_ROWS)
    return -(-share // size), size


def validate(
    model: Model,
    tasks: tuple[str, ...],
    standardize: bool,
    split: Array,
    weights: Weights,
    data: Data,
    begin: Array,
    count: int,
    shards: int = 1,
) -> Found:
    """Return what validation comes to in ``count`` blocks, from ``begin`` on; every leaf has the blocks first.

    Args:
      model, tasks, standardize, split, weights, data, shards: as in ``evaluate``.
      begin: the first block, int32.
      count: how many; blocks past the last hold nothing.
    """
    own = data.of(split)
    pool = own.val_rows[pool_name(tasks)]
    share = -(-pool.rows.shape[0] // shards)
    _, size = evaluation_blocks(tasks, data, shards)
    start = jax.lax.axis_index(DATA_AXIS) * share if shards > 1 else 0
    at_ = own.columns(tasks)

    def block(number: Array) -> Found:
        first = number * size
        at = start + first + jnp.arange(size)
        rows, real = jnp.take(pool.rows, at, mode="clip"), (at < pool.count) & (first + jnp.arange(size) < share)
        features = model.features(weights.params, weights.state, inputs(standardize, own, rows))
        labels, masks = (jnp.take(a, rows, axis=0, mode="clip")[:, at_] for a in (own.labels, own.val))
        dense = own.dense_labels([model.task(t) for t in tasks], labels)
        return of_rows(model, tasks, weights, features, labels, masks & real[:, None], own.prior[at_], dense)

    if count == 1:
        return jax.tree.map(lambda a: a[None], block(begin))
    found: Found = jax.lax.map(block, begin + jnp.arange(count))
    return found


def of_rows(
    model: Model,
    tasks: Sequence[str],
    weights: Weights,
    features: Features,
    labels: Float[Array, "rows tasks"],
    masks: Numbers,
    prior: Float[Array, "tasks outputs"],
    dense: Any = None,
) -> Found:
    """Return what validation comes to in one block of rows.

    Heads of one kind are one matrix here, as they are in a step (see ``train.stacks``).

    Args:
      model: the model.
      tasks: names.
      weights: all parameters and batch statistics.
      features: the trunk's.
      labels: numbers and class ids.
      masks: [rows, tasks], true where a label is present.
      prior: the outputs that predict it, see ``data.prior``.
      dense: labels of the dense ones among the tasks, as a batch has them.
    """
    heads, plain = weights.params["heads"], _plain(model, tasks)
    parts, each = columns(plain), list[tuple[Any, ...]]()
    for group in parts:
        outputs = outputs_of(model.head, group, heads, features, in_one_matrix(features, plain))
        mask = there = group.of(masks)
        if group.task.shape:
            own, positions = (jnp.stack(a, axis=1) for a in zip(*((dense or {})[t] for t in group.names), strict=True))
            there = positions & mask.reshape(*mask.shape, *[1] * len(group.task.shape))
        else:
            own = group.of(labels).astype(jnp.int32) if group.task.labels == "ids" else group.of(labels)
        constant = prior[jnp.asarray(group.places), : group.task.outputs]
        constant = constant.reshape(1, *constant.shape[:1], *[1] * len(group.task.shape), -1)
        found = group.values(outputs, own, there)
        guessed = group.values(jnp.broadcast_to(constant, outputs.shape), own, there)
        most = _most(group.task)
        sums = [jnp.sum(v, axis=0, where=mask) for v in (found, jnp.minimum(found, most), jnp.minimum(guessed, most))]
        each.append((*sums, (outputs, own, mask) if _names(model, group) else ()))
    losses_, bounded_, guessed_, rows = zip(*each, strict=True)
    loss, bounded, guess = (together(parts, numbers) for numbers in (losses_, bounded_, guessed_))
    return Found(loss, bounded, guess, jnp.sum(masks, axis=0, dtype=jnp.int32), rows)


def judge(model: Model, tasks: tuple[str, ...], split: Array, found: Found, data: Data, shards: int = 1) -> Judgement:
    """Return what a state is worth from what all blocks of validation came to.

    Args:
      model, tasks, split, data, shards: as in ``evaluate``.
      found: as ``validate`` returns it.
    """
    loss, bounded, guess, labels = (a.sum(axis=0) for a in (found.loss, found.bounded, found.prior, found.labels))
    rows = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), found.rows)
    if shards > 1:
        loss, bounded, guess, labels = jax.lax.psum((loss, bounded, guess, labels), DATA_AXIS)
        rows = jax.tree.map(lambda a: jax.lax.all_gather(a, DATA_AXIS, tiled=True), rows)
    mean = jnp.where(labels > 0, loss / jnp.maximum(labels, 1), jnp.nan)
    error = jnp.where(labels > 0, bounded / jnp.where(guess > 0, guess, jnp.maximum(labels, 1)), jnp.nan)
    parts, each = columns(_plain(model, tasks)), list[Array]()
    own = data.of(split)
    prior = own.prior[own.columns(tasks)]
    for group, of_group in zip(parts, rows, strict=True):
        of_loss = error[jnp.asarray(group.places)]
        each.append(_by_metric(model, group, prior, of_loss, *of_group) if of_group else of_loss)
    return Judgement(mean, labels, jnp.where(jnp.isfinite(mean), together(parts, each), jnp.nan))


def _by_metric(
    model: Model, group: Columns, prior: Array, of_loss: Array, outputs: Array, labels: Array, mask: Array
) -> Float[Array, " tasks"]:
    """Return the score of each task of a group: by its metric where there are labels enough, else by its loss."""
    few = jnp.sum(mask, axis=0) < SMALL
    for c in range(group.task.classes):
        few |= jnp.sum(mask & (labels == c), axis=0) < RARE
    constant = jnp.broadcast_to(prior[jnp.asarray(group.places), : group.task.outputs][None], outputs.shape)
    link = functools.partial(losses.linked, group.task)
    score = of_loss
    for name, judged in _names(model, group).items():
        metric = METRICS[name]

        def value(outputs: Array, labels: Array, mask: Array, of: Any = metric.value) -> Array:
            return of(link(outputs), labels, mask)

        at = jnp.asarray(judged)
        own, guess = (jax.vmap(value, in_axes=1)(o[:, at], labels[:, at], mask[:, at]) for o in (outputs, constant))
        best = metric.range[1] if metric.higher_is_better else metric.range[0]
        sign = 1.0 if metric.higher_is_better else -1.0
        if math.isfinite(best):
            least = sign * (best - guess)
            relative = sign * (best - own) / jnp.where(least > 0, least, 1.0)
        else:
            relative = 1.0 + sign * (guess - own)
        usable = ~few[at] & ~jnp.isnan(relative)
        score = score.at[at].set(jnp.where(usable, relative, of_loss[at]))
    return score


def _names(model: Model, group: Columns) -> dict[str, list[int]]:
    """Return the metrics that judge tasks of a group, with the places of these tasks in it."""
    found: dict[str, list[int]] = {}
    for i, name in enumerate(group.names):
        metric = model.task(name).metric
        if not group.task.shape and (not group.task.scaled or metric in OF_SCALED):
            found.setdefault(metric, []).append(i)
    return found


def _plain(model: Model, tasks: Sequence[str]) -> list[Task]:
    """Return tasks without what a config adds to their losses."""
    specs = (model.task(name) for name in tasks)
    return [dataclasses.replace(t, pos_weight=1.0, label_smoothing=0.0, focal_gamma=0.0) for t in specs]


def _most(task: Task) -> float:
    """Return what an example's loss is clipped at; a loss that a config registers is not."""
    name = losses.loss_of(task)
    if name in ("logistic", "softmax"):
        return NATS
    return SQUARES if name == "squared" and task.scaled else math.inf
