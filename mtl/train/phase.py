"""A phase, as pure functions: start, fix, advance, evaluate, track the best."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtl import adapt
from mtl import params as paths
from mtl.models import Model
from mtl.models.features import Features
from mtl.train import move
from mtl.train.dataset import Data, inputs, pool_name
from mtl.train.program import ADAPT, Frozen, Hypers, Program, TrainState, Weights, key_for
from mtl.train.pull import DATA_AXIS
from mtl.train.sampling import by_columns
from mtl.train.stacks import columns, in_one_matrix, stacked, sums_apart, together, unstacked
from mtl.train.threefry import fold_in

PyTree = Any

#: Validation runs in blocks of at most so many rows, so that a large set takes no more memory than a batch.
EVALUATION_ROWS = 512


def start(program: Program, hypers: Hypers, weights: Weights) -> tuple[TrainState, PyTree]:
    """Return (what moves, what is frozen) at a phase's start: adapt, split, then optimizer init.

    Args:
      program: the phase.
      hypers: its numbers.
      weights: parameters and statistics, with fresh parts already fresh.
    """
    trainable, frozen = divide(program, adapted(program, hypers, weights.params))
    return begin(program, hypers, trainable, weights.state), frozen


def adapted(program: Program, hypers: Hypers, params: PyTree) -> PyTree:
    """Return parameters with the phase's adapters, if it has any."""
    if program.adapter is None:
        return params
    key = fold_in(key_for(hypers.seed, ADAPT), hypers.offset[0])
    return adapt.adapted(program.adapter, hypers.adapter, key, params)


def merged(program: Program, hypers: Hypers, params: PyTree) -> PyTree:
    """Return parameters whose kernels have taken up the phase's adapters: undo ``adapted``, with what was learned."""
    return params if program.adapter is None else adapt.merged(program.adapter, hypers.adapter, params)


def divide(program: Program, params: PyTree) -> tuple[PyTree, PyTree]:
    """Return the parameters that move and those that do not, heads as stacks (see ``train.stacks``)."""
    trainable, frozen = paths.split(params, program.chosen(params))
    return stacked(program, trainable), stacked(program, frozen)


def whole(program: Program, trainable: PyTree, frozen: PyTree) -> PyTree:
    """Return all parameters: undo ``divide``."""
    return unstacked(program, paths.combine(trainable, frozen))


def begin(program: Program, hypers: Hypers, trainable: PyTree, state: PyTree) -> TrainState:
    """Return what changes while a phase runs, as it begins.

    Args:
      program: the phase.
      hypers: its numbers.
      trainable: the parameters that move, heads as stacks.
      state: batch statistics.
    """
    best: PyTree = ()
    if program.select == "best":
        best = (jnp.float32(jnp.inf), trainable, state)
    opt_state = program.solver.begin(program, hypers, trainable)
    k = len(program.tasks)
    none, labels = jnp.zeros(k, jnp.float32), jnp.zeros(k, jnp.int32)
    balance: PyTree = ()
    if program.balancer is not None:
        state_of = program.balancer.balancer(hypers.balancer).init(k)
        balance = {"state": state_of, "losses": none, "active": jnp.zeros(k, bool)}
    return TrainState(trainable, state, opt_state, balance, best, none, labels, jnp.int32(-1))


def fix(program: Program, split: Array, weights: Weights, frozen: PyTree, data: Data) -> Frozen:
    """Return what does not change while a phase runs; here a frozen trunk's features are computed, once.

    Args:
      program: the phase.
      split: which of the stacked splits.
      weights: all parameters and batch statistics at the phase's start.
      frozen: the parameters that do not move.
      data: the stacked data.
    """
    if not program.cached:
        return Frozen(frozen)
    own, size, blocks = data.of(split), program.rows, feature_blocks(program, data)
    shape = jax.eval_shape(lambda: _features(program, weights, own, jnp.zeros((size,), jnp.int32)))
    empty = jax.tree.map(lambda a: jnp.zeros((blocks * size, *a.shape[1:]), a.dtype), shape)
    return cache(program, split, weights, Frozen(frozen, empty), data, jnp.int32(0), jnp.int32(blocks))


