"""Kernels for a CPU equal XLA's own operations, in value and in gradient, wherever they run."""

import functools

import flax.linen as nn
import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from mtl.cpu import attend, dense, gelu, layer_norm, products, with_kernels
from mtl.models import layers

#: (height, width, channels in, channels out, kernel, stride, padding): every rule of ``cpu.convolution``, its edges.
CONVS = [
    (8, 8, 16, 16, 3, 1, "SAME"),  # Winograd
    (7, 5, 16, 20, 3, 1, "SAME"),  # idem, odd sizes
    (7, 6, 20, 16, 3, 1, "VALID"),
    (5, 6, 16, 16, 3, 1, 2),
    (1, 1, 16, 16, 3, 1, "SAME"),
    (9, 8, 1, 4, 3, 1, "SAME"),  # one input channel
    (8, 7, 1, 4, 5, 1, 1),
    (8, 8, 1, 4, 2, 1, "SAME"),  # an even kernel is padded unevenly
    (9, 8, 3, 4, 3, 2, "SAME"),  # patches
    (8, 8, 3, 4, 3, 2, 1),
    (6, 7, 3, 4, 3, 1, "SAME"),
    (7, 6, 1, 4, 3, 2, "SAME"),
    (11, 9, 3, 4, 7, 2, 3),  # a stem for large images
    (9, 7, 3, 4, 3, 3, 1),
    (8, 7, 3, 4, 1, 2, "SAME"),  # 1×1, strided
    (6, 6, 2, 3, 1, 1, "SAME"),  # 1×1: a matrix product
    (8, 9, 3, 4, 4, 4, "VALID"),  # patches that do not overlap
    (7, 7, 2, 3, 2, 3, "VALID"),  # gaps between windows
]
DEPTHWISE = [(8, 7, 5, 3, 1, "SAME"), (8, 7, 5, 3, 2, 1), (9, 9, 4, 5, 2, "SAME"), (6, 6, 3, 5, 1, 2)]
POOLS = [
    (8, 8, 3, 2, 2, "VALID"),
    (7, 5, 3, 2, 2, "VALID"),
    (9, 8, 2, 3, 2, 1),  # the stem of a ResNet for large images
    (9, 8, 2, 3, 2, "SAME"),
    (7, 7, 2, 3, 3, "VALID"),
    (6, 6, 2, 3, 1, "SAME"),
]


def random(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def both(fn, *args):
    """Return the value of ``fn`` and its gradients with a cotangent that singles out every output."""
    y, vjp = jax.vjp(fn, *args)
    return y, *vjp(jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape).astype(y.dtype))


def primitives(fn, *args):
    """Return the names of all operations of a function."""

    def names(jaxpr):
        inner = {n for e in jaxpr.eqns for j in jex.jaxprs_in_params(e.params) for n in names(j)}
        return inner | {e.primitive.name for e in jaxpr.eqns}

    return names(jax.make_jaxpr(fn)(*args).jaxpr)


def check(fn, *args, tolerance=1e-5, gone=("conv_general_dilated", "reduce_window_max", "reduce_window_sum")):
    """Hold a function by kernels, of which none of these operations is left, against the function itself."""
    kernels = with_kernels(fn)
    assert not primitives(kernels, *args) & set(gone)
    ours, right = (jax.jit(functools.partial(both, f))(*args) for f in (kernels, fn))
    for mine, xla in zip(ours, right, strict=True):
        assert mine.shape == xla.shape and mine.dtype == xla.dtype
        mine, xla = np.asarray(mine, np.float64), np.asarray(xla, np.float64)
        np.testing.assert_allclose(mine, xla, rtol=0, atol=tolerance * max(1e-3, np.abs(xla).max()))


def conv(x, kernel, stride=1, padding="SAME", groups=1):
    pads = padding if isinstance(padding, str) else ((padding, padding),) * (x.ndim - 2)
    layout = ("NHWC", "HWIO", "NHWC") if x.ndim == 4 else ("NWC", "WIO", "NWC")
    strides = (stride,) * (x.ndim - 2)
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=layout, feature_group_count=groups)


def conv_of(stride, padding, groups=1):
    return lambda x, kernel: conv(x, kernel, stride, padding, groups)


@pytest.mark.parametrize(("h", "w", "c", "d", "k", "stride", "padding"), CONVS)
def test_conv_equals_xlas(h, w, c, d, k, stride, padding):
    check(conv_of(stride, padding), random(0, 2, h, w, c), random(1, k, k, c, d))


