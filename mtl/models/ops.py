"""Convolution, pooling and others, each with a twin that is fast where XLA's own is slow: on a CPU, inside a loop.

Training steps run inside a compiled loop, and there XLA's CPU backend computes the gradients of a convolution by plain
loops: 1 to 3 GFLOP/s where its matrix products reach 250 a core. The twins are matrix products and elementwise
arithmetic. Ratios in comments below are of one core's processor time, forward and backward in a ``fori_loop``, on two
x86-64 cores (AVX-512).

Which one is used: ``implementation="xla"``, ``"twin"`` or ``None``, the twin on a CPU and XLA's own elsewhere.
The twins with a gradient of their own can be differentiated backward only, any number of times.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mtl.models import products, winograd
from mtl.models.windows import Padding, Pads, pads_of, taps_of, untaps

#: ``xla`` or ``twin``, and ``SAME``, ``VALID`` or a number: checked here, so that a mistake is explained.
Implementation = str

#: Layout of images and kernels, as Flax has them.
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def choose(implementation: Implementation | None = None) -> Implementation:
    """Return the implementation asked for, or the backend's: the twin on a CPU, XLA's own on accelerators.

    Raises:
      ValueError: for another name.

    >>> choose("xla")
    'xla'
    """
    if implementation is None:
        return "twin" if jax.default_backend() == "cpu" else "xla"
    if implementation not in ("xla", "twin"):
        raise ValueError(f'implementation = "{implementation}": must be xla or twin')
    return implementation


def conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c d"],
    stride: int = 1,
    padding: Padding = "SAME",
    implementation: Implementation | None = None,
) -> Float[Array, "b h2 w2 d"]:
    """Return the convolution of images with a kernel.

    y[b, i, j, d] = Σ_{p,q,c} x̃[b, s·i + p, s·j + q, c] · kernel[p, q, c, d], with x̃ padded with zeros.

    Args:
      x: images, [batch, height, width, channels].
      kernel: [kernel height, kernel width, channels in, channels out].
      stride: s, both ways.
      padding: ``SAME`` (output ⌈h/s⌉; where an odd number of zeros is needed, the extra one goes to the end),
        ``VALID``, or the number of zeros on each of the four sides (as PyTorch pads).
      implementation: see the module.

    >>> import jax.numpy as jnp
    >>> conv(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0]
    Array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]], dtype=float32)
    """
    kh, kw, c, d = kernel.shape
    pads = pads_of(x.shape[1:3], (kh, kw), stride, padding)
    if choose(implementation) == "xla":
        return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT)
    # Measured, against patches: Winograd takes 0.73 of the time at 16 → 32 channels, 0.53 at 32 and about half from 64
    # to 512; it was not tried below. With one input channel a matrix
    # product of nine columns is mostly copies; nine multiply-adds, fused into one pass, take 0.37 of its time.
    if (kh, kw, stride) == (3, 3, 1) and min(c, d) >= 16 and max(pads[0] + pads[1]) <= 2:
        twin: Callable[..., Array] = functools.partial(winograd.convolve, pads)
    elif c == 1 and stride == 1 and kh * kw <= 25:
        twin = functools.partial(_one_channel, pads)
    else:
        twin = functools.partial(products.convolve, stride, pads)
    return _in_float32(twin, x, kernel)


def dense(
    x: Float[Array, "*rows c"], kernel: Float[Array, "c d"], implementation: Implementation | None = None
) -> Float[Array, "*rows d"]:
    """Return x · kernel, a matrix product whose kernel gets its gradient fast.

    The gradient xᵀ · g contracts the rows of both, which XLA's CPU backend does by a slower path than a plain product:
    with xᵀ written out first it takes 0.85 of the time at 32 rows and 128 × 128, 0.85 at 128 rows and 1,568 × 64. Where
    the kernel is taller than wide gᵀ is written out instead, which is less: 0.84 of the time of a transformer's MLP,
    whose second kernel is 768 × 192, at 4,160 rows.

    Args:
      x: rows, of any leading shape.
      kernel: [c, d].
      implementation: see the module.

    >>> dense(jnp.ones((1, 2)), jnp.ones((2, 3)))
    Array([[2., 2., 2.]], dtype=float32)
    """
    return x @ kernel if choose(implementation) == "xla" else products.product(x, kernel)


def gelu(
    x: Float[Array, "*rows c"], approximate: bool = False, implementation: Implementation | None = None
) -> Float[Array, "*rows c"]:
    """Return x · Φ(x), with the normal distribution's Φ (Hendrycks & Gimpel 2016, arXiv:1606.08415).

    The twin computes Φ by one erf, as PyTorch does, where ``jax.nn.gelu`` has two branches for the relative error of
    its far negative tail, and its gradient keeps x alone: 0.94 of the time of a transformer's MLP.

    Args:
      x: numbers.
      approximate: by tanh (within 5e-4); it has no twin.
      implementation: see the module.

    >>> gelu(jnp.ones((1,)))
    Array([0.8413447], dtype=float32)
    """
    if approximate or choose(implementation) == "xla":
        return jax.nn.gelu(x, approximate=approximate)
    return _gelu(x)


def layer_norm(
    x: Float[Array, "*rows c"], scale: Float[Array, " c"], bias: Float[Array, " c"], epsilon: float = 1e-6
) -> Float[Array, "*rows c"]:
    """Return (x − mean x) / √(var x + ε) ⊙ scale + bias, row by row (Ba et al. 2016, arXiv:1607.06450).

    The twin of ``nn.LayerNorm`` with a variance of two passes (E[x²] − E[x]² in float32 loses a spread of 1 around
    10,000). Means along a row are products with a column of 1/c, as XLA adds along a row one number at a time, and the
    gradient is written out: 0.8 of the time of a ViT-Ti/4's step.

    Args:
      x: rows, of any leading shape.
      scale: [c].
      bias: [c].
      epsilon: ε, added to the variance.

    >>> layer_norm(jnp.array([[1.0, 3.0]]), jnp.ones(2), jnp.zeros(2))
    Array([[-0.9999995,  0.9999995]], dtype=float32)
    """
    return _layer_norm(epsilon, x.reshape(-1, x.shape[-1]), scale, bias).reshape(x.shape)


def depthwise_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    stride: int = 1,
    padding: Padding = "SAME",
    implementation: Implementation | None = None,
) -> Float[Array, "b h2 w2 c"]:
    """Return the convolution of each channel with a kernel of its own.

    y[b, i, j, c] = Σ_{p,q} x̃[b, s·i + p, s·j + q, c] · kernel[p, q, 0, c].

    Args:
      x: images, [batch, height, width, channels].
      kernel: [kernel height, kernel width, 1, channels].
      stride: s, both ways.
      padding: as for ``conv``.
      implementation: see the module.

    >>> import jax.numpy as jnp
    >>> depthwise_conv(jnp.ones((1, 3, 3, 2)), jnp.ones((3, 3, 1, 2)))[0, 1, 1]
    Array([9., 9.], dtype=float32)
    """
    kh, kw, _, c = kernel.shape
    pads = pads_of(x.shape[1:3], (kh, kw), stride, padding)
    if choose(implementation) == "xla":
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT, feature_group_count=c
        )
    return _in_float32(functools.partial(_depthwise, stride, pads), x, kernel)


def max_pool(
    x: Float[Array, "b h w c"],
    size: int,
    stride: int | None = None,
    padding: Padding = "VALID",
    implementation: Implementation | None = None,
) -> Float[Array, "b h2 w2 c"]:
    """Return the maximum of each window; what pads is −∞.

    The gradient goes to a window's first maximum, row by row, in both implementations. XLA computes it by
    select-and-scatter, which takes two to four times as long on a CPU. Rows and columns that do not fill a window
    are dropped with ``VALID`` padding.

    Args:
      x: images, [batch, height, width, channels].
      size: side of the window.
      stride: as ``size`` by default.
      padding: as for ``conv``.
      implementation: see the module.

    >>> import jax.numpy as jnp
    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2).ravel()
    Array([ 5.,  7., 13., 15.], dtype=float32)
    """
    stride = size if stride is None else stride
    pads = pads_of(x.shape[1:3], (size, size), stride, padding)
    if choose(implementation) == "xla":
        # The initial value is a scalar constant: only so does XLA see a maximum and know its gradient.
        return lax.reduce_window(
            x, -jnp.inf, lax.max, (1, size, size, 1), (1, stride, stride, 1), ((0, 0), *pads, (0, 0))
        )
    return _max_pool(size, stride, pads, x)


def avg_pool(
    x: Float[Array, "b h w c"],
    size: int,
    stride: int | None = None,
    padding: Padding = "VALID",
    implementation: Implementation | None = None,
) -> Float[Array, "b h2 w2 c"]:
    """Return the mean of each window, zeros that pad included.

    Args:
      x: images, [batch, height, width, channels].
      size: side of the window.
      stride: as ``size`` by default.
      padding: as for ``conv``.
      implementation: see the module.

    >>> import jax.numpy as jnp
    >>> avg_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2).ravel()
    Array([ 2.5,  4.5, 10.5, 12.5], dtype=float32)
    """
    stride = size if stride is None else stride
    pads = pads_of(x.shape[1:3], (size, size), stride, padding)
    if choose(implementation) == "xla":
        window = (1, size, size, 1), (1, stride, stride, 1), ((0, 0), *pads, (0, 0))
        return lax.reduce_window(x, 0.0, lax.add, *window) / (size * size)
    return _sum(taps_of(x, (size, size), stride, pads)) / (size * size)


def _in_float32(twin: Callable[..., Array], x: Array, kernel: Array) -> Array:
    """Return the twin computed in at least float32, as XLA accumulates, in the type of the images."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return twin(x.astype(dtype), kernel.astype(dtype)).astype(x.dtype)


