"""What a model makes of its inputs: nothing of them left, or nothing but zeros, is refused before it is compiled."""

import contextlib

import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl.models import Model, anatomy, build
from mtl.models.nnx import NNX
from mtl.tasks import Task

T = (Task("t", "binary"),)


class Foreign(nn.Module):
    """A backbone of somebody else."""

    what: str = "batch"
    width: int = 4

    @nn.compact
    def __call__(self, x, train):
        """Return features."""
        x = nn.Dense(self.width, name="first")(x)
        if self.what == "batch":
            return nn.BatchNorm(use_running_average=not train, name="norm")(x)
        if self.what == "images":
            return nn.Conv(3, (3, 3), name="norm")(x)
        if self.what == "sliced":
            return nn.LayerNorm(name="norm")(x)[:, :0]
        if self.what == "wrong":
            raise KeyError("no such thing")
        return nn.GroupNorm(num_groups=None, group_size=1, name="norm")(x)


def sides_left(side, blocks):
    return side // 2**blocks


@pytest.mark.parametrize("side", [1, 2, 3, 7, 8, 15, 16])
def test_a_cnn_is_refused_exactly_where_nothing_is_left(side):
    for blocks in range(6):
        model = build("cnn", {"channels": (3,) * blocks, "features": 4, "norm": "none"}, T)
        if sides_left(side, blocks):
            params = anatomy(model, (side, side, 1)).params
            assert (
                params["backbone"]["dense"]["kernel"].shape[0] == (3 if blocks else 1) * sides_left(side, blocks) ** 2
            )
        else:
            with pytest.raises(ValueError, match=r"^model: block_\d leaves nothing of inputs of shape"):
                anatomy(model, (side, side, 1))
            with pytest.raises(ValueError, match=r"^model: block_\d leaves nothing of inputs of shape"):
                jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, side, side, 1)))


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("cnn", {"channels": (8,), "features": 4}, (2, 2, 1)),
        ("cnn", {"channels": (8, 8), "features": 4}, (2, 2, 1)),
        ("cnn", {"channels": (12,), "features": 4}, (4, 4, 1)),
        ("resnet", {"width": 2, "norm": "group"}, (4, 4, 1)),
        pytest.param("resnet", {"width": 2, "norm": "group"}, (16, 16, 1), marks=pytest.mark.slow),
        pytest.param("vit", {"width": 2, "depth": 1, "heads": 1}, (8, 8, 1), marks=pytest.mark.slow),
        ("mlp", {"hidden": (1,)}, (3,)),
    ],
)
def test_what_is_taken_depends_on_its_inputs(name, options, shape):
    """Features of random inputs differ, or the model is refused: nothing between."""
    model = build(name, options, T)
    x, taken = jnp.asarray(np.random.default_rng(0).normal(size=(8, *shape)), jnp.float32), False
    with contextlib.suppress(ValueError):
        anatomy(model, shape)
        taken = True
    if not taken:
        return
    features = jax.jit(lambda key, x: model.features(*model.init(key, x), x))(jax.random.key(0), x)
    assert np.ptp(np.asarray(features), axis=0).max() > 0


def test_a_value_normalised_by_itself_is_refused():
    for name, options, shape in (
        ("vit", {"width": 1, "depth": 1, "heads": 1}, (8, 8, 1)),
        ("resnet", {"width": 4, "norm": "group"}, (8, 8, 1)),
    ):
        with pytest.raises(ValueError, match=r"^model: .* normalises each value by itself"):
            anatomy(build(name, options, T), shape)
    with pytest.raises(ValueError, match="normalises each value by itself"):
        anatomy(Model(Foreign("alone"), T), (5,))


@pytest.mark.parametrize("name", ["cnn", "resnet", "vit", "efficientnet_lite"])
@pytest.mark.parametrize("shape", [(64,), (8, 8), (2, 8, 8, 1)])
def test_backbones_of_images_take_images(name, shape):
    with pytest.raises(ValueError, match=rf'^model\.name = "{name}": inputs are of shape .*: must be images'):
        anatomy(build(name, {}, T), shape)


#: JAX draws no weights for no outputs before 0.11.
NEWER = jax.__version_info__ >= (0, 11)


