"""What a step costs, by XLA's own count."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from mtl import optim
from mtl.train import phase, sampling, step
from mtl.train.program import Fixed, Hypers, Program, Weights
from mtl.train.ridge import Ridge
from mtl.train.trial import shapes


@functools.lru_cache(maxsize=256)
def flops_per_step(program: Program, shape: tuple[int, ...]) -> float:
    """Return the floating-point operations of one step of a phase, by XLA's cost analysis of its update.

    Counted before XLA's optimisations, on one update without the drawing of its batch and without what changes its
    images; transcendental functions count as one. Where features are cached, a step is that of the heads alone: see
    ``flops_to_cache``.

    A ridge phase counts as 0 here: see ``flops_to_solve``.

    Args:
      program: the phase.
      shape: shape of one input.
    """
    if isinstance(program.solver, Ridge):
        return 0.0
    program = dataclasses.replace(program, accumulate=1)  # The same arithmetic, and no loop to look into.
    weights = shapes(program.model, shape)
    hypers, whole = _hypers(program), _shape((), "int32")
    moving, frozen = jax.eval_shape(lambda h, w: phase.start(program, h, w), hypers, weights)
    rows = program.rows
    x = jax.eval_shape(lambda w: _features(program, w, shape), weights) if program.cached else _rows(program, shape)
    k = len(program.tasks)
    labels = jax.eval_shape(functools.partial(sampling.by_columns, program), _shape((rows, k), "float32"))
    batch = sampling.Batch(x, labels, _shape((rows, k), "bool"))

    def update(hypers: Hypers, at: Any, moving: Any, frozen: Any, batch: sampling.Batch) -> Any:
        draw = sampling.Draw(jnp.zeros((rows,), jnp.int32), batch.mask)
        source = step.Source(program, draw, lambda d: jax.tree.map(lambda a: a[: len(d.rows)], batch))
        others = [source] * (program.balancer.batches if program.balancer else 0)
        return step.update(
            program, hypers, at, moving, Fixed(frozen), source, others=others, validation=source, unroll=True
        )

    return _count(update, hypers, whole, moving, frozen, batch)


def _hypers(program: Program) -> Hypers:
    o, k = program.optimizer, len(program.tasks)
    number, whole = _shape((), "float32"), _shape((), "int32")
    numbers = {"options": dict.fromkeys(o.floats, number)} | dict.fromkeys(optim.NUMBERS, number)
    rates = _shape((len(program.trainable),), "float32") if o.rates else ()
    weights, offset = _shape((k,), "float32"), _shape((k,), "int32")
    weighs = dict.fromkeys(program.balancer.floats if program.balancer else (), number)
    adapts = dict.fromkeys(program.adapter.floats if program.adapter else (), number)
    return Hypers(_shape((), "uint32"), number, numbers, weighs, adapts, weights, whole, offset, whole, rates)


@functools.lru_cache(maxsize=256)
def flops_to_cache(program: Program, shape: tuple[int, ...], rows: int) -> float:
    """Return the floating-point operations of computing the features of so many rows once; 0 if none are cached."""
    if not program.cached:
        return 0.0
    blocks = -(-rows // program.rows)
    return blocks * _count(lambda w: _features(program, w, shape), shapes(program.model, shape))


def flops_to_solve(program: Program, shape: tuple[int, ...], rows: int) -> float:
    """Return the floating-point operations of finding a ridge phase's heads; 0 for a phase of gradient steps.

    Of a task: 2nF² for the Gram matrix, 9F³ for its eigendecomposition (Golub & Van Loan 2013, §8.3), and 2nF² to
    turn the features.

    Args:
      program: the phase.
      shape: shape of one input.
      rows: n.
    """
    if not isinstance(program.solver, Ridge):
        return 0.0
    width = jax.eval_shape(lambda w: _features(program, w, shape), shapes(program.model, shape)).shape[-1]
    return float(len(program.tasks) * (4 * rows * width**2 + 9 * width**3))


def _features(program: Program, weights: Weights, shape: tuple[int, ...]) -> Any:
    return program.model.features(weights.params, weights.state, jnp.zeros((program.rows, *shape), jnp.float32))


def _rows(program: Program, shape: tuple[int, ...]) -> Any:
    return _shape((program.rows, *shape), "float32")


def _shape(shape: tuple[int, ...], dtype: str) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))  # Shapes stand in for arrays: nothing is computed.


def _count(fn: Any, *args: Any) -> float:
    return float((jax.jit(fn).lower(*args).cost_analysis() or {}).get("flops", float("nan")))
