"""From unreduced losses and masks to (sum, count), and from these to one number whose denominator has a name."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Real

from mtl import tasks
from mtl.losses.formulas import Scalar

#: A number of labels, known before compilation or not.
Count = int | Int[Array, ""]

#: What the sum of the present labels' losses is divided by; see ``reduce``.
DENOMINATORS = ("examples", "labels", "tasks")


def sum_and_count(
    values: Float[Array, " batch"], mask: Bool[Array, " batch"]
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Return the sum of the present labels' losses and their number; both add up over micro-batches.

    >>> total, count = sum_and_count(jnp.array([1.0, 2.0, jnp.nan]), jnp.array([True, True, False]))
    >>> float(total), int(count)
    (3.0, 2)
    """
    return jnp.sum(values, where=mask), jnp.sum(mask, dtype=jnp.int32)


def coefficients(
    counts: Mapping[str, Count],
    examples: Count,
    denominator: str,
    weights: Mapping[str, Scalar] | None = None,
) -> dict[str, Float[Array, ""]]:
    """Return what each task's sum is multiplied by: L = Σ_j c_j · (sum of task j).

    With n_j labels of task j, m examples and K⁺ tasks that have a label, c_j is::

        examples    w_j / m
        labels      w_j / Σ_k n_k
        tasks       w_j / (n_j · K⁺), and 0 where n_j = 0

    They come from the masks alone, so micro-batches accumulate exactly: take c from the whole batch's counts,
    add up the gradients of Σ_j c_j · sum_j.

    Args:
      counts: n_j, the number of labels of each task in the whole batch.
      examples: m ≥ 1, the number of examples in the whole batch.
      denominator: one of ``DENOMINATORS``.
      weights: w_j, at least of the tasks of ``counts``; all 1 if not given.

    Raises:
      ValueError: for a denominator that does not exist, no task at all, or a task without a weight.

    >>> {k: float(v) for k, v in coefficients({"a": 4, "b": 0}, 8, "tasks").items()}
    {'a': 0.25, 'b': 0.0}
    """
    if denominator not in DENOMINATORS:
        raise ValueError(f'denominator "{denominator}": {tasks.suggest(denominator, DENOMINATORS)}')
    if not counts:
        raise ValueError("a loss of no task: there must be at least one")
    weights = dict.fromkeys(counts, 1.0) if weights is None else weights
    if absent := sorted(counts.keys() - weights.keys()):
        raise ValueError(f'task "{absent[0]}" has no weight: {tasks.suggest(absent[0], weights)}')
    n, w = (jnp.stack([jnp.asarray(of[name], float) for name in counts]) for of in (counts, weights))
    found = factors(n, examples, denominator, w)
    return {name: found[i] for i, name in enumerate(counts)}


def factors(
    counts: Real[Array, " tasks"], examples: Count, denominator: str, weights: Float[Array, " tasks"]
) -> Float[Array, " tasks"]:
    """Return ``coefficients`` of tasks that are one array.

    >>> factors(jnp.array([4, 0]), 8, "tasks", jnp.ones(2)).tolist()
    [0.25, 0.0]
    """
    n = counts.astype(weights.dtype)
    if denominator == "examples":
        return weights / examples
    # Without any label the sums are zero: divided by one, so are the loss and its gradient.
    if denominator == "labels":
        return weights / jnp.maximum(jnp.sum(n), 1)
    active = jnp.maximum(jnp.sum(n > 0), 1)
    return jnp.where(n > 0, weights / (jnp.maximum(n, 1) * active), 0)


def reduce_sums(
    sums: Mapping[str, Float[Array, ""]],
    counts: Mapping[str, Count],
    examples: Count,
    denominator: str,
    weights: Mapping[str, Scalar] | None = None,
) -> Float[Array, ""]:
    """Return ``reduce`` of a batch from its tasks' sums and counts, added up over its micro-batches.

    Args and Raises: as ``coefficients``, and ``sums``, each task's sum of its present labels' losses.

    >>> sums = {"a": jnp.array(6.0), "b": jnp.array(4.0)}
    >>> float(reduce_sums(sums, {"a": 3, "b": 1}, 4, "tasks"))
    3.0
    """
    _same_tasks(sums, counts)
    c = coefficients(counts, examples, denominator, weights)
    return _total({name: c[name] * sums[name] for name in sums})


def reduce(
    values: Mapping[str, Float[Array, " batch"]],
    masks: Mapping[str, Bool[Array, " batch"]],
    denominator: str,
    weights: Mapping[str, Scalar] | None = None,
) -> Float[Array, ""]:
    """Return a batch's loss: the sum of its tasks' unreduced losses, divided by what ``denominator`` names.

    With losses l_ij, masks m_ij, task weights w_j, m examples, and T⁺ the tasks that have a label in it::

        examples    (1/m) Σ_ij w_j m_ij l_ij
        labels      Σ_ij w_j m_ij l_ij / Σ_ij m_ij
        tasks       (1/|T⁺|) Σ_{j in T⁺} w_j (Σ_i m_ij l_ij / Σ_i m_ij)

    They differ in what a task with few labels weighs. Without any label: exactly 0, gradient included.

    Args:
      values, masks: of each task, as ``losses.values`` returns and takes them, all over the same examples.
      denominator: one of ``DENOMINATORS``.
      weights: w_j; all 1 if not given.

    Raises:
      ValueError: as ``coefficients``, and for other tasks in ``masks``, or batches of different lengths.

    >>> values = {"a": jnp.array([1.0, 3.0]), "b": jnp.array([4.0, 0.0])}
    >>> masks = {"a": jnp.array([True, True]), "b": jnp.array([True, False])}
    >>> [round(float(reduce(values, masks, d)), 3) for d in DENOMINATORS]
    [4.0, 2.667, 3.0]
    """
    _same_tasks(values, masks)
    lengths = {name: x.shape[0] for name, x in values.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"batches of different lengths, {lengths}: must be the same examples")
    pairs = {name: sum_and_count(values[name], masks[name]) for name in values}
    sums, counts = ({name: pair[i] for name, pair in pairs.items()} for i in (0, 1))
    return reduce_sums(sums, counts, max([1, *lengths.values()]), denominator, weights)


def _same_tasks(one: Mapping[str, object], two: Mapping[str, object]) -> None:
    if one.keys() != two.keys():
        raise ValueError(f"tasks {sorted(one)} and {sorted(two)}: must be the same")


def _total(terms: Mapping[str, Float[Array, ""]]) -> Float[Array, ""]:
    # In the order of the names, for the same bits whatever the dictionary's.
    return functools.reduce(operator.add, (terms[name] for name in sorted(terms)))
