"""Gradient steps: how a phase is trained unless its heads have a closed form (see ``train.ridge``)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mtl.inputs import Shape, each, structure
from mtl.optim import Optimizer
from mtl.train import move, threefry
from mtl.train.augment import changed
from mtl.train.dataset import Data
from mtl.train.flops import flops_per_step
from mtl.train.microbatching import microbatches, trunk_of
from mtl.train.program import BALANCE, Frozen, Hypers, Program, PyTree, TrainState, key_for
from mtl.train.sampling import make_gather, make_sampler
from mtl.train.step import Source, update
from mtl.train.threefry import fold_in


@dataclasses.dataclass(frozen=True)
class Descent:
    """Steps of the optimizer, each on a batch."""

    def begin(self, program: Program, hypers: Hypers, trainable: PyTree) -> PyTree:
        """Return the optimizer's state."""
        return move.init(program, hypers, trainable)

    def advance(
        self,
        program: Program,
        hypers: Hypers,
        moving: TrainState,
        fixed: Frozen,
        own: Data,
        begin: Array,
        end: Array,
        shards: int,
    ) -> TrainState:
        """Return the phase after the steps [begin, end), see ``phase.advance``; ``own`` is the lane's split."""
        sample = changed(program, hypers, make_sampler(program, hypers, own))
        fetch = make_gather(program, own, fixed)
        trunk = trunk_of(moving.trainable, fixed.frozen)
        ids = each(lambda leaf: jnp.issubdtype(leaf.dtype, jnp.integer), own.x)  # How many does not matter here.
        cuts = microbatches(program, trunk, moving.state, structure(own.x, ids), shards)
        others, validation = further(program, hypers, own, fixed)

        def body(step: Array, m: TrainState) -> TrainState:
            source = Source(program, sample(step), fetch)
            more = [source_of(step) for source_of in others]
            checks = validation(step) if validation else None
            return update(
                program, hypers, step, m, fixed, source, shards, program.accumulate * cuts, more, checks
            )  # fmt: skip

        return jax.lax.fori_loop(begin, end, body, moving)

    def averages(self, optimizer: Optimizer) -> bool:
        """Return whether other parameters are evaluated than those that move."""
        return optimizer.ema or optimizer.rule.evaluated is not None

    def reads_validation(self) -> bool:
        """Return whether training reads the inputs of validation beside the batches."""
        return False

    def chosen(self, state: PyTree) -> dict[str, PyTree]:
        """Return the penalties that were chosen, by task: there are none."""
        return {}

    def examples(self, program: Program, steps: int, rows: int) -> int:
        """Return how many examples so many steps see."""
        return steps * program.rows

    def flops(self, program: Program, shape: Shape, steps: int, rows: int) -> float:
        """Return the floating-point operations of so many steps; ``shape`` is one input's."""
        return steps * flops_per_step(program, shape)


def further(
    program: Program, hypers: Hypers, own: Data, fixed: Frozen
) -> tuple[list[Callable[[Array], Source]], Callable[[Array], Source] | None]:
    """Return what draws the batches that a balancer needs beside the step's own: (further ones, one of validation).

    Each has a sequence of its own, independent of all others of the trial; labels of validation may be of any task.
    """
    b = program.balancer

    def drawn(index: int, program: Program, own: Data) -> Callable[[Array], Source]:
        key = fold_in(key_for(hypers.seed, BALANCE), index)
        apart = dataclasses.replace(hypers, seed=threefry.bits(key, 1)[0], first=(), picks=())
        sample = changed(program, apart, make_sampler(program, apart, own))
        fetch = make_gather(program, own, fixed)
        return lambda step: Source(program, sample(step), fetch)

    others = [drawn(i + 1, program, own) for i in range(b.batches)] if b else []
    if b is None or "validation" not in b.needs:
        return others, None
    plain = dataclasses.replace(program, sampling="rows", augment=())
    held_out = dataclasses.replace(own, train=own.val, train_rows=own.val_rows)
    return others, drawn(0, plain, held_out)
