"""Drawing many small things at once: coverage from signed distances, layers, patches pasted onto a batch.

Pixel arithmetic is float32 and only +, −, x, /, √, minimum and maximum, which round in one way only: an image has
the same bits whatever batch it is drawn in.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def column(values: Array | float) -> Array:
    """Return numbers, one an image, as [B, 1, 1] float32, to meet [B, height, width]."""
    return np.asarray(values, np.float32).reshape(-1, 1, 1)


def box(
    u: Array, v: Array, left: Array | float, right: Array | float, low: Array | float, high: Array | float
) -> Array:
    """Return the distance to a box, negative inside (largest of the distances to its sides)."""
    return np.maximum(np.maximum(left - u, u - right), np.maximum(low - v, v - high))


def disc(u: Array, v: Array, x: Array | float, y: Array | float, radius: Array | float) -> Array:
    """Return the distance to a disc, negative inside."""
    du, dv = u - x, v - y
    return np.sqrt(du * du + dv * dv) - radius


def octagon(u: Array, v: Array, x: float, y: float, radius: float) -> Array:
    """Return the distance to a regular octagon that lies on a side; ``radius`` is to the sides."""
    a, b = np.abs(u - x), np.abs(v - y)
    return np.maximum(np.maximum(a, b), (a + b) * np.float32(0.70710678)) - np.float32(radius)


def limb(
    u: Array, v: Array, x0: Array | float, y0: Array | float, x1: Array | float, y1: Array | float, r: float
) -> Array:
    """Return the distance to a thick segment with round ends."""
    dx, dy = x1 - x0, y1 - y0
    along = ((u - x0) * dx + (v - y0) * dy) / (dx * dx + dy * dy)
    along = np.minimum(np.maximum(along, 0), 1)
    return disc(u, v, x0 + along * dx, y0 + along * dy, r)


def blend(image: Array, cover: Array, colour: Array) -> None:
    """Lay a colour over images, in place: c ← c + a (colour − c).

    Args:
      image: [B, 3, height, width]. Channels come before pixels so that NumPy's innermost loop is a row.
      cover: a, [B, height, width] in [0, 1].
      colour: [3] or [B, 3], or [B, 3, height, width] and what broadcasts to it.
    """
    paint = np.asarray(colour, np.float32)
    paint = paint if paint.ndim == 4 else paint.reshape(-1, 3, 1, 1)
    change = paint - image
    change *= cover[:, None]
    image += change


class Patch:
    """A small picture an image, drawn layer by layer in the object's own units and then pasted.

    Args:
      x: [B], where the object's origin (the middle of its foot) lies, in pixels from the left.
      y: [B], the same from the top.
      scale: [B], pixels in the object's unit.
      extent: (left, right, low, high) of the object in its units; what lies beyond is cut.
    """

    def __init__(
        self, x: Array, y: Array, scale: Array, extent: tuple[float, float, float, float], most: float
    ) -> None:
        """Lay out the patch; ``most`` is the largest scale there can be, so that all patches have one size."""
        left, right, low, high = extent
        self.width, self.height = int((right - left) * most) + 3, int((high - low) * most) + 3
        self.column = np.floor(x + left * scale).astype(np.int64) - 1
        self.row = np.floor(y - high * scale).astype(np.int64) - 1
        inverse = (1.0 / scale)[:, None]
        u = (self.column[:, None] + np.arange(self.width) + 0.5 - x[:, None]) * inverse
        v = (y[:, None] - self.row[:, None] - np.arange(self.height) - 0.5) * inverse
        self.u, self.v = u.astype(np.float32)[:, None, :], v.astype(np.float32)[:, :, None]
        self.pixels = column(scale)
        shape = (len(x), self.height, self.width)
        self.alpha, self.colour = np.zeros(shape, np.float32), np.zeros((len(x), 3, *shape[1:]), np.float32)

    def add(self, distance: Array, colour: Array, strength: Array | float = 1.0) -> None:
        """Put a shape on top: full where ``distance`` (in the object's units) is below 0, smooth over one pixel.

        Args:
          distance: [B, height, width], or what broadcasts to it.
          colour: [3] or [B, 3].
          strength: opacity, a number or [B, 1, 1].
        """
        cover = np.minimum(np.maximum(np.float32(0.5) - distance * self.pixels, np.float32(0)), np.float32(1))
        self.layer(cover * np.float32(strength) if isinstance(strength, float) else cover * strength, colour)

    def layer(self, cover: Array, colour: Array) -> None:
        """Put a layer of known coverage, [B, height, width] in [0, 1], on top."""
        self.alpha += cover * (1 - self.alpha)
        blend(self.colour, cover, colour)  # Colours are premultiplied: c ← c (1 − a) + a · paint.

    def paste(self, canvas: Array, rows: Array, margin: int) -> None:
        """Lay the patches over images.

        Args:
          canvas: [N, 3, height, width], with a margin of pixels on each side that belongs to no image.
          rows: [B], which image each patch goes to.
          margin: its width; a patch that reaches beyond is moved, which only its cut part could show.
        """
        for channel in range(3):
            part, at = self.windows(canvas[:, channel], rows, margin)
            part[at] = part[at] * (1 - self.alpha) + self.colour[:, channel]

    def windows(self, canvas: Array, rows: Array, margin: int) -> tuple[Array, tuple[Array, Array, Array]]:
        """Return (all windows of a patch's size in a canvas, the index of those that the patches lie over).

        Args:
          canvas: [N, height, width], with a margin.
          rows, margin: as in ``paste``.
        """
        high, wide = canvas.shape[1] - self.height, canvas.shape[2] - self.width
        row = np.minimum(np.maximum(self.row + margin, 0), high)
        col = np.minimum(np.maximum(self.column + margin, 0), wide)
        found = np.lib.stride_tricks.sliding_window_view(
            canvas, (self.height, self.width), axis=(1, 2), writeable=True
        )  # [N, high + 1, wide + 1, patch height, patch width]
        return found, (rows, row, col)
