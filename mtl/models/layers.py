"""What several backbones share: normalisation, a check of their inputs, recomputed activations."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl import cpu
from mtl.cpu import replace


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` with a variance of two passes, by a kernel on a CPU."""

    use_fast_variance: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*rows c"], *, mask: Array | None = None) -> Float[Array, "*rows c"]:
        """Return rows of mean 0 and variance 1, scaled and shifted."""
        if mask is not None or not replace.used():
            return super().__call__(x, mask=mask)
        scale = self.param("scale", self.scale_init, (x.shape[-1],))
        bias = self.param("bias", self.bias_init, (x.shape[-1],))
        return cpu.layer_norm(x, jnp.asarray(scale), jnp.asarray(bias), self.epsilon)


def normalize(x: Float[Array, "b h w c"], kind: str, train: bool, name: str) -> Float[Array, "b h w c"]:
    """Return normalised images, by a layer of the calling module.

    Variances take two passes: E[x²] − E[x]² in float32 loses a spread of 1 around 10,000.

    Args:
      x: images.
      kind: ``batch`` (Ioffe & Szegedy 2015, arXiv:1502.03167; running averages with momentum 0.9) or ``group`` (Wu & He
        2018, arXiv:1803.08494; 32 groups, or as many as divide both 32 and the channels).
      train: whether batch statistics are those of the batch, and update the running ones.
      name: of the layer.
    """
    if kind == "batch":
        return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, use_fast_variance=False, name=name)(x)
    return nn.GroupNorm(math.gcd(32, x.shape[-1]), epsilon=1e-5, use_fast_variance=False, name=name)(x)


def check_images(model: str, x: Array) -> None:
    """Check that inputs are images.

    Args:
      model: what a config calls the backbone.
      x: inputs, with the axis of the batch.

    Raises:
      ValueError: for inputs of another rank than [batch, height, width, channels].
    """
    if x.ndim != 4:
        raise ValueError(
            f'model.name = "{model}": inputs are of shape {x.shape[1:]}: must be images (height, width, channels)'
        )


def rematerialized(block: Any, on: bool) -> Any:
    """Return a block's class whose activations are computed again in the backward pass, where that is on.

    Between blocks only their inputs are kept: memory for about one more forward pass (Chen et al. 2016,
    arXiv:1604.06174). Parameters, values and gradients are the same.

    Args:
      block: a Linen module whose ``__call__`` takes (x, train).
      on: whether it is.
    """
    return nn.remat(block, static_argnums=(2,)) if on else block
