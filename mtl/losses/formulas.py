"""Losses from logits or predictions, unreduced: a number each."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Real

#: A number known before compilation, or one that a compiled program takes as an argument.
Scalar = float | int | Float[Array, ""]


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


def _is_off(option: Scalar) -> bool:
    return isinstance(option, float | int) and option == 0  # A traced option may be anything.
