"""Layers whose operations have twins (see ``mtl.models.ops``), with Flax's names, shapes and initial weights."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from mtl.models import ops


class Conv(nn.Module):
    """Convolution with the parameters of ``nn.Conv``: ``kernel`` [k, k, c, d], LeCun-normal, and ``bias`` [d], zero.

    Attributes:
      features: d, channels out.
      size: k, side of the kernel.
      stride: both ways.
      padding: ``SAME``, ``VALID`` or a number of zeros on each side, see ``ops.conv``.
      use_bias: whether a bias is added.
      kernel_init: initial kernel.
      implementation: ``xla``, ``twin`` or the backend's, see ``mtl.models.ops``.
    """

    features: int
    size: int = 3
    stride: int = 1
    padding: ops.Padding = "SAME"
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    implementation: ops.Implementation | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """Return the convolution of images."""
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, x.shape[-1], self.features))
        y = ops.conv(x, kernel, self.stride, self.padding, self.implementation)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,))[None, None, None]
        return y


class DepthwiseConv(nn.Module):
    """Convolution of each channel by itself, as ``nn.Conv`` with as many groups as channels: ``kernel`` [k, k, 1, c].

    Attributes: as ``Conv``'s.
    """

    size: int = 3
    stride: int = 1
    padding: ops.Padding = "SAME"
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    implementation: ops.Implementation | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        """Return the convolution of images."""
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, 1, x.shape[-1]))
        y = ops.depthwise_conv(x, kernel, self.stride, self.padding, self.implementation)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (x.shape[-1],))[None, None, None]
        return y
