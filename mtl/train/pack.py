"""Packs: a phase's pure functions over many lanes of one program, each compiled once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array

from mtl.inputs import Shape, like
from mtl.losses import linked
from mtl.models import Model
from mtl.train import compiled, judge, phase
from mtl.train.compiled import Compiled
from mtl.train.dataset import Data, standardized
from mtl.train.judge import Found, Judgement
from mtl.train.move import averages
from mtl.train.placement import LANES, MAP, OWN, WHOLE, Placement, over_lanes, room
from mtl.train.program import INIT, Frozen, Hypers, Program, TrainState, Weights, key_for
from mtl.train.pull import DATA_AXIS
from mtl.train.stacks import columns, in_one_matrix, outputs_of
from mtl.train.threefry import once

PyTree = Any


@functools.lru_cache(maxsize=256)
def begin_fn(program: Program, placement: Placement) -> Callable[[Hypers, PyTree, PyTree], TrainState]:
    """Return the compiled ``begin(hypers, trainable, state) -> moving`` of a pack; it only copies and makes zeros.

    With a ``data`` axis, what each device has of its own (batch statistics, the sum of its losses, the step at which
    they were not finite) gets a second axis of devices.
    """

    def begin(hypers: Hypers, trainable: PyTree, state: PyTree) -> TrainState:
        moving = jax.vmap(functools.partial(phase.begin, program))(hypers, trainable, state)
        return dealt(moving, placement.data)

    return jax.jit(begin)


@functools.lru_cache(maxsize=256)
def adapt_fn(program: Program) -> Callable[[Hypers, PyTree], PyTree]:
    """Return the compiled ``adapt(hypers, params) -> params`` of a pack; without an adapter they are what they are."""
    if program.adapter is None:
        return lambda hypers, params: params
    return jax.jit(jax.vmap(functools.partial(phase.adapted, program)))


@functools.lru_cache(maxsize=256)
def adopt_fn(program: Program) -> Callable[[Hypers, PyTree], PyTree]:
    """Return the compiled ``adopt(hypers, params) -> params`` of a pack, whose kernels take up its adapters."""
    return jax.jit(jax.vmap(functools.partial(phase.merged, program)), compiler_options=compiled.options())


@functools.lru_cache(maxsize=256)
def shown_fn(program: Program) -> Callable[[TrainState], PyTree]:
    """Return the compiled ``shown(moving) -> trainable`` of a pack, as it is evaluated; nothing is, if that moves."""
    if not averages(program):
        return lambda moving: moving.trainable
    return jax.jit(jax.vmap(functools.partial(phase.shown, program)))


#: What each device of the ``data`` axis has of its own.
EACH = ("state", "loss_sum", "diverged_at")

#: What is counted anew since each evaluation.
SINCE = ("loss_sum", "labels")


def _each(moving: TrainState, change: Callable[[Array], Array], devices: int) -> TrainState:
    """Return the state with what each of several devices has of its own changed."""
    if devices == 1:
        return moving
    return dataclasses.replace(moving, **{name: jax.tree.map(change, getattr(moving, name)) for name in EACH})


def specs(placement: Placement) -> TrainState:
    """Return how a pack's state lies on the mesh."""
    own = OWN if placement.data > 1 else LANES
    every = {f.name: LANES for f in dataclasses.fields(TrainState)}
    return TrainState(**{**every, **dict.fromkeys(EACH, own)})


def dealt(moving: TrainState, devices: int) -> TrainState:
    """Return the state with an axis of devices along ``data``: undo ``merged``. The first takes the sum of losses."""
    found = _each(moving, lambda a: jnp.repeat(a[:, None], devices, axis=1), devices)
    return found if devices == 1 else dataclasses.replace(found, loss_sum=found.loss_sum.at[:, 1:].set(0))


def merged(moving: TrainState, devices: int) -> TrainState:
    """Return the state without the axis of devices.

    Losses add up, since each device has its part of them. Running statistics are averaged, as each device normalises
    its part of the batch by that part's own statistics (so does PyTorch's DistributedDataParallel by default).
    """
    if devices == 1:
        return moving
    at = jnp.where(moving.diverged_at < 0, jnp.iinfo(jnp.int32).max, moving.diverged_at).min(axis=1)
    return dataclasses.replace(
        moving,
        state=jax.tree.map(lambda a: a.mean(axis=1).astype(a.dtype), moving.state),
        loss_sum=moving.loss_sum.sum(axis=1),
        diverged_at=jnp.where(at == jnp.iinfo(jnp.int32).max, -1, at),
    )


