"""Windows on images: what every window has at each of its places, and the way back. Arithmetic, and no gathers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

#: Zeros before and after, for height and width.
Pads = tuple[tuple[int, int], tuple[int, int]]


def pad(x: Array, pads: Pads, value: float = 0.0) -> Array:
    """Return padded images."""
    return jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=value)


def taps_of(x: Array, size: tuple[int, int], stride: int, pads: Pads, value: float = 0.0) -> list[Array]:
    """Return for each place in the window, row by row, what every window has there, [b, h2, w2, c].

    Strides cut the padded images into s·s phases, of which the taps are plain shifts; so are their gradients.
    """
    h, w = (n + sum(p) for n, p in zip(x.shape[1:3], pads, strict=True))
    h2, w2 = (h - size[0]) // stride + 1, (w - size[1]) // stride + 1
    rows, cols = (n2 + (k - 1) // stride for n2, k in zip((h2, w2), size, strict=True))
    # Pad, or cut, to whole phases.
    more = tuple((lo, hi + n * stride - m) for (lo, hi), n, m in zip(pads, (rows, cols), (h, w), strict=True))
    config = [(0, 0, 0), (*more[0], 0), (*more[1], 0), (0, 0, 0)]
    y = lax.pad(x, jnp.asarray(value, x.dtype), config)
    y = y.reshape(x.shape[0], rows, stride, cols, stride, x.shape[3])
    return [
        y[:, i // stride : i // stride + h2, i % stride, j // stride : j // stride + w2, j % stride]
        for i in range(size[0])
        for j in range(size[1])
    ]


def untaps(taps: list[Array], shape: tuple[int, ...], size: tuple[int, int], stride: int, pads: Pads) -> Array:
    """Return the transpose of ``_taps``: every tap added to where it was read."""
    h2, w2 = taps[0].shape[1:3]
    rows, cols = (n2 + (k - 1) // stride for n2, k in zip((h2, w2), size, strict=True))
    phases = [[jnp.zeros((), taps[0].dtype) for _ in range(stride)] for _ in range(stride)]
    for (i, j), tap in zip(((i, j) for i in range(size[0]) for j in range(size[1])), taps, strict=True):
        down, right = i // stride, j // stride
        placed = pad(tap, ((down, rows - h2 - down), (right, cols - w2 - right)))
        old = phases[i % stride][j % stride]
        phases[i % stride][j % stride] = placed if old.ndim == 0 else old + placed
    empty = jnp.zeros((shape[0], rows, cols, shape[3]), taps[0].dtype)
    y = weave([[empty if p.ndim == 0 else p for p in row] for row in phases])
    crop = [(0, 0, 0)] * 4
    for axis, (lo, _) in zip((1, 2), pads, strict=True):
        crop[axis] = (-lo, shape[axis] + lo - y.shape[axis], 0)
    return lax.pad(y, jnp.zeros((), y.dtype), crop)


def weave(phases: Sequence[Sequence[Array]]) -> Array:
    """Return the images whose pixel (s·i + p, s·j + q) is pixel (i, j) of phase (p, q)."""
    s = len(phases)
    if s == 1:
        return phases[0][0]
    b, h, w, c = phases[0][0].shape
    return jnp.stack([jnp.stack(row, axis=3) for row in phases], axis=2).reshape(b, h * s, w * s, c)


def products_of(a: Array, b: Array) -> Array:
    """Return Σ over batch and pixels of a[…, c] · b[…, d], [c, d]: the gradient of a matrix product's kernel."""
    return lax.dot_general(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]), (((0,), (0,)), ((), ())))


def in_blocks(function: Callable[[Array], Array], x: Array, n: int) -> Array:
    """Return a function of images, computed in a loop of ``n`` at a time.

    The loop reads the images as they lie. (Had they been reshaped into blocks, XLA would compute whatever they come
    from a second time, for the reshaped ones.)
    """
    out = jax.eval_shape(function, x)

    def block(i: Array, y: Array) -> Array:
        part = function(lax.dynamic_slice_in_dim(x, i * n, n))
        return lax.dynamic_update_slice_in_dim(y, part, i * n, 0)

    return lax.fori_loop(0, x.shape[0] // n, block, jnp.zeros(out.shape, out.dtype))
