"""How a pack runs: lanes one after the other or side by side, on how many devices, how many fit; arrays on them."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array

from mtl.host import machine, memory
from mtl.train.pull import DATA_AXIS

PyTree = Any

TRIAL_AXIS = "trial"

#: How an argument lies on the mesh: by lane, by lane with a second axis of devices along ``data``, whole on each.
LANES = PartitionSpec(TRIAL_AXIS)
OWN = PartitionSpec(TRIAL_AXIS, DATA_AXIS)
WHOLE = PartitionSpec()


class PlacementError(ValueError):
    """A way of running that this machine or this batch does not allow: one sentence."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """How packs run. Results record it, and bits are promised for equal ones only.

    Attributes:
      kind: ``map``: one lane after the other inside one compiled loop, so that a lane's bits are those of the trial
        alone; ``vmap``: side by side, which agrees to rounding.
      trial: devices that a pack's lanes are spread over (``vmap`` only).
      data: devices that each batch is spread over.
    """

    kind: Literal["map", "vmap"] = "map"
    trial: int = 1
    data: int = 1

    def __str__(self) -> str:
        """Return the name that results record."""
        axes = [f"{name}:{size}" for name, size in ((TRIAL_AXIS, self.trial), (DATA_AXIS, self.data)) if size > 1]
        return " ".join([self.kind, *axes])

    @property
    def devices(self) -> int:
        """How many devices it takes."""
        return self.trial * self.data

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """Return the mesh of its devices."""
        return _mesh(self.trial, self.data)


@functools.lru_cache(maxsize=8)
def _mesh(trial: int, data: int) -> jax.sharding.Mesh:
    auto = jax.sharding.AxisType.Auto
    return jax.make_mesh(
        (trial, data), (TRIAL_AXIS, DATA_AXIS), axis_types=(auto, auto), devices=jax.devices()[: trial * data]
    )


MAP, VMAP = Placement("map"), Placement("vmap")


def placement_for(backend: str, devices: int = 1) -> Placement:
    """Return how a backend runs packs if nothing else is asked for.

    On a CPU ``map``: small programs are bound by dispatch and caches there, and it is also the faster of the two.
    On accelerators ``vmap``, lanes spread over all devices.

    >>> str(placement_for("cpu", 8)), str(placement_for("gpu", 8))
    ('map', 'vmap trial:8')
    """
    return MAP if backend == "cpu" else Placement("vmap", trial=devices)


def parse(text: str, backend: str, devices: int) -> Placement:
    """Return the placement that ``--mesh=trial:2,data:4`` asks for.

    Raises:
      PlacementError: for what is no mesh, or more devices than there are.

    >>> str(parse("data:4", "cpu", 8)), str(parse("trial:2,data:4", "cpu", 8))
    ('map data:4', 'vmap trial:2 data:4')
    """
    sizes = {TRIAL_AXIS: 1, DATA_AXIS: 1}
    for item in text.split(","):
        name, _, number = item.partition(":")
        if name not in sizes or not number.isdecimal() or int(number) < 1:
            raise PlacementError(f"--mesh={text}: must be like trial:2,data:4, with numbers of devices from 1")
        sizes[name] = int(number)
    trial, data = sizes[TRIAL_AXIS], sizes[DATA_AXIS]
    if trial * data > devices:
        raise PlacementError(
            f"--mesh={text}: asks for {trial * data} devices, and there {'is' if devices == 1 else 'are'} {devices}"
        )
    return Placement("map" if backend == "cpu" and trial == 1 else "vmap", trial, data)


def width_for(placement: Placement, lanes: int, most: int = 256) -> int:
    """Return the compiled width for so many lanes: a power of two times the devices they are spread over.

    It is never less than 2: XLA would remove a loop over one lane and could fuse what is left differently, and a
    trial alone would no longer have the bits of the same trial in a pack.

    >>> [width_for(MAP, n) for n in (1, 3, 300)], width_for(Placement("vmap", trial=8), 3)
    ([2, 4, 256], 8)
    """
    width = placement.trial if placement.trial > 1 else 2
    while width < min(lanes, most):
        width *= 2
    return width


def over_lanes(fn: Callable[..., PyTree], placement: Placement) -> Callable[..., PyTree]:
    """Return ``fn`` over a leading axis of lanes of its first argument, of which the first ``count`` are run.

    Args:
      fn: ``fn(lane_args, *shared) -> result``, a pure function of pytrees.
      placement: how.

    Returns:
      ``mapped(count, out, lane_args, *shared)``, where ``out`` is a stacked result to write into; lanes from
      ``count`` on keep what ``out`` holds under ``map`` and hold unspecified values under ``vmap``.
    """
    if placement.kind == "vmap":

        def together(count: Array, out: PyTree, args: PyTree, *shared: PyTree) -> PyTree:
            del count, out
            return jax.vmap(lambda one: fn(one, *shared))(args)

        return together

    def one_by_one(count: Array, out: PyTree, args: PyTree, *shared: PyTree) -> PyTree:
        def body(i: Array, held: PyTree) -> PyTree:
            one = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, i, 0, keepdims=False), args)
            result = fn(one, *shared)
            return jax.tree.map(
                lambda a, r: jax.lax.dynamic_update_index_in_dim(a, r.astype(a.dtype), i, 0), held, result
            )

        # The bound is data: one executable runs any number of lanes up to its width.
        return jax.lax.fori_loop(0, count, body, out)

    return one_by_one


def room(fn: Callable[..., PyTree], args: PyTree, *shared: PyTree) -> PyTree:
    """Return zeros to write the results of all lanes into, see ``over_lanes``."""
    lanes = jax.tree.leaves(args)[0].shape[0]
    found = jax.eval_shape(fn, jax.tree.map(lambda a: a[0], args), *shared)
    return jax.tree.map(lambda s: jnp.zeros((lanes, *s.shape), s.dtype), found)


def memory_limit() -> int:
    """Return the bytes that a pack may take on one device: what is free there, less a tenth.

    ``MTL_MEMORY_LIMIT`` (bytes) lowers it. On a CPU the workers of a sweep share what is free.
    """
    memory.give_back()
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    else:
        free = machine.free_memory() // int(os.environ.get("MTL_WORKERS", "1"))
    given = os.environ.get("MTL_MEMORY_LIMIT", "")
    if given and not (given.isascii() and given.isdecimal()):
        raise PlacementError(f"MTL_MEMORY_LIMIT = {given}: must be a number of bytes")
    return min(int(given), free) if given else int(0.9 * free)


def place(placement: Placement, tree: PyTree, specs: PyTree) -> PyTree:
    """Return a tree's arrays on the placement's mesh; as they are where there is one device.

    Every process of several has the same values, and puts its own devices' part of them there.

    Args:
      placement: how packs run.
      tree: arrays of NumPy or JAX.
      specs: how they lie on the mesh, a prefix of the tree.
    """
    if placement.devices == 1:
        return tree

    def put(spec: Any, part: PyTree) -> PyTree:
        sharding = jax.sharding.NamedSharding(placement.mesh, spec)

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
