"""Operations on the places of an image's pixels, as RandAugment takes them from Pillow: one warp, several matrices.

A pixel of the new image takes its value from the place A p + b of the old one, by bilinear interpolation; what comes
from outside has one value. Under ``vmap`` every branch of a choice is computed, so the choice is made among matrices,
of six numbers each, and not among images.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Image = Float[Array, "height width channels"]

#: How far each goes at magnitude 1: degrees, the tangent of the angle, the share of a side.
DEGREES, SHEAR, SHARE = 30.0, 0.3, 0.45

#: (A [2, 2], b [2] in sides): p' = A p + b, p = (row, column) from the image's middle.
Placed = tuple[list[list[Array]], list[Array]]


def rotate(m: Array) -> Placed:
    """Return a turn by 30 m degrees."""
    angle = jnp.deg2rad(DEGREES * m)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return [[cosine, -sine], [sine, cosine]], [0 * m, 0 * m]


def shear_x(m: Array) -> Placed:
    """Return columns moved by 0.3 m of the row."""
    return [[1 + 0 * m, 0 * m], [SHEAR * m, 1 + 0 * m]], [0 * m, 0 * m]


def shear_y(m: Array) -> Placed:
    """Return rows moved by 0.3 m of the column."""
    return [[1 + 0 * m, SHEAR * m], [0 * m, 1 + 0 * m]], [0 * m, 0 * m]


def translate_x(m: Array) -> Placed:
    """Return columns moved by 0.45 m of the width."""
    return [[1 + 0 * m, 0 * m], [0 * m, 1 + 0 * m]], [0 * m, SHARE * m]


def translate_y(m: Array) -> Placed:
    """Return rows moved by 0.45 m of the height."""
    return [[1 + 0 * m, 0 * m], [0 * m, 1 + 0 * m]], [SHARE * m, 0 * m]


#: By name: from a magnitude m ∈ [−1, 1] to where pixels come from. At m = 0 nothing moves.
OPERATIONS: dict[str, Callable[[Array], Placed]] = {
    op.__name__: op for op in (rotate, shear_x, shear_y, translate_x, translate_y)
}


def warp(image: Image, chosen: Array | int, m: Array, fill: float) -> Image:
    """Return an image warped by one of ``OPERATIONS``.

    Args:
      image: the image.
      chosen: which, by its place among them.
      m: its magnitude in [−1, 1], whose sign says which way.
      fill: the value outside the image.

    >>> image = jnp.arange(9.0).reshape(3, 3, 1)
    >>> warp(image, 4, jnp.float32(1 / (3 * SHARE)), 0.0)[..., 0].round().astype(int).tolist()  # One row up.
    [[3, 4, 5], [6, 7, 8], [0, 0, 0]]
    """
    height, width = image.shape[:2]
    placed = [place(m) for place in OPERATIONS.values()]
    matrix = jnp.stack([jnp.stack([jnp.stack(row) for row in a]) for a, _ in placed])[chosen]
    shift = jnp.stack([jnp.stack(b) for _, b in placed])[chosen]
    rows = (jnp.arange(height) - (height - 1) / 2)[:, None]
    columns = (jnp.arange(width) - (width - 1) / 2)[None, :]
    at = [
        matrix[i, 0] * rows + matrix[i, 1] * columns + shift[i] * side + (side - 1) / 2
        for i, side in enumerate((height, width))
    ]
    one = lambda channel: jax.scipy.ndimage.map_coordinates(channel, at, order=1, mode="constant", cval=fill)  # noqa: E731
    return jax.vmap(one, in_axes=-1, out_axes=-1)(image)
