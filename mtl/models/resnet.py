"""Residual networks of basic blocks: ResNet-18 and ResNet-34."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl.models.layers import check_images, normalize, rematerialized
from mtl.ranges import Count

#: Blocks in each of the four stages, by depth.
STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
#: He-normal by fan-out, which keeps the variance of gradients (He et al. 2015, arXiv:1502.01852).
_he = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


class Stem(nn.Module):
    """First convolution: 3×3 for small images; 7×7 with stride 2 and 3×3 max-pooling with stride 2 for large ones."""

    channels: int
    kind: str
    norm: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        """Return the stem's output, at the same resolution or a quarter of it."""
        size, stride = (3, 1) if self.kind == "small" else (7, 2)
        x = nn.Conv(self.channels, (size, size), stride, size // 2, use_bias=False, kernel_init=_he, name="conv")(x)
        x = nn.relu(normalize(x, self.norm, train, "norm"))
        return x if self.kind == "small" else nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


class Block(nn.Module):
    """y = relu(shortcut(x) + norm(conv(relu(norm(conv x))))), where shapes change the shortcut is a 1×1 one."""

    channels: int
    stride: int
    norm: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        """Return the block's output, at 1/stride of the resolution."""
        y = nn.Conv(self.channels, (3, 3), self.stride, 1, use_bias=False, kernel_init=_he, name="conv_0")(x)
        y = nn.relu(normalize(y, self.norm, train, "norm_0"))
        y = nn.Conv(self.channels, (3, 3), 1, 1, use_bias=False, kernel_init=_he, name="conv_1")(y)
        y = normalize(y, self.norm, train, "norm_1")
        if x.shape != y.shape:
            x = nn.Conv(self.channels, (1, 1), self.stride, 0, use_bias=False, kernel_init=_he, name="shortcut_conv")(x)
            x = normalize(x, self.norm, train, "shortcut_norm")
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A residual network (He et al. 2015, arXiv:1512.03385), up to its global average pooling.

    Four stages of basic blocks with ``width``, 2·, 4· and 8·``width`` channels; each stage but the first halves the
    resolution. Zeros pad both sides alike, as in PyTorch.

    Attributes:
      depth: 18 or 34.
      width: channels of the stem and the first stage.
      stem: ``small`` keeps the resolution (32×32 images); ``large`` quarters it (224×224).
      norm: ``batch`` or ``group``.
      remat: whether the blocks' activations are computed again in the backward pass instead of kept.
    """

    depth: Literal[18, 34] = 18
    width: Count = 64
    stem: Literal["small", "large"] = "small"
    norm: Literal["batch", "group"] = "batch"
    remat: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, batch * image], train: bool) -> Float[Array, "b features"]:
        """Return features; ``train`` says whether batch statistics are used and updated."""
        check_images("resnet", x)
        x = Stem(self.width, self.stem, self.norm, name="stem")(x, train)
        strides = [2 if stage and not i else 1 for stage, n in enumerate(STAGES[self.depth]) for i in range(n)]
        channels = self.width
        for i, stride in enumerate(strides):
            channels *= stride  # Half the resolution, twice the channels.
            x = rematerialized(Block, self.remat)(channels, stride, self.norm, name=f"block_{i}")(x, train)
        return jnp.mean(x, axis=(1, 2))
