"""Drawing a phase's batches: with replacement, from labels that are present, by a key that a step index makes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mtl.tasks import Task
from mtl.train import threefry
from mtl.train.augment import change
from mtl.train.dataset import Data, Pool, inputs, pool_name, standardized
from mtl.train.program import BATCH, Frozen, Hypers, Indices, Numbers, Program, PyTree, key_for
from mtl.train.stacks import columns, order, ordered


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """What chance decides of a batch.

    Attributes:
      rows: indices into the table, int32 [rows].
      owner: the task that each row was drawn for, int32 [rows], where chance decides it; else ``()``.
    """

    rows: Numbers
    owner: Any = ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Inputs with labels and masks.

    Attributes:
      x: [rows, …], or ``{leaf: [rows, …]}``; where the program caches features, these.
      labels: of each of ``stacks.columns``, by its first task, [rows, tasks]; of multiclass tasks whose rows are mixed,
        probabilities [rows, tasks, classes]. Of each dense task, by its own name, (labels, which are present), [rows,
        *shape].
      mask: bool [rows, tasks], tasks as in ``stacks.ordered``; true where the label is present and counts.
    """

    x: PyTree
    labels: Mapping[str, Any]
    mask: Numbers


def below(key: Array, size: int, count: Numbers) -> Int[Array, " size"]:
    """Return ``size`` integers, uniform in [0, count).

    ⌊b · count / 2³²⌋ for 32 random bits b, by products of 16-bit halves; no integer's probability is off by more
    than 2⁻³². One hash a step, where ``jax.random.randint`` takes three and two divisions (Lemire 2019,
    arXiv:1805.10941).

    Args:
      key: a key of its own.
      size: how many.
      count: what they stay below, from 1 to 2³¹ − 1; one for all or one each.

    >>> import jax
    >>> bool((below(jax.random.key(0), 1000, 3) < 3).all())
    True
    """
    bits = threefry.bits(key, size)
    n = jnp.asarray(count).astype(jnp.uint32)
    high, low, n_high, n_low = bits >> 16, bits & 0xFFFF, n >> 16, n & 0xFFFF
    middle = high * n_low + ((low * n_low) >> 16)
    carry = (middle & 0xFFFF) + low * n_high
    found = (high * n_high + (middle >> 16) + (carry >> 16)).astype(jnp.int32)
    # Once, here: XLA would rather hash anew for every number that is gathered from a row.
    return jax.lax.optimization_barrier(found)


def make_sampler(program: Program, hypers: Hypers, data: Data) -> Callable[[Array], Indices]:
    """Return a function from a step's index in the phase to the rows of its batch.

    How tasks mix (T_k: the rows with a present training label of task k, n_k of them):

    - ``per_task``: B rows from each T_k, uniformly; a row drawn for task k shows task k's label only, so that every
      task has exactly B labels in every batch.
    - ``rows``: B rows from ∪ T_k, uniformly; a row shows all its present labels, so that a task weighs as much as it
      has labels.
    - ``temperature``: for each of B rows a task is drawn ∝ n_k^(1/T), then a row of T_k, which shows that label
      only (T = 1: as many as it has labels; T → ∞: uniform over tasks; Raffel et al. 2020, arXiv:1910.10683).
    - ``uniform``: the same with every task as likely.
    - ``one_task``: all B rows are of one task. In each round of R steps (``round_steps``; one a task if 0) task k has
      c_k steps, Σ c_k = R: one, and of the others its share ∝ n_k^(1/T), by the largest remainder. Their order is a
      permutation that the seed and the round draw.

    The k-th task's draws come from its own sequence, indexed by how many batches of it were drawn in the trial
    before: regimes of one replicate therefore see the same sequence of target batches, whatever they train on
    besides.

    Args:
      program: the phase.
      hypers: its numbers; ``offset`` is where in each task's sequence the phase begins. What it has drawn before is
        not drawn again.
      data: the data of the lane's split.
    """
    tasks, names = program.tasks, [t.name for t in ordered(program)]
    column = order(program)[None]
    drawn = not isinstance(hypers.picks, tuple)
    pick = functools.partial(_picked, hypers) if drawn else make_picker(program, hypers, data)
    present = data.beside(data.train, names) if program.sampling == "rows" and len(tasks) > 1 else None

    def sample(step: Array) -> Indices:
        picks = pick(step)
        if present is not None:
            return Indices(picks.rows, jnp.take(present, picks.rows, axis=0, mode="clip"))
        owner = picks.owner
        if isinstance(owner, tuple):  # Nothing that chance decides: B rows of each task.
            owner = jnp.repeat(jnp.arange(len(tasks)), program.batch, total_repeat_length=program.rows)
        return Indices(picks.rows, owner[:, None] == column)

    return sample


