"""The CNN that is timed, as somebody else would write it: an NNX module that knows nothing of ours."""

from __future__ import annotations

import jax
from flax import nnx

import mtl.models


class Net(nnx.Module):
    """3×3 convolutions with ReLU and 2×2 max-pooling, then a dense layer; of 28×28 images of one channel."""

    def __init__(self, channels: tuple[int, ...], features: int, *, rngs: nnx.Rngs):
        """Make its layers."""
        sizes = (1, *channels)
        self.convs = nnx.List(nnx.Conv(a, b, (3, 3), rngs=rngs) for a, b in zip(sizes, channels, strict=False))
        side = 28 // 2 ** len(channels)
        self.dense = nnx.Linear(side * side * channels[-1], features, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return features."""
        for conv in self.convs:
            x = nnx.max_pool(nnx.relu(conv(x)), (2, 2), (2, 2))
        return nnx.relu(self.dense(x.reshape(len(x), -1)))


mtl.models.register("foreign")(Net)
