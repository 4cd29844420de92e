"""Metrics of a ranking: areas under the ROC curve and under precision against recall, exact with ties."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from mtl.metrics import present
from mtl.metrics.present import Labels, Mask, Outputs, Value, Vector, Weights


def auroc(outputs: Outputs, labels: Labels, mask: Mask, weights: Weights | None = None) -> Value:
    """Return the area under the ROC curve of a binary task, exact, ties counted half.

    Σ_{i: y=1} Σ_{j: y=0} w_i w_j ([z_i > z_j] + ½ [z_i = z_j]) / (W₁ W₀), with W the weight of each class; by
    sorting, in n log n.

    Args:
      outputs: one column of scores.
      labels: 0 or 1.
      mask, weights: as ``accuracy``.

    Returns:
      A number in [0, 1]; NaN unless both classes are present.

    >>> scores, labels = jnp.array([[0.1], [0.4], [0.4], [0.8]]), jnp.array([0, 0, 1, 1])
    >>> float(auroc(scores, labels, jnp.ones(4, bool)))
    0.875
    >>> float(auroc(scores, jnp.ones(4), jnp.ones(4, bool)))
    nan

    Source: Hanley and McNeil (1982), doi:10.1148/radiology.143.1.7063747.
    """
    positive, negative, valid = _ranking(outputs, labels, mask, weights)
    # For each negative, the share of the positives above it, those that tie with it half.
    above = (positive.before + positive.upto) / 2 / positive.total
    wins = jnp.sum(negative.weight * above) / negative.total
    return present.defined_or_nan(wins, valid & (positive.total > 0) & (negative.total > 0))


def average_precision(outputs: Outputs, labels: Labels, mask: Mask, weights: Weights | None = None) -> Value:
    """Return the average precision of a binary task, exact, without interpolation.

    Σ_k (R_k − R_{k−1}) P_k over the distinct scores in descending order, with R_k and P_k the recall and the
    precision of predicting 1 from the k-th score up. Labels that are all 1 give 1.

    Args:
      outputs: one column of scores.
      labels: 0 or 1.
      mask, weights: as ``accuracy``.

    Returns:
      A number in (0, 1]; NaN if no label is 1.

    >>> scores, labels = jnp.array([[0.9], [0.8], [0.1]]), jnp.array([1, 0, 1])
    >>> round(float(average_precision(scores, labels, jnp.ones(3, bool))), 3)
    0.833

    Source: Davis and Goadrich (2006), doi:10.1145/1143844.1143874, as in scikit-learn.
    """
    positive, negative, valid = _ranking(outputs, labels, mask, weights)
    # A positive's own weight is in `upto`, so that only terms of weight 0 can be 0 / 0.
    precision = positive.upto / (positive.upto + negative.upto)
    area = jnp.sum(positive.weight * precision, where=positive.weight > 0) / positive.total
    return present.defined_or_nan(area, valid & (positive.total > 0))


class _Ranked(NamedTuple):
    """Weights by descending score; their sums before each group of ties and up to its end; their total."""

    weight: Vector
    before: Vector
    upto: Vector
    total: Value


def _ranking(
    outputs: Outputs, labels: Labels, mask: Mask, weights: Weights | None
) -> tuple[_Ranked, _Ranked, Bool[Array, ""]]:
    """Rank the positives and the negatives together; tell whether every present slot is valid."""
    w = present.weights_of(outputs, mask, weights)
    scores = jnp.where(w > 0, present.widen(outputs)[:, 0], 0)
    one, zero = jnp.where(labels == 1, w, 0), jnp.where(labels == 0, w, 0)
    keys, one, zero = jax.lax.sort((-scores, one, zero), num_keys=1)
    new = jnp.concatenate([jnp.ones(1, bool), keys[1:] != keys[:-1]])
    last = jnp.roll(new, -1)

    def ranked(weight: Vector) -> _Ranked:
        upto = jnp.cumsum(weight)
        before = jnp.concatenate([jnp.zeros(1, upto.dtype), upto[:-1]])
        # Sums never fall: a group starts at the largest `before` so far, ends at the least `upto` to come.
        before = jax.lax.cummax(jnp.where(new, before, 0))
        upto = jax.lax.cummin(jnp.where(last, upto, jnp.inf), reverse=True)
        return _Ranked(weight, before, upto, weight.sum())

    return ranked(one), ranked(zero), present.all_valid(present.is_valid(outputs, labels), w)
