"""A phase, as pure functions: start, advance, evaluate, note, finish."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl import losses
from mtl import params as paths
from mtl.models import Model
from mtl.tasks import Task
from mtl.train import optimizer
from mtl.train.program import Data, Lane, Numbers, Program, inputs, pool_name
from mtl.train.sampling import make_sampler
from mtl.train.step import update

PyTree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Weights:
    """What one phase hands to the next: all parameters and batch statistics."""

    params: PyTree
    state: PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moving:
    """What changes while a phase runs. Frozen parameters are not in it.

    Attributes:
      trainable: the parameters that move, ``None`` where frozen.
      state: batch statistics.
      slots: optimizer state.
      best: (validation loss, trainable, state) of the best evaluation so far, or ``()`` if the last state is kept.
      loss_sum: sum of batch losses since the last evaluation.
      diverged_at: first step whose loss was not finite; −1 if none.
    """

    trainable: PyTree
    state: PyTree
    slots: PyTree
    best: PyTree
    loss_sum: Numbers
    diverged_at: Numbers


def start(program: Program, weights: Weights) -> tuple[Moving, PyTree]:
    """Return (what moves, what is frozen) at a phase's start: split, then optimizer init.

    Args:
      program: the phase.
      weights: parameters and statistics, with fresh parts already fresh.
    """
    trainable, frozen = paths.split(weights.params, program.chosen(weights.params))
    best: PyTree = ()
    if program.select == "best":
        best = (jnp.float32(jnp.inf), trainable, weights.state)
    slots = optimizer.init(program.optimizer, trainable)
    return Moving(trainable, weights.state, slots, best, jnp.float32(0), jnp.int32(-1)), frozen


def advance(
    program: Program, lane: Lane, moving: Moving, frozen: PyTree, data: Data, begin: Array, end: Array
) -> Moving:
    """Return the phase after the steps [begin, min(end, lane.steps)).

    The loop's bounds are data: the same executable runs a whole phase or any chunk of it, so where it is cut cannot
    change a bit.

    Args:
      program: the phase.
      lane: the trial's numbers.
      moving: as ``start`` or an earlier call returned it.
      frozen: as ``start`` returned it.
      data: the stacked data; the lane says which split is its own.
      begin, end: steps, int32.
    """
    own = data.of(lane.split)
    sample = make_sampler(program, lane, own)
    modes = program.modes(jax.tree.map(lambda x: x is not None, moving.trainable, is_leaf=lambda x: x is None))

    def body(step: Array, m: Moving) -> Moving:
        trainable, state, slots, value = update(
            program, modes, lane, step, m.trainable, frozen, m.state, m.slots, sample(step)
        )
        bad = jnp.where((m.diverged_at < 0) & ~jnp.isfinite(value), step, m.diverged_at)
        return Moving(trainable, state, slots, m.best, m.loss_sum + value, bad)

    return jax.lax.fori_loop(begin, jnp.minimum(end, lane.steps), body, moving)


def evaluate(
    model: Model, tasks: tuple[str, ...], standardize: bool, split: Array, weights: Weights, data: Data
) -> Float[Array, " tasks"]:
    """Return the validation loss of each of some tasks.

    It is the plain log loss (or squared error) on present validation labels, without weights, smoothing or focusing,
    so that it means the same in every regime; NaN for a task without validation labels.

    Args:
      model: the model.
      tasks: the phase's tasks.
      standardize: whether inputs are standardised.
      split: which of the stacked splits.
      weights: all parameters and batch statistics.
      data: the stacked data.
    """
    own = data.of(split)
    pool = own.val_rows[pool_name(tasks)]
    rows, real = pool.rows, jnp.arange(pool.rows.shape[0]) < pool.count
    outputs, _ = model.apply(weights.params, weights.state, inputs(standardize, own, rows), tasks=tasks)
    return jnp.stack(
        [validation_loss(model.task(t), outputs[t], own.labels[t][rows], own.val[t][rows] & real) for t in tasks]
    )


def note(program: Program, moving: Moving, losses: Float[Array, " tasks"]) -> Moving:
    """Return the phase with an evaluation taken note of: the best state so far is kept, if the phase selects it.

    What decides is the target's loss, or in a phase without the target the mean over its tasks. A loss that is NaN
    is never better, so a diverged state cannot be the best one.
    """
    moving = dataclasses.replace(moving, loss_sum=jnp.float32(0))
    if program.select == "last":
        return moving
    seen = program.target in program.tasks
    score = losses[program.tasks.index(program.target)] if seen else jnp.mean(losses)
    better = score < moving.best[0]
    now = (score, moving.trainable, moving.state)
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, moving.best)
    return dataclasses.replace(moving, best=best)


def validation_loss(task: Task, outputs: Array, labels: Array, mask: Array) -> Float[Array, ""]:
    """Return a task's plain loss, averaged over the labels that are present; NaN if there are none."""
    plain = dataclasses.replace(task, weight=1.0, pos_weight=1.0, label_smoothing=0.0, focal_gamma=0.0)
    total, count = losses.sum_and_count(losses.values(plain, outputs, labels, mask), mask)
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)


def finish(program: Program, moving: Moving, frozen: PyTree) -> Weights:
    """Return what goes on to the next phase: the last state, or the best on validation."""
    if program.select == "best":
        _, trainable, state = moving.best
        return Weights(paths.combine(trainable, frozen), state)
    return Weights(paths.combine(moving.trainable, frozen), moving.state)