@pytest.mark.parametrize(("stride", "padding", "size"), [(2, 1, 3), (2, "SAME", 5)])
def test_conv_in_blocks_of_images_equals_xlas(stride, padding, size, monkeypatch):
    x, kernel = random(0, 6, 7, 8, 32), random(1, size, size, 32, 32)
    monkeypatch.setattr(products, "_BLOCK_BYTES", max(4 * kernel.size, 2 * 4 * 16 * size**2 * 32))
    pads = padding if isinstance(padding, int) else lax.padtype_to_pads((7, 8), (size, size), (stride, stride), padding)
    pads = ((pads, pads), (pads, pads)) if isinstance(pads, int) else tuple(pads)
    assert products._images_a_block(stride, pads, x, kernel) < 6
    check(conv_of(stride, padding), x, kernel)


@pytest.mark.parametrize(("h", "w", "c", "k", "stride", "padding"), DEPTHWISE)
def test_depthwise_conv_equals_xlas(h, w, c, k, stride, padding):
    check(conv_of(stride, padding, c), random(0, 3, h, w, c), random(1, k, k, 1, c))


@pytest.mark.parametrize(("c", "d", "k", "stride", "padding", "groups"), [
    (3, 4, 3, 1, "SAME", 1), (16, 16, 5, 2, 2, 1), (4, 4, 3, 1, "VALID", 4),
])  # fmt: skip
def test_a_convolution_of_sequences_equals_xlas(c, d, k, stride, padding, groups):
    check(conv_of(stride, padding, groups), random(0, 2, 9, c), random(1, k, c // groups, d))


@pytest.mark.parametrize("reduce", [(-jnp.inf, lax.max), (0.0, lax.add)])
@pytest.mark.parametrize(("h", "w", "c", "size", "stride", "padding"), POOLS)
def test_pools_equal_xlas_ties_included(reduce, h, w, c, size, stride, padding):
    x = jnp.round(2 * random(0, 2, h, w, c))  # Few values, so many ties.
    pads = padding if isinstance(padding, str) else ((0, 0), (padding, padding), (padding, padding), (0, 0))
    window = (1, size, size, 1), (1, stride, stride, 1), pads
    # The initial value is a constant: only so does XLA see a maximum and know its gradient.
    check(lambda x: lax.reduce_window(x, *reduce, *window), x, tolerance=1e-6)


@pytest.mark.parametrize("pool", [nn.max_pool, nn.avg_pool])
@pytest.mark.parametrize(("shape", "size"), [((2, 6, 5, 3), (2, 3)), ((2, 7, 3), (3,))])
def test_flaxs_pools_equal_xlas(pool, shape, size):
    check(lambda x: pool(x, size, size_of(size)), jnp.round(2 * random(0, *shape)), tolerance=1e-6)


def size_of(size):
    return (2,) * len(size)


DENSE = {
    "wide": (lambda x, k: x @ k, (2, 5, 3), (3, 8)),
    "tall": (lambda x, k: x @ k, (2, 5, 8), (8, 3)),
    "to heads": (lambda x, k: jnp.tensordot(x, k, 1), (2, 5, 6), (6, 2, 3)),
    "from heads": (lambda x, k: jnp.tensordot(x, k, 2), (2, 5, 2, 3), (2, 3, 6)),
}


@pytest.mark.parametrize("how", DENSE)
def test_products_with_a_matrix_equal_xlas(how):
    fn, rows, matrix = DENSE[how]
    x, kernel = random(0, *rows), random(1, *matrix)
    check(fn, x, kernel)
    assert "custom_vjp_call" in primitives(with_kernels(fn), x, kernel)


def test_other_operations_stay_as_they_are():
    """Dilated, in groups, of whole numbers, over other axes: by XLA, with its bits."""
    x, ids = random(0, 2, 8, 8, 4), jnp.arange(128).reshape(2, 8, 8, 1)
    layout, kernel = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}, random(1, 3, 3, 4, 4)
    cases = [
        (lambda x, k: lax.conv_general_dilated(x, k, (1, 1), "SAME", rhs_dilation=(2, 2), **layout), x, kernel),
        (lambda x, k: conv(x, k, groups=2), x, random(1, 3, 3, 2, 4)),
        (lambda x, k: lax.conv_general_dilated(x, k, (2, 1), "SAME", **layout), x, kernel),
        (lambda x, k: lax.conv(x, k, (1, 1), "SAME"), x, random(1, 4, 8, 3, 3)),
        (lambda x, k: jnp.einsum("bhwc,bhwd->bcd", x, k), x, x),
        (lambda x, _: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 2), (1, 1, 1, 1), "VALID"), x, x),
        (lambda x, _: nn.max_pool(x, (2, 2)), ids, ids),
        (lambda x, k: jax.jit(lambda x: jnp.sort(x) + k)(x), x, x),
    ]  # fmt: skip
    for fn, *args in cases:
        assert primitives(with_kernels(fn), *args) == primitives(fn, *args)
        np.testing.assert_array_equal(jax.jit(with_kernels(fn))(*args), jax.jit(fn)(*args))


