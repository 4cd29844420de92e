"""Forward and back through one batch: each task's sum of losses, and gradients in the cheapest way that is exact."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from mtl.models.features import Features
from mtl.params import combine
from mtl.train.program import Frozen, Program
from mtl.train.sampling import Batch, Indices, part
from mtl.train.stacks import columns, in_one_matrix, order, ordered, outputs, sums_apart, together, unstacked
from mtl.train.threefry import fold_in

PyTree = Any

#: The mesh axis that a batch is spread over.
DATA_AXIS = "data"


def sums_of(program: Program, heads: PyTree, features: Features, batch: Batch) -> Float[Array, " tasks"]:
    """Return the sum of each task's losses over its present labels; tasks as in ``stacks.ordered``."""
    tasks = ordered(program)
    if not in_one_matrix(features, tasks):
        own = unstacked(program, heads)["heads"]
        return sums_apart(tasks, program.model.head, own, features, batch.labels, batch.mask)
    found = outputs(program, program.model.head, heads, features)
    sums, parts = [], columns(tasks)
    for group in parts:
        mask = group.of(batch.mask)
        sums.append(group.sums(group.outputs(found), batch.labels[group.names[0]], mask))
    return together(parts, sums)


@dataclasses.dataclass(frozen=True)
class Pull:
    """One batch, ready to be gone through.

    A batch is split evenly over ``shards`` devices and, on each, so many pieces, one after the other. The task_weights
    come from the labels of the whole batch, which every device knows, so what comes of the parts adds up exactly.

    Attributes:
      program: the phase.
      task_weights: c_k, what each task's sum is multiplied by, [tasks], as in ``stacks.ordered``.
      fixed: the parameters that do not move, heads as stacks.
      draw: the rows of the whole batch.
      fetch: inputs and labels of a part of it.
      rng: key for dropout.
      shards: devices on the mesh axis ``data``, under ``shard_map``; 1 for none.
      pieces: pieces of a device's part.
      unroll: write out what goes over tasks.
    """

    program: Program
    task_weights: Float[Array, " tasks"]
    fixed: Frozen
    draw: Indices
    fetch: Callable[[Indices], Batch]
    rng: Array
    shards: int = 1
    pieces: int = 1
    unroll: bool = False

    def gradient(
        self, trainable: PyTree, state: PyTree, weights: Float[Array, " tasks"] | None = None
    ) -> tuple[PyTree, Float[Array, " tasks"], PyTree]:
        """Return (the gradient of Σ c_k S_k, S on this device, new batch statistics), in one pass.

        The trainable part is an argument of its own, so a gradient of a frozen leaf is never formed.

        Args:
          trainable: the parameters that move, heads as stacks.
          state: batch statistics.
          weights: for the trunk, of c_k S_k.
        """

        def loss(trainable: PyTree, state: PyTree, batch: Batch, rng: Array) -> tuple[Array, tuple[Array, PyTree]]:
            params = combine(trainable, self.fixed.frozen)
            features, state = self._trunk(params, state, batch, rng)
            if weights is None:
                sums = sums_of(self.program, params, features, batch)
                return jnp.sum(self.task_weights * sums), (sums, state)
            # Each head has its own task's gradient, and the trunk the weighted ones.
            sums = sums_of(self.program, params, jax.lax.stop_gradient(features), batch)
            again = sums_of(self.program, jax.lax.stop_gradient(params), features, batch)
            return jnp.sum(self.task_weights * (sums + weights * again)), (sums, state)

        def of(batch: Batch, rng: Array, state: PyTree) -> tuple[PyTree, PyTree]:
            grads, (sums, state) = jax.grad(loss, has_aux=True)(trainable, state, batch, rng)
            return (grads, sums), state

        (grads, sums), state = self._over_pieces(of, state)
        return self.exchanged(grads), sums, state

    def look(self, trainable: PyTree, state: PyTree) -> tuple[Float[Array, " tasks"], Float[Array, "tasks tasks"]]:
        """Return (S, the Gramian of the gradients of c_k S_k at the features), of the whole batch.

        Where the backbone makes features of each task, tasks meet in none of them: the Gramian is diagonal.
        """

        def of(batch: Batch, rng: Array, state: PyTree) -> tuple[PyTree, PyTree]:
            params = combine(trainable, self.fixed.frozen)
            features, state = self._trunk(params, state, batch, rng)
            sums, back = jax.vjp(lambda f: sums_of(self.program, params, f, batch), features)
            rows = jax.vmap(lambda c: ravel_pytree(back(c)[0])[0])(jnp.diag(self.task_weights))
            return (sums, rows @ rows.T), state

        return self.exchanged(self._over_pieces(of, state)[0])

    def jacobian(self, trainable: PyTree, state: PyTree) -> tuple[PyTree, PyTree, Float[Array, " tasks"], PyTree]:
        """Return (each task's gradient for the trunk, those of the heads, S on this device, new batch statistics).

        The first is a tree like the backbone's trainable part, with the tasks as the first axis. Where each row belongs
        to one task and nothing joins the rows of a batch, a task's gradient is that of its own rows: all of them take
        one pass. Else the pass back is made once a task.
        """
        size = len(self.program.tasks)
        if self.program.sampling == "per_task" and size > 1 and not self.program.statistics(state):
            own = jax.tree.map(lambda a: a.reshape(size, -1, *a.shape[1:]), self.draw)
            own = jax.tree.map(lambda a: a[order(self.program)], own)

            rng = self.rng
            if self.shards > 1:
                device, share = jax.lax.axis_index(DATA_AXIS), self.program.batch // self.shards
                own = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, device * share, share, axis=1), own)
                rng = fold_in(rng, device)

            def of_task(total: PyTree, args: tuple[Indices, Array]) -> tuple[PyTree, PyTree]:
                draw, task = args
                alone = dataclasses.replace(self.program, batch=len(draw.rows), sampling="rows")
                one = dataclasses.replace(self, program=alone, draw=draw, rng=fold_in(rng, task), shards=1)
                grads, sums, _ = one.gradient(trainable, state)
                return jax.tree.map(jnp.add, total, (grads["heads"], sums)), grads["backbone"]

            nothing = jax.tree.map(jnp.zeros_like, (trainable["heads"], self.task_weights))
            (heads, sums), rows = jax.lax.scan(of_task, nothing, (own, jnp.arange(size)), unroll=self.unroll)
            return *self.exchanged((rows, heads)), sums, state

        def of(batch: Batch, rng: Array, state: PyTree) -> tuple[PyTree, PyTree]:
            def trunk(backbone: PyTree) -> tuple[Features, PyTree]:
                params = combine({**trainable, "backbone": backbone}, self.fixed.frozen)
                return self._trunk(params, state, batch, rng)

            features, back, new = jax.vjp(trunk, trainable["backbone"], has_aux=True)

            def heads(heads: PyTree, features: Features) -> Array:
                params = combine({**trainable, "heads": heads}, self.fixed.frozen)
                return sums_of(self.program, params, features, batch)

            sums, down = jax.vjp(heads, trainable["heads"], features)
            each = jnp.diag(self.task_weights)
            _, rows = jax.lax.scan(lambda _, c: ((), back(down(c)[1])[0]), (), each, unroll=self.unroll)
            return ((rows, down(self.task_weights)[0]), sums), new

        (grads, sums), state = self._over_pieces(of, state)
        return *self.exchanged(grads), sums, state

    def exchanged(self, tree: PyTree) -> PyTree:
        """Return the sum over devices: as one vector, so that one exchange does, whatever the number of leaves."""
        if self.shards == 1:
            return tree
        flat, restore = ravel_pytree(tree)
        return restore(jax.lax.psum(flat, DATA_AXIS))

    def _trunk(self, params: PyTree, state: PyTree, batch: Batch, rng: Array) -> tuple[Features, PyTree]:
        if self.program.cached:
            return batch.x, state
        return self.program.model.trunk(params["backbone"], state, batch.x, train=self.program.train, rng=rng)

    def _over_pieces(
        self, of: Callable[[Batch, Array, PyTree], tuple[PyTree, PyTree]], state: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Return the sum over pieces of ``of(batch, rng, state) -> (sums, state)``, and the last state."""
        parts = self.shards * self.pieces
        first = jax.lax.axis_index(DATA_AXIS) * self.pieces if self.shards > 1 else 0

        def one(index: Array | int, state: PyTree) -> tuple[PyTree, PyTree]:
            batch = self.fetch(part(self.program, self.draw, jnp.int32(first + index), parts))
            return of(batch, self.rng if parts == 1 else fold_in(self.rng, first + index), state)

        if self.pieces == 1:
            return one(0, state)

        def add(index: Array, held: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            more, state = one(index, held[1])
            return jax.tree.map(jnp.add, held[0], more), state

        # All of them in the loop, the first too: its code is compiled once.
        shapes = jax.eval_shape(one, 0, state)[0]
        nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        return jax.lax.fori_loop(0, self.pieces, add, (nothing, state))
