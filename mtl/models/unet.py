"""An encoder and a decoder with skip connections, for tasks of images and of pixels side by side."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl.models.layers import check_images, normalize
from mtl.ranges import Count
from mtl.tasks import Task


class Block(nn.Module):
    """Two 3×3 convolutions, each with group normalisation and ReLU."""

    channels: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        """Return the block's output at the same resolution."""
        for i in range(2):
            x = nn.Conv(self.channels, (3, 3), use_bias=False, name=f"conv_{i}")(x)
            x = nn.relu(normalize(x, "group", train, f"norm_{i}"))
        return x


class UNet(nn.Module):
    """A U-Net whose tasks of whole images read the bottom, and whose dense tasks read the top.

    The encoder halves the resolution behind each block but the last; the decoder doubles it (each value four times) and
    sets beside it what the encoder had there. Features of a task with one label an image are the mean over the bottom,
    those of a dense task the decoder's last block, [batch, height, width, channels]. Where there is no dense task there
    is no decoder.

    Attributes:
      tasks: those that features are for.
      channels: of each block of the encoder, in order of depth; the decoder's are the same, backwards.

    Source: Ronneberger, Fischer & Brox (2015), arXiv:1505.04597; here with group normalisation and zero padding.
    """

    tasks: tuple[Task, ...]
    channels: tuple[Count, ...] = (16, 32, 64)

    @nn.compact
    def __call__(self, x: Float[Array, batch * image], train: bool) -> dict[str, Float[Array, "batch ..."]]:
        """Return features of each task; ``train`` says whether a block trains, which changes nothing here."""
        check_images("unet", x)
        skips: list[Array] = []
        for i, channels in enumerate(self.channels):
            x = Block(channels, name=f"down_{i}")(x if not i else nn.max_pool(x, (2, 2), (2, 2)), train)
            skips.append(x)
        found: dict[str, Array] = {t.name: jnp.mean(x, axis=(1, 2)) for t in self.tasks if not t.shape}
        if dense := [t.name for t in self.tasks if t.shape]:
            for i in reversed(range(len(self.channels) - 1)):
                x = jnp.concatenate([_doubled(x, skips[i].shape), skips[i]], axis=-1)
                x = Block(self.channels[i], name=f"up_{i}")(x, train)
            found |= dict.fromkeys(dense, x)
        return found


def _doubled(x: Float[Array, "b h w c"], wanted: tuple[int, ...]) -> Float[Array, "b h2 w2 c"]:
    """Return images at twice the resolution, with the last row and column once more where pooling has cut one."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)
    return jnp.pad(x, ((0, 0), (0, wanted[1] - 2 * h), (0, wanted[2] - 2 * w), (0, 0)), mode="edge")
