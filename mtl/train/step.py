"""One update: forward → pull → balance → move."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from mtl import losses
from mtl.balance import Seen
from mtl.train.move import move
from mtl.train.program import BALANCE, DROPOUT, Frozen, Hypers, Program, TrainState, key_for
from mtl.train.pull import Pull
from mtl.train.sampling import Batch, Indices
from mtl.train.stacks import order
from mtl.train.threefry import fold_in

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Source:
    """A batch before it is fetched.

    Attributes:
      program: the phase, with the sampling that it is drawn by.
      draw: its rows.
      fetch: what gets inputs and labels of a part of it.
    """

    program: Program
    draw: Indices
    fetch: Callable[[Indices], Batch]


def weigh(
    program: Program, hypers: Hypers, mask: Bool[Array, "rows tasks"]
) -> tuple[Int[Array, " tasks"], Float[Array, " tasks"]]:
    """Return (labels of each task in a batch, what each task's sum of losses is multiplied by), as in ``ordered``."""
    counts = jnp.sum(mask, axis=0, dtype=jnp.int32)
    return counts, losses.factors(counts, mask.shape[0], program.denominator, hypers.weights[order(program)])


def update(
    program: Program,
    hypers: Hypers,
    step: Array,
    moving: TrainState,
    fixed: Frozen,
    source: Source,
    shards: int = 1,
    pieces: int | None = None,
    others: Sequence[Source] = (),
    validation: Source | None = None,
    unroll: bool = False,
) -> TrainState:
    """Return what moves after one update on a batch.

    With shards, the sums of losses and the batch statistics are those of the device's own part.

    Args:
      program: the phase.
      hypers: the trial's numbers.
      step: the step's index in the phase.
      moving: what moves.
      fixed: the parameters that do not, heads as stacks.
      source: the batch.
      shards: devices on the mesh axis ``data``, under ``shard_map``; 1 for none.
      pieces: pieces of a device's part; by default ``program.accumulate`` micro-batches (see ``train.microbatching``).
      others, validation: the further batches that the balancer needs.
      unroll: write out what goes over tasks, to be counted; it takes longer to compile.

    Raises:
      ValueError: for micro-batches where batch statistics are those of a batch.
    """
    program.check_whole(moving.state)
    pieces = program.accumulate if pieces is None else pieces
    rng = fold_in(key_for(hypers.seed, DROPOUT, hypers.streams[-1]), hypers.offset[0] + step)

    def forward(source: Source, key: Array) -> tuple[Pull, Int[Array, " tasks"]]:
        counts, task_weights = weigh(program, hypers, source.draw.mask)
        return Pull(source.program, task_weights, fixed, source.draw, source.fetch, key, shards, pieces, unroll), counts

    pull, counts = forward(source, rng)
    if program.balancer is None and not program.optimizer.per_task:
        grads, sums, state = pull.gradient(moving.trainable, moving.state)
        balance = moving.balance
    else:
        further = [forward(s, fold_in(rng, i + 1))[0] for i, s in enumerate(others)]
        checks = None if validation is None else forward(validation, fold_in(rng, 0))[0]
        grads, sums, state, balance = _balanced(program, hypers, step, moving, pull, counts > 0, further, checks)
        mean = jnp.where(counts > 0, pull.exchanged(sums) / jnp.maximum(counts, 1), 0.0)
        balance = {"state": balance, "losses": mean, "active": counts > 0} if program.balancer else ()

    always = program.sampling == "per_task" or len(program.tasks) == 1
    active = None if always else counts > 0
    trainable, opt_state = move(program, hypers, step, grads, moving.opt_state, moving.trainable, active)
    value = jnp.sum(pull.task_weights * sums)
    bad = jnp.where((moving.diverged_at < 0) & ~jnp.isfinite(value), step, moving.diverged_at)
    return dataclasses.replace(
        moving,
        trainable=trainable,
        state=state,
        opt_state=opt_state,
        balance=balance,
        loss_sum=moving.loss_sum + sums,
        labels=moving.labels + counts,
        diverged_at=bad,
    )


def _balanced(
    program: Program,
    hypers: Hypers,
    step: Array,
    moving: TrainState,
    pull: Pull,
    active: Bool[Array, " tasks"],
    others: Sequence[Pull],
    validation: Pull | None,
) -> tuple[PyTree, Float[Array, " tasks"], PyTree, PyTree]:
    """Return (gradients, S on this device, new batch statistics, the balancer's new state).

    The trunk's gradient is as its balancer wants it; with an optimizer that has moments for each task, one a task.
    """
    trainable, needs = moving.trainable, program.balancer.needs if program.balancer else ()
    key = fold_in(key_for(hypers.seed, BALANCE), hypers.offset[0] + step)
    seen: dict[str, Any] = {"active": active, "key": key}
    if "previous" in needs:
        seen["previous"] = (moving.balance["losses"], moving.balance["active"])
    if {"losses", "features"} & set(needs):
        sums, seen["features"] = pull.look(trainable, moving.state)
        counts = jnp.maximum(weigh(program, hypers, pull.draw.mask)[0], 1)
        seen["losses"] = jnp.where(active, sums / counts, 0.0)

    flat = jax.vmap(lambda tree: ravel_pytree(tree)[0])
    if others:
        seen["others"] = jnp.stack([flat(other.jacobian(trainable, moving.state)[0]) for other in others])
    if validation is not None and "validation" in needs:
        seen["validation"] = flat(validation.jacobian(trainable, moving.state)[0])
    rows = program.optimizer.per_task or (program.balancer is not None and program.balancer.rows)
    if not rows:
        weights, balance = _weights(program, hypers, moving, seen)
        grads, sums, state = pull.gradient(trainable, moving.state, weights)
        return grads, sums, state, balance
    tree, heads, sums, state = pull.jacobian(trainable, moving.state)
    if program.balancer is None:
        return {**trainable, "backbone": tree, "heads": heads}, sums, state, ()
    seen["jacobian"] = flat(tree)
    seen["gramian"] = seen["jacobian"] @ seen["jacobian"].T
    found, balance = _weights(program, hypers, moving, seen)
    if program.optimizer.per_task:
        tree = jax.tree.map(lambda a: a * found.reshape(-1, *[1] * (a.ndim - 1)), tree)
    else:
        restore = ravel_pytree(jax.tree.map(lambda a: a[0], tree))[1]
        tree = restore(found if "direction" in needs else found @ seen["jacobian"])
    return {**trainable, "backbone": tree, "heads": heads}, sums, state, balance


def _weights(program: Program, hypers: Hypers, moving: TrainState, seen: Mapping[str, Any]) -> tuple[Array, PyTree]:
    assert program.balancer is not None
    balancer = program.balancer.balancer(hypers.balancer)
    return balancer.update(moving.balance["state"], Seen(**seen))
