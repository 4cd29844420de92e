"""Metrics of sums over all examples that are no averages of them: F1, calibration error, R²."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtl.metrics import averages, present
from mtl.metrics.present import Labels, Mask, Outputs, Value, Weights

#: Bins of confidence in ``ece``, of equal width.
ECE_BINS = 15


def f1(outputs: Outputs, labels: Labels, mask: Mask, weights: Weights | None = None) -> Value:
    """Return F1: of class 1 of a binary task, the macro average over classes of a multiclass one.

    2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall. The macro average is over the classes
    that appear among the present labels or the predictions for them, as in scikit-learn.

    Args:
      outputs, labels, mask, weights: as ``accuracy``.

    Returns:
      A number in [0, 1]; NaN for 0 / 0: no label at all, or of a binary task no label and no prediction of 1.

    >>> logits = jnp.array([[1.0], [1.0], [-1.0]])
    >>> round(float(f1(logits, jnp.array([1, 0, 0]), jnp.ones(3, bool))), 3)
    0.667
    >>> float(f1(-jnp.ones((3, 1)), jnp.zeros(3), jnp.ones(3, bool)))
    nan
    """
    w = present.weights_of(outputs, mask, weights)
    classes = jnp.arange(1, 2) if outputs.shape[-1] == 1 else jnp.arange(outputs.shape[-1])
    is_label = labels[:, None] == classes[None, :]
    is_predicted = present.predicted(outputs)[:, None] == classes[None, :]
    hits = jnp.where(is_label & is_predicted, w[:, None], 0).sum(axis=0)
    both = jnp.where(is_label, w[:, None], 0).sum(axis=0)
    both += jnp.where(is_predicted, w[:, None], 0).sum(axis=0)
    appears = both > 0
    valid = present.all_valid(present.is_valid(outputs, labels), w)
    return present.defined_or_nan(jnp.mean(2 * hits / both, where=appears), appears.any() & valid)


def ece(outputs: Outputs, labels: Labels, mask: Mask, weights: Weights | None = None) -> Value:
    """Return the expected calibration error of the predicted class, in 15 bins of equal width.

    Σ_b (W_b / W) |acc_b − conf_b|, where bin b holds the examples whose confidence, the probability of the
    class predicted, is in ((b − 1)/15, b/15]; W_b is their weight, acc_b and conf_b their mean accuracy and
    confidence. A binary task's confidence is max(p, 1 − p). With few labels, the estimate is biased upwards.

    Args:
      outputs, labels, mask, weights: as ``accuracy``.

    Returns:
      A number in [0, 1]; NaN without labels.

    >>> float(ece(jnp.zeros((4, 1)), jnp.array([0, 0, 1, 0]), jnp.ones(4, bool)))
    0.25

    Source: Guo, Pleiss, Sun and Weinberger (2017), arXiv:1706.04599.
    """
    w = present.weights_of(outputs, mask, weights)
    if outputs.shape[-1] == 1:
        confidence = jax.nn.sigmoid(jnp.abs(present.widen(outputs)[:, 0]))
    else:
        confidence = jax.nn.softmax(present.widen(outputs), axis=-1).max(axis=-1)
    gap = jnp.where(w > 0, w * (averages.accuracy_each(outputs, labels) - confidence), 0)
    edges = jnp.arange(1, ECE_BINS) / ECE_BINS
    in_bin = jax.nn.one_hot(jnp.searchsorted(edges, confidence, side="left"), ECE_BINS, dtype=bool)
    gaps = jnp.where(in_bin, gap[:, None], 0).sum(axis=0)
    total = w.sum()
    return present.defined_or_nan(jnp.abs(gaps).sum() / total, total > 0)


def r2(outputs: Outputs, labels: Labels, mask: Mask, weights: Weights | None = None) -> Value:
    """Return the coefficient of determination, 1 − Σ_i w_i (y_i − ŷ_i)² / Σ_i w_i (y_i − ȳ)².

    Args:
      outputs: one column of predictions ŷ.
      labels: y, in the same unit; ȳ is their weighted mean.
      mask, weights: as ``accuracy``.

    Returns:
      A number of at most 1, without unit; NaN where the present labels are all the same.

    >>> labels, mask = jnp.array([1.0, 2.0, 3.0]), jnp.ones(3, bool)
    >>> float(r2(jnp.array([[1.0], [2.0], [2.0]]), labels, mask))
    0.5
    >>> float(r2(jnp.zeros((3, 1)), jnp.full(3, 0.1), mask))
    nan
    """
    w = present.weights_of(outputs, mask, weights)
    kept = w > 0
    y = jnp.where(kept, labels.astype(w.dtype), 0)
    mean = jnp.sum(w * y) / w.sum()
    residual = jnp.sum(jnp.where(kept, w * averages.squared_error_each(outputs, labels), 0))
    total = jnp.sum(w * jnp.square(y - mean))
    # By the extremes: the mean of equal numbers may round to another one, and the sum is then not 0.
    varies = jnp.max(y, where=kept, initial=-jnp.inf) > jnp.min(y, where=kept, initial=jnp.inf)
    return present.defined_or_nan(1 - residual / total, varies)