def feature_blocks(program: Program, data: Data) -> int:
    """Return how many blocks a frozen trunk's features are computed in, at most."""
    return -(-int(data.train_rows[pool_name(program.tasks)].rows.shape[-1]) // program.rows)


def cache(
    program: Program, split: Array, weights: Weights, fixed: Frozen, data: Data, begin: Array, end: Array
) -> Frozen:
    """Return a frozen trunk's features with the blocks [begin, end) of them computed.

    They are computed in blocks of as many rows as a training batch has, so that a row's features do not depend on
    how many others there are. The loop's bounds are data, as in ``advance``.

    Args:
      program: the phase.
      split: which of the stacked splits.
      weights: all parameters and batch statistics at the phase's start.
      fixed: with room for the features, and those computed before.
      data: the stacked data.
      begin, end: blocks, int32; at most ``feature_blocks``.
    """
    own = data.of(split)
    pool, size = own.train_rows[pool_name(program.tasks)], program.rows
    most = pool.rows.shape[0]

    def block(i: Array, held: PyTree) -> PyTree:
        rows = jnp.take(pool.rows, i * size + jnp.arange(size), mode="clip")
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=i * size, axis=0)
        return jax.tree.map(put, held, _features(program, weights, own, rows))

    needed = (pool.count + size - 1) // size
    found = jax.lax.fori_loop(begin, jnp.minimum(end, needed), block, fixed.features)
    at = jnp.where(jnp.arange(most) < pool.count, pool.rows, data.table_rows)  # Padding is dropped, out of range.
    place = jnp.zeros((data.table_rows,), jnp.int32).at[at].set(jnp.arange(most, dtype=jnp.int32), mode="drop")
    return Frozen(fixed.frozen, found, place)


def _features(program: Program, weights: Weights, own: Data, rows: Array) -> Features:
    return program.model.features(weights.params, weights.state, inputs(program.standardize, own, rows))


def advance(
    program: Program,
    hypers: Hypers,
    moving: TrainState,
    fixed: Frozen,
    data: Data,
    begin: Array,
    end: Array,
    shards: int = 1,
) -> TrainState:
    """Return the phase after the steps [begin, end).

    The loop's bounds are data: the same executable runs a whole phase or any chunk of it, so where it is cut cannot
    change a bit.

    Args:
      program: the phase.
      hypers: the trial's numbers.
      moving: as ``start`` or an earlier call returned it.
      fixed: as ``fix`` returned it.
      data: the stacked data; ``hypers`` says which split is its own.
      begin, end: steps, int32; at most the phase's.
      shards: devices that each batch is spread over, see ``step.update``.
    """
    own = data.of(hypers.split)
    return program.solver.advance(program, hypers, moving, fixed, own, begin, end, shards)


def shown(program: Program, moving: TrainState) -> PyTree:
    """Return the trainable part as it is evaluated and kept."""
    return move.evaluated(program, moving.opt_state, moving.trainable)


def evaluate(
    model: Model,
    tasks: tuple[str, ...],
    standardize: bool,
    split: Array,
    weights: Weights,
    data: Data,
    shards: int = 1,
) -> tuple[Float[Array, " tasks"], Int[Array, " tasks"]]:
    """Return (the validation loss of each of some tasks, the number of validation labels that it is over).

    It is the plain log loss (or squared error) on present validation labels, without weights, smoothing or focusing,
    so that it means the same in every regime; NaN for a task without validation labels, and where training diverged.

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
    return mean_loss(*validate(model, tasks, standardize, split, weights, data, jnp.int32(0), count, shards), shards)


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
) -> tuple[Float[Array, "blocks tasks"], Int[Array, "blocks tasks"]]:
    """Return each task's (sum of losses, number of labels) in ``count`` blocks of validation, from ``begin`` on.

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

    def block(number: Array) -> tuple[Array, Array]:
        first = number * size
        at = start + first + jnp.arange(size)
        rows, real = jnp.take(pool.rows, at, mode="clip"), (at < pool.count) & (first + jnp.arange(size) < share)
        features = model.features(weights.params, weights.state, inputs(standardize, own, rows))
        labels, masks = (jnp.take(a, rows, axis=0, mode="clip")[:, at_] for a in (own.labels, own.val))
        dense = own.dense_labels([model.task(t) for t in tasks], labels)
        return validation_sums(model, tasks, weights.params, features, labels, masks & real[:, None], dense)

    if count == 1:
        total, labels = block(begin)
        return total[None], labels[None]
    found: tuple[Array, Array] = jax.lax.map(block, begin + jnp.arange(count))
    return found


