"""The host's loop: runs a phase of many lanes in chunks of a second or two, and keeps time."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl.data.streamed import Streamed
from mtl.inputs import Shape
from mtl.models import Model, anatomy, stream_of
from mtl.params import flatten, path_of
from mtl.train import pack, phase
from mtl.train import placement as placements
from mtl.train.dataset import Data
from mtl.train.feed import Feed, Window
from mtl.train.placement import LANES, WHOLE, Placement, fetch, pad, place, stacked, unstack
from mtl.train.processes import agree
from mtl.train.program import Hypers, Program, TrainState, Weights
from mtl.train.stacks import order
from mtl.train.stream import make_feed
from mtl.train.trial import Stage, boundaries, check_statistics, make_hypers

PyTree = Any

#: No compiled call is meant to take longer than this, so that signals are obeyed and progress is shown.
CHUNK_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one lane's phase came to.

    Attributes:
      weights: what goes on to the next phase (NumPy arrays).
      steps: steps after which it was evaluated; the last are those that it was trained for.
      best_at: steps after which its weights were.
      train_loss: per task, the mean loss of the labels drawn since the evaluation before, [evaluations]; NaN for none.
      val_loss: per task of the phase, [evaluations]; NaN where the task has no validation label or training diverged.
      val_score: likewise, what states are chosen by, see ``train.judge``.
      diverged_at: first step whose loss was not finite, or −1.
      seconds: its share of the pack's training time, by its steps, compilation excluded.
      waited: of these, its share of those that the pack waited for streamed inputs.
      width: the compiled width of its pack.
      penalties: of a phase solved in closed form, the penalty that each task's head was found with.
    """

    weights: Weights
    steps: list[int]
    best_at: int
    train_loss: dict[str, list[float]]
    val_loss: dict[str, list[float]]
    val_score: dict[str, list[float]]
    diverged_at: int
    seconds: float
    waited: float
    width: int
    penalties: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A pack in the middle of a phase: all that is needed to go on.

    Attributes:
      moving: what changes while a phase runs, {path: array}.
      at: steps done.
      train, val, score: losses and scores at the evaluations so far, [lanes, tasks] each.
      spent: seconds of training.
      data: devices that each batch was spread over.
    """

    moving: dict[str, np.ndarray]
    at: int
    train: list[np.ndarray]
    val: list[np.ndarray]
    score: list[np.ndarray]
    spent: float
    data: int


class Stopped(Exception):
    """Raised between chunks when the caller asked to stop."""


class Checkpointer:
    """What keeps a pack safe while it runs; this one does nothing."""

    def restore(self) -> Snapshot | None:
        """Return where the pack was when it was interrupted, if it was."""
        return None

    def boundary(self, take: Callable[[], Snapshot]) -> None:
        """Keep a snapshot if one is due; called between chunks, and may raise ``Stopped``."""


def check_spread(program: Program, shape: Shape, placement: Placement) -> None:
    """Check that a phase's batches can be spread over the devices of a placement.

    Args:
      program: the phase.
      shape: what one input is.
      placement: how it will run.

    Raises:
      PlacementError: for a batch that the devices do not divide.
      ConfigError: for a share of it that has one value a channel, see ``trial.check_statistics``.
    """
    _check_divides(program, placement)
    if placement.data > 1:
        check_statistics(program, shape, placement.data)


def _check_divides(program: Program, placement: Placement) -> None:
    if program.batch % (placement.data * program.accumulate):
        raise placements.PlacementError(
            f"config.batch_size = {program.batch}: must be a multiple of {placement.data} devices along data times "
            f"accumulate = {program.accumulate}"
        )


def initial_weights(
    model: Model, shape: Shape, seeds: Sequence[int], placement: Placement, names: Sequence[Sequence[str]] = ()
) -> list[Weights]:
    """Return the initial weights of each seed (NumPy arrays).

    Heads that begin at zero are no part of what is compiled, which all models of one backbone share.

    Args:
      model: the model.
      shape: what one input is.
      seeds: one each a lane.
      placement: how they are computed.
      names: what the model's tasks are called in each lane; by default as it calls them.
    """
    width = placements.width_for(placement, len(seeds))
    names = names or [[t.name for t in model.tasks]] * len(seeds)
    streams = np.asarray([[stream_of(n) for n in own] for own in names], np.uint32).reshape(len(seeds), -1)
    heads: dict[str, dict[str, np.ndarray]] | None = None
    if model.head_init == "zeros":
        heads = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), anatomy(model, shape).params["heads"])
        model, streams = dataclasses.replace(model, tasks=(), losses=()), streams[:, :0]
    fn = pack.init_fn(model, shape, placement)
    found: list[Weights] = []
    for begin in range(0, len(seeds), width):
        part = slice(begin, min(begin + width, len(seeds)))
        lanes = stacked((np.asarray(seeds[part], np.uint32), streams[part]), width)
        found += unstack(fn(np.int32(len(seeds[part])), *lanes), len(seeds[part]))
    return found if heads is None else [Weights({**w.params, "heads": heads}, w.state) for w in found]


def run_phase(
    seeds: Sequence[int],
    stages: Sequence[Stage],
    splits: Sequence[int],
    weights: Sequence[Weights],
    data: Data,
    *,
    evaluations: int,
    placement: Placement,
    stream: Streamed | None = None,
    width: int | None = None,
    together: int | None = None,
    on_steps: Callable[[int], None] = lambda steps: None,
    on_width: Callable[[int, int, int], None] = lambda width, needed, limit: None,
    guard_of: Callable[[slice], Checkpointer] = lambda part: Checkpointer(),
    chunk_seconds: float = CHUNK_SECONDS,
) -> list[Outcome]:
    """Run one phase of many lanes: all have the same program and the same number of steps, and keep the same state.

    Chunks are cut at evaluations, and between them wherever a call would take longer than ``chunk_seconds``.

    Args:
      seeds, stages, splits, weights: one each a lane; ``weights`` with fresh parts already fresh.
      data: the stacked data.
      evaluations: validations a phase.
      placement: how the pack is run.
      stream: the inputs, where they are not in ``data``.
      width: the compiled width; by default what suits so many lanes, halved until it fits into memory.
      together: how many lanes to compile for, if not as many as there are: packs of many sizes then share a width.
      on_steps: called after every chunk with the lane-steps done in it; may raise to stop.
      on_width: told (width that did not fit, bytes needed, bytes there are) before it is halved.
      guard_of: the guard of the pack of these lanes.
      chunk_seconds: see above.

    Raises:
      PlacementError: if even the least width does not fit into memory, or the mesh does not divide the batch.
    """
    program, steps, select = stages[0].program, stages[0].steps, stages[0].select
    if any((s.program, s.steps, s.select) != (program, steps, select) for s in stages):
        raise ValueError("a pack's lanes must share their program and their steps, and which state they keep")
    _check_divides(program, placement)
    chosen = placements.width_for(placement, together or len(seeds)) if width is None else width
    data = place(placement, data, WHOLE)
    feed_of = functools.partial(make_feed, program, steps, data=data, placement=placement, stream=stream)
    if width is None:
        first_lane = make_hypers(seeds[:1], stages[:1], splits[:1])
        chosen = _fitting(chosen, first_lane, weights[0], feed_of, on_width)
    outcomes: list[Outcome] = []
    for first in range(0, len(seeds), chosen):
        part = slice(first, min(first + chosen, len(seeds)))
        lanes = stacked(make_hypers(seeds[part], stages[part], splits[part]), chosen)
        with contextlib.closing(feed_of(len(seeds[part]), lanes)) as feed:
            outcomes += _run_group(feed, select, weights[part], evaluations, on_steps, guard_of(part), chunk_seconds)
    return outcomes


def _fitting(
    width: int,
    lanes: Hypers,
    weights: Weights,
    feed_of: Callable[[int, Hypers], Feed],
    on_width: Callable[[int, int, int], None],
) -> int:
    """Return the largest width, halved from the one given, whose call fits into memory by XLA's own analysis."""
    limit = agree(placements.memory_limit())
    while True:
        feed = feed_of(1, stacked(lanes, width))
        needed, program, least = _memory(feed, weights), feed.program, placements.width_for(feed.placement, 1)
        if needed <= limit:
            return width
        if width <= least:
            parts = "" if program.statistics(weights.state) else ", or set accumulate"
            raise placements.PlacementError(
                f"a phase of {len(program.tasks)} task(s) with batch_size = {program.batch} needs "
                f"{needed / 2**20:,.0f} MiB of memory, and there are {limit / 2**20:,.0f} MiB: lower "
                f"batch_size{parts}"
            )
        on_width(width, needed, limit)
        width = max(least, width // 2)


def _memory(feed: Feed, weights: Weights) -> int:
    """Return the bytes on a device that training so many lanes takes; of the weights, one lane's, shapes are enough."""
    program, placement, reach = feed.program, feed.placement, feed.shapes()
    whole = jax.tree.map(lambda a: jax.ShapeDtypeStruct((len(feed.host.seed), *a.shape), a.dtype), weights)
    whole = Weights(jax.eval_shape(pack.adapt_fn(program), reach.lanes, whole.params), whole.state)
    trainable, frozen = jax.eval_shape(functools.partial(phase.divide, program), whole.params)
    moving = jax.eval_shape(pack.begin_fn(program, placement), reach.lanes, trainable, whole.state)
    seen = jax.eval_shape(functools.partial(pack.at_hand, placement), reach.data)
    at = jax.ShapeDtypeStruct((), jnp.int32)
    fixed = jax.eval_shape(pack.fix(program, placement), at, reach.lanes.split, whole, frozen, seen)
    return feed.advance().memory(at, reach.lanes, moving, fixed, reach.data, at, at)


def _run_group(
    feed: Feed,
    select: str,
    weights: Sequence[Weights],
    evaluations: int,
    on_steps: Callable[[int], None],
    guard: Checkpointer,
    chunk_seconds: float,
) -> list[Outcome]:
    program, placement, lanes = feed.program, feed.placement, feed.host
    count, width = len(weights), len(lanes.seed)
    whole = jax.tree.map(lambda *leaves: pad(np.stack(leaves), width), *weights)
    if program.adapter is not None:
        whole = Weights(jax.tree.map(np.asarray, pack.adapt_fn(program)(lanes, whole.params)), whole.state)
    trainable, frozen = phase.divide(program, whole.params)
    moving = jax.tree.map(np.asarray, pack.begin_fn(program, placement)(lanes, trainable, whole.state))
    kept = guard.restore()
    if kept is not None:
        moving = _filled(moving, kept, width, placement)
    # What moves is donated, so every leaf needs a buffer of its own (the best state begins as the first one).
    specs = pack.specs(placement)
    moving = place(placement, jax.tree.map(np.array, moving), specs)
    frozen, whole = place(placement, (frozen, whole), LANES)
    fixed, advance = feed.fix(whole, frozen), feed.advance()

    def forward(moving: TrainState, reach: Window, begin: int, end: int) -> TrainState:
        bounds = (place(placement, np.int32(b), WHOLE) for b in (begin, end))
        moving = advance(feed.count, reach.lanes, moving, fixed, reach.data, *bounds)
        jax.block_until_ready(moving)
        return moving

    # Compiling with empty bounds keeps it out of the seconds that a trial is charged.
    moving = forward(moving, feed.shapes(), 0, 0)
    ends, chunk, at, spent = boundaries(feed.steps, evaluations), 8, 0, 0.0
    train: list[np.ndarray] = []
    val: list[np.ndarray] = []
    score: list[np.ndarray] = []
    if kept is not None:
        at, spent, train, val, score = kept.at, kept.spent, list(kept.train), list(kept.val), list(kept.score)
        on_steps(at * count)
    feed.begin(at)

    def take() -> Snapshot:
        return Snapshot(flatten(jax.tree.map(fetch, moving)), at, train, val, score, spent, placement.data)

    for end in ends[len(train) :]:
        if select == "best" and _stopped(lanes, moving)[:count].all():
            break
        while at < end:
            begun = time.perf_counter()
            reach = feed.at(at)
            stop = min(end, at + chunk, reach.end)
            moving = forward(moving, reach, at, stop)
            del reach  # Or the inputs in it would stay while the next ones come.
            took = agree(time.perf_counter() - begun)  # All processes must cut at the same steps.
            spent += took
            chunk = max(1, min(8 * chunk, int((stop - at) * chunk_seconds / max(took, 1e-6))))
            on_steps((stop - at) * count)
            at = stop
            if at < end:
                guard.boundary(take)
        merged = pack.merge_fn(placement)(moving)
        train.append(_mean(program, fetch(merged.loss_sum)[:count], fetch(merged.labels)[:count]))
        shown = _host_heads(pack.shown_fn(program)(merged))
        now = Weights(phase.whole(program, shown, frozen), merged.state)
        judged = feed.evaluate(place(placement, now, LANES))
        val.append(fetch(judged.losses)[:count])
        score.append(fetch(judged.scores)[:count])
        del now, merged, shown
        if select == "best":
            moving = pack.track_best_fn(program, placement)(feed.lanes, moving, judged)
        else:  # All there is to note: the sum of losses begins anew.
            since = {name: getattr(moving, name) for name in pack.SINCE}
            zeros = {name: np.zeros(was.shape, was.dtype) for name, was in since.items()}
            moving = dataclasses.replace(moving, **zeros)
        moving = place(placement, moving, specs)
        guard.boundary(take)
    if at < feed.steps:  # What stopping early saves.
        on_steps((feed.steps - at) * count)
    merged = pack.merge_fn(placement)(moving)
    shown, state, seen = pack.shown_fn(program)(merged), merged.state, [len(ends)] * count
    best_at = seen
    if select == "best":
        shown, state = merged.best.trainable, merged.best.state
        best_at, seen = (fetch(n)[:count].tolist() for n in (merged.best.at, merged.best.seen))
    trained = [ends[n - 1] for n in seen]
    params = phase.whole(program, _host_heads(shown), frozen)
    if program.adapter is not None:
        params = pack.adopt_fn(program)(lanes, jax.tree.map(fetch, params))
    finished = unstack(Weights(params, state), count)
    diverged = fetch(merged.diverged_at)
    penalties = {t: fetch(p) for t, p in program.solver.chosen(merged.opt_state).items()}
    return [
        Outcome(
            weights=w,
            steps=ends[: seen[i]],
            best_at=ends[max(0, best_at[i] - 1)],
            train_loss=_curves(program, train, i, seen[i]),
            val_loss=_curves(program, val, i, seen[i]),
            val_score=_curves(program, score, i, seen[i]),
            diverged_at=int(diverged[i]),
            seconds=spent * trained[i] / sum(trained),
            waited=feed.waited / count,
            width=width,
            penalties={t: float(p[i]) for t, p in penalties.items()},
        )
        for i, w in enumerate(finished)
    ]


def _stopped(lanes: Hypers, moving: TrainState) -> np.ndarray:
    """Return which lanes have ended early, see ``phase.stopped``."""
    waited = fetch(moving.best.seen) - fetch(moving.best.at)
    return np.asarray((lanes.patience > 0) & (waited >= lanes.patience))


def _curves(program: Program, found: list[np.ndarray], lane: int, count: int) -> dict[str, list[float]]:
    """Return a lane's curve of each task, as far as it was trained."""
    return {name: [float(a[lane, k]) for a in found[:count]] for k, name in enumerate(program.tasks)}


def _mean(program: Program, total: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the mean losses [lanes, tasks], in the order of the program's tasks."""
    means = np.where(labels > 0, total / np.maximum(labels, 1), np.nan)
    return means[:, np.argsort(order(program))].astype(np.float32)


def _host_heads(trainable: PyTree) -> PyTree:
    """Return a trainable part with its heads on the host, where they are dealt out without compiling anything."""
    return {**trainable, "heads": jax.tree.map(fetch, trainable["heads"])}


def _filled(template: TrainState, kept: Snapshot, width: int, placement: Placement) -> TrainState:
    """Return a pack's state as it was kept, for as many devices as there are now."""
    moving = jax.tree_util.tree_map_with_path(lambda p, _: pad(kept.moving[path_of(p)], width), template)
    if kept.data != placement.data:
        moving = pack.dealt(pack.merged(moving, kept.data), placement.data)
    return jax.tree.map(np.asarray, moving)
