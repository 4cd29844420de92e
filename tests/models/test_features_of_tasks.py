"""Backbones with features of each task, of one example or of its positions: U-Net, mixture of experts, anybody's."""

import functools

import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mtl.models import MODELS, anatomy, build, register, untold
from mtl.params import flatten
from mtl.tasks import Task

BINARY, REGRESSION = Task("b", "binary"), Task("a/r", "regression")


def maps(*shape):
    return Task("seg", "segmentation", num_classes=3, shape=shape), Task("deep", "dense_regression", shape=shape)


@pytest.fixture(autouse=True)
def forgotten():
    known = dict(MODELS)
    yield
    MODELS.clear()
    MODELS.update(known)


def images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.cache
def begun(model, shape):
    """Parameters of a model, none of them zero."""
    params, state = model.init(jax.random.key(0), jnp.zeros((1, *shape)))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(tree, [a + 0.1 * rng.normal(size=a.shape).astype(np.float32) for a in leaves]), state


# --- a mixture of experts ---


@functools.cache
def mixture(experts=3, hidden=(6, 5)):
    return build("mmoe", {"experts": experts, "hidden": hidden}, (BINARY, REGRESSION))


def dense(params, x):
    return x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def expert(params, x):
    for i in range(len(params)):
        x = np.maximum(dense(params[f"dense_{i}"], x), 0)
    return x


