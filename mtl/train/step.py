"""One update: batch → task losses → gradients of the trainable part → new trainable part."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from mtl import losses
from mtl.params import combine
from mtl.train.move import move
from mtl.train.program import DROPOUT, Fixed, Hypers, Program, key_for, pool_name
from mtl.train.sampling import Batch, Draw, part
from mtl.train.stacks import columns, ordered, outputs
from mtl.train.threefry import fold_in

PyTree = Any

#: The mesh axis that a batch is spread over.
DATA_AXIS = "data"


def weigh(
    program: Program, hypers: Hypers, mask: Mapping[str, Bool[Array, " rows"]]
) -> tuple[dict[str, Int[Array, ""]], dict[str, Float[Array, ""]]]:
    """Return (labels of each task in a batch, what each task's sum of losses is multiplied by)."""
    # Summed side by side, at once.
    names = sorted(mask)
    each = jnp.sum(jnp.stack([mask[t] for t in names], axis=1), axis=0, dtype=jnp.int32)
    counts = {t: each[i] for i, t in enumerate(names)}
    weights = {name: hypers.weights[i] for i, name in enumerate(program.tasks)}
    rows = next(iter(mask.values())).shape[0]
    return counts, losses.coefficients(counts, rows, program.denominator, weights)


def loss(
    program: Program,
    modes: tuple[bool, ...],
    coefficients: dict[str, Float[Array, ""]],
    trainable: PyTree,
    fixed: Fixed,
    state: PyTree,
    batch: Batch,
    rng: Array,
) -> tuple[Float[Array, ""], PyTree]:
    """Return (Σ_j c_j · sum of task j over a part of the batch, new batch statistics).

    The trainable part is an argument of its own, so ``jax.grad`` of this never forms a gradient of a frozen leaf.

    Args:
      program: the phase.
      modes: which blocks run in train mode.
      coefficients: c_j, from the masks of the whole batch (``losses.coefficients``).
      trainable, fixed: the two parts of the parameters, heads as stacks.
      state: batch statistics.
      batch: the part.
      rng: key for dropout.
    """
    params = combine(trainable, fixed.frozen)
    features = batch.x
    if not program.cached:
        features, state = program.model.trunk(params["backbone"], state, batch.x, train=modes, rng=rng)
    found = outputs(program, program.model.head, params, features)
    total = jnp.zeros((), found.dtype)
    for part_of in columns(ordered(program)):  # One order of summation, whatever that of the tasks.
        mask = jnp.stack([batch.mask[t] for t in part_of.names], axis=1)
        labels = jnp.stack([batch.labels[t] for t in part_of.names], axis=1)
        values = jax.vmap(functools.partial(losses.values, part_of.task), in_axes=1, out_axes=1)
        sums = jnp.sum(values(part_of.of(found), labels, mask), axis=0, where=mask)
        total = total + jnp.sum(jnp.stack([coefficients[t] for t in part_of.names]) * sums)
    return total, state


def update(
    program: Program,
    modes: tuple[bool, ...],
    hypers: Hypers,
    step: Array,
    trainable: PyTree,
    fixed: Fixed,
    state: PyTree,
    slots: PyTree,
    draw: Draw,
    fetch: Callable[[Draw], Batch],
    shards: int = 1,
    pieces: int | None = None,
) -> tuple[PyTree, PyTree, PyTree, Float[Array, ""]]:
    """Return (trainable, batch statistics, optimizer state, loss) after one update on a batch.

    The batch is split evenly over ``shards`` devices and, on each, so many pieces, one after the other. Each task's
    coefficient comes from the labels of the whole batch, which every device knows, so gradients add up exactly and
    are all that devices exchange. With shards, the loss and the batch statistics are those of the device's own part.

    Args:
      program: the phase.
      modes: which blocks run in train mode.
      hypers: the trial's numbers.
      step: the step's index in the phase.
      trainable: the parameters that move, heads as stacks.
      fixed: those that do not.
      state: batch statistics.
      slots: optimizer state.
      draw: the rows of the whole batch.
      fetch: inputs and labels of a part of it.
      shards: devices on the mesh axis ``data``, under ``shard_map``; 1 for none.
      pieces: pieces of a device's part; by default ``program.accumulate`` micro-batches (see ``train.blocks``).

    Raises:
      ValueError: for micro-batches where batch statistics are those of a batch.
    """
    program.check_whole(modes, state)
    pieces = program.accumulate if pieces is None else pieces
    rng = fold_in(key_for(hypers.seed, DROPOUT, pool_name(program.tasks)), hypers.offset[0] + step)
    counts, coefficients = weigh(program, hypers, draw.mask)
    parts = shards * pieces
    first = jax.lax.axis_index(DATA_AXIS) * pieces if shards > 1 else 0
    differentiate = jax.value_and_grad(loss, argnums=3, has_aux=True)

    def of(index: Array | int, state: PyTree) -> tuple[tuple[Float[Array, ""], PyTree], PyTree]:
        batch = fetch(part(program, draw, jnp.int32(first + index), parts))
        key = rng if parts == 1 else fold_in(rng, first + index)
        return differentiate(program, modes, coefficients, trainable, fixed, state, batch, key)

    if pieces == 1:
        (value, state), grads = of(0, state)
    else:

        def add(index: Array, sums: tuple[Array, PyTree, PyTree]) -> tuple[Array, PyTree, PyTree]:
            total, held, statistics = sums
            (more, statistics), gradient = of(index, statistics)
            return total + more, jax.tree.map(jnp.add, held, gradient), statistics

        # All of them in the loop, the first too: its code is compiled once.
        shapes = jax.eval_shape(of, 0, state)
        nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), (shapes[0][0], shapes[1]))
        value, grads, state = jax.lax.fori_loop(0, pieces, add, (*nothing, state))
    if shards > 1:
        flat, restore = ravel_pytree(grads)  # One vector: one exchange, whatever the number of leaves.
        grads = restore(jax.lax.psum(flat, DATA_AXIS))
    always = program.sampling == "per_task" or len(program.tasks) == 1
    active = {} if always else {t: n > 0 for t, n in counts.items()}
    trainable, slots = move(program, hypers, step, grads, slots, trainable, active)
    return trainable, state, slots, value
