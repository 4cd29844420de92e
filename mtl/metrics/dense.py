"""Metrics of dense tasks, whose labels are at many positions of each example: pixels of an image.

An example's weight is that of all its positions, so that intervals are over images and not over pixels, which are
anything but independent.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Real

from mtl.metrics import present
from mtl.metrics.present import Value, Weights

#: Logits of each class, or one prediction, at each position.
Outputs = Float[Array, "n *shape outputs"]
#: Class ids, or numbers; anything where the label is missing.
Labels = Real[Array, "n ..."]
#: True where the label is present.
Mask = Bool[Array, "n ..."]


def iou(outputs: Outputs, labels: Labels, mask: Mask, weights: Weights | None = None) -> Value:
    """Return the mean intersection over union of the classes (the Jaccard index, macro-averaged).

    The mean over classes c of Σ_i w_i |A_ic ∩ B_ic| / Σ_i w_i |A_ic ∪ B_ic|, where A_ic are the positions of example i
    that are labelled c, and B_ic those that are predicted so, among those with a label. The mean is over the classes
    that appear in either, in any example.

    Args:
      outputs: logits; the largest is predicted.
      labels: class ids.
      mask: true where the label is present.
      weights: w ≥ 0, one an example; all 1 if not given.

    Returns:
      A number in [0, 1]; NaN without labels.

    >>> logits = jnp.array([[[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]]])
    >>> round(float(iou(logits, jnp.array([[0, 1, 1, 1]]), jnp.ones((1, 4), bool))), 4)
    0.5833

    Source: Everingham et al. (2010), The PASCAL visual object classes (VOC) challenge.
    """
    there = _flat(mask)
    predicted, truth = _flat(outputs.argmax(axis=-1)), _flat(labels)
    classes = jnp.arange(outputs.shape[-1])
    is_label = (truth[..., None] == classes[None, None]) & there[..., None]
    is_predicted = (predicted[..., None] == classes[None, None]) & there[..., None]
    both = (is_label & is_predicted).sum(axis=1, dtype=jnp.float32)
    either = (is_label | is_predicted).sum(axis=1, dtype=jnp.float32)
    w = _weights(there, weights)[:, None]
    shared, total = (w * both).sum(axis=0), (w * either).sum(axis=0)
    valid = (truth >= 0) & (truth < len(classes)) & ~_flat(jnp.isnan(outputs).any(axis=-1))
    defined = (total > 0).any() & (valid | ~there | (w <= 0)).all()
    return present.defined_or_nan(jnp.mean(shared / jnp.where(total > 0, total, 1), where=total > 0), defined)


def pixel_accuracy(outputs: Outputs, labels: Labels, mask: Mask, weights: Weights | None = None) -> Value:
    """Return the share of positions whose class is predicted right: Σ_i w_i (right)_i / Σ_i w_i (labelled)_i.

    Args:
      outputs, labels, mask, weights: as ``iou``.

    Returns:
      A number in [0, 1]; NaN without labels.

    >>> logits = jnp.array([[[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]]])
    >>> float(pixel_accuracy(logits, jnp.array([[0, 1, 1, 1]]), jnp.ones((1, 4), bool)))
    0.75
    """
    truth, classes = _flat(labels), outputs.shape[-1]
    right = (_flat(outputs.argmax(axis=-1)) == truth).astype(jnp.float32)
    valid = (truth >= 0) & (truth < classes) & ~_flat(jnp.isnan(outputs).any(axis=-1))
    return _mean(jnp.where(valid, right, jnp.nan), _flat(mask), weights)


def pixel_squared_error(outputs: Outputs, labels: Labels, mask: Mask, weights: Weights | None = None) -> Value:
    """Return the mean squared error over positions: Σ_i w_i Σ_p (ŷ_ip − y_ip)² / Σ_i w_i (labelled)_i.

    Args:
      outputs: one prediction a position.
      labels: numbers, in the same unit.
      mask, weights: as ``iou``.

    Returns:
      That unit squared; NaN without labels.

    >>> float(pixel_squared_error(jnp.array([[[1.0], [2.0]]]), jnp.array([[1.0, 4.0]]), jnp.ones((1, 2), bool)))
    2.0
    """
    errors = jnp.square(present.widen(outputs)[..., 0] - labels)
    return _mean(_flat(errors), _flat(mask), weights)


def _flat(values: Array) -> Array:
    """Return what has one number a position as [n, positions]."""
    return values.reshape(len(values), -1)


def _weights(there: Array, weights: Weights | None) -> Array:
    own = jnp.ones(len(there), jnp.float32) if weights is None else weights.astype(jnp.float32)
    return jnp.where(there.any(axis=1), own, 0)


def _mean(values: Array, there: Array, weights: Weights | None) -> Value:
    """Return the weighted mean over the positions that are there."""
    w = _weights(there, weights)
    sums, counts = jnp.sum(values, axis=1, where=there), there.sum(axis=1)
    total = jnp.sum(w * counts)
    return present.defined_or_nan(jnp.sum(jnp.where(w > 0, w * sums, 0)) / jnp.where(total > 0, total, 1), total > 0)
