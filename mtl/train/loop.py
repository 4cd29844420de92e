"""The host's loop: runs a phase of many lanes in chunks of a second or two, and keeps time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl.models import Model
from mtl.params import combine
from mtl.train import pack, phase
from mtl.train.phase import Weights
from mtl.train.program import Data, Lane, Program
from mtl.train.trial import Stage, boundaries, make_lane

PyTree = Any

#: No compiled call is meant to take longer than this, so that signals are obeyed and progress is shown.
CHUNK_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one lane's phase came to.

    Attributes:
      weights: what goes on to the next phase (NumPy arrays).
      steps: steps after which it was evaluated.
      train_loss: mean batch loss since the evaluation before, [evaluations].
      val_loss: per task of the phase, [evaluations]; NaN where the task has no validation label.
      diverged_at: first step whose loss was not finite, or −1.
      seconds: its share of the pack's training time, compilation excluded.
    """

    weights: Weights
    steps: list[int]
    train_loss: list[float]
    val_loss: dict[str, list[float]]
    diverged_at: int
    seconds: float


class Stopped(Exception):
    """Raised between chunks when the caller asked to stop."""


def initial_weights(
    model: Model, shape: tuple[int, ...], seeds: Sequence[int], executor: pack.Executor
) -> list[Weights]:
    """Return the initial weights of each seed (NumPy arrays)."""
    width = pack.width_for(len(seeds))
    fn = pack.init_fn(model, shape, executor)
    found: list[Weights] = []
    for begin in range(0, len(seeds), width):
        part = list(seeds[begin : begin + width])
        padded = np.asarray(part + [part[-1]] * (width - len(part)), np.uint32)
        found += _unstack(fn(jnp.int32(len(part)), jnp.asarray(padded)), len(part))
    return found


def run_phase(
    seeds: Sequence[int],
    stages: Sequence[Stage],
    splits: Sequence[int],
    weights: Sequence[Weights],
    data: Data,
    *,
    evaluations: int,
    executor: pack.Executor,
    on_steps: Callable[[int], None] = lambda steps: None,
    chunk_seconds: float = CHUNK_SECONDS,
) -> list[Outcome]:
    """Run one phase of many lanes: all have the same program and the same number of steps.

    Chunks are cut at evaluations, and between them wherever a call would take longer than ``chunk_seconds``.

    Args:
      seeds, stages, splits, weights: one each a lane; ``weights`` with fresh parts already fresh.
      data: the stacked data.
      evaluations: validations a phase.
      executor: how the pack is run.
      on_steps: called after every chunk with the lane-steps done in it; may raise to stop.
      chunk_seconds: see above.
    """
    program, steps = stages[0].program, stages[0].steps
    if any(s.program != program or s.steps != steps for s in stages):
        raise ValueError("a pack's lanes must share their program and their steps")
    width = pack.width_for(len(seeds))
    outcomes: list[Outcome] = []
    for first in range(0, len(seeds), width):
        part = slice(first, first + width)
        outcomes += _run_group(
            program, steps, width, make_lane(seeds[part], stages[part], splits[part]), list(weights[part]), data,
            evaluations, executor, on_steps, chunk_seconds,
        )  # fmt: skip
    return outcomes


def _run_group(
    program: Program,
    steps: int,
    width: int,
    lanes: Lane,
    weights: list[Weights],
    data: Data,
    evaluations: int,
    executor: pack.Executor,
    on_steps: Callable[[int], None],
    chunk_seconds: float,
) -> list[Outcome]:
    count = len(weights)
    lanes = jax.tree.map(lambda a: _pad(a, width), lanes)
    stacked = jax.tree.map(lambda *leaves: _pad(np.stack(leaves), width), *weights)
    moving, frozen = pack.start_fn(program)(stacked)
    # What moves is donated, so every leaf needs a buffer of its own (the best state begins as the first one).
    moving = jax.tree.map(np.array, moving)
    advance = pack.advance_fn(program, executor)
    evaluate = pack.evaluate_fn(program.model, program.tasks, program.standardize, executor)
    lane_count, at, spent = jnp.int32(count), 0, 0.0
    # Compiling with empty bounds keeps it out of the seconds that a trial is charged.
    moving = advance(lane_count, lanes, moving, frozen, data, jnp.int32(0), jnp.int32(0))
    jax.block_until_ready(moving)
    ends, chunk = boundaries(steps, evaluations), 8
    train, val = [], []
    for end in ends:
        since = at
        while at < end:
            stop = min(end, at + chunk)
            begun = time.perf_counter()
            moving = advance(lane_count, lanes, moving, frozen, data, jnp.int32(at), jnp.int32(stop))
            jax.block_until_ready(moving)
            took = time.perf_counter() - begun
            spent += took
            chunk = max(1, min(8 * chunk, int((stop - at) * chunk_seconds / max(took, 1e-6))))
            on_steps((stop - at) * count)
            at = stop
        train.append(np.asarray(moving.loss_sum)[:count] / (end - since))
        now = Weights(combine(moving.trainable, frozen), moving.state)
        found = evaluate(lane_count, lanes.split, now, data)
        val.append(np.asarray(found)[:count])
        del now
        if program.select == "best":
            moving = pack.note_fn(program)(moving, found)
        else:  # All there is to note: the sum of losses begins anew.
            moving = dataclasses.replace(moving, loss_sum=jnp.zeros(width))
    finished = _unstack(phase.finish(program, moving, frozen), count)
    diverged = np.asarray(moving.diverged_at)
    return [
        Outcome(
            weights=w,
            steps=ends,
            train_loss=[float(t[i]) for t in train],
            val_loss={name: [float(v[i, k]) for v in val] for k, name in enumerate(program.tasks)},
            diverged_at=int(diverged[i]),
            seconds=spent / count,
        )
        for i, w in enumerate(finished)
    ]


def predict(
    model: Model,
    task: str,
    weights: Sequence[Weights],
    shift: np.ndarray,
    scale: np.ndarray,
    x: np.ndarray,
    *,
    standardize: bool,
    executor: pack.Executor,
) -> np.ndarray:
    """Return the outputs of a task's head for inputs x, one set of weights after the other.

    Args:
      model: the model.
      task: the task's name.
      weights: one each a lane.
      shift, scale: what each lane's inputs are standardised with, [lanes, …].
      x: inputs [n, …].
      standardize: whether they are.
      executor: how the lanes are run.

    Returns:
      Outputs [lanes, n, task outputs].
    """
    width = pack.width_for(len(weights))
    fn = pack.predict_fn(model, task, standardize, executor)
    found = []
    for first in range(0, len(weights), width):
        part = slice(first, first + width)
        count = len(weights[part])
        stacked = jax.tree.map(lambda *leaves: _pad(np.stack(leaves), width), *weights[part])
        out = fn(jnp.int32(count), stacked, _pad(shift[part], width), _pad(scale[part], width), jnp.asarray(x))
        found.append(np.asarray(out)[:count])
    return np.concatenate(found)


def _pad(a: Any, width: int) -> np.ndarray:
    """Return an array padded to ``width`` along its first axis by repeating its last entry."""
    host = np.asarray(a)  # Not jnp: each new shape of a small operation would be compiled.
    return np.concatenate([host, np.repeat(host[-1:], width - len(host), axis=0)]) if len(host) < width else host


def _unstack(tree: PyTree, count: int) -> list[Any]:
    """Return the first ``count`` entries along the leading axis, as trees of NumPy arrays."""
    host = jax.tree.map(np.asarray, tree)
    return [jax.tree.map(lambda a, i=i: a[i].copy(), host) for i in range(count)]
