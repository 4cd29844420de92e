"""Twins of operations equal XLA's own, in value and in gradient, wherever they run."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.models import attention, layers, ops, products, windows

#: (height, width, channels in, channels out, kernel, stride, padding): every rule of ``ops.conv`` and its edges.
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


def both(fn, *args, implementation):
    """Return the value of ``fn`` and its gradients with a cotangent that singles out every output."""
    y, vjp = jax.vjp(functools.partial(fn, implementation=implementation), *args)
    return y, *vjp(jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape).astype(y.dtype))


def compiled(fn, *args, implementation):
    return jax.jit(functools.partial(both, fn, implementation=implementation))(*args)


def check(fn, *args, tolerance=1e-5):
    agree(*(compiled(fn, *args, implementation=i) for i in ("twin", "xla")), tolerance)


def agree(ours, theirs, tolerance=1e-5):
    for mine, xla in zip(ours, theirs, strict=True):
        assert mine.shape == xla.shape and mine.dtype == xla.dtype
        mine, xla = np.asarray(mine, np.float64), np.asarray(xla, np.float64)
        np.testing.assert_allclose(mine, xla, rtol=0, atol=tolerance * max(1e-3, np.abs(xla).max()))


def conv_of(stride, padding, op=ops.conv):
    return lambda x, kernel, implementation: op(x, kernel, stride, padding, implementation)


@pytest.mark.parametrize(("h", "w", "c", "d", "k", "stride", "padding"), CONVS)
def test_conv_equals_xlas(h, w, c, d, k, stride, padding):
    check(conv_of(stride, padding), random(0, 2, h, w, c), random(1, k, k, c, d))


@pytest.mark.parametrize(("stride", "padding", "size"), [(2, 1, 3), (2, "SAME", 5)])
def test_conv_in_blocks_of_images_equals_xlas(stride, padding, size, monkeypatch):
    x, kernel = random(0, 6, 7, 8, 32), random(1, size, size, 32, 32)
    monkeypatch.setattr(products, "_BLOCK_BYTES", max(4 * kernel.size, 2 * 4 * 16 * size**2 * 32))
    pads = windows.pads_of(x.shape[1:3], (size, size), stride, padding)
    assert products._images_a_block(stride, pads, x, kernel) < 6
    check(conv_of(stride, padding), x, kernel)


@pytest.mark.parametrize(("h", "w", "c", "k", "stride", "padding"), DEPTHWISE)
def test_depthwise_conv_equals_xlas(h, w, c, k, stride, padding):
    check(conv_of(stride, padding, ops.depthwise_conv), random(0, 3, h, w, c), random(1, k, k, 1, c))


@pytest.mark.parametrize("op", [ops.max_pool, ops.avg_pool])
@pytest.mark.parametrize(("h", "w", "c", "size", "stride", "padding"), POOLS)
def test_pools_equal_xlas_ties_included(op, h, w, c, size, stride, padding):
    x = jnp.round(2 * random(0, 2, h, w, c))  # Few values, so many ties.
    check(lambda x, implementation: op(x, size, stride, padding, implementation), x, tolerance=1e-6)


@pytest.mark.parametrize(("c", "d"), [(3, 8), (8, 3)])
def test_dense_equals_xlas_whichever_side_is_transposed(c, d):
    check(ops.dense, random(0, 2, 5, c), random(1, c, d))


def test_gelu_equals_xlas():
    x = jnp.concatenate([8 * random(0, 500), jnp.asarray([0.0, -40.0, 40.0])])
    check(lambda x, implementation: ops.gelu(x, False, implementation), x, tolerance=1e-6)
    approximate = functools.partial(ops.gelu, approximate=True)
    np.testing.assert_array_equal(approximate(x, implementation="twin"), approximate(x, implementation="xla"))


@pytest.mark.parametrize("shape", [(6, 16), (2, 5, 12), (3, 1)])
@pytest.mark.parametrize("offset", [0.0, 3000.0])
def test_layer_norm_equals_flaxs(shape, offset):
    """In value and gradient, with a variance of two passes."""
    x, scale, bias = offset + random(0, *shape), 1 + random(1, shape[-1]), random(2, shape[-1])

    def of(x, scale, bias, implementation):
        if implementation == "twin":
            return ops.layer_norm(x, scale, bias)
        return nn.LayerNorm(1e-6, use_fast_variance=False).apply({"params": {"scale": scale, "bias": bias}}, x)

    check(of, x, scale, bias, tolerance=1e-5 if not offset else 1e-3)  # Of a number near 3,000, float32 keeps 2e-4.


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
    check(lambda x, implementation: attention.attend(x, heads, implementation), qkv)
    q, k, v = (np.asarray(a, np.float64).reshape(2, t, heads, depth) for a in np.split(np.asarray(qkv), 3, axis=-1))
    scores = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(depth)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("bhts,bshd->bthd", weights, v).reshape(2, t, heads * depth)
    np.testing.assert_allclose(attention.attend(qkv, heads), expected, rtol=1e-5, atol=1e-5)


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
def test_twins_run_under_vmap_and_in_a_loop(op):
    c, d, stride = CHANNELS[op]
    x = random(0, 3, 2, 6, 5, c)
    kernel = random(1, 3, 3, 3, *((1, c) if op == "depthwise" else (c, d)))

    def fn(x, kernel, implementation):
        if op == "pool":
            return ops.max_pool(x, 2, implementation=implementation) * kernel.mean()
        conv = ops.depthwise_conv if op == "depthwise" else ops.conv
        return conv(x, kernel, stride, implementation=implementation)

    def lanes(x, kernel, implementation):
        return jax.vmap(functools.partial(fn, implementation=implementation))(x, kernel)

    def loop(x, kernel, implementation):
        step = lambda total, pair: (total, fn(*pair, implementation))  # noqa: E731
        return jax.lax.scan(step, 0, (x, kernel))[1]

    theirs = compiled(lanes, x, kernel, implementation="xla")
    for ours in (lanes, loop):
        agree(compiled(ours, x, kernel, implementation="twin"), theirs)


def test_a_step_of_a_loop_has_the_bits_of_any_other():
    """And the same executable returns the same bits."""
    x, kernel = random(0, 4, 12, 12, 16), random(1, 3, 3, 16, 16)

    @jax.jit
    def losses(x, kernel):
        def step(_, i):
            # i is always zero: XLA does not know, and must compute every step.
            y, grads = jax.value_and_grad(lambda k: (ops.conv(x + i, k, implementation="twin") ** 2).sum())(kernel)
            return None, (y, grads)

        return jax.lax.scan(step, None, jnp.zeros(4))[1]

    first, second = losses(x, kernel), losses(x, kernel)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, np.broadcast_to(a[:1], a.shape))


def test_gradients_of_gradients():
    x, kernel = random(0, 1, 4, 4, 16), random(1, 3, 3, 16, 16)

    def curvature(x, kernel, implementation):
        loss = lambda k: jnp.sum(jnp.tanh(ops.conv(x, k, implementation=implementation)))  # noqa: E731
        return jax.grad(lambda k: jnp.sum(jax.grad(loss)(k) ** 2))(kernel)

    ours, xla = (jax.jit(functools.partial(curvature, implementation=i))(x, kernel) for i in ("twin", "xla"))
    np.testing.assert_allclose(ours, xla, rtol=1e-4, atol=1e-5 * float(jnp.abs(xla).max()))


def test_layers_have_flaxs_parameters_and_values():
    x, key = random(0, 2, 7, 6, 4), jax.random.key(3)
    pairs = [
        (layers.Conv(5, 3, 2), nn.Conv(5, (3, 3), (2, 2))),
        (layers.Conv(5, use_bias=False), nn.Conv(5, (3, 3), use_bias=False)),
        (layers.DepthwiseConv(5, padding="VALID"), nn.Conv(4, (5, 5), padding="VALID", feature_group_count=4)),
    ]
    for mine, flax in pairs:
        params, theirs = mine.init(key, x), flax.init(key, x)
        assert jax.tree.structure(params) == jax.tree.structure(theirs)
        jax.tree.map(np.testing.assert_array_equal, params, theirs)
        np.testing.assert_allclose(mine.apply(params, x), flax.apply(params, x), rtol=1e-5, atol=1e-5)


def test_the_choice_of_implementation():
    assert ops.choose() == ("twin" if jax.default_backend() == "cpu" else "xla")
    x, kernel = random(0, 1, 4, 4, 16), random(1, 3, 3, 16, 16)
    for i, convolves in (("xla", True), ("twin", False)):
        assert ops.choose(i) == i
        text = jax.jit(lambda x, k, i=i: ops.conv(x, k, implementation=i)).lower(x, kernel).as_text()
        assert ("stablehlo.convolution" in text) == convolves
    with pytest.raises(ValueError, match='implementation = "cudnn": must be xla or twin'):
        ops.conv(x, kernel, implementation="cudnn")


def test_an_unknown_padding_is_refused():
    with pytest.raises(ValueError, match='padding = "FULL": must be SAME, VALID or a number'):
        ops.conv(random(0, 1, 4, 4, 1), random(1, 3, 3, 1, 1), 1, "FULL")
