"""Losses: unreduced values, then the mask, then (sum, count), then one number whose denominator has a name.

A missing label takes no part: its loss and its gradient are exactly zero, whatever stands in its
place (NaN, −1) and whatever the model says there (inf, NaN). A label that is present and wrong (NaN, no
such class) makes the loss NaN.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Real

from mtl import tasks

#: A number known before compilation, or one that a compiled program takes as an argument; a count likewise.
Scalar = float | int | Float[Array, ""]
Count = int | Int[Array, ""]

#: What the sum of the present labels' losses is divided by; see ``reduce``.
DENOMINATORS = ("examples", "labels", "tasks")


def logistic(
    logits: Float[Array, "*shape"],
    labels: Real[Array, "*shape"],
    *,
    pos_weight: Scalar = 1.0,
    label_smoothing: Scalar = 0.0,
    focal_gamma: Scalar = 0.0,
) -> Float[Array, "*shape"]:
    """Return the logistic loss, from logits and unreduced.

    With p = σ(z), t = y(1 − ε) + ε/2, a = pos_weight and q = p if y = 1, else 1 − p::

        l = −(1 − q)^γ · [a · t · log p + (1 − t) · log(1 − p)]

    The focal factor judges the label before smoothing; γ = 0 is exactly the loss without it. Nothing is
    computed from p: value and gradient are finite and accurate for every finite logit.

    Args:
      logits: z, of any shape.
      labels: y in {0, 1}, of the same shape; without the focal factor, anything in [0, 1].
      pos_weight: a, the weight of the target's positive part, as in PyTorch's ``BCEWithLogitsLoss``.
      label_smoothing: ε in [0, 1).
      focal_gamma: γ ≥ 0.

    Returns: the loss in nats, of the same shape.

    >>> logistic(jnp.array([0.0, 1e4]), jnp.array([1.0, 0.0]))
    Array([6.931472e-01, 1.000000e+04], dtype=float32)

    Source: Lin et al. (2017), arXiv:1708.02002 (focal); Szegedy et al. (2015), arXiv:1512.00567 (smoothing).
    """
    y = labels.astype(logits.dtype)
    target = y if _is_off(label_smoothing) else y * (1 - label_smoothing) + label_smoothing / 2
    a, b = pos_weight * target, 1 - target
    # softplus(±z) = max(±z, 0) + tail keeps its relative accuracy however large z is. All pieces take one
    # side at z = 0, where a head of zeros starts, so that their gradients add up to the half it is there.
    above = logits >= 0
    size = jnp.where(above, logits, -logits)
    tail = jnp.log1p(jnp.exp(-size))
    loss = jnp.where(above, b, a) * size + (a + b) * tail
    if _is_off(focal_gamma):
        return loss
    # (1 − q)^γ by its logarithm: where q rounds to 1, the gradient of a power below 1 would be 0 · inf.
    log_wrong = -(jnp.where(above, y, 1 - y) * size + tail)
    return jnp.exp(focal_gamma * log_wrong) * loss


def softmax(
    logits: Float[Array, "*shape classes"],
    labels: Int[Array, "*shape"] | Float[Array, "*shape classes"],
    *,
    label_smoothing: Scalar = 0.0,
    focal_gamma: Scalar = 0.0,
) -> Float[Array, "*shape"]:
    """Return the cross-entropy of a softmax, from logits and unreduced.

    With p = softmax(z) over C classes and t = (1 − ε) · onehot(y) + ε/C::

        l = −(1 − p_y)^γ · Σ_c t_c · log p_c

    Smoothing is as in PyTorch's ``CrossEntropyLoss``, and so are probabilities π in place of ids, of which
    t = (1 − ε) · π + ε/C; the focal factor judges the label before smoothing; sources as ``logistic``.

    Args:
      logits: z, the classes on the last axis.
      labels: y, class ids in [0, C); an id out of range gives NaN, and so does −1. Or π, which add up to 1.
      label_smoothing: ε in [0, 1).
      focal_gamma: γ ≥ 0; for ids.

    Returns: the loss in nats, one an example.

    Raises:
      ValueError: for a focal factor of probabilities.

    >>> softmax(jnp.zeros((2, 4)), jnp.array([3, -1]))
    Array([1.3862944, nan], dtype=float32)
    """
    shifted = logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    log_total = jnp.log(jnp.exp(shifted).sum(axis=-1))
    if jnp.issubdtype(labels.dtype, jnp.floating):
        if not _is_off(focal_gamma):
            raise ValueError("focal_gamma: is for class ids, and labels are probabilities")
        t = labels.astype(logits.dtype)
        t = t if _is_off(label_smoothing) else (1 - label_smoothing) * t + label_smoothing / t.shape[-1]
        return log_total - (t * shifted).sum(axis=-1)
    # No gather: its gradient is a scatter, slow on a CPU, and it reads −1 as the last class.
    is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    aim = shifted.sum(axis=-1, where=is_label)
    if not _is_off(label_smoothing):
        aim = (1 - label_smoothing) * aim + label_smoothing * shifted.mean(axis=-1)
    loss = log_total - aim
    if not _is_off(focal_gamma):
        # From the other classes' logits: 1 − p_y is 0 long before its logarithm is −inf.
        log_others = jax.nn.logsumexp(jnp.where(is_label, -jnp.inf, shifted), axis=-1)
        loss = jnp.exp(focal_gamma * (log_others - log_total)) * loss
    # A product, so that a label out of range makes the gradient NaN too.
    return loss * jnp.where((labels >= 0) & (labels < logits.shape[-1]), 1, jnp.nan).astype(loss.dtype)


def squared(predictions: Float[Array, "*shape"], targets: Real[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the squared error (p − t)², unreduced and without a half.

    Args:
      predictions: p, of any shape, in the unit of the targets.
      targets: t, of the same shape.

    >>> squared(jnp.array([1.0, 2.0]), jnp.array([1.0, 5.0])).tolist()
    [0.0, 9.0]
    """
    return jnp.square(predictions - targets.astype(predictions.dtype))


