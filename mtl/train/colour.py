"""Operations on the colours of an image in [0, 1], as RandAugment takes them from Pillow; each is a pure function.

``op(image, m)``: an image [height, width, channels] and a magnitude m ∈ [−1, 1], whose sign says which way. At m = 0
those with a strength change nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

Image = Float[Array, "height width channels"]

#: How far a factor leaves 1 at magnitude 1.
REACH = 0.9


def identity(image: Image, m: Array) -> Image:
    """Return the image as it is."""
    return image


def brightness(image: Image, m: Array) -> Image:
    """Return f · x, with f = 1 + 0.9 m (Pillow's ``ImageEnhance.Brightness``)."""
    return _blend(jnp.zeros_like(image), image, m)


def contrast(image: Image, m: Array) -> Image:
    """Return μ + f (x − μ), with μ the mean of the grey image (``ImageEnhance.Contrast``)."""
    return _blend(jnp.broadcast_to(grey(image).mean(), image.shape), image, m)


def saturation(image: Image, m: Array) -> Image:
    """Return g + f (x − g), with g the grey image (``ImageEnhance.Color``)."""
    return _blend(jnp.broadcast_to(grey(image), image.shape), image, m)


def autocontrast(image: Image, m: Array) -> Image:
    """Return each channel stretched to [0, 1] (``ImageOps.autocontrast``); a constant one stays."""
    low, high = image.min(axis=(0, 1), keepdims=True), image.max(axis=(0, 1), keepdims=True)
    return jnp.where(high > low, (image - low) / jnp.where(high > low, high - low, 1), image)


def invert(image: Image, m: Array) -> Image:
    """Return 1 − x (``ImageOps.invert``)."""
    return 1 - image


def posterize(image: Image, m: Array) -> Image:
    """Return x in 8 − round(4 |m|) bits (``ImageOps.posterize``)."""
    step = 2.0 ** jnp.round(4 * jnp.abs(m))
    return jnp.floor(jnp.round(image * 255) / step) * step / 255


def solarize(image: Image, m: Array) -> Image:
    """Return 1 − x where x ≥ 1 − |m|, else x (``ImageOps.solarize``)."""
    return jnp.where((image >= 1 - jnp.abs(m)) & (m != 0), 1 - image, image)


#: By name.
OPERATIONS: dict[str, Callable[[Array, Array], Array]] = {
    op.__name__: op for op in (identity, brightness, contrast, saturation, autocontrast, invert, posterize, solarize)
}


def grey(image: Image) -> Float[Array, "height width 1"]:
    """Return 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), or the image itself if it has one channel.

    >>> float(grey(jnp.ones((1, 1, 3)))[0, 0, 0])
    1.0
    """
    if image.shape[-1] != 3:
        return image.mean(axis=-1, keepdims=True)
    return (image * jnp.array([0.299, 0.587, 0.114], image.dtype)[None, None]).sum(axis=-1, keepdims=True)


def _blend(end: Array, image: Array, m: Array) -> Array:
    """Return ``end`` + f (image − end), with f = 1 + REACH · m, in [0, 1]."""
    return jnp.clip(end + (1 + REACH * m) * (image - end), 0, 1)
