"""What the metrics share: their types, who takes part and with what weight, and what is undefined."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Real

#: Logits, a column each class, or one column: the logit of a binary task, the predictions of a regression.
Outputs = Float[Array, "n outputs"]
#: 0 or 1, class ids, or a regression's targets; anything where the label is missing.
Labels = Real[Array, " n"]
#: True where the label is present.
Mask = Bool[Array, " n"]
#: What each example weighs, at least 0.
Weights = Float[Array, " n"]
#: A number an example.
Vector = Float[Array, " n"]
#: A number.
Value = Float[Array, ""]


def weights_of(like: Float[Array, "n ..."], mask: Mask, weights: Weights | None) -> Weights:
    """Return each example's weight, 0 where its label is missing; from here on the mask is in the weights."""
    dtype = jnp.promote_types(like.dtype, jnp.float32)
    return mask.astype(dtype) if weights is None else jnp.where(mask, weights, 0).astype(dtype)


def widen(outputs: Float[Array, "n *shape outputs"]) -> Float[Array, "n *shape outputs"]:
    """Return the outputs in 32 bits or more."""
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))


def predicted(outputs: Outputs) -> Int[Array, " n"]:
    """Return the classes predicted: 1 where a binary logit is above 0, else the first of the largest."""
    return (outputs[:, 0] > 0).astype(jnp.int32) if outputs.shape[-1] == 1 else outputs.argmax(axis=-1)


def is_valid(outputs: Outputs, labels: Labels) -> Bool[Array, " n"]:
    """Tell where the label is a class and the outputs are numbers."""
    top = max(outputs.shape[-1], 2)
    is_class = (labels == jnp.floor(labels)) & (labels >= 0) & (labels < top)
    return is_class & ~jnp.isnan(outputs).any(axis=-1)


def all_valid(valid: Bool[Array, " n"], w: Weights) -> Bool[Array, ""]:
    """Tell whether every example that takes part is valid."""
    return jnp.all(valid | (w <= 0))


def defined_or_nan(value: Float[Array, "*shape"], where: Bool[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the values that are defined, NaN for the others."""
    return jnp.where(where, value, jnp.nan)