def test_a_mixture_is_what_numpy_makes_of_its_definition():
    params, state = begun(mixture(), (2, 4))
    x = images(7, 2, 4)
    own, flat = params["backbone"], np.asarray(x, np.float64).reshape(7, 8)
    experts = np.stack([expert(own[f"expert_{i}"], flat) for i in range(3)])
    outputs, _ = mixture().apply(params, state, x)
    for task, gate in (("b", "gate_b"), ("a/r", "gate_a%2Fr")):
        share = scipy.special.softmax(dense(own[gate], flat), axis=1)
        features = sum(share[:, [i]] * experts[i] for i in range(3))
        np.testing.assert_allclose(mixture().features(params, state, x)[task], features, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(outputs[task], dense(params["heads"][task], features), rtol=1e-5, atol=1e-6)


def test_of_one_expert_it_is_that_expert():
    """Its gate has nothing to choose: the same bits as an MLP of the expert's parameters."""
    params, state = begun(mixture(1), (8,))
    x, mlp = images(7, 8), build("mlp", {"hidden": (6, 5)}, (BINARY,))
    alone = mlp.features({"backbone": params["backbone"]["expert_0"]}, {}, x)
    for features in mixture(1).features(params, state, x).values():
        np.testing.assert_allclose(features, alone, rtol=1e-6)


def test_tasks_share_experts_and_have_a_gate_each():
    params, state = begun(mixture(), (8,))
    x = images(7, 8)
    loss = lambda p: mixture().apply(p, state, x, tasks=("b",))[0]["b"].sum()  # noqa: E731
    moved = {path for path, g in flatten(jax.grad(loss)(params)).items() if np.any(np.asarray(g))}
    parts = {p.split("/")[1] for p in moved if p.startswith("backbone")}
    assert parts == {"expert_0", "expert_1", "expert_2", "gate_b"}
    assert {p for p in moved if p.startswith("heads")} == {"heads/b/kernel", "heads/b/bias"}


# --- a U-Net ---


def convolved(x, kernel):
    """A 3×3 convolution with zero padding, as a sum over the nine places of its kernel."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    h, w = x.shape[1:3]
    return sum(padded[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(3) for j in range(3))


def normed(x, params):
    """Group normalisation; of up to 32 channels each is a group of its own, over an image's pixels."""
    centred = x - x.mean(axis=(1, 2), keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(axis=(1, 2), keepdims=True) + 1e-5)
    return scaled * params["scale"] + params["bias"]


def block(x, params):
    for i in range(2):
        x = np.maximum(normed(convolved(x, params[f"conv_{i}"]["kernel"]), params[f"norm_{i}"]), 0)
    return x


def unet(x, params):
    """(The bottom's mean, the top), as the paper draws it; what pooling cuts off is the last row or column again."""
    levels = []
    for i in range(3):
        if i:
            h, w = (s // 2 * 2 for s in x.shape[1:3])
            x = np.maximum.reduce([x[:, a:h:2, b:w:2] for a in (0, 1) for b in (0, 1)])
        x = block(x, params[f"down_{i}"])
        levels.append(x)
    bottom = x.mean(axis=(1, 2))
    for i in (1, 0):
        h, w = levels[i].shape[1:3]
        rows, columns = np.minimum(np.arange(h) // 2, x.shape[1] - 1), np.minimum(np.arange(w) // 2, x.shape[2] - 1)
        x = block(np.concatenate([x[:, rows][:, :, columns], levels[i]], axis=-1), params[f"up_{i}"])
    return bottom, x


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((8, 8), marks=pytest.mark.slow),
        pytest.param((9, 11), id="odd"),
        pytest.param((10, 9), id="half odd", marks=pytest.mark.slow),
    ],
)
def test_a_unet_is_what_numpy_makes_of_its_definition(size):
    tasks = (BINARY, *maps(*size))
    model = build("unet", {"channels": (2, 4, 8)}, tasks)
    params, state = begun(model, (*size, 3))
    x = images(2, *size, 3)
    bottom, top = unet(np.asarray(x, np.float64), jax.tree.map(lambda a: np.asarray(a, np.float64), params["backbone"]))
    found = model.features(params, state, x)
    np.testing.assert_allclose(found["b"], bottom, rtol=1e-3, atol=1e-4)
    for task in ("seg", "deep"):
        np.testing.assert_allclose(found[task], top, rtol=1e-3, atol=1e-4)
    outputs, _ = model.apply(params, state, x)
    assert {t: a.shape for t, a in outputs.items()} == {"b": (2, 1), "seg": (2, *size, 3), "deep": (2, *size, 1)}


def test_without_a_dense_task_there_is_no_decoder():
    names = lambda tasks: {p.split("/")[1] for p in flatten(anatomy(build("unet", {}, tasks), (8, 8, 3)).params)}  # noqa: E731
    assert names((BINARY,)) == {"down_0", "down_1", "down_2", "b"}
    assert names((BINARY, *maps(8, 8))) == {"down_0", "down_1", "down_2", "up_0", "up_1", "b", "seg", "deep"}


def test_blocks_of_a_unet_are_in_the_order_in_which_they_run():
    blocks = anatomy(build("unet", {}, maps(8, 8)), (8, 8, 3)).blocks
    assert [b.removeprefix("backbone/") for b in blocks] == ["down_0", "down_1", "down_2", "up_1", "up_0"]


# --- anybody's ---


class Pixels(nn.Module):
    """Features of each pixel for dense tasks, and their mean for the others."""

    tasks: tuple[Task, ...]
    width: int = 4

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train, name="norm")(nn.Dense(self.width, name="first")(x))
        x = nn.BatchNorm(use_running_average=not train, name="last")(nn.relu(x))
        return {t.name: x if t.shape else x.mean(axis=(1, 2)) for t in self.tasks}


class Mine(nnx.Module):
    def __init__(self, tasks: tuple[Task, ...], width: int = 4, *, rngs: nnx.Rngs):
        self.dense = nnx.Linear(3, width, rngs=rngs)
        self.shapes = nnx.data({t.name: bool(t.shape) for t in tasks})

    def __call__(self, x):
        x = nnx.relu(self.dense(x))
        return {t: x if dense else x.mean(axis=(1, 2)) for t, dense in self.shapes.items()}


