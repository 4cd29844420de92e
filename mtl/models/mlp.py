"""A multi-layer perceptron backbone."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl.ranges import Count, Dropout


class MLP(nn.Module):
    """Dense layers with ReLU, each followed by dropout; inputs of any rank are flattened.

    h₀ = vec(x),  hᵢ = dropout(relu(Wᵢ hᵢ₋₁ + bᵢ)),  features = h_L.

    Attributes:
      hidden: width of each layer, in order of depth.
      dropout: probability of dropping an activation while the layer trains.
    """

    hidden: tuple[Count, ...] = (64, 64)
    dropout: Dropout = 0.0

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Float[Array, "batch features"]:
        """Return features of numbers, [batch, …]; ``train`` says whether activations are dropped."""
        if not hasattr(x, "dtype") or jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(
                'model.name = "mlp": inputs are ids, or several leaves: must be one array of numbers; "embedding" '
                "takes ids, and a model of your own whatever there is"
            )
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.hidden):
            x = nn.relu(nn.Dense(width, name=f"dense_{i}")(x))
            if self.dropout:
                x = nn.Dropout(self.dropout, name=f"dropout_{i}")(x, deterministic=not train)
        return x
