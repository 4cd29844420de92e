"""Metrics that are averages over examples: accuracy, log loss, Brier score, squared error."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtl import losses
from mtl.metrics import present
from mtl.metrics.present import Labels, Mask, Outputs, Value, Vector, Weights


def accuracy(outputs: Outputs, labels: Labels, mask: Mask, weights: Weights | None = None) -> Value:
    """Return the share of labels that are predicted right.

    Σ_i w_i [ŷ_i = y_i] / Σ_i w_i, where ŷ is 1 if the binary logit is above 0, or the largest class.

    Args:
      outputs: logits.
      labels: 0 or 1, or class ids.
      mask: true where the label is present.
      weights: w ≥ 0; all 1 if not given.

    Returns:
      A number in [0, 1]; NaN without labels.

    >>> float(accuracy(jnp.array([[2.0], [-1.0]]), jnp.array([1, 1]), jnp.array([True, True])))
    0.5
    """
    return _mean(accuracy_each(outputs, labels), mask, weights)


def log_loss(outputs: Outputs, labels: Labels, mask: Mask, weights: Weights | None = None) -> Value:
    """Return the mean negative log-likelihood of the labels.

    −Σ_i w_i log p_i(y_i) / Σ_i w_i, from logits; nothing is clipped, smoothed or reweighted by class.

    Args:
      outputs, labels, mask, weights: as ``accuracy``.

    Returns:
      Nats; NaN without labels.

    >>> round(float(log_loss(jnp.zeros((2, 1)), jnp.array([1, 0]), jnp.array([True, True]))), 3)
    0.693
    """
    return _mean(log_loss_each(outputs, labels), mask, weights)


def brier(outputs: Outputs, labels: Labels, mask: Mask, weights: Weights | None = None) -> Value:
    """Return the Brier score, the mean squared error of the probabilities.

    Binary: the mean of (p_i − y_i)², in [0, 1]. Multiclass: of Σ_c (p_ic − [y_i = c])², in [0, 2], and
    twice the binary score for two classes.

    Args:
      outputs, labels, mask, weights: as ``accuracy``.

    Returns:
      The score; NaN without labels.

    >>> float(brier(jnp.zeros((2, 1)), jnp.array([1, 0]), jnp.array([True, True])))
    0.25

    Source: Brier (1950), Verification of forecasts expressed in terms of probability.
    """
    return _mean(brier_each(outputs, labels), mask, weights)


def squared_error(outputs: Outputs, labels: Labels, mask: Mask, weights: Weights | None = None) -> Value:
    """Return the mean squared error, Σ_i w_i (ŷ_i − y_i)² / Σ_i w_i.

    Args:
      outputs: one column of predictions ŷ.
      labels: y, in the same unit.
      mask, weights: as ``accuracy``.

    Returns:
      That unit squared; NaN without labels.

    >>> float(squared_error(jnp.array([[1.0], [2.0]]), jnp.array([1.0, 4.0]), jnp.array([True, True])))
    2.0
    """
    return _mean(squared_error_each(outputs, labels), mask, weights)


def accuracy_each(outputs: Outputs, labels: Labels) -> Vector:
    """Return 1 where the prediction is right, 0 where wrong, NaN where the label is none."""
    right = (present.predicted(outputs) == labels).astype(present.widen(outputs).dtype)
    return present.defined_or_nan(right, present.is_valid(outputs, labels))


def log_loss_each(outputs: Outputs, labels: Labels) -> Vector:
    """Return −log p(y), NaN where the label is none."""
    valid, logits = present.is_valid(outputs, labels), present.widen(outputs)
    y = jnp.where(valid, labels, 0)
    if outputs.shape[-1] == 1:
        return present.defined_or_nan(losses.logistic(logits[:, 0], y), valid)
    return present.defined_or_nan(losses.softmax(logits, y.astype(jnp.int32)), valid)


def brier_each(outputs: Outputs, labels: Labels) -> Vector:
    """Return the squared error of the probabilities, NaN where the label is none."""
    valid, logits = present.is_valid(outputs, labels), present.widen(outputs)
    if outputs.shape[-1] == 1:
        return present.defined_or_nan(jnp.square(jax.nn.sigmoid(logits[:, 0]) - labels), valid)
    target = labels[:, None] == jnp.arange(outputs.shape[-1])[None, :]
    error = jax.nn.softmax(logits, axis=-1) - target
    return present.defined_or_nan(jnp.square(error).sum(axis=-1), valid)


def squared_error_each(outputs: Outputs, labels: Labels) -> Vector:
    """Return (ŷ − y)², NaN where the label is."""
    return losses.squared(present.widen(outputs)[:, 0], labels)


def _mean(values: Vector, mask: Mask, weights: Weights | None) -> Value:
    w = present.weights_of(values, mask, weights)
    total = w.sum()
    return present.defined_or_nan(jnp.sum(jnp.where(w > 0, w * values, 0)) / total, total > 0)
