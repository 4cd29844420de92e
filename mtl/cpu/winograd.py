"""3×3 convolution with stride 1, by Winograd's minimal filtering: for a CPU, inside a loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from mtl.cpu.windows import Pads, in_blocks, products_of, taps_of, weave

# Winograd's F(2×2, 3×3): Y = Aᵀ[(G k Gᵀ) ⊙ (Bᵀ d B)]A for each 4×4 tile d of the images, at 16 products a channel pair
# where the definition has 36 (Lavin & Gray 2015, arXiv:1509.09308).
# Sums of products over channels are 16 matrix products [tiles, c] × [c, d]. Errors are those of rounding, as the
# definition's (7e-7 of the largest value at 64 channels).

_Four = tuple[Array, ...]


def _b(v: Sequence[Array]) -> _Four:
    return v[0] - v[2], v[1] + v[2], v[2] - v[1], v[1] - v[3]


def _g(v: Sequence[Array]) -> _Four:
    return v[0], 0.5 * (v[0] + v[1] + v[2]), 0.5 * (v[0] - v[1] + v[2]), v[2]


def _g_transposed(v: Sequence[Array]) -> _Four:
    return v[0] + 0.5 * (v[1] + v[2]), 0.5 * (v[1] - v[2]), 0.5 * (v[1] + v[2]) + v[3]


def _a(v: Sequence[Array]) -> _Four:
    return v[0] + v[1] + v[2], v[1] - v[2] - v[3]


def _a_transposed(v: Sequence[Array]) -> _Four:
    return v[0], v[0] + v[1], v[0] - v[1], -v[1]


def _both_ways(f: Callable[[Sequence[Array]], _Four], m: Sequence[Sequence[Array]]) -> list[_Four]:
    """Return F m Fᵀ of a matrix of arrays."""
    columns = [f(column) for column in zip(*m, strict=True)]
    return [f(row) for row in zip(*columns, strict=True)]


def _tiles(pads: Pads, x: Array) -> list[_Four]:
    """Return Bᵀ d B of the 4×4 tiles, which overlap by two: 4×4 arrays [b, ⌈h2/2⌉, ⌈w2/2⌉, c]."""
    (top, bottom), (left, right) = pads
    odd_h, odd_w = (x.shape[1] + top + bottom) % 2, (x.shape[2] + left + right) % 2
    taps = taps_of(x, (4, 4), 2, ((top, bottom + odd_h), (left, right + odd_w)))
    return _both_ways(_b, [taps[4 * i : 4 * i + 4] for i in range(4)])


def _winograd_kernel(kernel: Array) -> list[_Four]:
    return _both_ways(_g, [[kernel[i, j] for j in range(3)] for i in range(3)])


#: What the transformed images and products of a block of images may take. Batches are convolved in such blocks, so that
#: the sixteen products read from the cache what the transforms wrote there (forward and backward, 64 images: 0.65 of
#: the time at 32×32 and 64 channels, 0.66 at 16×16 and 128, 0.84 at 8×8 and 256). Where transformed kernels take more
#: than that (512 channels: 1.3 of the time), or products are small (16 channels: 1.1), the batch is one block.
_BLOCK_BYTES = 4 << 20


def _images_a_block(pads: Pads, x: Array, kernel: Array) -> int:
    b, c, d = x.shape[0], *kernel.shape[2:]
    h2, w2 = (n + sum(p) - 2 for n, p in zip(x.shape[1:3], pads, strict=True))
    image = 64 * -(-h2 // 2) * -(-w2 // 2) * (c + d)  # Sixteen numbers a tile and channel, of four bytes.
    if min(c, d) < 32 or 64 * c * d > _BLOCK_BYTES:
        return b
    fits = [n for n in range(1, b + 1) if b % n == 0 and n * image <= _BLOCK_BYTES]
    return max(fits, default=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def convolve(pads: Pads, x: Array, kernel: Array) -> Array:
    """Return the convolution of images [b, h, w, c] with a kernel [3, 3, c, d]."""
    transformed = _winograd_kernel(kernel)
    n = _images_a_block(pads, x, kernel)
    if n == x.shape[0]:
        return _winograd_images(pads, x, transformed)
    return in_blocks(lambda part: _winograd_images(pads, part, transformed), x, n)


def _winograd_images(pads: Pads, x: Array, transformed: list[_Four]) -> Array:
    pairs = zip(_tiles(pads, x), transformed, strict=True)
    y = weave(_both_ways(_a, [[v @ u for v, u in zip(*rows, strict=True)] for rows in pairs]))
    h2, w2 = (n + sum(p) - 2 for n, p in zip(x.shape[1:3], pads, strict=True))
    return y[:, :h2, :w2]


def _winograd_bwd(pads: Pads, kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    # Written out, because with the transposes that JAX derives forward and backward take 2 times as long at 64
    # channels, 1.7 at 128, 1.4 at 256 and 1.3 at 512.
    x, kernel = kept
    # The images' gradient is the convolution of g with the kernel turned round, whose G k Gᵀ is the kernel's own with
    # the first and the last place changed. (The transpose of the tiles' overlap took four times as long.)
    turned = [[u[j] for j in (3, 1, 2, 0)] for u in (_winograd_kernel(kernel)[i] for i in (3, 1, 2, 0))]
    n = _images_a_block(pads, x, kernel)
    if n == x.shape[0]:
        d_x, products = _winograd_images_bwd(pads, x, turned, g)
    else:

        def block(i: Array, held: tuple[Array, list[list[Array]]]) -> tuple[Array, list[list[Array]]]:
            part, gradient = (lax.dynamic_slice_in_dim(a, i * n, n) for a in (x, g))
            back, more = _winograd_images_bwd(pads, part, turned, gradient)
            return lax.dynamic_update_slice_in_dim(held[0], back, i * n, 0), jax.tree.map(jnp.add, held[1], more)

        none = [[jnp.zeros(kernel.shape[2:], kernel.dtype) for _ in range(4)] for _ in range(4)]
        d_x, products = lax.fori_loop(0, x.shape[0] // n, block, (jnp.zeros_like(x), none))
    return d_x, jnp.stack([jnp.stack(row) for row in _both_ways(_g_transposed, products)])


def _winograd_images_bwd(pads: Pads, x: Array, turned: list[list[Array]], g: Array) -> tuple[Array, list[list[Array]]]:
    """Return (the images' gradient, the kernel's before it is turned back)."""
    h2, w2 = g.shape[1:3]
    (top, bottom), (left, right) = pads
    size, even = (2, 2), ((0, h2 % 2), (0, w2 % 2))
    taps = taps_of(g, size, 2, even)
    tiled = _both_ways(_a_transposed, [taps[:2], taps[2:]])
    # Written as computed again; in one block XLA sees that they are the forward pass's, and keeps them.
    pairs = zip(_tiles(pads, x), tiled, strict=True)
    products = [[products_of(v, m) for v, m in zip(*rows, strict=True)] for rows in pairs]
    back = [
        [lax.dot_general(v, u, (((3,), (1,)), ((), ()))) for v, u in zip(*rows, strict=True)]
        for rows in zip(_tiles(((2 - top, 2 - bottom), (2 - left, 2 - right)), g), turned, strict=True)
    ]
    d_x = weave(_both_ways(_a, back))
    return d_x[:, : x.shape[1], : x.shape[2]], products


convolve.defvjp(lambda pads, x, kernel: (convolve(pads, x, kernel), (x, kernel)), _winograd_bwd)
