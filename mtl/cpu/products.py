"""Matrix products, and any convolution as one: for a CPU, inside a loop."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from mtl.cpu.windows import Pads, in_blocks, pad, taps_of, untaps


@jax.custom_vjp
def product(x: Array, kernel: Array) -> Array:
    """Return x · kernel, rows of any leading shape, with a gradient of the kernel that is fast.

    The gradient xᵀ · g contracts the rows of both, which XLA's CPU backend does by a slower path than a plain product:
    with xᵀ written out first it takes 0.85 of the time at 32 rows and 128 × 128, 0.85 at 128 rows and 1,568 × 64. Where
    the kernel is taller than wide gᵀ is written out instead, which is less: 0.84 of the time of a transformer's MLP,
    whose second kernel is 768 × 192, at 4,160 rows.
    """
    return x @ kernel


def _product_bwd(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = kept
    rows, gradient = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    return lax.dot_general(g, kernel, (((g.ndim - 1,), (1,)), ((), ()))), _kernel_gradient(rows, gradient)


def _kernel_gradient(x: Array, g: Array) -> Array:
    """Return xᵀ · g, the narrower of the two written out transposed."""
    # Behind the barriers XLA cannot fold the transpositions back into the product.
    if x.shape[-1] <= g.shape[-1]:
        return lax.optimization_barrier(x.T) @ g
    return lax.optimization_barrier(lax.optimization_barrier(g.T) @ x).T


product.defvjp(lambda x, kernel: (product(x, kernel), (x, kernel)), _product_bwd)

#: What the patches of a block of images may take. Batches are convolved in such blocks, so that the products read from
#: the cache what was gathered there (forward and backward, 64 images, 3×3 with stride 2: 0.47 of the time from 32×32
#: and 64 channels, 0.74 from 16×16 and 128). Where the kernel takes more than that (256 to 512 channels: 1.06), or
#: products are small, the batch is one block.
_BLOCK_BYTES = 4 << 20


def convolve(stride: int, pads: Pads, x: Array, kernel: Array) -> Array:
    """Return the convolution of images [b, h, w, c] with a kernel [kh, kw, c, d]."""
    kh, kw, c, d = kernel.shape
    if (kh, kw) == (stride, stride):  # Patches that do not overlap are a transposition, and 1×1 not even that.
        h, w = (x.shape[i + 1] + sum(pads[i]) for i in (0, 1))
        h, w = h // stride, w // stride
        x = pad(x, pads)[:, : h * stride, : w * stride].reshape(x.shape[0], h, stride, w, stride, c)
        patches = x.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape[0], h, w, kh * kw * c)
    elif _images_a_block(stride, pads, x, kernel) < x.shape[0]:
        return _in_blocks(stride, pads, x, kernel)
    else:
        patches = _patches(stride, pads, x, kernel)
    return product(patches, kernel.reshape(kh * kw * c, d))


def _patches(stride: int, pads: Pads, x: Array, kernel: Array) -> Array:
    taps = taps_of(x, (kernel.shape[0], kernel.shape[1]), stride, pads)
    return taps[0] if len(taps) == 1 else jnp.concatenate(taps, axis=-1)


def _images_a_block(stride: int, pads: Pads, x: Array, kernel: Array) -> int:
    kh, kw, c, d = kernel.shape
    h2, w2 = ((n + sum(p) - k) // stride + 1 for n, p, k in zip(x.shape[1:3], pads, (kh, kw), strict=True))
    if min(c, d) < 32 or kh * kw == 1 or 4 * kernel.size > _BLOCK_BYTES:
        return x.shape[0]
    image = 4 * h2 * w2 * kh * kw * c
    fits = [n for n in range(1, x.shape[0] + 1) if x.shape[0] % n == 0 and n * image <= _BLOCK_BYTES]
    return max(fits, default=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _in_blocks(stride: int, pads: Pads, x: Array, kernel: Array) -> Array:
    n, columns = _images_a_block(stride, pads, x, kernel), kernel.reshape(-1, kernel.shape[-1])
    return in_blocks(lambda part: _patches(stride, pads, part, kernel) @ columns, x, n)


def _in_blocks_bwd(stride: int, pads: Pads, kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    # Patches are gathered again, which takes less than reading them from memory.
    x, kernel = kept
    n, columns = _images_a_block(stride, pads, x, kernel), kernel.reshape(-1, kernel.shape[-1])

    def block(i: Array, held: tuple[Array, Array]) -> tuple[Array, Array]:
        part, gradient = (lax.dynamic_slice_in_dim(a, i * n, n) for a in (x, g))
        patches = _patches(stride, pads, part, kernel)
        back = jnp.split(gradient @ columns.T, len(columns) // x.shape[-1], axis=-1)
        d_part = untaps(back, part.shape, (kernel.shape[0], kernel.shape[1]), stride, pads)
        more = _kernel_gradient(patches.reshape(-1, len(columns)), gradient.reshape(-1, g.shape[-1]))
        return lax.dynamic_update_slice_in_dim(held[0], d_part, i * n, 0), held[1] + more

    d_x, d_kernel = lax.fori_loop(0, x.shape[0] // n, block, (jnp.zeros_like(x), jnp.zeros_like(columns)))
    return d_x, d_kernel.reshape(kernel.shape)


_in_blocks.defvjp(lambda stride, pads, x, kernel: (_in_blocks(stride, pads, x, kernel), (x, kernel)), _in_blocks_bwd)
