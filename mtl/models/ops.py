"""Convolution and pooling, each with a twin that is fast where XLA's own is slow: on a CPU, inside a loop.

Training steps run inside a compiled loop, and there XLA's CPU backend computes the gradients of a convolution by plain
loops: 1 to 3 GFLOP/s where its matrix products reach 250 a core. The twins are matrix products and elementwise
arithmetic. Ratios in comments below are of one core's processor time, forward and backward in a ``fori_loop``, on two
x86-64 cores (AVX-512).

Which one is used: ``implementation="xla"``, ``"twin"`` or ``None``, the twin on a CPU and XLA's own elsewhere.
The twins with a gradient of their own can be differentiated backward only, any number of times.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

#: ``xla`` or ``twin``, and ``SAME``, ``VALID`` or a number: checked here, so that a mistake is explained.
Implementation = str
Padding = str | int

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
    pads = _pads(x.shape[1:3], (kh, kw), stride, padding)
    if choose(implementation) == "xla":
        return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT)
    # Measured, against patches: Winograd takes 0.73 of the time at 16 → 32 channels, 0.53 at 32 and about half from 64
    # to 512; it was not tried below. With one input channel a matrix
    # product of nine columns is mostly copies; nine multiply-adds, fused into one pass, take 0.37 of its time.
    if (kh, kw, stride) == (3, 3, 1) and min(c, d) >= 16 and max(pads[0] + pads[1]) <= 2:
        twin: Callable[..., Array] = functools.partial(_winograd, pads)
    elif c == 1 and stride == 1 and kh * kw <= 25:
        twin = functools.partial(_one_channel, pads)
    else:
        twin = functools.partial(_patches, stride, pads)
    return _in_float32(twin, x, kernel)


def dense(
    x: Float[Array, "*rows c"], kernel: Float[Array, "c d"], implementation: Implementation | None = None
) -> Float[Array, "*rows d"]:
    """Return x · kernel, a matrix product whose kernel gets its gradient fast.

    The gradient xᵀ · g contracts the rows of both, which XLA's CPU backend does by a slower path than a plain product:
    with xᵀ written out first it takes 0.85 of the time at 32 rows and 128 × 128, 0.85 at 128 rows and 1,568 × 64, 0.78
    at 4,160 rows and 768 × 192 (and 1.05 at 192 × 768).

    Args:
      x: rows, of any leading shape.
      kernel: [c, d].
      implementation: see the module.

    >>> dense(jnp.ones((1, 2)), jnp.ones((2, 3)))
    Array([[2., 2., 2.]], dtype=float32)
    """
    return x @ kernel if choose(implementation) == "xla" else _dense(x, kernel)


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
    pads = _pads(x.shape[1:3], (kh, kw), stride, padding)
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
    pads = _pads(x.shape[1:3], (size, size), stride, padding)
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
    pads = _pads(x.shape[1:3], (size, size), stride, padding)
    if choose(implementation) == "xla":
        window = (1, size, size, 1), (1, stride, stride, 1), ((0, 0), *pads, (0, 0))
        return lax.reduce_window(x, 0.0, lax.add, *window) / (size * size)
    return _sum(_taps(x, (size, size), stride, pads)) / (size * size)


# Geometry.

_Pads = tuple[tuple[int, int], tuple[int, int]]


def _pads(shape: Sequence[int], size: tuple[int, int], stride: int, padding: Padding) -> _Pads:
    """Return the zeros before and after, for height and width."""
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise ValueError(f'padding = "{padding}": must be SAME, VALID or a number')
        (top, left) = lax.padtype_to_pads(shape, size, (stride, stride), padding)
        return (top, left)
    return ((padding, padding), (padding, padding))


def _pad(x: Array, pads: _Pads, value: float = 0.0) -> Array:
    return jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=value)


def _taps(x: Array, size: tuple[int, int], stride: int, pads: _Pads, value: float = 0.0) -> list[Array]:
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


def _untaps(taps: list[Array], shape: tuple[int, ...], size: tuple[int, int], stride: int, pads: _Pads) -> Array:
    """Return the transpose of ``_taps``: every tap added to where it was read."""
    h2, w2 = taps[0].shape[1:3]
    rows, cols = (n2 + (k - 1) // stride for n2, k in zip((h2, w2), size, strict=True))
    phases = [[jnp.zeros((), taps[0].dtype) for _ in range(stride)] for _ in range(stride)]
    for (i, j), tap in zip(((i, j) for i in range(size[0]) for j in range(size[1])), taps, strict=True):
        down, right = i // stride, j // stride
        placed = _pad(tap, ((down, rows - h2 - down), (right, cols - w2 - right)))
        old = phases[i % stride][j % stride]
        phases[i % stride][j % stride] = placed if old.ndim == 0 else old + placed
    empty = jnp.zeros((shape[0], rows, cols, shape[3]), taps[0].dtype)
    y = _weave([[empty if p.ndim == 0 else p for p in row] for row in phases])
    crop = [(0, 0, 0)] * 4
    for axis, (lo, _) in zip((1, 2), pads, strict=True):
        crop[axis] = (-lo, shape[axis] + lo - y.shape[axis], 0)
    return lax.pad(y, jnp.zeros((), y.dtype), crop)


def _weave(phases: Sequence[Sequence[Array]]) -> Array:
    """Return the images whose pixel (s·i + p, s·j + q) is pixel (i, j) of phase (p, q)."""
    s = len(phases)
    if s == 1:
        return phases[0][0]
    b, h, w, c = phases[0][0].shape
    return jnp.stack([jnp.stack(row, axis=3) for row in phases], axis=2).reshape(b, h * s, w * s, c)


def _in_float32(twin: Callable[..., Array], x: Array, kernel: Array) -> Array:
    """Return the twin computed in at least float32, as XLA accumulates, in the type of the images."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return twin(x.astype(dtype), kernel.astype(dtype)).astype(x.dtype)


