"""Arrays on the mesh, back on the host, and side by side as lanes."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from mtl.train.executor import Executor

PyTree = Any


def place(executor: Executor, tree: PyTree, specs: PyTree) -> PyTree:
    """Return a tree's arrays on the executor's mesh; as they are where there is one device.

    Every process of several has the same values, and puts its own devices' part of them there.

    Args:
      executor: how packs run.
      tree: arrays of NumPy or JAX.
      specs: how they lie on the mesh, a prefix of the tree.
    """
    if executor.devices == 1:
        return tree

    def put(spec: Any, part: PyTree) -> PyTree:
        sharding = jax.sharding.NamedSharding(executor.mesh, spec)

        def one(a: Any) -> jax.Array:
            if isinstance(a, jax.Array) and a.sharding == sharding:
                return a
            host = fetch(a)
            return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

        return jax.tree.map(one, part)

    return jax.tree.map(put, specs, tree, is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec))


def fetch(a: Any) -> np.ndarray:
    """Return an array on the host, from whatever processes have parts of it."""
    if isinstance(a, jax.Array) and not (a.is_fully_addressable or a.is_fully_replicated):
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(a, tiled=True))
    return np.asarray(a)


def pad(a: Any, width: int) -> np.ndarray:
    """Return an array padded to ``width`` along its first axis by repeating its last entry."""
    host = np.asarray(a)  # Not jnp: each new shape of a small operation would be compiled.
    return np.concatenate([host, np.repeat(host[-1:], width - len(host), axis=0)]) if len(host) < width else host


def unstack(tree: PyTree, count: int) -> list[Any]:
    """Return the first ``count`` entries along the leading axis, as trees of NumPy arrays."""
    host = jax.tree.map(fetch, tree)
    return [jax.tree.map(lambda a, i=i: a[i].copy(), host) for i in range(count)]


def stacked(tree: PyTree, width: int) -> PyTree:
    """Return a tree of stacked arrays padded to a width."""
    return jax.tree.map(lambda a: pad(a, width), tree)
