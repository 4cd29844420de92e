"""Pools of images: the maximum or the sum of each window."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mtl.cpu.windows import Pads, taps_of, untaps

_Size = tuple[int, int]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def largest(size: _Size, stride: int, pads: Pads, x: Array) -> Array:
    """Return the maximum of each window of images [b, h, w, c]; what pads is −∞.

    The gradient goes to a window's first maximum, row by row, as XLA's does; but XLA computes it by select-and-scatter,
    which takes two to four times as long.
    """
    return functools.reduce(jnp.maximum, taps_of(x, size, stride, pads, -jnp.inf))


def _largest_fwd(size: _Size, stride: int, pads: Pads, x: Array) -> tuple[Array, tuple[Array, Array]]:
    y = largest(size, stride, pads, x)
    return y, (x, y)


def _largest_bwd(size: _Size, stride: int, pads: Pads, kept: tuple[Array, Array], g: Array) -> tuple[Array]:
    x, y = kept
    taken, back = jnp.zeros(y.shape, bool), []
    for tap in taps_of(x, size, stride, pads, -jnp.inf):
        first = (tap == y) & ~taken
        taken = taken | first
        back.append(jnp.where(first, g, 0))
    return (untaps(back, x.shape, size, stride, pads),)


largest.defvjp(_largest_fwd, _largest_bwd)


def total(size: _Size, stride: int, pads: Pads, x: Array) -> Array:
    """Return the sum of each window of images [b, h, w, c]; what pads is 0."""
    return functools.reduce(jnp.add, taps_of(x, size, stride, pads))