def _sum(arrays: Sequence[Array]) -> Array:
    return functools.reduce(jnp.add, arrays)


def _sides(kernel: Array) -> tuple[int, int]:
    return kernel.shape[0], kernel.shape[1]


# Φ by erf.


@jax.custom_vjp
def _gelu(x: Array) -> Array:
    return x * _phi(x)


def _phi(x: Array) -> Array:
    return 0.5 * (1 + lax.erf(x * math.sqrt(0.5)))


def _gelu_bwd(x: Array, g: Array) -> tuple[Array]:
    return (g * (_phi(x) + x * jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)),)


_gelu.defvjp(lambda x: (_gelu(x), x), _gelu_bwd)


# Rows of mean 0 and variance 1.


def _mean(x: Array) -> Array:
    return x @ jnp.full((x.shape[-1], 1), 1 / x.shape[-1], x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer_norm(epsilon: float, x: Array, scale: Array, bias: Array) -> Array:
    return _layer_norm_fwd(epsilon, x, scale, bias)[0]


def _layer_norm_fwd(epsilon: float, x: Array, scale: Array, bias: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    centred = x - _mean(x)
    inverse = lax.rsqrt(_mean(centred * centred) + epsilon)
    y = centred * inverse
    return y * scale[None] + bias[None], (y, inverse, scale)


def _layer_norm_bwd(epsilon: float, kept: tuple[Array, Array, Array], g: Array) -> tuple[Array, Array, Array]:
    y, inverse, scale = kept
    d_y = g * scale[None]
    return inverse * (d_y - _mean(d_y) - y * _mean(d_y * y)), jnp.sum(g * y, axis=0), jnp.sum(g, axis=0)


_layer_norm.defvjp(_layer_norm_fwd, _layer_norm_bwd)


# One input channel: multiply-adds, fused with what follows.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _one_channel(pads: Pads, x: Array, kernel: Array) -> Array:
    taps = taps_of(x, _sides(kernel), 1, pads)
    weights = kernel.reshape(len(taps), 1, 1, 1, -1)
    return _sum([tap * weight for tap, weight in zip(taps, weights, strict=True)])


def _one_channel_bwd(pads: Pads, kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = kept
    size, d = _sides(kernel), kernel.shape[-1]
    # Patches with the pixels last are rows that are copied whole; XLA drops the gradient of images nobody asks for.
    taps = jnp.stack([tap.reshape(-1) for tap in taps_of(x, size, 1, pads)])
    back = jnp.split(g @ kernel.reshape(-1, d).T, taps.shape[0], axis=-1)
    return untaps(back, x.shape, size, 1, pads), (taps @ g.reshape(-1, d)).reshape(kernel.shape)


_one_channel.defvjp(lambda pads, x, kernel: (_one_channel(pads, x, kernel), (x, kernel)), _one_channel_bwd)


# One kernel a channel: multiply-adds.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _depthwise(stride: int, pads: Pads, x: Array, kernel: Array) -> Array:
    weights = kernel.reshape(-1, 1, 1, 1, x.shape[-1])
    taps = taps_of(x, _sides(kernel), stride, pads)
    return _sum([tap * weight for tap, weight in zip(taps, weights, strict=True)])


def _depthwise_bwd(stride: int, pads: Pads, kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = kept
    size, c = _sides(kernel), x.shape[-1]
    weights = kernel.reshape(-1, 1, 1, 1, c)

    def image(i: Array, total: Array) -> Array:
        one, gradient = (lax.dynamic_slice_in_dim(a, i, 1) for a in (x, g))
        return total + jnp.stack([jnp.sum(t * gradient, axis=(0, 1, 2)) for t in taps_of(one, size, stride, pads)])

    # An image at a time stays in the cache while it is read once a tap: a third of the time of whole batches.
    d_kernel = lax.fori_loop(0, x.shape[0], image, jnp.zeros((len(weights), c), x.dtype))
    return untaps([g * weight for weight in weights], x.shape, size, stride, pads), d_kernel.reshape(kernel.shape)


_depthwise.defvjp(lambda stride, pads, x, kernel: (_depthwise(stride, pads, x, kernel), (x, kernel)), _depthwise_bwd)


# Maxima.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _max_pool(size: int, stride: int, pads: Pads, x: Array) -> Array:
    return functools.reduce(jnp.maximum, taps_of(x, (size, size), stride, pads, -jnp.inf))


def _max_pool_fwd(size: int, stride: int, pads: Pads, x: Array) -> tuple[Array, tuple[Array, Array]]:
    y = _max_pool(size, stride, pads, x)
    return y, (x, y)


def _max_pool_bwd(size: int, stride: int, pads: Pads, kept: tuple[Array, Array], g: Array) -> tuple[Array]:
    x, y = kept
    taken, back = jnp.zeros(y.shape, bool), []
    for tap in taps_of(x, (size, size), stride, pads, -jnp.inf):
        first = (tap == y) & ~taken
        taken = taken | first
        back.append(jnp.where(first, g, 0))
    return (untaps(back, x.shape, (size, size), stride, pads),)


_max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)
