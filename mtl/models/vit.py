"""Vision transformers."""

from __future__ import annotations

import functools
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl import cpu
from mtl.models.layers import LayerNorm, check_images, rematerialized
from mtl.ranges import Count, Dropout, Positive


class Embed(nn.Module):
    """Patches → tokens: a linear map of each patch, a class token before them if asked, learned positions added."""

    patch: int
    width: int
    pool: str
    dropout: float

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b t width"]:
        """Return the tokens."""
        x = nn.Conv(self.width, (self.patch, self.patch), self.patch, "VALID", name="conv")(x)
        x = x.reshape(x.shape[0], -1, self.width)
        if self.pool == "cls":
            token = self.param("cls", nn.initializers.zeros, (1, 1, self.width))
            x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.width)).astype(x.dtype), x], axis=1)
        x = x + self.param("position", nn.initializers.normal(0.02), (1, x.shape[1], self.width))
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class Attention(nn.Module):
    """softmax(Q Kᵀ / √d) V for each head, and a linear map of what the heads say side by side."""

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "b t width"]) -> Float[Array, "b t width"]:
        """Return what the tokens gather from one another."""
        width = x.shape[-1]
        qkv = nn.Dense(3 * width, kernel_init=nn.initializers.xavier_uniform(), name="qkv")(x)
        y = cpu.attend(qkv, self.heads)
        return nn.Dense(width, kernel_init=nn.initializers.xavier_uniform(), name="out")(y)


class Block(nn.Module):
    """x ← x + attention(norm x), x ← x + mlp(norm x)."""

    heads: int
    mlp_ratio: float
    dropout: float
    gelu: str

    @nn.compact
    def __call__(self, x: Float[Array, "b t width"], train: bool) -> Float[Array, "b t width"]:
        """Return the tokens after the block."""
        width = x.shape[-1]
        drop = nn.Dropout(self.dropout, deterministic=not train)
        dense = functools.partial(
            nn.Dense, kernel_init=nn.initializers.xavier_uniform(), bias_init=nn.initializers.normal(1e-6)
        )
        y = Attention(self.heads, name="attention")(LayerNorm(name="norm_0")(x))
        x = x + drop(y)
        y = dense(int(width * self.mlp_ratio), name="mlp_0")(LayerNorm(name="norm_1")(x))
        y = drop(cpu.gelu(y) if self.gelu == "exact" else nn.gelu(y))
        return x + drop(dense(width, name="mlp_1")(y))


class ViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2020, arXiv:2010.11929), up to its last normalisation.

    By default ViT-Ti (width 192, 12 blocks, 3 heads; Steiner et al. 2021, arXiv:2106.10270) on 4×4 patches, for
    32×32 images. Ti/16, for 224×224, is ``patch=16``; S has width 384 and 6 heads, B width 768 and 12 heads.

    Attributes:
      patch: side of a patch; it divides the sides of the images.
      width: of the tokens.
      depth: number of blocks.
      heads: of the attention; they divide the width.
      mlp_ratio: hidden units of a block's MLP, over the width.
      pool: ``cls``: the features are those of a class token; ``mean``: the mean of the patches' tokens.
      dropout: after the embedding, the attention and both layers of the MLP.
      gelu: ``exact``, or its ``tanh`` approximation (Hendrycks & Gimpel 2016, arXiv:1606.08415; within 5e-4).
      remat: whether the blocks' activations are computed again in the backward pass instead of kept.
    """

    patch: Count = 4
    width: Count = 192
    depth: Count = 12
    heads: Count = 3
    mlp_ratio: Positive = 4.0
    pool: Literal["cls", "mean"] = "cls"
    dropout: Dropout = 0.0
    gelu: Literal["exact", "tanh"] = "exact"
    remat: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, batch * image], train: bool) -> Float[Array, "b features"]:
        """Return features; ``train`` says whether activations are dropped.

        Raises:
          ValueError: for heads that do not divide the width, and patches that do not divide the images.
        """
        check_images("vit", x)
        if self.width % self.heads:
            raise ValueError(f"model.options.heads = {self.heads}: must divide width = {self.width}")
        if any(side % self.patch for side in x.shape[1:3]):
            raise ValueError(
                f"model.options.patch = {self.patch}: must divide the sides of the images, {x.shape[1]}×{x.shape[2]}"
            )
        x = Embed(self.patch, self.width, self.pool, self.dropout, name="embed")(x, train)
        for i in range(self.depth):
            block = rematerialized(Block, self.remat)
            x = block(self.heads, self.mlp_ratio, self.dropout, self.gelu, name=f"block_{i}")(x, train)
        # Normalisation is by token, so the class token alone may be normalised.
        x = x[:, 0] if self.pool == "cls" else x
        x = LayerNorm(name="norm")(x)
        return x if self.pool == "cls" else jnp.mean(x, axis=1)
