"""What a phase costs, by XLA's own count; a solver says its own share of it (``Descent.flops``, ``Ridge.flops``)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from mtl.inputs import Shape, like
from mtl.models import anatomy
from mtl.tasks import Task
from mtl.train import phase, sampling, step
from mtl.train.program import Frozen, Hypers, Program, PyTree, Weights
from mtl.train.stacks import ordered


@functools.lru_cache(maxsize=256)
def flops_per_step(program: Program, shape: Shape) -> float:
    """Return the floating-point operations of one gradient step, by XLA's cost analysis of its update.

    Counted before XLA's optimisations, on one update without the drawing of its batch and without what changes its
    images; transcendental functions count as one. Where features are cached, a step is that of the heads alone: see
    ``flops_to_cache``.

    Args:
      program: the phase.
      shape: what one input is.
    """
    program = dataclasses.replace(program, accumulate=1)  # The same arithmetic, and no loop to look into.
    hypers, k = _hypers(program), len(program.tasks)
    moving, frozen = jax.eval_shape(functools.partial(phase.start, program), hypers, _weights(program, shape))
    x = features(program, shape) if program.cached else _inputs(program, shape)
    labels, mask = (jax.ShapeDtypeStruct((program.rows, k), kind) for kind in ("float32", "bool"))
    tasks = ordered(program)
    dense = {t.name: _dense_labels(program.rows, t) for t in tasks if t.shape}
    batch = sampling.Batch(x, jax.eval_shape(functools.partial(sampling.by_columns, tasks), labels, dense), mask)

    def update(hypers: Hypers, at: Any, moving: Any, frozen: Any, batch: sampling.Batch) -> Any:
        draw = sampling.Indices(jnp.zeros((program.rows,), jnp.int32), batch.mask)
        source = step.Source(program, draw, lambda d: jax.tree.map(lambda a: a[: len(d.rows)], batch))
        others = [source] * (program.balancer.batches if program.balancer else 0)
        return step.update(
            program, hypers, at, moving, Frozen(frozen), source, others=others, validation=source, unroll=True
        )

    return _count(update, hypers, jax.ShapeDtypeStruct((), "int32"), moving, frozen, batch)


def _hypers(program: Program) -> Hypers:
    """Return numbers of the types that the program takes."""
    k, moving = len(program.tasks), len(program.trainable)
    weighs = dict.fromkeys(program.balancer.floats if program.balancer else (), 0.0)
    adapts = dict.fromkeys(program.adapter.floats if program.adapter else (), 0.0)
    return Hypers(
        seed=0,
        lr=0.0,
        optimizer=program.optimizer.numbers(0.0),
        balancer=weighs,
        adapter=adapts,
        weights=(0.0,) * k,
        steps=0,
        offset=(0,) * k,
        split=0,
        rates=(0.0,) * moving if program.optimizer.rates else (),
        streams=(0,) * (k + 1),
    ).arrays()


@functools.lru_cache(maxsize=256)
def flops_to_cache(program: Program, shape: Shape, rows: int) -> float:
    """Return the floating-point operations of computing the features of so many rows once; 0 if none are cached."""
    if not program.cached:
        return 0.0
    return -(-rows // program.rows) * _count(program.model.features, *_featured(program, shape))


def _dense_labels(rows: int, task: Task) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    kinds = "int32" if task.labels == "ids" else "float32", "bool"
    labels, there = (jax.ShapeDtypeStruct((rows, *task.shape), kind) for kind in kinds)
    return labels, there


def features(program: Program, shape: Shape) -> PyTree:
    """Return the shapes of a batch's features."""
    return jax.eval_shape(program.model.features, *_featured(program, shape))


def _featured(program: Program, shape: Shape) -> tuple[PyTree, PyTree, PyTree]:
    weights = _weights(program, shape)
    return weights.params, weights.state, _inputs(program, shape)


def _weights(program: Program, shape: Shape) -> Weights:
    own = anatomy(program.model, shape)
    return Weights(own.params, own.state)


def _inputs(program: Program, shape: Shape) -> PyTree:
    return like(shape, program.rows, jax.ShapeDtypeStruct)


def _count(fn: Any, *args: Any) -> float:
    return float((jax.jit(fn).lower(*args).cost_analysis() or {}).get("flops", float("nan")))