def make_picker(program: Program, hypers: Hypers, data: Data) -> Callable[[Array], BatchPlan]:
    """Return a function from a step's index in the phase to what chance decides of its batch, see ``make_sampler``.

    Args:
      program: the phase.
      hypers: its numbers.
      data: the pools of the lane's split.
    """
    tasks, size, name = program.tasks, program.batch, pool_name(program.tasks)

    def rows_of(pool: Pool, key: Array, number: Array) -> Array:
        return jnp.take(pool.rows, below(threefry.fold_in(key, number), size, pool.count), mode="clip")

    # A phase of one task is the same under every way of mixing, and must draw the same batches.
    sampling = program.sampling if len(tasks) > 1 else "per_task"
    if sampling in ("per_task", "rows"):
        pools, own = [data.train_rows[name]], data.own_rows
        if sampling == "per_task" and len(tasks) > 1:
            pools = [Pool(own.rows[i], own.count[i]) for i in data.columns(tasks)]
        streams = range(len(tasks)) if sampling == "per_task" else (-1,)
        keys = [key_for(hypers.seed, BATCH, hypers.streams[i]) for i in streams]

        def pooled(step: Array) -> BatchPlan:
            drawn = enumerate(zip(pools, keys, strict=True))
            return BatchPlan(jnp.concatenate([rows_of(p, key, hypers.offset[i] + step) for i, (p, key) in drawn]))

        return pooled

    key = key_for(hypers.seed, BATCH, hypers.streams[-1])
    at = data.columns(tasks)
    all_rows, counts = data.own_rows.rows[at], data.own_rows.count[at]
    if sampling == "one_task":
        keys_ = jnp.stack([key_for(hypers.seed, BATCH, hypers.streams[i]) for i in range(len(tasks))])
        rounds, length = threefry.fold_in(key, hypers.offset[0]), program.round_steps or len(tasks)
        turns = shares(counts, length, program.temperature)

        def one_task(step: Array) -> BatchPlan:
            task, before = turn(rounds, turns, length, step)
            rows = rows_of(Pool(all_rows[task], counts[task]), keys_[task], hypers.offset[task] + before)
            owner = jnp.broadcast_to(task.astype(jnp.int32), (size,))
            # XLA sums in another order where it knows that all are one; batches drawn before must have the same bits.
            return BatchPlan(rows, jax.lax.optimization_barrier(owner))

        return one_task

    logits = jnp.log(counts.astype(jnp.float32)) / (jnp.inf if sampling == "uniform" else program.temperature)

    def temperature(step: Array) -> BatchPlan:
        which, where = jax.random.split(threefry.fold_in(key, hypers.offset[0] + step))
        owner = jax.random.categorical(which, logits, shape=(size,))
        return BatchPlan(all_rows[owner, below(where, size, counts[owner])], owner)

    return temperature


def _picked(hypers: Hypers, step: Array) -> BatchPlan:
    """Return what was drawn before for a step."""
    found: BatchPlan = jax.tree.map(
        lambda a: jax.lax.dynamic_index_in_dim(a, step - hypers.first, 0, keepdims=False), hypers.picks
    )
    return found