def _sum(arrays: Sequence[Array]) -> Array:
    return functools.reduce(jnp.add, arrays)


def _sides(kernel: Array) -> tuple[int, int]:
    return kernel.shape[0], kernel.shape[1]


def _products(a: Array, b: Array) -> Array:
    """Return Σ over batch and pixels of a[…, c] · b[…, d], [c, d]: the gradient of a matrix product's kernel."""
    return lax.dot_general(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]), (((0,), (0,)), ((), ())))


# Matrix products.


@jax.custom_vjp
def _dense(x: Array, kernel: Array) -> Array:
    return x @ kernel


def _dense_bwd(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = kept
    # Behind the barrier XLA cannot fold the transposition back into the product.
    turned = lax.optimization_barrier(x.reshape(-1, x.shape[-1]).T)
    return lax.dot_general(g, kernel, (((g.ndim - 1,), (1,)), ((), ()))), turned @ g.reshape(-1, g.shape[-1])


_dense.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _dense_bwd)


# Any convolution, as one matrix product.


def _patches(stride: int, pads: _Pads, x: Array, kernel: Array) -> Array:
    kh, kw, c, d = kernel.shape
    if (kh, kw) == (stride, stride):  # Patches that do not overlap are a transposition, and 1×1 not even that.
        h, w = (x.shape[i + 1] + sum(pads[i]) for i in (0, 1))
        h, w = h // stride, w // stride
        x = _pad(x, pads)[:, : h * stride, : w * stride].reshape(x.shape[0], h, stride, w, stride, c)
        patches = x.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape[0], h, w, kh * kw * c)
    else:
        taps = _taps(x, (kh, kw), stride, pads)
        patches = taps[0] if len(taps) == 1 else jnp.concatenate(taps, axis=-1)
    return patches @ kernel.reshape(kh * kw * c, d)


# One input channel: multiply-adds, fused with what follows.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _one_channel(pads: _Pads, x: Array, kernel: Array) -> Array:
    taps = _taps(x, _sides(kernel), 1, pads)
    weights = kernel.reshape(len(taps), 1, 1, 1, -1)
    return _sum([tap * weight for tap, weight in zip(taps, weights, strict=True)])


