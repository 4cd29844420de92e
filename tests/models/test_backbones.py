"""Backbones equal PyTorch's layers on tiny configurations, and have timm's numbers of parameters on real ones."""

import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl import cpu
from mtl import params as paths
from mtl.cpu import replace
from mtl.models import MODELS, EfficientNetLite, ResNet, ViT, anatomy, build, linen
from mtl.tasks import Task
from tests.golden.draw import CASES, draw

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "backbones.json").read_text())
EVEN = Task("even", "binary")


def shapes(model, shape):
    return jax.eval_shape(lambda k: model.init(k, jnp.zeros(shape), False), jax.random.key(0))


def drawn(variables):
    """Return the same tree with the numbers that PyTorch had."""
    return {
        kind: jax.tree_util.tree_map_with_path(lambda p, s: jnp.asarray(draw(paths.path_of(p), s.shape)), tree)
        for kind, tree in variables.items()
    }


def count(variables):
    return sum(math.prod(s.shape) for s in jax.tree.leaves(variables["params"]))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """XLA's own operations compile several times faster than kernels, which are tested by themselves."""
    _use(False, monkeypatch)


def _use(kernels, monkeypatch):
    monkeypatch.setattr(replace, "used", lambda: kernels)


@pytest.mark.parametrize("kernels", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_a_backbone_computes_what_pytorchs_layers_do(case, kernels, monkeypatch):
    _use(kernels, monkeypatch)
    name, options, shape = CASES[case]
    model = MODELS[name](**options)
    variables = drawn(shapes(model, shape))
    params, state = variables.pop("params"), variables
    x = jnp.asarray(draw(f"{case}/x", shape))

    def features(params, x, train):
        run = lambda p, x: model.apply({"params": p, **state}, x, train, mutable=list(state))[0]  # noqa: E731
        return cpu.with_kernels(run)(params, x)

    def loss(params, x):
        y = features(params, x, True)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)), y

    def agree(mine, mode, what):
        expected = np.asarray(GOLDEN[f"{case}, {mode}"][what])
        # Statistics of the few pixels that are left at the end amplify rounding, in both.
        np.testing.assert_allclose(np.ravel(mine), expected, rtol=1e-3, atol=2e-4 * np.abs(expected).max())

    assert count({"params": params}) == GOLDEN[f"{case}, eval"]["parameters"]
    agree(np.asarray(jax.jit(features, static_argnums=2)(params, x, False))[:, :16], "eval", "features")
    trained = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)
    (_, y), (d_params, d_x) = jax.tree.map(np.asarray, trained)
    agree(y[:, :16], "train", "features")
    agree(d_x[:, ::4, ::4, 0], "train", "gradient")
    agree(math.sqrt(sum(float(np.sum(g**2)) for g in jax.tree.leaves(d_params))), "train", "norm")


@pytest.mark.parametrize(
    ("model", "shape", "parameters"),
    [
        (ResNet(stem="large"), (1, 224, 224, 3), 11_689_512),
        (ResNet(34, stem="large"), (1, 224, 224, 3), 21_797_672),
        (ViT(patch=16), (1, 224, 224, 3), 5_717_416),
        (EfficientNetLite(), (1, 224, 224, 3), 4_652_008),
    ],
)
def test_parameters_are_as_many_as_timms(model, shape, parameters):
    """timm's resnet18, resnet34, vit_tiny_patch16_224 and efficientnet_lite0, with their 1000 classes."""
    variables = shapes(model, shape)
    features = jax.eval_shape(lambda v: model.apply(v, jnp.zeros(shape), False), variables).shape[-1]
    assert count(variables) + 1000 * (features + 1) == parameters


def test_a_stem_for_small_images_has_a_smaller_kernel():
    assert count(shapes(ResNet(), (1, 32, 32, 3))) == 11_689_512 - 1000 * 513 - (49 - 9) * 3 * 64


@pytest.mark.parametrize("case", ["resnet small batch", "vit cls exact", "lite batch"])
def test_blocks_are_all_of_a_backbone(case):
    name, options, shape = CASES[case]
    found = anatomy(build(name, options, (EVEN,)), shape[1:])
    blocks = [block.removeprefix("backbone/") for block in found.blocks]
    assert sorted(found.params["backbone"]) == sorted(blocks)
    inner = [block for block in blocks if block.startswith("block_")]
    first, last = blocks[0], blocks[-1]
    assert inner == [f"block_{i}" for i in range(len(inner))] and first in ("stem", "embed")
    assert last == {"resnet": inner[-1], "vit": "norm", "efficientnet_lite": "top"}[name]
    assert hash(build(name, options, (EVEN,))) == hash(build(name, dict(options), (EVEN,)))


def test_lists_of_lists_in_options_are_tuples():
    model = build("efficientnet_lite", {"stages": [[3, 1, 1, 8, 1], [3, 2, 6, 8, 2]]}, (EVEN,))
    assert model.backbone.stages == ((3, 1, 1, 8, 1), (3, 2, 6, 8, 2))
    names = ("stem", "block_0", "block_1", "block_2", "top")
    assert anatomy(model, (8, 8, 3)).blocks == tuple(f"backbone/{name}" for name in names)


@pytest.mark.slow
def test_a_block_in_eval_mode_keeps_its_statistics():
    model = build("resnet", {"width": 4}, (EVEN,))
    x = jnp.asarray(draw("x", (2, 8, 8, 3)))
    params, state = jax.jit(lambda k: model.init(k, x))(jax.random.key(0))
    names = {block.removeprefix("backbone/") for block in anatomy(model, (8, 8, 3)).blocks}
    _, new = jax.jit(lambda p, s: model.apply(p, s, x, train=frozenset(names - {"block_1"})))(params, state)
    for name in names:
        old, now = (jax.tree.leaves(s["batch_stats"][name]) for s in (state, new))
        assert all(np.array_equal(a, b) for a, b in zip(old, now, strict=True)) == (name == "block_1")


def test_dropout_of_a_vit_follows_the_blocks_modes():
    model = ViT(patch=4, width=8, depth=1, heads=2, dropout=0.5)
    x = jnp.asarray(draw("x", (2, 8, 8, 3)))
    variables = drawn(shapes(model, x.shape))

    @functools.partial(jax.jit, static_argnums=1)
    def run(seed, train):
        return linen.apply(model, variables["params"], {}, x, train, jax.random.key(seed))[0]

    off, on = False, frozenset({"block_0"})
    np.testing.assert_array_equal(run(0, off), run(1, off))
    assert not np.array_equal(run(0, on), run(1, on))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet", {"depth": 50}, r"model\.options\.depth = 50: must be 18 or 34"),
        ("resnet", {"stem": "tiny"}, r"model\.options\.stem = 'tiny': must be \"small\" or \"large\""),
        ("resnet", {"norm": "layer"}, r"model\.options\.norm = 'layer': must be \"batch\" or \"group\""),
        ("vit", {"pool": "max"}, r"model\.options\.pool = 'max': must be \"cls\" or \"mean\""),
        ("vit", {"gelu": "fast"}, r"model\.options\.gelu = 'fast': must be \"exact\" or \"tanh\""),
        ("vit", {"heads": 5}, r"model\.options\.heads = 5: must divide width = 192"),
        ("vit", {"patch": 16}, r"model\.options\.patch = 16: must divide the sides of the images, 8×8"),
        ("vit", {"patch": 5}, r"model\.options\.patch = 5: must divide the sides of the images, 8×8"),
    ],
)
def test_mistakes_are_explained(name, options, message):
    with pytest.raises(ValueError, match=message):
        anatomy(build(name, options, (EVEN,)), (8, 8, 3))