@pytest.mark.parametrize("factory", [Pixels, Mine])
def test_a_module_that_takes_tasks_is_given_those_of_the_trial(factory):
    register("mine")(factory)
    tasks = (Task("b", "binary", weight=3.0, pos_weight=2.0, metric="f1"), *maps(4, 5))
    model = build("mine", {"width": 2}, tasks)
    params, state = begun(model, (4, 5, 3))
    outputs, _ = model.apply(params, state, images(2, 4, 5, 3))
    assert {t: a.shape for t, a in outputs.items()} == {"b": (2, 1), "seg": (2, 4, 5, 3), "deep": (2, 4, 5, 1)}
    # How a loss is weighed and a task is judged is no business of a backbone: it would be another one.
    assert model.backbone == build("mine", {"width": 2}, (BINARY, *maps(4, 5))).backbone
    with pytest.raises(ValueError, match=r'option "tasks" does not exist|model.options.tasks'):
        build("mine", {"tasks": ()}, tasks)


class Lacking(Pixels):
    def __call__(self, x, train: bool):
        return {"b": x.mean(axis=(1, 2))}


class Flat(Pixels):
    def __call__(self, x, train: bool):
        return {t.name: x.mean(axis=(1, 2)) for t in self.tasks}


class Whole(Pixels):
    def __call__(self, x, train: bool):
        return {t.name: x for t in self.tasks}


class Transposed(Pixels):
    def __call__(self, x, train: bool):
        return {t.name: x.swapaxes(1, 2) if t.shape else x.mean(axis=(1, 2)) for t in self.tasks}


class One(Pixels):
    def __call__(self, x, train: bool):
        return x.mean(axis=(1, 2))


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (Lacking, "model: features of b, and none of seg: must be of every task"),
        (Flat, r"model: features of seg of 1 input\(s\) are of shape \(1, 3\): must be \[batch, 4, 5, features\]"),
        (Whole, r"model: features of b of 1 input\(s\) are of shape \(1, 4, 5, 3\): must be \[batch, features\]"),
        (Transposed, r"model: features of seg of 1 .* are of shape \(1, 5, 4, 3\): must be \[batch, 4, 5, features\]"),
        (One, r"model: features of seg of 1 .* are of shape \(1, 3\): must be \[batch, 4, 5, features\]"),
    ],
)
def test_features_that_are_not_those_of_the_tasks_are_refused_before_anything_is_compiled(factory, message):
    register("mine")(factory)
    with pytest.raises(ValueError, match=message):
        anatomy(build("mine", {}, (BINARY, *maps(4, 5))), (4, 5, 3))


def test_a_multilayer_perceptron_has_no_features_of_pixels():
    with pytest.raises(ValueError, match=r"model: features of seg of 1 .*: must be \[batch, 4, 5, features\]"):
        anatomy(build("mlp", {}, maps(4, 5)), (4, 5, 3))


def test_statistics_of_what_is_frozen_are_told_apart_whatever_the_number_of_features():
    """Layers that are told rest, and one that is not is found, also where each task has features of its own."""
    register("mine")(Pixels)
    model = build("mine", {}, (BINARY, *maps(4, 5)))
    assert untold(model, (4, 5, 3), frozenset({"last"})) == ()

    class Restless(Pixels):
        @nn.compact
        def __call__(self, x, train: bool):
            x = nn.BatchNorm(use_running_average=not train, name="last")(Moving(name="norm")(x, train))
            return {t.name: x if t.shape else x.mean(axis=(1, 2)) for t in self.tasks}

    register("restless")(Restless)
    model = build("restless", {}, (BINARY, *maps(4, 5)))
    assert untold(model, (4, 5, 3), frozenset({"last"})) == ("norm/mean",)


class Moving(nn.Module):
    """Statistics that move whatever it is told."""

    @nn.compact
    def __call__(self, x, training_or_not):
        mean = self.variable("batch_stats", "mean", lambda: jnp.zeros(()))
        if self.is_mutable_collection("batch_stats"):
            mean.value = 0.9 * mean.value + 0.1 * x.mean()
        return (x - mean.value) * self.param("scale", nn.initializers.ones, ())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_heads_see_features_in_float32(dtype):
    register("mine")(Pixels)
    model = build("mine", {}, (BINARY, *maps(4, 5)), dtype=dtype)
    params, state = model.init(jax.random.key(0), jnp.zeros((1, 4, 5, 3)))
    assert {a.dtype for a in model.features(params, state, images(2, 4, 5, 3)).values()} == {jnp.dtype("float32")}