def _one_channel_bwd(pads: _Pads, kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = kept
    size, d = _sides(kernel), kernel.shape[-1]
    # Patches with the pixels last are rows that are copied whole; XLA drops the gradient of images nobody asks for.
    taps = jnp.stack([tap.reshape(-1) for tap in _taps(x, size, 1, pads)])
    back = jnp.split(g @ kernel.reshape(-1, d).T, taps.shape[0], axis=-1)
    return _untaps(back, x.shape, size, 1, pads), (taps @ g.reshape(-1, d)).reshape(kernel.shape)


_one_channel.defvjp(lambda pads, x, kernel: (_one_channel(pads, x, kernel), (x, kernel)), _one_channel_bwd)


# 3×3 kernels with stride 1, by Winograd's minimal filtering F(2×2, 3×3): Y = Aᵀ[(G k Gᵀ) ⊙ (Bᵀ d B)]A for each 4×4 tile
# d of the images, at 16 products a channel pair where the definition has 36 (Lavin & Gray 2015, arXiv:1509.09308).
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


def _tiles(pads: _Pads, x: Array) -> list[_Four]:
    """Return Bᵀ d B of the 4×4 tiles, which overlap by two: 4×4 arrays [b, ⌈h2/2⌉, ⌈w2/2⌉, c]."""
    (top, bottom), (left, right) = pads
    odd_h, odd_w = (x.shape[1] + top + bottom) % 2, (x.shape[2] + left + right) % 2
    taps = _taps(x, (4, 4), 2, ((top, bottom + odd_h), (left, right + odd_w)))
    return _both_ways(_b, [taps[4 * i : 4 * i + 4] for i in range(4)])


def _winograd_kernel(kernel: Array) -> list[_Four]:
    return _both_ways(_g, [[kernel[i, j] for j in range(3)] for i in range(3)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _winograd(pads: _Pads, x: Array, kernel: Array) -> Array:
    pairs = zip(_tiles(pads, x), _winograd_kernel(kernel), strict=True)
    y = _weave(_both_ways(_a, [[v @ u for v, u in zip(*rows, strict=True)] for rows in pairs]))
    h2, w2 = (n + sum(p) - 2 for n, p in zip(x.shape[1:3], pads, strict=True))
    return y[:, :h2, :w2]


def _winograd_bwd(pads: _Pads, kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    # Written out, because with the transposes that JAX derives forward and backward take 2 times as long at 64
    # channels, 1.7 at 128, 1.4 at 256 and 1.3 at 512.
    x, kernel = kept
    h2, w2 = g.shape[1:3]
    (top, bottom), (left, right) = pads
    size, even = (2, 2), ((0, h2 % 2), (0, w2 % 2))
    taps = _taps(g, size, 2, even)
    products = _both_ways(_a_transposed, [taps[:2], taps[2:]])
    # Written as computed again; within one compiled step XLA sees that they are the forward pass's, and keeps them.
    pairs = zip(_tiles(pads, x), products, strict=True)
    grads = _both_ways(_g_transposed, [[_products(v, m) for v, m in zip(*rows, strict=True)] for rows in pairs])
    d_kernel = jnp.stack([jnp.stack(row) for row in grads])
    # The images' gradient is the convolution of g with the kernel turned round, whose G k Gᵀ is the kernel's own with
    # the first and the last place changed. (With the transpose of the tiles' overlap instead, a whole step of
    # ResNet-18 took 1.18 times as long.)
    turned = [[u[j] for j in (3, 1, 2, 0)] for u in (_winograd_kernel(kernel)[i] for i in (3, 1, 2, 0))]
    back = [
        [lax.dot_general(v, u, (((3,), (1,)), ((), ()))) for v, u in zip(*rows, strict=True)]
        for rows in zip(_tiles(((2 - top, 2 - bottom), (2 - left, 2 - right)), g), turned, strict=True)
    ]
    d_x = _weave(_both_ways(_a, back))
    return d_x[:, : x.shape[1], : x.shape[2]], d_kernel


_winograd.defvjp(lambda pads, x, kernel: (_winograd(pads, x, kernel), (x, kernel)), _winograd_bwd)


# One kernel a channel: multiply-adds.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _depthwise(stride: int, pads: _Pads, x: Array, kernel: Array) -> Array:
    weights = kernel.reshape(-1, 1, 1, 1, x.shape[-1])
    taps = _taps(x, _sides(kernel), stride, pads)
    return _sum([tap * weight for tap, weight in zip(taps, weights, strict=True)])


def _depthwise_bwd(stride: int, pads: _Pads, kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = kept
    size, c = _sides(kernel), x.shape[-1]
    weights = kernel.reshape(-1, 1, 1, 1, c)

    def image(i: Array, total: Array) -> Array:
        one, gradient = (lax.dynamic_slice_in_dim(a, i, 1) for a in (x, g))
        return total + jnp.stack([jnp.sum(t * gradient, axis=(0, 1, 2)) for t in _taps(one, size, stride, pads)])

    # An image at a time stays in the cache while it is read once a tap: a third of the time of whole batches.
    d_kernel = lax.fori_loop(0, x.shape[0], image, jnp.zeros((len(weights), c), x.dtype))
    return _untaps([g * weight for weight in weights], x.shape, size, stride, pads), d_kernel.reshape(kernel.shape)


_depthwise.defvjp(lambda stride, pads, x, kernel: (_depthwise(stride, pads, x, kernel), (x, kernel)), _depthwise_bwd)


# Maxima.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _max_pool(size: int, stride: int, pads: _Pads, x: Array) -> Array:
    return functools.reduce(jnp.maximum, _taps(x, (size, size), stride, pads, -jnp.inf))


def _max_pool_fwd(size: int, stride: int, pads: _Pads, x: Array) -> tuple[Array, tuple[Array, Array]]:
    y = _max_pool(size, stride, pads, x)
    return y, (x, y)


def _max_pool_bwd(size: int, stride: int, pads: _Pads, kept: tuple[Array, Array], g: Array) -> tuple[Array]:
    x, y = kept
    taken, back = jnp.zeros(y.shape, bool), []
    for tap in _taps(x, (size, size), stride, pads, -jnp.inf):
        first = (tap == y) & ~taken
        taken = taken | first
        back.append(jnp.where(first, g, 0))
    return (_untaps(back, x.shape, (size, size), stride, pads),)


_max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)
