"""Packs: many lanes of one program in one compiled call, by ``map`` (CPU) or ``vmap`` (accelerators)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl.models import Model
from mtl.train import phase
from mtl.train.phase import Moving, Weights
from mtl.train.program import INIT, Data, Lane, Program, key_for

PyTree = Any
Executor = Literal["map", "vmap"]


def executor_for(backend: str) -> Executor:
    """Return how a backend runs a pack: ``map`` on a CPU, ``vmap`` on accelerators.

    ``map`` runs one lane after the other inside one compiled loop: a lane's bits are those of the trial alone, and
    on a CPU, where small programs are bound by dispatch and caches, it is also the faster of the two. ``vmap`` runs
    lanes side by side and agrees to rounding.
    """
    return "map" if backend == "cpu" else "vmap"


def width_for(lanes: int, most: int = 256) -> int:
    """Return the compiled width for so many lanes: a power of two from 2 to ``most``.

    Width 1 is never compiled: XLA would remove the loop over lanes and could fuse what is left differently, and a
    trial alone would no longer have the bits of the same trial in a pack.
    """
    width = 2
    while width < min(lanes, most):
        width *= 2
    return width


def over_lanes(fn: Callable[..., PyTree], executor: Executor) -> Callable[..., PyTree]:
    """Return ``fn`` over a leading axis of lanes of its first argument, of which the first ``count`` are run.

    Args:
      fn: ``fn(lane_args, *shared) -> result``, a pure function of pytrees.
      executor: ``map`` or ``vmap``.

    Returns:
      ``mapped(count, out, lane_args, *shared)``, where ``out`` is a stacked result to write into; lanes from
      ``count`` on keep what ``out`` holds under ``map`` and hold unspecified values under ``vmap``.
    """
    if executor == "vmap":

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


@functools.lru_cache(maxsize=256)
def start_fn(program: Program) -> Callable[[Weights], tuple[Moving, PyTree]]:
    """Return the compiled ``start(weights) -> (moving, frozen)`` of a pack; it only copies and makes zeros."""
    return jax.jit(jax.vmap(functools.partial(phase.start, program)))


@functools.lru_cache(maxsize=256)
def advance_fn(program: Program, executor: Executor) -> Callable[..., Moving]:
    """Return the compiled ``advance(count, lanes, moving, frozen, data, begin, end) -> moving`` of a pack."""

    def one(args: tuple[Lane, Moving, PyTree], data: Data, begin: Array, end: Array) -> Moving:
        lane, moving, frozen = args
        return phase.advance(program, lane, moving, frozen, data, begin, end)

    mapped = over_lanes(one, executor)

    def run(count: Array, lanes: Lane, moving: Moving, frozen: PyTree, data: Data, begin: Array, end: Array) -> Moving:
        return mapped(count, moving, (lanes, moving, frozen), data, begin, end)

    return jax.jit(run, donate_argnums=2)


@functools.lru_cache(maxsize=256)
def evaluate_fn(
    model: Model, tasks: tuple[str, ...], standardize: bool, executor: Executor
) -> Callable[..., Float[Array, "lanes tasks"]]:
    """Return the compiled ``evaluate(count, splits, weights, data) -> losses [lanes, tasks]`` of a pack.

    It does not depend on what trains, so all phases of the same tasks share it.
    """

    def one(args: tuple[Array, Weights], data: Data) -> Array:
        return phase.evaluate(model, tasks, standardize, *args, data)

    mapped = over_lanes(one, executor)

    def run(count: Array, splits: Array, weights: Weights, data: Data) -> Float[Array, "lanes tasks"]:
        return mapped(count, jnp.zeros((splits.shape[0], len(tasks)), jnp.float32), (splits, weights), data)

    return jax.jit(run)


@functools.lru_cache(maxsize=256)
def note_fn(program: Program) -> Callable[[Moving, Array], Moving]:
    """Return the compiled ``note(moving, losses) -> moving`` of a pack; elementwise, so lanes run together."""
    return jax.jit(jax.vmap(functools.partial(phase.note, program)), donate_argnums=0)


@functools.lru_cache(maxsize=64)
def init_fn(model: Model, shape: tuple[int, ...], executor: Executor) -> Callable[..., Weights]:
    """Return the compiled ``init(count, seeds) -> Weights`` of a pack, for inputs of that shape."""

    def one(seed: Array) -> Weights:
        return Weights(*model.init(key_for(seed, INIT), jnp.zeros((1, *shape), jnp.float32)))

    mapped = over_lanes(one, executor)

    def run(count: Array, seeds: Array) -> Weights:
        out = jax.tree.map(lambda s: jnp.zeros((seeds.shape[0], *s.shape), s.dtype), jax.eval_shape(one, seeds[0]))
        return mapped(count, out, seeds)

    return jax.jit(run)


@functools.lru_cache(maxsize=64)
def predict_fn(model: Model, task: str, standardize: bool, executor: Executor) -> Callable[..., Array]:
    """Return the compiled ``predict(count, weights, shift, scale, x) -> outputs [lanes, n, outputs]`` of a task."""

    def one(args: tuple[Weights, Array, Array], x: Array) -> Array:
        weights, shift, scale = args
        x = (x - shift[None]) * scale[None] if standardize else x
        return model.apply(weights.params, weights.state, x, tasks=(task,))[0][task]

    mapped = over_lanes(one, executor)

    def run(count: Array, weights: Weights, shift: Array, scale: Array, x: Array) -> Array:
        out = jnp.zeros((shift.shape[0], x.shape[0], model.task(task).outputs), jnp.float32)
        return mapped(count, out, (weights, shift, scale), x)

    return jax.jit(run)


@functools.lru_cache(maxsize=256)
def flops_per_step(program: Program, shape: tuple[int, ...]) -> float:
    """Return the floating-point operations of one step of a phase, by XLA's cost analysis of its update.

    Counted before XLA's optimisations, on one update without the drawing of its batch; transcendental functions
    count as one.
    """
    from mtl.train import sampling, step  # the update alone, without a loop around it

    weights = jax.eval_shape(
        lambda s: Weights(*program.model.init(key_for(s, INIT), jnp.zeros((1, *shape)))), jnp.uint32(0)
    )
    moving, frozen = jax.eval_shape(lambda w: phase.start(program, w), weights)
    k = len(program.tasks)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    whole = jax.ShapeDtypeStruct((), jnp.int32)
    lane = Lane(
        jax.ShapeDtypeStruct((), jnp.uint32),
        number,
        number,
        jax.ShapeDtypeStruct((k,), jnp.float32),
        whole,
        jax.ShapeDtypeStruct((k,), jnp.int32),
        whole,
    )
    # Shapes stand in for arrays: nothing is computed.
    examples: Any = jax.ShapeDtypeStruct((program.rows, *shape), jnp.float32)
    labels: Any = {t.name: jax.ShapeDtypeStruct((program.rows,), jnp.dtype(t.label_dtype)) for t in program.specs}
    masks: Any = {t.name: jax.ShapeDtypeStruct((program.rows,), jnp.bool_) for t in program.specs}
    batch = sampling.Batch(examples, labels, masks)
    modes = program.modes(jax.tree.map(lambda x: x is not None, moving.trainable, is_leaf=lambda x: x is None))
    lowered = jax.jit(functools.partial(step.update, program, modes)).lower(
        lane, whole, moving.trainable, frozen, moving.state, moving.slots, batch
    )
    return float((lowered.cost_analysis() or {}).get("flops", float("nan")))