def values(
    task: tasks.Task,
    outputs: Float[Array, "batch outputs"],
    labels: Real[Array, " batch"] | Float[Array, "batch outputs"],
    mask: Bool[Array, " batch"],
) -> Float[Array, " batch"]:
    """Return one task's unreduced losses; exactly zero, gradient included, where the label is missing.

    v_i = m_i · l(z_i, y_i), with l the loss of the task's kind, in 32 bits or more; 0 · NaN never arises.

    Args:
      task: which loss, and its options.
      outputs: the head's logits, or a regression's predictions.
      labels: class ids (integers) of a multiclass task, or its classes' probabilities; otherwise numbers, of a
        binary task in [0, 1]; anything where ``mask`` is false.
      mask: true where the label is present.

    Raises:
      ValueError: for outputs of another width than the task's, class ids that are not integers, or probabilities of
        a task that is not multiclass or has a focal factor.

    >>> labels, mask = jnp.array([1.0, jnp.nan]), jnp.array([True, False])
    >>> values(tasks.Task("toxic", "binary"), jnp.array([[0.0], [jnp.inf]]), labels, mask)
    Array([0.6931472, 0. ], dtype=float32)
    """
    if outputs.shape[-1] != task.outputs:
        raise ValueError(f'task "{task.name}": outputs of width {outputs.shape[-1]}: must be {task.outputs}')
    soft = labels.ndim == 2
    if soft and task.kind != "multiclass":
        raise ValueError(f'task "{task.name}": labels {labels.shape}: must be one number an example')
    if task.kind == "multiclass" and not soft and not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f'task "{task.name}": class ids of type {labels.dtype}: must be integers')
    # The double `where`: a missing slot is made harmless before the loss, or its gradient would be 0 · NaN;
    # and its loss is dropped after, for a harmless slot still has one.
    z = jnp.where(mask[:, None], outputs, 0).astype(jnp.promote_types(outputs.dtype, jnp.float32))
    y = jnp.where(mask[:, None] if soft else mask, labels, 0)
    eps, gamma = task.label_smoothing, task.focal_gamma
    if task.kind == "multiclass":
        loss = softmax(z, y if soft else y.astype(jnp.int32), label_smoothing=eps, focal_gamma=gamma)
    elif task.kind == "binary":
        loss = logistic(z[:, 0], y, pos_weight=task.pos_weight, label_smoothing=eps, focal_gamma=gamma)
    else:
        loss = squared(z[:, 0], y)
    return jnp.where(mask, loss, 0)


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


def _is_off(option: Scalar) -> bool:
    return isinstance(option, float | int) and option == 0  # A traced option may be anything.


def _same_tasks(one: Mapping[str, object], two: Mapping[str, object]) -> None:
    if one.keys() != two.keys():
        raise ValueError(f"tasks {sorted(one)} and {sorted(two)}: must be the same")


def _total(terms: Mapping[str, Float[Array, ""]]) -> Float[Array, ""]:
    # In the order of the names, for the same bits whatever the dictionary's.
    return functools.reduce(operator.add, (terms[name] for name in sorted(terms)))
