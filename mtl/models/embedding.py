"""A backbone for texts: the mean of its words' vectors, then dense layers."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl.ranges import Count, Dropout


class Embedding(nn.Module):
    """A bag of words: each id has a vector, and a text the mean of its words' vectors; then dense layers with ReLU.

    h₀ = Σᵢ [xᵢ ≠ 0] E[xᵢ] / max(1, Σᵢ [xᵢ ≠ 0]),  hᵢ = dropout(relu(Wᵢ hᵢ₋₁ + bᵢ)),  features = h_L.

    Id 0 is padding: it changes nothing.

    Attributes:
      vocabulary: how many ids there are; left open, as many as the data have.
      width: of the words' vectors.
      hidden: width of each layer, in order of depth.
      dropout: probability of dropping an activation while the layer trains, the mean's too.

    Source: A. Joulin, E. Grave, P. Bojanowski and T. Mikolov 2017 (arXiv:1607.01759), which has no dense layers.
    """

    vocabulary: Count
    width: Count = 64
    hidden: tuple[Count, ...] = (64,)
    dropout: Dropout = 0.0

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Float[Array, "batch features"]:
        """Return features of texts, [batch, length] ids; ``train`` says whether activations are dropped."""
        if not (hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.integer) and x.ndim == 2):
            raise ValueError(
                'model.name = "embedding": inputs are no texts: must be [N, length] ids, of which the data say '
                "how many there are (vocabulary)"
            )
        vectors = nn.Embed(self.vocabulary, self.width, name="embed")(x)
        words = (x != 0).astype(vectors.dtype)[:, :, None]
        h = (vectors * words).sum(axis=1) / jnp.maximum(words.sum(axis=1), 1)
        h = nn.Dropout(self.dropout, name="dropout_embed")(h, deterministic=not train) if self.dropout else h
        for i, width in enumerate(self.hidden):
            h = nn.relu(nn.Dense(width, name=f"dense_{i}")(h))
            if self.dropout:
                h = nn.Dropout(self.dropout, name=f"dropout_{i}")(h, deterministic=not train)
        return h