def test_a_foreign_backbone_is_explained_in_one_sentence():
    for what, width, shape, said in (
        ("batch", 0, (5,), "first leaves nothing" if NEWER else r"ZeroDivisionError: .*test_anatomy\.py, line \d+\)"),
        ("images", 4, (8, 8, 1), r"must be \[batch, features\]"),
        ("sliced", 4, (5,), "must not be empty"),
        ("wrong", 4, (5,), r"it does not take inputs of shape \(5,\): KeyError: .*test_anatomy\.py, line \d+\)"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            anatomy(Model(Foreign(what, width), T), shape)
        assert str(error.value).startswith("model") and "\n" not in str(error.value)


class Spliced(nnx.Module):
    """An NNX backbone that halves its images, and normalises what is left."""

    def __init__(self, halvings: int = 1, norm: str = "batch", *, rngs: nnx.Rngs):
        norms = {
            "batch": lambda: nnx.BatchNorm(4, rngs=rngs),
            "group": lambda: nnx.GroupNorm(4, num_groups=4, rngs=rngs),
            "layer": lambda: nnx.LayerNorm(4, rngs=rngs),
            "instance": lambda: nnx.InstanceNorm(4, rngs=rngs),
        }
        self.blocks = nnx.List([Halving(3 if i == 0 else 4, rngs=rngs) for i in range(halvings)])
        self.top = nnx.Sequential(norms[norm](), nnx.relu)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.top(x).mean(axis=(1, 2))


class Halving(nnx.Module):
    def __init__(self, channels, *, rngs):
        self.conv = nnx.Conv(channels, 4, (3, 3), rngs=rngs)

    def __call__(self, x):
        return nnx.max_pool(self.conv(x), (2, 2), (2, 2))


@pytest.mark.parametrize("norm", ["batch", "group", "layer", "instance"])
def test_an_nnx_module_is_watched_as_a_linen_one_is(norm):
    for halvings in (1, 2, 3, 4):
        model = Model(NNX(Spliced, (("halvings", halvings), ("norm", norm))), T)
        left = sides_left(8, halvings) ** 2
        if not left:
            with pytest.raises(ValueError, match=r"^model: blocks/3 leaves nothing of inputs of shape \(8, 8, 3\)"):
                anatomy(model, (8, 8, 3))
        elif left == 1 and norm in ("group", "instance"):
            with pytest.raises(ValueError, match=r"^model: top/layers/0 normalises each value by itself for inputs"):
                anatomy(model, (8, 8, 3))
        else:
            assert dict(anatomy(model, (8, 8, 3)).values) == ({"top/layers/0": left} if norm == "batch" else {})


def test_values_that_share_a_channels_statistics():
    assert dict(anatomy(Model(Foreign(), T), (5,)).values) == {"norm": 1}
    assert dict(anatomy(build("cnn", {"channels": (4, 4), "norm": "batch"}, T), (6, 8, 1)).values) == {
        "block_0/norm": 48, "block_1/norm": 12,
    }  # fmt: skip
    assert anatomy(build("cnn", {}, T), (8, 8, 1)).values == {}


@pytest.mark.slow
def test_groups_divide_the_channels():
    """As before where eight groups or as many as there are channels do; the largest number that does elsewhere."""
    for channels, groups in ((4, 4), (7, 7), (8, 8), (16, 8), (12, 6), (13, 1)):
        model = build("cnn", {"channels": (channels,), "features": 2}, T)
        x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 1)), jnp.float32)
        params, state = model.init(jax.random.key(0), x)
        block, head = params["backbone"]["block_0"], params["backbone"]["dense"]
        y = nn.Conv(channels, (3, 3), use_bias=False).apply({"params": block["conv"]}, x)
        y = np.asarray(y).reshape(1, 16, groups, -1)
        y = (y - y.mean((1, 3), keepdims=True)) / np.sqrt(y.var((1, 3), keepdims=True) + 1e-6)
        y = np.maximum(y.reshape(2, 2, 2, 2, channels).max((1, 3)), 0).reshape(1, -1)
        right = np.maximum(y @ np.asarray(head["kernel"]), 0)
        np.testing.assert_allclose(model.features(params, state, x), right, atol=2e-5)
