"""A phase, as pure functions: start, fix, advance, track the best."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from mtl import adapt
from mtl import params as paths
from mtl.models.features import Features
from mtl.train import move
from mtl.train.dataset import Data, inputs, pool_name
from mtl.train.judge import Judgement
from mtl.train.program import ADAPT, Best, Frozen, Hypers, Program, TrainState, Weights, key_for
from mtl.train.stacks import stacked, unstacked
from mtl.train.threefry import fold_in

PyTree = Any


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
        best = Best(jnp.float32(jnp.inf), trainable, state, jnp.int32(0), jnp.int32(0))
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
    if program.select == "best":
        end = jnp.where(stopped(hypers, moving), begin, end)
    return program.solver.advance(program, hypers, moving, fixed, own, begin, end, shards)


def shown(program: Program, moving: TrainState) -> PyTree:
    """Return the trainable part as it is evaluated and kept."""
    return move.evaluated(program, moving.opt_state, moving.trainable)


def track_best(program: Program, hypers: Hypers, moving: TrainState, judged: Judgement) -> TrainState:
    """Return the phase with an evaluation taken note of: the best state so far is kept, if the phase selects it.

    What decides is the mean score over the phase's judges (see ``regimes.judges``) that have a validation label. A mean
    that is NaN is never better, so a diverged state cannot be the best one. Of several that are equal it is the first.
    A phase that has stopped takes note of nothing.

    Args:
      program: the phase.
      hypers: its numbers.
      moving: its state.
      judged: as ``judge.evaluate`` returns it.
    """
    zeros = jnp.zeros_like(moving.loss_sum), jnp.zeros_like(moving.labels)
    moving = dataclasses.replace(moving, loss_sum=zeros[0], labels=zeros[1])
    if program.select == "last":
        return moving
    best, goes_on = moving.best, ~stopped(hypers, moving)
    at = jnp.asarray([program.tasks.index(t) for t in program.judges])
    # By the labels, not by the scores: one that is NaN because training diverged must not be left out.
    there = judged.labels[at] > 0
    score = jnp.sum(judged.scores[at], where=there) / jnp.sum(there)
    better, seen = goes_on & (score < best.score), best.seen + goes_on
    now = Best(score, shown(program, moving), moving.state, seen, seen)
    kept = dataclasses.replace(best, seen=seen)
    return dataclasses.replace(moving, best=jax.tree.map(lambda new, old: jnp.where(better, new, old), now, kept))


def stopped(hypers: Hypers, moving: TrainState) -> Bool[Array, ""]:
    """Return whether a phase that selects its best state has ended early: ``patience`` evaluations without a better."""
    return (hypers.patience > 0) & (moving.best.seen - moving.best.at >= hypers.patience)