def mean_loss(
    total: Float[Array, "blocks tasks"], count: Int[Array, "blocks tasks"], shards: int = 1
) -> tuple[Float[Array, " tasks"], Int[Array, " tasks"]]:
    """Return (each task's mean loss, its labels) from the sums of all blocks; the loss is NaN without labels."""
    total, count = total.sum(axis=0), count.sum(axis=0)
    if shards > 1:
        total, count = jax.lax.psum((total, count), DATA_AXIS)
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan), count


def track_best(
    program: Program,
    moving: TrainState,
    losses: Float[Array, " tasks"],
    labels: Int[Array, " tasks"],
    prior: PyTree = None,
) -> TrainState:
    """Return the phase with an evaluation taken note of: the best state so far is kept, if the phase selects it.

    What decides is the mean loss over the phase's judges (see ``regimes.judges``) that have a validation label. A mean
    that is NaN is never better, so a diverged state cannot be the best one.

    Args:
      program: the phase.
      moving: its state.
      losses, labels: as ``evaluate`` returns them.
      prior: [tasks], what losses are taken relative to, see ``dataset.Data``; None for nothing.
    """
    zeros = jnp.zeros_like(moving.loss_sum), jnp.zeros_like(moving.labels)
    moving = dataclasses.replace(moving, loss_sum=zeros[0], labels=zeros[1])
    if program.select == "last":
        return moving
    at = jnp.asarray([program.tasks.index(t) for t in program.judges])
    losses = losses if prior is None else losses / prior
    # By the labels, not by the losses: one that is NaN because training diverged must not be left out.
    there = labels[at] > 0
    score = jnp.sum(losses[at], where=there) / jnp.sum(there)
    better = score < moving.best[0]
    now = (score, shown(program, moving), moving.state)
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, moving.best)
    return dataclasses.replace(moving, best=best)


def validation_sums(
    model: Model,
    tasks: Sequence[str],
    params: PyTree,
    features: Features,
    labels: Float[Array, "rows tasks"],
    masks: Bool[Array, "rows tasks"],
    dense: Mapping[str, tuple[Array, Array]] | None = None,
) -> tuple[Float[Array, " tasks"], Int[Array, " tasks"]]:
    """Return (the sum of each task's plain losses over the labels that are present, their number).

    Heads of one kind are one matrix here, as they are in a step (see ``train.stacks``).

    Args:
      model: the model.
      tasks: names.
      params: all parameters.
      features: the trunk's.
      labels: numbers and class ids.
      masks: true where a label is present.
      dense: labels of the dense ones among the tasks, as a batch has them.
    """
    specs = (model.task(name) for name in tasks)
    plain = [dataclasses.replace(t, pos_weight=1.0, label_smoothing=0.0, focal_gamma=0.0) for t in specs]
    if not in_one_matrix(features, plain):
        found = sums_apart(plain, model.head, params["heads"], features, by_columns(plain, labels, dense or {}), masks)
        return found, jnp.sum(masks, axis=0, dtype=jnp.int32)
    sums, parts = [], columns(plain)
    for group in parts:
        head = jax.tree.map(lambda *a: jnp.concatenate(a, axis=-1), *(params["heads"][t] for t in group.names))
        outputs = model.head(head, features).reshape(len(features), len(group.names), group.task.outputs)
        mask, own = group.of(masks), group.of(labels)
        own = own.astype(jnp.int32) if group.task.labels == "ids" else own
        sums.append(group.sums(outputs, own, mask))
    return together(parts, sums), jnp.sum(masks, axis=0, dtype=jnp.int32)
