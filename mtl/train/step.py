"""One update: batch → task losses → gradients of the trainable part → new trainable part."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl import losses
from mtl.params import combine
from mtl.train import optimizer
from mtl.train.program import DROPOUT, Lane, Program, key_for
from mtl.train.sampling import Batch

PyTree = Any


def loss(
    program: Program,
    modes: tuple[bool, ...],
    lane: Lane,
    trainable: PyTree,
    frozen: PyTree,
    state: PyTree,
    batch: Batch,
    rng: Array,
) -> tuple[Float[Array, ""], PyTree]:
    """Return (the batch's loss, new batch statistics).

    The trainable part is an argument of its own, so ``jax.grad`` of this never forms a gradient of a frozen leaf.
    """
    outputs, state = program.model.apply(
        combine(trainable, frozen), state, batch.x, tasks=program.tasks, train=modes, rng=rng
    )
    values = {
        t.name: losses.values(t, outputs[t.name], batch.labels[t.name], batch.mask[t.name]) for t in program.specs
    }
    weights = {name: lane.weights[i] for i, name in enumerate(program.tasks)}
    return losses.reduce(values, batch.mask, program.denominator, weights), state


def update(
    program: Program,
    modes: tuple[bool, ...],
    lane: Lane,
    step: Array,
    trainable: PyTree,
    frozen: PyTree,
    state: PyTree,
    slots: PyTree,
    batch: Batch,
) -> tuple[PyTree, PyTree, PyTree, Float[Array, ""]]:
    """Return (trainable, batch statistics, optimizer state, loss) after one update on a batch.

    Args:
      program: the phase.
      modes: which blocks run in train mode.
      lane: the trial's numbers.
      step: the step's index in the phase.
      trainable, frozen: the two parts of the parameters.
      state: batch statistics.
      slots: optimizer state.
      batch: the batch.
    """
    rng = jax.random.fold_in(key_for(lane.seed, DROPOUT, "+".join(program.tasks)), lane.offset[0] + step)
    (value, state), grads = jax.value_and_grad(loss, argnums=3, has_aux=True)(
        program, modes, lane, trainable, frozen, state, batch, rng
    )
    always = program.sampling == "per_task" or len(program.tasks) == 1
    active = {} if always else {t: jnp.any(m) for t, m in batch.mask.items()}
    trainable, slots = optimizer.update(program.optimizer, lane, step, grads, slots, trainable, active)
    return trainable, state, slots, value