def test_kernels_reach_into_jit_and_recomputation_and_leave_gradients_of_others_alone():
    x, kernel = random(0, 2, 8, 8, 3), random(1, 3, 3, 3, 4)

    @jax.custom_vjp
    def own(y):
        return y * 2

    own.defvjp(lambda y: (y * 2, None), lambda _, g: (g * 7,))
    inner = jax.jit(lambda x, k: nn.relu(nn.max_pool(conv(x, k), (2, 2), (2, 2))))
    check(lambda x, k: own(jax.checkpoint(inner)(x, k)).sum(axis=-1), x, kernel)
    policy = jax.checkpoint_policies.dots_saveable
    check(lambda x, k: jax.checkpoint(inner, policy=policy)(x, k), x, kernel)
    assert "remat2" in primitives(with_kernels(lambda x, k: jax.checkpoint(inner)(x, k)), x, kernel)


def test_elsewhere_than_on_a_cpu_a_function_is_itself(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert with_kernels(conv) is conv
    x, kernel = random(0, 1, 4, 4), random(1, 4, 3)
    for fn, *args in ((dense, x, kernel), (gelu, x), (lambda q: attend(q, 1), random(2, 1, 4, 6))):
        assert "custom_vjp_call" not in primitives(fn, *args)


def test_gelu_equals_xlas():
    x = jnp.concatenate([8 * random(0, 500), jnp.asarray([0.0, -40.0, 40.0])])
    same(gelu, functools.partial(jax.nn.gelu, approximate=False), x, tolerance=1e-6)


def same(mine, theirs, *args, tolerance=1e-5):
    for a, b in zip(
        jax.jit(functools.partial(both, mine))(*args), jax.jit(functools.partial(both, theirs))(*args), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1e-3, float(jnp.abs(b).max())))


@pytest.mark.parametrize("shape", [(6, 16), (2, 5, 12), (3, 1)])
@pytest.mark.parametrize("offset", [0.0, 3000.0])
def test_layer_norm_equals_flaxs(shape, offset):
    """In value and gradient, with a variance of two passes."""
    x, scale, bias = offset + random(0, *shape), 1 + random(1, shape[-1]), random(2, shape[-1])

    def flaxs(x, scale, bias):
        return nn.LayerNorm(1e-6, use_fast_variance=False).apply({"params": {"scale": scale, "bias": bias}}, x)

    # Of a number near 3,000, float32 keeps 2e-4.
    same(layer_norm, flaxs, x, scale, bias, tolerance=1e-3 if offset else 1e-5)


