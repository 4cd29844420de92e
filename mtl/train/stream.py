"""Steps fed from a stream: windows of rows that are read ahead, in the order in which chance draws them.

Which rows a step sees is a function of the seed and the step's number (``train.sampling``), so the stream has no
position of its own: it begins at any step, in any process, with the same rows. A window holds the inputs of all rows
that some consecutive steps of all lanes draw, each once, and the program finds a row by its place in it. The program,
its batches and its bits are those of training in memory.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

from mtl.data.streamed import Streamed, prefetched
from mtl.inputs import structure
from mtl.train import judge, pack, phase
from mtl.train.compiled import Compiled
from mtl.train.dataset import Data, pool_name
from mtl.train.feed import Feed, Window
from mtl.train.flops import features
from mtl.train.judge import Judgement
from mtl.train.placement import LANES, OWN, WHOLE, Placement, PlacementError, PyTree, fetch, place
from mtl.train.program import Frozen, Hypers, Program, Weights
from mtl.train.pull import DATA_AXIS
from mtl.train.sampling import BatchPlan, make_picker

#: (data without inputs, (a window's inputs, where rows are among them)).
_Window = tuple[Data, tuple[Array, Array]]

#: What a window of inputs may take, unless a single step or a block of validation needs more. A few are in memory at a
#: time: one that trains, and those that are read ahead.
WINDOW_BYTES = 40 * 2**20

# What is read of a window at once: what is decoded is copied while it is in the cache, and large and small pieces of
# memory do not take turns, which leaves holes (the C library gives back at once what is above 32 MiB).
_PIECE_BYTES = 2**20

#: The most steps of a window.
_MOST_STEPS = 256


def make_feed(
    program: Program,
    steps: int,
    count: int,
    lanes: Hypers,
    data: Data,
    placement: Placement,
    stream: Streamed | None,
) -> Feed:
    """Return what feeds a pack: memory, where inputs are there or all that the phase sees fits into a window.

    Args:
      program: the phase.
      steps: how many it has.
      count: lanes that are real; the others are copies of the last.
      lanes: the pack's numbers.
      data: the stacked data, without inputs where they are streamed.
      placement: how the pack runs.
      stream: the inputs; none if they are in ``data``.
    """
    if stream is None:
        return Feed(program, steps, count, lanes, data, placement)
    fed = _Streaming(program, steps, count, lanes, data, placement, stream)
    every = fed.every_row()
    if len(every) > fed.capacity:
        return fed
    held = np.zeros((1 << (len(every) - 1).bit_length(), *stream.shape[1:]), stream.dtype)
    held[: len(every)] = stream[every]
    data = dataclasses.replace(data, x=held, place=_places(every, len(stream)))
    return Feed(program, steps, count, lanes, data, placement)


@dataclasses.dataclass
class _Streaming(Feed):
    """Windows of a stream."""

    stream: Streamed

    def __post_init__(self) -> None:
        super().__post_init__()
        program, data, placement, lanes, stream = self.program, self.data, self.placement, self.host, self.stream
        self._pools = jax.tree.map(
            fetch,
            dataclasses.replace(
                data, x=(), labels=(), train=(), val=(), shift=None, scale=None, fill=None, dense={}, units={}
            ),
        )
        # Lanes of one replicate draw the same rows whatever else differs.
        drawn = np.column_stack([lanes.seed, lanes.split, lanes.offset, lanes.streams])
        _, self._of, self._back = np.unique(drawn, axis=0, return_index=True, return_inverse=True)
        self._splits = np.unique(lanes.split)
        self._blocks, self._block_rows = judge.evaluation_blocks(program.tasks, data, placement.data)
        least = max(len(self._of) * program.rows // placement.data, len(self._splits) * self._block_rows)
        if program.cached:
            least = max(least, len(self._splits) * program.rows)
        self.capacity = max(least, WINDOW_BYTES // stream.row_bytes)
        each = max(1, self.capacity * placement.data // (len(self._of) * program.rows))
        self._each = 1 << (min(each, _MOST_STEPS).bit_length() - 1)
        self._windows: Generator[Window, None, None] | None = None
        self._reach: Window | None = None

    def every_row(self) -> np.ndarray:
        """Return all rows that the phase can see."""
        name = pool_name(self.program.tasks)
        pools = [self._pools.train_rows[name], self._pools.val_rows[name]]
        return np.unique(np.concatenate([p.rows[s, : p.count[s]] for p in pools for s in self._splits]))

    def advance(self) -> Compiled:
        return pack.advance_fn(self.program, self.placement, streamed=True)

    def shapes(self) -> Window:
        if self.program.cached:
            return self._still()
        picks = jax.eval_shape(_draw_fn(self.program, self._each), self._drawing(), self._pools, jnp.int32(0))
        empty = jax.tree.map(lambda a: np.zeros((len(self._back), *a.shape[1:]), a.dtype), picks)
        return Window(self._lanes(0, empty), self._window([np.zeros(0, np.int64)] * self.placement.data), 0)

    def begin(self, step: int) -> None:
        if not self.program.cached and step < self.steps:
            count = -(-(self.steps - step) // self._each)
            self._windows = prefetched(lambda i: self._training(step + i * self._each), count)
            self._reach = next(self._windows)  # Before the clock starts, as with what is compiled.

    def at(self, step: int) -> Window:
        if self._reach is None and self.program.cached:
            self._reach = self._still()
        while self._reach is None or step >= self._reach.end:
            assert self._windows is not None
            begun = time.perf_counter()
            self._reach = None  # Let go of it first: one window less in memory.
            self._reach = next(self._windows)
            self.waited += time.perf_counter() - begun
        return self._reach

    def fix(self, weights: Weights, frozen: PyTree) -> Frozen:
        if not self.program.cached:
            return Frozen(frozen)
        pool = self._pools.train_rows[pool_name(self.program.tasks)]
        most, size, lanes = phase.feature_blocks(self.program, self._pools), self.program.rows, len(self._back)
        one = features(self.program, structure(self.stream, self.stream.vocabulary))
        held = (
            jax.tree.map(lambda a: np.zeros((lanes, most * size, *a.shape[1:]), a.dtype), one),
            np.zeros((lanes, len(self.stream)), np.int32),
        )
        held = place(self.placement, jax.tree.map(jnp.asarray, held), LANES)
        run, each = pack.cache_fn(self.program, self.placement), self._together(size)
        begins = range(0, -(-int(pool.count[self._splits].max()) // size), each)

        def window(i: int) -> _Window:
            # Each device computes the features of all lanes that it has: every shard is the same.
            rows = self._of_splits(pool, range(begins[i] * size, (begins[i] + each) * size))
            return self._window([rows] * self.placement.data)

        for begin, data in zip(begins, prefetched(window, len(begins)), strict=True):
            bounds = (place(self.placement, np.int32(b), WHOLE) for b in (begin, begin + each))
            held = run(self.count, self.lanes.split, weights, held, data, *bounds)
        return Frozen(frozen, *held)

    def evaluate(self, weights: Weights) -> Judgement:
        p, shards = self.program, self.placement.data
        pool = self._pools.val_rows[pool_name(p.tasks)]
        each = min(self._blocks, self._together(self._block_rows))
        share = -(-pool.rows.shape[1] // shards)
        begins = range(0, self._blocks, each)

        def window(i: int) -> _Window:
            low, high = begins[i] * self._block_rows, min(share, (begins[i] + each) * self._block_rows)
            own = [range(d * share + low, d * share + high) for d in range(shards)]
            return self._window([self._of_splits(pool, at) for at in own])

        run = pack.validate_fn(p.model, p.tasks, p.standardize, self.placement, each)
        found = []
        for begin, data in zip(begins, prefetched(window, len(begins)), strict=True):
            some = run(self.count, self.lanes.split, weights, data, place(self.placement, np.int32(begin), WHOLE))
            found.append(jax.tree.map(fetch, some))
        whole = jax.tree.map(lambda *parts: np.concatenate(parts, axis=2)[:, :, : self._blocks], *found)
        run, whole = pack.judge_fn(p.model, p.tasks, self.placement), place(self.placement, whole, OWN)
        judged: Judgement = run(self.count, self.lanes.split, whole, self.data)
        return judged

    def close(self) -> None:
        if self._windows is not None:
            self._windows.close()

    def _together(self, rows: int) -> int:
        """Return how many blocks of so many rows of each split fit into a window."""
        return max(1, self.capacity // (len(self._splits) * rows))

    def _of_splits(self, pool: Any, at: range) -> np.ndarray:
        """Return the rows that a pool has at some places, in any of the pack's splits."""
        found = [pool.rows[s, at.start : min(at.stop, pool.count[s])] for s in self._splits]
        return np.unique(np.concatenate(found))

    def _drawing(self) -> Hypers:
        """Return one lane for each sequence of batches."""
        return jax.tree.map(lambda a: np.asarray(a)[self._of], self.host)

    def _training(self, first: int) -> Window:
        """Return the window of the steps from ``first`` on."""
        end = min(first + self._each, self.steps)
        # On the host's own device: an accelerator would draw only after the chunk that trains at the time.
        with jax.default_device(_host_device()):
            picks = _draw_fn(self.program, self._each)(self._drawing(), self._pools, jnp.int32(first))
        picks = jax.tree.map(np.asarray, picks)
        blocks, shards = self.program.rows // self.program.batch, self.placement.data
        rows = picks.rows[:, : end - first].reshape(-1, blocks, shards, self.program.batch // shards)
        data = self._window([np.unique(rows[:, :, d]) for d in range(shards)])
        return Window(self._lanes(first, jax.tree.map(lambda a: a[self._back], picks)), data, end)

    def _lanes(self, first: int, picks: BatchPlan) -> Hypers:
        firsts = np.full(len(self._back), first, np.int32)
        return place(self.placement, dataclasses.replace(self.host, first=firsts, picks=picks), LANES)

    def _still(self) -> Window:
        """Return the reach of a phase that reads features: of inputs, what a closed form validates on."""
        rows = np.zeros(0, np.int64)
        if self.program.solver.reads_validation():
            pool = self._pools.val_rows[pool_name(self.program.tasks)]
            rows = self._of_splits(pool, range(pool.rows.shape[1]))
        size = max(1, len(rows))
        return Window(self.lanes, self._window([rows] * self.placement.data, size), self.steps)

    def _window(self, rows: Sequence[np.ndarray], capacity: int = 0) -> _Window:
        """Return the data with the inputs of some rows, given for each device along ``data``; read here and now."""
        shape, placement = (capacity or self.capacity, *self.stream.shape[1:]), self.placement

        @functools.cache
        def read(shard: int) -> np.ndarray:
            x = np.zeros(shape, self.stream.dtype)
            each = max(1, _PIECE_BYTES // self.stream.row_bytes)
            for i in range(0, len(rows[shard]), each):
                x[i : min(i + each, len(rows[shard]))] = self.stream[rows[shard][i : i + each]]
            return x

        if placement.data == 1:
            x, at = place(placement, (read(0), _places(rows[0], len(self.stream))), WHOLE)
            # Here and not in the compiled call: it goes to the device while the window before trains.
            return self.data, (jnp.asarray(x), jnp.asarray(at))
        sharding = NamedSharding(placement.mesh, PartitionSpec(DATA_AXIS))

        def spread(tail: tuple[int, ...], of: Callable[[int], np.ndarray]) -> jax.Array:
            # Asked for the shards of this process's devices alone: each host reads its own part of a batch.
            def part(index: Any) -> np.ndarray:
                return of(index[0].start or 0)[None]

            return jax.make_array_from_callback((placement.data, *tail), sharding, part)

        x = spread(shape, read)
        at = spread((len(self.stream),), lambda d: _places(rows[d], len(self.stream)))
        return self.data, (x, at)


def _places(rows: np.ndarray, count: int) -> np.ndarray:
    """Return where each row of a table is among ``rows``; 0 for those that are not."""
    found = np.zeros(count, np.int32)
    found[rows] = np.arange(len(rows), dtype=np.int32)
    return found


@functools.lru_cache(maxsize=1)
def _host_device() -> Any:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        raise PlacementError(
            "streamed batches are drawn on the CPU, which JAX_PLATFORMS leaves out: name it too, as in "
            "JAX_PLATFORMS=cuda,cpu"
        ) from None


@functools.lru_cache(maxsize=64)
def _draw_fn(program: Program, steps: int) -> Callable[[Hypers, Data, Array], BatchPlan]:
    """Return the compiled ``draw(lanes, pools, first) -> picks [lanes, steps, …]``."""

    def one(hypers: Hypers, pools: Data, first: Array) -> BatchPlan:
        pick = make_picker(program, hypers, pools.of(hypers.split))
        found: BatchPlan = jax.vmap(pick)(first + jnp.arange(steps))
        return found

    return jax.jit(jax.vmap(one, in_axes=(0, None, None)))
