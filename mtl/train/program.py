"""What XLA compiles, and what it takes as arrays: programs, hyperparameters, weights and what moves."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from mtl import params as paths
from mtl.adapt import Adapting
from mtl.balance import Balancing
from mtl.config.augmentation import Spec
from mtl.models import Model
from mtl.optim import Optimizer
from mtl.tasks import Task
from mtl.train import threefry
from mtl.train.threefry import fold_in

PyTree = Any
#: An array of JAX or NumPy, or what JAX puts in its place in a pytree (a shape, a tracer, an axis).
Numbers = Any

#: Purposes that randomness is drawn for: ``fold_in(key(seed), purpose, step)``.
INIT, BATCH, DROPOUT, BALANCE, ADAPT = (zlib.crc32(p) for p in (b"init", b"batch", b"dropout", b"balance", b"adapt"))


@dataclasses.dataclass(frozen=True)
class Program:
    """What XLA compiles: one phase of one shape. A regime composes programs.

    The number of steps is *not* part of it: loops run to a bound that is data, so phases of any length (and any
    chunk of them) are one executable, which is also why chunking cannot change a bit.

    Attributes:
      model: the model with all of the trial's heads.
      tasks: names of the tasks whose labels the phase sees.
      trainable: whole paths of the parameters that move, sorted (see ``trainable_paths``).
      solver: what finds its parameters: ``descent.Descent``, or ``ridge.Ridge`` in closed form; or
        ``reference.Reference``, which needs none.
      optimizer: the static part of its optimizer.
      batch: B. A step sees B rows, or B for each task with ``per_task`` sampling.
      sampling: how tasks mix, see ``train.sampling``.
      temperature: T of ``temperature`` and ``one_task`` sampling: a task with n labels is drawn ∝ n^(1/T).
      denominator: of the loss, see ``losses.reduce``.
      trunk_mode: ``eval``: blocks without a trainable parameter run in eval mode; ``train``: all run in train mode.
      select: whether the ``last`` or the ``best`` state on validation goes on to the next phase.
      judges: the tasks whose validation decides what is best, see ``regimes.judges``.
      standardize: whether inputs are scaled with the split's numbers.
      accumulate: micro-batches that a batch is split into; the update is that of the whole batch.
      cached: whether the trunk is frozen and still, so that its features are computed once, at the phase's start.
      round_steps: steps in a round of ``one_task`` sampling; 0 for one of each task.
      augment: how training images are changed at random, see ``train.augment``.
      balancer: the static part of what balances the tasks' gradients for the trunk; none for their sum.
      adapter: the static part of the adapter that trains in place of the backbone; none for none.
      widths: of the features of each of ``tasks``, where not all are the same; else empty.
    """

    model: Model
    blocks: tuple[str, ...]
    tasks: tuple[str, ...]
    trainable: tuple[str, ...]
    solver: Any
    optimizer: Optimizer
    batch: int
    sampling: str
    temperature: float
    denominator: str
    trunk_mode: str
    select: str
    judges: tuple[str, ...]
    standardize: bool = False
    accumulate: int = 1
    cached: bool = False
    round_steps: int = 0
    augment: Spec = ()
    balancer: Balancing | None = None
    adapter: Adapting | None = None
    widths: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of a training batch: examples seen in a step."""
        return self.batch * (len(self.tasks) if self.sampling == "per_task" else 1)

    @property
    def specs(self) -> tuple[Task, ...]:
        """The phase's tasks."""
        return tuple(self.model.task(name) for name in self.tasks)

    def chosen(self, params: PyTree) -> PyTree:
        """Return the tree of booleans that says which parameters move."""
        moving = set(self.trainable)
        return jax.tree_util.tree_map_with_path(lambda p, _: paths.path_of(p) in moving, params)

    @functools.cached_property
    def train(self) -> bool | frozenset[str]:
        """Whether the backbone runs in train mode; or the names of the blocks that do."""
        training = [b for b in self.blocks if any(p.startswith(f"{b}/") for p in self.trainable)]
        if self.trunk_mode == "train":
            return True
        if len(training) == len(self.blocks):  # Where there are none, parameters are the backbone's own.
            return any(p.startswith("backbone/") for p in self.trainable)
        return frozenset(block.removeprefix("backbone/") for block in training) or False

    def statistics(self, state: PyTree) -> bool:
        """Return whether batch statistics (shapes are enough) are those of a batch: a block that has some trains.

        What a step computes from a part of a batch then is not what it computes from the whole.
        """
        train = self.train
        if self.cached or not train:
            return False
        blocks = [block.removeprefix("backbone/") for block in self.blocks]
        for path in paths.flatten(state):
            owners = [b for b in blocks if f"{path.partition('/')[2]}/".startswith(f"{b}/")]
            if train is True or set(owners) <= train:  # What belongs to no block may be used in any.
                return True
        return False

    def check_whole(self, state: PyTree) -> None:
        """Refuse to cut a batch into micro-batches where the statistics are those of a batch.

        Raises:
          ValueError: if they are.
        """
        if self.accumulate > 1 and self.statistics(state):
            raise ValueError(
                f"accumulate = {self.accumulate}: would take batch statistics from micro-batches, in a phase on "
                f"{', '.join(self.tasks)}, so that the update is not the whole batch's: must be 1, or the model "
                'without batch statistics (such as norm="group")'
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Frozen:
    """What does not change while a phase runs.

    Attributes:
      frozen: the parameters that do not move, ``None`` where they do.
      features: the trunk's features of the rows that the phase draws from, [M, …]; ``()`` if the program does
        not cache them.
      place: for each row of the table, where its features are, int32 [N]; ``()`` likewise.
    """

    frozen: PyTree
    features: PyTree = ()
    place: PyTree = ()


#: Of a hyperparameter: the type that programs take it as.
_FLOAT, _WHOLE, _BITS = ({"dtype": dtype} for dtype in ("float32", "int32", "uint32"))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hypers:
    """The hyperparameters of one trial's phase, which a compiled program takes as arrays; a pack's have a leading axis.

    Attributes:
      seed: the replicate; everything random is folded from it.
      lr: learning rate.
      optimizer: its numbers, see ``optim.Optimizer``.
      balancer, adapter: their numbers, by option.
      weights: what each of the phase's task losses is multiplied by, [tasks].
      steps: those that the phase's schedule runs over, the most that it may have.
      offset: batches of each task's sequence that earlier phases have used, [tasks].
      split: which of the stacked splits this trial trains on.
      patience: evaluations without a better state after which a phase that selects the best stops; 0 for none.
      rates: what the rate of each trainable parameter is multiplied by, [parameters]; ``()`` for 1.
      first, picks: where inputs are streamed, the batches of the steps from ``first`` on, drawn before; else ``()``.
      streams: what is drawn beside the seed: a number for each of the phase's tasks, and one for all of them together,
        [tasks + 1], see ``stream_of``.
    """

    seed: Numbers = dataclasses.field(metadata=_BITS)
    lr: Numbers = dataclasses.field(metadata=_FLOAT)
    optimizer: PyTree = dataclasses.field(metadata=_FLOAT)
    balancer: PyTree = dataclasses.field(metadata=_FLOAT)
    adapter: PyTree = dataclasses.field(metadata=_FLOAT)
    weights: Numbers = dataclasses.field(metadata=_FLOAT)
    steps: Numbers = dataclasses.field(metadata=_WHOLE)
    offset: Numbers = dataclasses.field(metadata=_WHOLE)
    split: Numbers = dataclasses.field(metadata=_WHOLE)
    patience: Numbers = dataclasses.field(default=0, metadata=_WHOLE)
    rates: PyTree = dataclasses.field(default=(), metadata=_FLOAT)
    first: PyTree = ()
    picks: PyTree = ()
    streams: Numbers = dataclasses.field(default=(), metadata=_BITS)

    def arrays(self) -> Hypers:
        """Return Python's numbers and tuples of them as NumPy's, of the types that programs take."""

        found = {}
        for field in dataclasses.fields(self):
            value, dtype = getattr(self, field.name), field.metadata.get("dtype")
            if dtype and not (isinstance(value, tuple) and not value):
                cast = functools.partial(np.asarray, dtype=dtype)
                value = jax.tree.map(cast, value, is_leaf=lambda a: isinstance(a, tuple))
            found[field.name] = value
        return Hypers(**found)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Weights:
    """What one phase hands to the next: all parameters and batch statistics."""

    params: PyTree
    state: PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Best:
    """The best state of a phase so far.

    Attributes:
      score: on validation, lower is better, see ``train.judge``.
      trainable, state: as in ``TrainState``.
      at: the evaluation, from 1, that it was; 0 for the state that the phase began with.
      seen: evaluations so far.
    """

    score: Numbers
    trainable: PyTree
    state: PyTree
    at: Numbers
    seen: Numbers


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """What changes while a phase runs. Frozen parameters are not in it.

    Attributes:
      trainable: the parameters that move, ``None`` where frozen, heads as stacks (see ``train.stacks``).
      state: batch statistics.
      opt_state: optimizer state; of a phase solved in closed form, {task: the penalty chosen}.
      balance: the balancer's state, with what it saw of the step before; ``()`` without one.
      best: the best state so far, or ``()`` if the last one is kept.
      loss_sum: sum of each task's losses since the last evaluation, [tasks], as in ``stacks.ordered``.
      labels: the number of labels that each is over, [tasks].
      diverged_at: first step whose loss was not finite; −1 if none.
    """

    trainable: PyTree
    state: PyTree
    opt_state: PyTree
    balance: PyTree
    best: PyTree
    loss_sum: Numbers
    labels: Numbers
    diverged_at: Numbers


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Indices:
    """The rows of a batch, and which of their labels count. Every leaf has the rows as its first axis.

    Attributes:
      rows: indices into the table, int32 [rows].
      mask: bool [rows, tasks], tasks as in ``stacks.ordered``; true where the label is present and counts.
      changes: what happens to each row, one entry an operation (see ``train.augment``); ``()`` for nothing.
    """

    rows: Numbers
    mask: Numbers
    changes: PyTree = ()


def trainable_paths(params: PyTree, patterns: Sequence[str], tasks: Sequence[str]) -> tuple[str, ...]:
    """Return the paths that patterns choose, without the heads of tasks that are not in the phase.

    Spelled out as paths, so that two patterns that choose the same parameters are one program.

    Args:
      params: all parameters (shapes are enough).
      patterns: regular expressions on whole paths.
      tasks: the phase's tasks.

    Raises:
      ValueError: for a pattern that matches nothing, or if nothing is left to train.
    """
    mine = tuple(f"{paths.join('heads', name)}/" for name in tasks)
    chosen = paths.flatten(paths.select(params, patterns))
    found = tuple(sorted(p for p, c in chosen.items() if c and (not p.startswith("heads/") or p.startswith(mine))))
    if not found:
        raise ValueError(f"trainable = {tuple(patterns)}: leaves nothing to train for tasks {tuple(tasks)}")
    return found


def stream_of(name: str) -> int:
    """Return the number of the stream that what has a name draws from."""
    return zlib.crc32(name.encode())


def key_for(seed: Array, purpose: int, stream: Numbers | None = None) -> Array:
    """Return the key of a purpose: ``fold_in(fold_in(key(seed), purpose), stream)``."""
    key = fold_in(threefry.key(seed), purpose)
    return key if stream is None else fold_in(key, stream)