@functools.lru_cache(maxsize=256)
def merge_fn(placement: Placement) -> Callable[[TrainState], TrainState]:
    """Return the compiled ``merge(moving) -> moving`` without the axis of devices; nothing is, if there is one."""
    if placement.data == 1:
        return lambda moving: moving
    return jax.jit(functools.partial(merged, devices=placement.data))


@functools.lru_cache(maxsize=256)
def fix_fn(program: Program, placement: Placement) -> Callable[..., Frozen]:
    """Return the compiled ``fix(count, splits, weights, frozen, data) -> fixed`` of a pack."""
    run = fix(program, placement)
    return Compiled(run, placement, (WHOLE, LANES, LANES, LANES, WHOLE), LANES) if program.cached else run


def fix(program: Program, placement: Placement) -> Callable[..., Frozen]:
    """Return ``fix(count, splits, weights, frozen, data) -> fixed`` of a pack, not compiled."""
    if not program.cached:
        return lambda count, splits, weights, frozen, data: Frozen(frozen)

    def one(args: tuple[Array, Weights, PyTree], data: Data) -> Frozen:
        return phase.fix(program, *args, data)

    mapped = over_lanes(one, placement)

    def run(count: Array, splits: Array, weights: Weights, frozen: PyTree, data: Data) -> Frozen:
        args = (splits, weights, frozen)
        return mapped(count, room(one, args, data), args, data)

    return run


def data_specs(placement: Placement, streamed: bool) -> Any:
    """Return how data lie on the mesh: streamed inputs of a batch that is spread over devices are each device's own."""
    return (WHOLE, PartitionSpec(DATA_AXIS) if placement.data > 1 else WHOLE) if streamed else WHOLE


def at_hand(placement: Placement, data: Data | tuple[Data, tuple[Array, Array]]) -> Data:
    """Return data as a device sees them: a window of a stream is given beside them, as (x, place)."""
    if isinstance(data, Data):
        return data
    held, window = data
    x, at = (a[0] for a in window) if placement.data > 1 else window
    return dataclasses.replace(held, x=x, place=at)


@functools.lru_cache(maxsize=256)
def cache_fn(program: Program, placement: Placement) -> Compiled:
    """Return the compiled ``cache(count, splits, weights, held, data, begin, end) -> held`` of a pack.

    It fills in features block by block, as their inputs are streamed; ``held`` is (features, place).
    """

    def one(args: tuple[Array, Weights, PyTree], data: Data, begin: Array, end: Array) -> PyTree:
        split, weights, held = args
        done = phase.cache(program, split, weights, Frozen((), *held), data, begin, end)
        return done.features, done.place

    mapped = over_lanes(one, placement)

    def run(count: Array, splits: Array, weights: Weights, held: PyTree, data: Any, begin: Array, end: Array) -> PyTree:
        return mapped(count, held, (splits, weights, held), at_hand(placement, data), begin, end)

    places = (WHOLE, LANES, LANES, LANES, data_specs(placement, True), WHOLE, WHOLE)
    return Compiled(run, placement, places, LANES, donate=(3,))


@functools.lru_cache(maxsize=256)
def advance_fn(program: Program, placement: Placement, streamed: bool = False) -> Compiled:
    """Return the compiled ``advance(count, lanes, moving, fixed, data, begin, end) -> moving`` of a pack."""

    def one(args: tuple[Hypers, TrainState, Frozen], data: Data, begin: Array, end: Array) -> TrainState:
        hypers, moving, fixed = args
        return phase.advance(program, hypers, moving, fixed, data, begin, end, placement.data)

    mapped = over_lanes(one, placement)

    def run(
        count: Array, lanes: Hypers, moving: TrainState, fixed: Frozen, data: Any, begin: Array, end: Array
    ) -> TrainState:
        moving, data = _each(moving, lambda a: a[:, 0], placement.data), at_hand(placement, data)
        moving = mapped(count, moving, (lanes, moving, fixed), data, begin, end)
        return _each(moving, lambda a: a[:, None], placement.data)

    own = specs(placement)
    places = (WHOLE, LANES, own, LANES, data_specs(placement, streamed), WHOLE, WHOLE)
    return Compiled(run, placement, places, own, donate=(2,))


@functools.lru_cache(maxsize=256)
def evaluate_fn(model: Model, tasks: tuple[str, ...], standardize: bool, placement: Placement) -> Compiled:
    """Return the compiled ``evaluate(count, splits, weights, data) -> judgement`` of a pack, [lanes, tasks].

    It does not depend on what trains, so all phases of the same tasks share it.
    """

    def one(args: tuple[Array, Weights], data: Data) -> Judgement:
        return judge.evaluate(model, tasks, standardize, *args, data, placement.data)

    mapped = over_lanes(one, placement)

    def run(count: Array, splits: Array, weights: Weights, data: Data) -> Judgement:
        args = (splits, weights)
        return mapped(count, room(one, args, data), args, data)

    return Compiled(run, placement, (WHOLE, LANES, LANES, WHOLE), LANES)


