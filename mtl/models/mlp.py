"""A multi-layer perceptron backbone."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from mtl.models.layers import Dense
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

    def blocks(self) -> tuple[str, ...]:
        """Return the names of the layers in order of depth."""
        return tuple(f"dense_{i}" for i in range(len(self.hidden)))

    @nn.compact
    def __call__(self, x: Float[Array, batch * shape], train: tuple[bool, ...]) -> Float[Array, "batch features"]:
        """Return features; ``train[i]`` says whether layer i drops activations."""
        x = x.reshape(x.shape[0], -1)
        for i, (name, width) in enumerate(zip(self.blocks(), self.hidden, strict=True)):
            x = nn.relu(Dense(width, name=name)(x))
            if self.dropout:
                x = nn.Dropout(self.dropout, name=f"dropout_{i}")(x, deterministic=not train[i])
        return x
