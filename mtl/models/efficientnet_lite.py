"""EfficientNet-Lite: inverted bottlenecks with depthwise convolutions, ReLU6, no squeeze-and-excitation."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl.models.layers import check_images, normalize, rematerialized
from mtl.ranges import Count

#: Stages of Lite0: (kernel, stride, expansion, channels, blocks).
LITE0 = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_he = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
#: Of a kernel [k, k, 1, c] each output sees k·k places, and so does each input: fan-in is what fan-out should be.
_he_depthwise = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


class ConvNorm(nn.Module):
    """Convolution and normalisation, then ReLU6."""

    channels: int
    size: int
    stride: int
    norm: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        """Return the layer's output."""
        k, pad = (self.size, self.size), self.size // 2
        x = nn.Conv(self.channels, k, self.stride, pad, use_bias=False, kernel_init=_he, name="conv")(x)
        return nn.relu6(normalize(x, self.norm, train, "norm"))


class Bottleneck(nn.Module):
    """1×1 expansion (if any), k×k depthwise, 1×1 projection without a nonlinearity; x is added where shapes agree."""

    channels: int
    size: int
    stride: int
    expansion: int
    norm: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        """Return the block's output, at 1/stride of the resolution."""
        y = x
        if self.expansion > 1:
            y = nn.Conv(x.shape[-1] * self.expansion, (1, 1), use_bias=False, kernel_init=_he, name="expand")(y)
            y = nn.relu6(normalize(y, self.norm, train, "expand_norm"))
        c, k, pad = y.shape[-1], (self.size, self.size), self.size // 2
        y = nn.Conv(
            c, k, self.stride, pad, feature_group_count=c, use_bias=False, kernel_init=_he_depthwise, name="depthwise"
        )(y)
        y = nn.relu6(normalize(y, self.norm, train, "depthwise_norm"))
        y = nn.Conv(self.channels, (1, 1), use_bias=False, kernel_init=_he, name="project")(y)
        y = normalize(y, self.norm, train, "project_norm")
        return x + y if x.shape == y.shape else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0 (after Tan & Le 2019, arXiv:1905.11946), up to its global average pooling.

    Lite leaves out squeeze-and-excitation and has ReLU6 in place of swish; its stem and its last layer do not scale.
    Zeros pad both sides alike, as in PyTorch.

    Attributes:
      stages: (kernel, stride, expansion, channels, blocks) of each stage.
      stem: channels of the first convolution.
      stem_stride: its stride; 1 for small images.
      features: channels of the last 1×1 convolution.
      norm: ``batch`` or ``group``.
      remat: whether the blocks' activations are computed again in the backward pass instead of kept.
    """

    stages: tuple[tuple[Count, Count, Count, Count, Count], ...] = LITE0
    stem: Count = 32
    stem_stride: Count = 2
    features: Count = 1280
    norm: Literal["batch", "group"] = "batch"
    remat: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, batch * image], train: bool) -> Float[Array, "b features"]:
        """Return features; ``train`` says whether batch statistics are used and updated."""
        check_images("efficientnet_lite", x)
        x = ConvNorm(self.stem, 3, self.stem_stride, self.norm, name="stem")(x, train)
        blocks = [
            (channels, size, 1 if i else stride, expansion)
            for size, stride, expansion, channels, count in self.stages
            for i in range(count)
        ]
        for i, block in enumerate(blocks):
            x = rematerialized(Bottleneck, self.remat)(*block, self.norm, name=f"block_{i}")(x, train)
        x = ConvNorm(self.features, 1, 1, self.norm, name="top")(x, train)
        return jnp.mean(x, axis=(1, 2))