def shares(counts: Int[Array, " tasks"], size: int, temperature: float) -> Int[Array, " tasks"]:
    """Return how many steps of a round each task has: one, and of the others ∝ n^(1/T) by the largest remainder.

    Args:
      counts: n of each task.
      size: R, steps in a round, at least one a task.
      temperature: T.

    >>> shares(jnp.array([10, 30, 60]), 13, 1.0).tolist(), shares(jnp.array([10, 30, 60]), 3, 1.0).tolist()
    ([2, 4, 7], [1, 1, 1])
    """
    logits = jnp.log(counts.astype(jnp.float32)) / temperature
    wanted = (size - counts.shape[0]) * jax.nn.softmax(logits)
    whole = jnp.floor(wanted).astype(jnp.int32)
    left = size - counts.shape[0] - whole.sum()
    # The k-th largest remainder gets one while k < left; of equal ones the first task's comes first.
    rank = jnp.argsort(jnp.argsort(whole - wanted, stable=True))
    return 1 + whole + (rank < left)


def turn(key: Array, turns: Int[Array, " tasks"], size: int, step: Array) -> tuple[Array, Array]:
    """Return (the task whose turn a step is, how many turns it had before).

    A pure function of the key and the step: nothing is kept from one step to the next.

    Args:
      key: of the schedule's own.
      turns: steps that each task has in a round; they add up to ``size``.
      size: steps in a round.
      step: counted from the first round's first.
    """
    number, place = step // size, step % size
    order = jnp.argsort(threefry.bits(threefry.fold_in(key, number), size), stable=True)
    tasks = jnp.searchsorted(jnp.cumsum(turns), order, side="right")
    task = tasks[place]
    return task, number * turns[task] + jnp.sum((tasks == task) & (jnp.arange(size) < place), dtype=jnp.int32)


def part(program: Program, draw: Indices, index: Array, parts: int) -> Indices:
    """Return one of the equal parts of a batch, each of which holds as many rows of every task as the others.

    Args:
      program: the phase.
      draw: the whole batch.
      index: which part, from 0.
      parts: how many there are; they divide ``program.batch``.
    """
    if parts == 1:
        return draw
    blocks = program.rows // program.batch

    def of(a: Array) -> Array:
        split = a.reshape(blocks, parts, program.batch // parts, *a.shape[1:])
        return jax.lax.dynamic_index_in_dim(split, index, axis=1, keepdims=False).reshape(-1, *a.shape[1:])

    return jax.tree.map(of, draw)


def by_columns(tasks: Sequence[Task], labels: Array, dense: Mapping[str, tuple[Array, Array]]) -> dict[str, Any]:
    """Return labels as a batch has them; class ids as integers.

    Args:
      tasks: in the order of the columns of ``labels``, such as ``stacks.ordered``.
      labels: [rows, tasks].
      dense: of the dense ones among them, as a batch has them.
    """
    found: dict[str, Any] = {}
    for group in columns(tasks):
        if group.task.shape:
            found |= {name: dense[name] for name in group.names}
            continue
        own = group.of(labels)
        found[group.names[0]] = own.astype(jnp.int32) if group.task.labels == "ids" else own
    return found


def make_gather(program: Program, data: Data, fixed: Frozen) -> Callable[[Indices], Batch]:
    """Return a function from a draw to its rows' inputs (or features, where the program caches them) and labels."""
    tasks = ordered(program)
    table = data.beside(data.labels, [t.name for t in tasks])

    def fetch(rows: Array) -> tuple[PyTree, dict[str, Any]]:
        if program.cached:
            at = jnp.take(fixed.place, rows, mode="clip")
            x = jax.tree.map(lambda a: jnp.take(a, at, axis=0, mode="clip"), fixed.features)
        else:
            x = inputs(program.standardize and not program.augment, data, rows)
        own = jnp.take(table, rows, axis=0, mode="clip")
        return x, by_columns(tasks, own, data.dense_labels(tasks, own))

    def gather(draw: Indices) -> Batch:
        if not program.augment:
            x, found = fetch(draw.rows)
        else:  # Images are changed as they are, and standardised afterwards.
            x, found = change(program.augment, draw, fetch)
            x = standardized(x, data.shift, data.scale, data.fill) if program.standardize else x
        return Batch(x, found, draw.mask)

    return gather
