"""Drawing a phase's batches: with replacement, from labels that are present, by a key that a step index makes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mtl.train.program import BATCH, Data, Lane, Numbers, Program, inputs, key_for, pool_name


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Inputs with labels and masks, per task.

    Attributes:
      x: [rows, …].
      labels: per task, [rows].
      mask: per task, bool [rows]; true where the label is present and counts.
    """

    x: Numbers
    labels: Mapping[str, Numbers]
    mask: Mapping[str, Numbers]


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
    bits = jax.random.bits(key, (size,), jnp.uint32)
    n = jnp.asarray(count).astype(jnp.uint32)
    high, low, n_high, n_low = bits >> 16, bits & 0xFFFF, n >> 16, n & 0xFFFF
    middle = high * n_low + ((low * n_low) >> 16)
    carry = (middle & 0xFFFF) + low * n_high
    return (high * n_high + (middle >> 16) + (carry >> 16)).astype(jnp.int32)


def make_sampler(program: Program, lane: Lane, data: Data) -> Callable[[Array], Batch]:
    """Return a function from a step's index in the phase to its batch.

    How tasks mix (T_k: the rows with a present training label of task k, n_k of them):

    - ``per_task``: B rows from each T_k, uniformly; a row drawn for task k shows task k's label only, so that every
      task has exactly B labels in every batch.
    - ``proportional``: B rows from ∪ T_k, uniformly; a row shows all its present labels, so that a task weighs as
      much as it has labels.
    - ``temperature``: for each of B rows a task is drawn ∝ n_k^(1/T), then a row of T_k, which shows that label
      only (T = 1: as many as it has labels; T → ∞: uniform over tasks; Raffel et al. 2020, arXiv:1910.10683).

    The k-th task's draws come from its own sequence, indexed by how many batches of it were drawn in the trial
    before: regimes of one replicate therefore see the same sequence of target batches, whatever they train on
    besides.

    Args:
      program: the phase.
      lane: its numbers; ``offset`` is where in each task's sequence the phase begins.
      data: the data of the lane's split.
    """
    tasks, size = program.tasks, program.batch
    if program.sampling == "per_task" or len(tasks) == 1:
        # A phase of one task is the same under every way of mixing, and must draw the same batches.
        pools = [data.train_rows[t] for t in tasks]
        keys = [key_for(lane.seed, BATCH, t) for t in tasks]

        def per_task(step: Array) -> Batch:
            drawn = []
            for i, (pool, key) in enumerate(zip(pools, keys, strict=True)):
                at = below(jax.random.fold_in(key, lane.offset[i] + step), size, pool.count)
                drawn.append(jnp.take(pool.rows, at, mode="clip"))
            rows = jnp.concatenate(drawn)
            owner = jnp.repeat(jnp.arange(len(tasks)), size, total_repeat_length=len(tasks) * size)
            mask = {t: owner == i for i, t in enumerate(tasks)}
            return _batch(program, data, rows, mask)

        return per_task

    key = key_for(lane.seed, BATCH, pool_name(tasks))
    if program.sampling == "proportional":
        anywhere = data.train_rows[pool_name(tasks)]

        def proportional(step: Array) -> Batch:
            at = below(jax.random.fold_in(key, lane.offset[0] + step), size, anywhere.count)
            rows = jnp.take(anywhere.rows, at, mode="clip")
            return _batch(program, data, rows, {t: jnp.take(data.train[t], rows) for t in tasks})

        return proportional

    pools = [data.train_rows[t] for t in tasks]
    all_rows, counts = jnp.stack([p.rows for p in pools]), jnp.stack([p.count for p in pools])
    logits = jnp.log(counts.astype(jnp.float32)) / program.temperature

    def temperature(step: Array) -> Batch:
        which, where = jax.random.split(jax.random.fold_in(key, lane.offset[0] + step))
        owner = jax.random.categorical(which, logits, shape=(size,))
        rows = all_rows[owner, below(where, size, counts[owner])]
        return _batch(program, data, rows, {t: owner == i for i, t in enumerate(tasks)})

    return temperature


def _batch(program: Program, data: Data, rows: Array, mask: dict[str, Array]) -> Batch:
    labels = {t: jnp.take(data.labels[t], rows) for t in program.tasks}
    return Batch(inputs(program.standardize, data, rows), labels, mask)