@functools.lru_cache(maxsize=256)
def validate_fn(model: Model, tasks: tuple[str, ...], standardize: bool, placement: Placement, blocks: int) -> Compiled:
    """Return the compiled ``validate(count, splits, weights, data, begin) -> found`` of so many blocks of a pack.

    Every leaf is [lanes, devices along data, blocks, …].
    """

    def one(args: tuple[Array, Weights], data: Data, begin: Array) -> Found:
        return judge.validate(model, tasks, standardize, *args, data, begin, blocks, placement.data)

    mapped = over_lanes(one, placement)

    def run(count: Array, splits: Array, weights: Weights, data: Any, begin: Array) -> Found:
        args, data = (splits, weights), at_hand(placement, data)
        return jax.tree.map(lambda a: a[:, None], mapped(count, room(one, args, data, begin), args, data, begin))

    return Compiled(run, placement, (WHOLE, LANES, LANES, data_specs(placement, True), WHOLE), OWN)


@functools.lru_cache(maxsize=256)
def judge_fn(model: Model, tasks: tuple[str, ...], placement: Placement) -> Compiled:
    """Return the compiled ``judge(count, splits, found, data) -> judgement`` of what ``validate_fn`` found."""

    def one(args: tuple[Array, Found], data: Data) -> Judgement:
        return judge.judge(model, tasks, *args, data, placement.data)

    mapped = over_lanes(one, placement)

    def run(count: Array, splits: Array, found: Found, data: Data) -> Judgement:
        args = splits, jax.tree.map(lambda a: a[:, 0], found)
        return mapped(count, room(one, args, data), args, data)

    return Compiled(run, placement, (WHOLE, LANES, OWN, WHOLE), LANES)


@functools.lru_cache(maxsize=256)
def track_best_fn(program: Program, placement: Placement) -> Callable[[Hypers, TrainState, Judgement], TrainState]:
    """Return the compiled ``track_best(lanes, moving, judgement)``; elementwise, so lanes run together."""

    def track_best(lanes: Hypers, moving: TrainState, judged: Judgement) -> TrainState:
        noted = jax.vmap(functools.partial(phase.track_best, program))(lanes, merged(moving, placement.data), judged)
        nothing = {name: jnp.zeros_like(getattr(moving, name)) for name in SINCE}
        return dataclasses.replace(moving, best=noted.best, **nothing)

    return jax.jit(track_best, donate_argnums=1)


@functools.lru_cache(maxsize=64)
def init_fn(model: Model, shape: Shape, placement: Placement) -> Compiled:
    """Return the compiled ``init(count, seeds, streams) -> Weights`` of a pack, for inputs of that shape.

    ``streams`` are those of each lane's heads, [lanes, tasks], see ``Model.init``.
    """

    def one(args: tuple[Array, Array]) -> Weights:
        seed, streams = args
        return Weights(*model.init(once(key_for(seed, INIT)), like(shape, 1, jnp.zeros), streams))

    mapped = over_lanes(one, placement)

    def run(count: Array, seeds: Array, streams: Array) -> Weights:
        return mapped(count, room(one, (seeds, streams)), (seeds, streams))

    return Compiled(run)


@functools.lru_cache(maxsize=64)
def predict_fn(model: Model, tasks: tuple[str, ...], standardize: bool) -> Compiled:
    """Return the compiled ``predict(count, weights, scaling, x) -> outputs`` of some tasks, by one run of the trunk.

    ``scaling`` is (shift, scale, fill) of each lane; outputs are [lanes, n, tasks, *shape, outputs] of each of
    ``stacks.columns``, in their order.
    """
    specs = [model.task(name) for name in tasks]

    def one(args: tuple[Weights, PyTree], x: PyTree) -> list[Array]:
        weights, scaling = args
        x = standardized(x, *scaling) if standardize else x
        features = model.features(weights.params, weights.state, x)
        found = []
        for group in columns(specs):
            own = outputs_of(model.head, group, weights.params["heads"], features, in_one_matrix(features, specs))
            found.append(jax.vmap(functools.partial(linked, group.task), in_axes=1, out_axes=1)(own))
        return found

    mapped = over_lanes(one, MAP)

    def run(count: Array, weights: Weights, scaling: PyTree, x: PyTree) -> list[Array]:
        return mapped(count, room(one, (weights, scaling), x), (weights, scaling), x)

    return Compiled(run)