@pytest.mark.parametrize("epsilon", [1e-6, 0.5])
def test_the_layer_norm_of_a_model_is_flaxs(epsilon, monkeypatch):
    """With the parameters of Flax's, whichever way it is computed."""
    x, theirs = random(0, 2, 5, 12), nn.LayerNorm(epsilon, use_fast_variance=False)
    variables = {"params": {"scale": 1 + random(1, 12), "bias": random(2, 12)}}
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        mine = layers.LayerNorm(epsilon)
        assert jax.tree.structure(mine.init(jax.random.key(0), x)) == jax.tree.structure(variables)
        np.testing.assert_allclose(mine.apply(variables, x), theirs.apply(variables, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("t", "heads", "depth"), [(5, 3, 4), (1, 1, 2), (7, 2, 8)])
def test_attention_equals_xlas(t, heads, depth):
    qkv = 3 * random(0, 2, t, 3 * heads * depth)

    def plain(x):
        q, k, v = (a.reshape(2, t, heads, depth) for a in jnp.split(x, 3, axis=-1))
        return jax.nn.dot_product_attention(q, k, v).reshape(2, t, heads * depth)

    same(lambda x: attend(x, heads), plain, qkv)
    q, k, v = (np.asarray(a, np.float64).reshape(2, t, heads, depth) for a in np.split(np.asarray(qkv), 3, axis=-1))
    scores = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(depth)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("bhts,bshd->bthd", weights, v).reshape(2, t, heads * depth)
    np.testing.assert_allclose(attend(qkv, heads), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=8, deadline=None)
@given(
    st.integers(1, 7), st.integers(1, 7), st.sampled_from([1, 2, 16]), st.sampled_from([1, 3, 16]),
    st.integers(1, 4), st.integers(1, 3), st.sampled_from(["SAME", "VALID", 0, 1, 2]),
)  # fmt: skip
def test_any_conv_equals_xlas(h, w, c, d, k, stride, padding):
    if padding in ("VALID", 0, 1):
        h, w = h + k, w + k
    elif padding == 2:
        h, w = max(h, k - 3), max(w, k - 3)
    check(conv_of(stride, padding), random(h, 1, h, w, c), random(w, k, k, c, d))


@pytest.mark.parametrize(
    "shape", [(6, 6, 16, 16, 3, 1, "SAME"), (6, 6, 1, 4, 3, 1, "SAME"), (6, 6, 3, 4, 3, 2, "SAME")]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.bfloat16, 2e-2), (jnp.float16, 4e-3)])
def test_small_types_are_computed_in_float32(shape, dtype, tolerance):
    h, w, c, d, k, stride, padding = shape
    args = random(0, 2, h, w, c).astype(dtype), random(1, k, k, c, d).astype(dtype)
    check(conv_of(stride, padding), *args, tolerance=tolerance)


CHANNELS = {
    "winograd": (16, 16, 1),
    "one channel": (1, 3, 1),
    "patches": (3, 4, 2),
    "depthwise": (3, 1, 2),
    "pool": (2, 1, 1),
}


@pytest.mark.parametrize("op", CHANNELS)
def test_kernels_run_under_vmap_and_in_a_loop(op):
    c, d, stride = CHANNELS[op]
    x = random(0, 3, 2, 6, 5, c)
    kernel = random(1, 3, 3, 3, *((1, c) if op == "depthwise" else (c, d)))

    def fn(x, kernel):
        if op == "pool":
            return nn.max_pool(x, (2, 2), (2, 2)) * kernel.mean()
        return conv(x, kernel, stride, groups=c if op == "depthwise" else 1)

    plain = jax.jit(functools.partial(both, jax.vmap(fn)))(x, kernel)

    def loop(x, kernel):
        step = lambda total, pair: (total, with_kernels(fn)(*pair))  # noqa: E731
        return jax.lax.scan(step, 0, (x, kernel))[1]

    for kernels in (jax.vmap(with_kernels(fn)), loop):
        for mine, xla in zip(jax.jit(functools.partial(both, kernels))(x, kernel), plain, strict=True):
            np.testing.assert_allclose(mine, xla, rtol=0, atol=1e-5 * max(1e-3, float(jnp.abs(xla).max())))


def test_a_step_of_a_loop_has_the_bits_of_any_other():
    """And the same executable returns the same bits."""
    x, kernel = random(0, 4, 12, 12, 16), random(1, 3, 3, 16, 16)

    @jax.jit
    def losses(x, kernel):
        def step(_, i):
            # i is always zero: XLA does not know, and must compute every step.
            y, grads = jax.value_and_grad(lambda k: (with_kernels(conv)(x + i, k) ** 2).sum())(kernel)
            return None, (y, grads)

        return jax.lax.scan(step, None, jnp.zeros(4))[1]

    first, second = losses(x, kernel), losses(x, kernel)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, np.broadcast_to(a[:1], a.shape))


def test_gradients_of_gradients():
    x, kernel = random(0, 1, 4, 4, 16), random(1, 3, 3, 16, 16)

    def curvature(conv, x, kernel):
        loss = lambda k: jnp.sum(jnp.tanh(conv(x, k)))  # noqa: E731
        return jax.grad(lambda k: jnp.sum(jax.grad(loss)(k) ** 2))(kernel)

    ours, xla = (jax.jit(functools.partial(curvature, f))(x, kernel) for f in (with_kernels(conv), conv))
    np.testing.assert_allclose(ours, xla, rtol=1e-4, atol=1e-5 * float(jnp.abs(xla).max()))
