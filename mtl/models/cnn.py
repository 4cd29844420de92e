"""A small convolutional backbone, with group, batch or no normalisation."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
from jaxtyping import Array, Float

from mtl.models.layers import check_images, rematerialized
from mtl.ranges import Count


def _groups(channels: int) -> int:
    """Return the largest number of groups, up to 8, that divides the channels."""
    return max(n for n in range(1, 9) if channels % n == 0)


class Block(nn.Module):
    """3×3 convolution, normalisation, ReLU, 2×2 max-pooling."""

    channels: int
    norm: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        """Return the block's output at half the resolution."""
        x = nn.Conv(self.channels, (3, 3), use_bias=self.norm == "none", name="conv")(x)
        if self.norm == "group":
            x = nn.GroupNorm(_groups(self.channels), use_fast_variance=False, name="norm")(x)
        elif self.norm == "batch":
            x = nn.BatchNorm(not train, momentum=0.9, use_fast_variance=False, name="norm")(x)
        return nn.max_pool(nn.relu(x), (2, 2), (2, 2))


class CNN(nn.Module):
    """Convolutional blocks, each at half the resolution of the one before, then one dense layer.

    GroupNorm is the default: it has no running statistics, so freezing it freezes everything. With BatchNorm the
    statistics of a frozen block stay as they are, since frozen blocks run in eval mode (Wu & He 2018,
    arXiv:1803.08494; Ioffe & Szegedy 2015, arXiv:1502.03167).

    Attributes:
      channels: output channels of each block, in order of depth.
      features: width of the dense layer.
      norm: ``group``, ``batch`` or ``none``.
      remat: whether the blocks' activations are computed again in the backward pass instead of kept.
    """

    channels: tuple[Count, ...] = (16, 32)
    features: Count = 64
    norm: Literal["group", "batch", "none"] = "group"
    remat: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, batch * image], train: bool) -> Float[Array, "b features"]:
        """Return features; ``train`` says whether batch statistics are used and updated."""
        check_images("cnn", x)
        for i, channels in enumerate(self.channels):
            x = rematerialized(Block, self.remat)(channels, self.norm, name=f"block_{i}")(x, train)
        return nn.relu(nn.Dense(self.features, name="dense")(x.reshape(x.shape[0], -1)))
