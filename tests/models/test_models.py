"""Models: zero heads, trunks that do not depend on the tasks, blocks, and a user's own backbone."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl import losses, models
from mtl.models import MLP, anatomy, build
from mtl.tasks import Task

KIND, EVEN = Task("kind", "multiclass", num_classes=4), Task("even", "binary")
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)


@functools.cache
def compiled(model, shape):
    return jax.jit(lambda key: model.init(key, jnp.zeros(shape)))


def init(model, x=X, seed=0):
    return compiled(model, x.shape)(jax.random.key(seed))


def mlp(tasks=(KIND, EVEN), head_init="zeros"):
    return build("mlp", {"hidden": (4, 3)}, tasks, head_init)


def same(a, b):
    left, right = jax.tree.leaves_with_path(a), jax.tree.leaves_with_path(b)
    return len(left) == len(right) and all(
        p == q and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for (p, x), (q, y) in zip(left, right, strict=True)
    )


@pytest.fixture(scope="module")
def params():
    return init(mlp())[0]


def gradient(model, params):
    labels = {"kind": jnp.arange(6) % 4, "even": jnp.asarray([1.0, 0, 0, 1, 0, 0])}
    mask = jnp.ones(6, bool)

    def loss(p):
        outputs, _ = model.apply(p, {}, X)
        values = {t.name: losses.values(t, outputs[t.name], labels[t.name], mask) for t in model.tasks}
        return losses.reduce(values, dict.fromkeys(values, mask), "examples")

    return jax.jit(jax.value_and_grad(loss))(params)


def test_a_zero_head_predicts_uniformly_and_leaves_the_trunk_alone_at_first(params):
    value, grads = gradient(mlp(), params)
    assert float(value) == pytest.approx(np.log(4) + np.log(2), rel=1e-6)
    assert all(not np.any(g) for g in jax.tree.leaves(grads["backbone"]))
    assert all(np.any(g) for g in jax.tree.leaves(grads["heads"]))


def test_a_random_head_does_not(params):
    model = mlp(head_init="lecun_normal")
    random = init(model)[0]
    assert all(np.any(h["kernel"]) and not np.any(h["bias"]) for h in random["heads"].values())
    assert same(random["backbone"], params["backbone"])
    _, grads = gradient(model, random)
    assert any(np.any(g) for g in jax.tree.leaves(grads["backbone"]))


def test_initial_weights_do_not_depend_on_the_other_tasks(params):
    other = init(mlp((EVEN, Task("other", "regression")), "lecun_normal"))[0]
    assert same(other["backbone"], params["backbone"])
    assert same(other["heads"]["even"], init(mlp((KIND, EVEN), "lecun_normal"))[0]["heads"]["even"])
    assert not same(init(mlp(), seed=1)[0]["backbone"], params["backbone"])


def test_only_the_heads_asked_for_are_computed(params):
    model = mlp()
    without = {"backbone": params["backbone"], "heads": {"even": params["heads"]["even"]}}
    outputs, state = model.apply(without, {}, X, tasks=("even",))
    assert {k: v.shape for k, v in outputs.items()} == {"even": (6, 1)}
    assert state == {}
    assert {k: v.shape for k, v in model.apply(params, {}, X)[0].items()} == {"kind": (6, 4), "even": (6, 1)}


def test_blocks_are_in_order_of_depth_and_not_of_names():
    many = anatomy(build("mlp", {"hidden": (2,) * 11}, (EVEN,)), (3,)).blocks
    assert many[2] == "backbone/dense_2"
    assert many[-1] == "backbone/dense_10"
    assert anatomy(build("cnn", {"channels": (2, 2)}, (EVEN,)), (8, 8, 1)).blocks == (
        "backbone/block_0", "backbone/block_1", "backbone/dense",
    )  # fmt: skip


def test_a_model_is_hashable_and_equal_to_its_like():
    """Programs are keys of the caches of compiled functions; lists in options come from JSON."""
    one, two = build("mlp", {"hidden": [4, 3]}, (KIND, EVEN)), mlp()
    assert one == two
    assert hash(one) == hash(two)
    assert one != mlp((EVEN,))


def test_a_backbone_without_parameters_is_a_linear_model():
    model = build("mlp", {"hidden": ()}, (EVEN,), "lecun_normal")
    params, state = init(model)
    assert params["backbone"] == {}
    head = params["heads"]["even"]
    np.testing.assert_allclose(
        model.apply(params, state, X)[0]["even"], X @ head["kernel"] + head["bias"][None], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("norm", ["group", "none"])
def test_cnn_halves_and_runs_in_every_mode(norm):
    model = build("cnn", {"channels": (2,), "features": 3, "norm": norm}, (EVEN,), "lecun_normal")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 4, 1)), jnp.float32)
    params, state = init(model, x)
    assert state == {}
    assert ("bias" in params["backbone"]["block_0"]["conv"]) == (norm == "none")
    assert params["backbone"]["dense"]["kernel"].shape == (2 * 2 * 2, 3)
    run = jax.jit(lambda p, train: model.apply(p, {}, x, train=train)[0]["even"], static_argnums=1)
    np.testing.assert_array_equal(run(params, False), run(params, True))


# A user's own.


class Squares(nn.Module):
    """Two dense layers whose names do not sort by depth."""

    width: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="ant")(jnp.square(nn.Dense(self.width, name="zebra")(x)))


@pytest.fixture
def registered():
    before = dict(models.MODELS)
    yield models.register("squares")(Squares)
    models.MODELS.clear()
    models.MODELS.update(before)


def test_a_users_own_backbone(registered):
    assert registered is Squares
    model = build("squares", {"width": 4}, (EVEN,), "lecun_normal")
    assert anatomy(model, (5,)).blocks == ("backbone/zebra", "backbone/ant")
    params, _ = init(model)
    assert params["backbone"]["zebra"]["kernel"].shape == (5, 4)
    assert model.apply(params, {}, X)[0]["even"].shape == (6, 1)
    with pytest.raises(ValueError, match=r'model\.options\.widht: .* did you mean "width"'):
        build("squares", {"widht": 4}, (EVEN,))


def test_a_name_is_taken_once(registered):
    models.register("squares")(Squares)  # A config file may run twice.
    for name in ("squares", "mlp"):
        with pytest.raises(ValueError, match=f'model "{name}" is already registered; choose another name'):
            models.register(name)(lambda: MLP())
    assert models.MODELS["squares"] is Squares
    assert models.MODELS["mlp"] is MLP


@pytest.mark.parametrize(
    ("name", "options", "head_init", "message"),
    [
        ("mpl", {}, "zeros", r'model\.name = "mpl": did you mean "mlp"\? Valid: .*cnn, .*mlp'),
        ("mlp", {"hiden": (4,)}, "zeros", r'model\.options\.hiden: .* did you mean "hidden"'),
        ("mlp", {"parent": None}, "zeros", r"model\.options\.parent: model mlp has no option"),
        ("cnn", {"hidden": (4,)}, "zeros", r"model cnn has no option .*: .*Valid: channels, features, norm"),
        ("mlp", {}, "zero", r'model\.head_init = "zero": did you mean "zeros"'),
    ],
)
def test_mistakes_name_what_is_valid(name, options, head_init, message):
    with pytest.raises(ValueError, match=message):
        build(name, options, (EVEN,), head_init)
