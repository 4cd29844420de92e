"""Modules of anybody's make: used plainly they give the same, and what is frozen in them rests."""

import dataclasses
import functools

import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl.config import ConfigError
from mtl.cpu import replace
from mtl.models import MODELS, Model, anatomy, build, register, untold
from mtl.models.nnx import NNX
from mtl.params import flatten
from mtl.tasks import Task
from mtl.train.trial import check_statistics
from tests.train.build import stages, trial

T = (Task("t", "binary"),)
SHAPE = (8, 8, 3)
X = jnp.asarray(np.random.default_rng(0).normal(1.0, 2.0, size=(6, *SHAPE)), jnp.float32)
DROPOUT = jax.random.key(7)


class Convolved(nn.Module):
    """A convolution whose layers are told in three ways: by a field, by an argument, by the position of one."""

    channels: int

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(self.channels, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = Inner()(x, train)
        return nn.max_pool(nn.Dropout(0.2)(nn.relu(x), deterministic=not train), (2, 2), (2, 2))


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x, training=False):
        return nn.BatchNorm()(x, use_running_average=not training)


class Plain(nn.Module):
    """As a researcher writes it: positions of its own, a layer without parameters, a nested block used twice."""

    width: int = 4

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = x + self.param("position", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        x = Convolved(self.width, name="zoo")(x, train)
        x = nn.Dropout(0.3, deterministic=not train)(x)
        x = Convolved(self.width, name="ark")(x, train=train)
        return nn.relu(nn.Dense(5, name="last")(x.reshape(len(x), -1)))


def normed(x, train):
    return nn.BatchNorm(use_running_average=not train, name="norm")(nn.Dense(3, name="dense")(x))


class Training(nn.Module):
    @nn.compact
    def __call__(self, x, *, training):
        return normed(x, training)


class Deterministic(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic=True):
        return normed(x, not deterministic)


class ByDefault(nn.Module):
    """Whose parts train unless they are told otherwise, by name or by position."""

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Dense(3, name="dense")(x)
        return Eager(name="norm")(x) if train else Eager(name="norm")(x, train)


class Eager(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        return nn.BatchNorm(not train, name="inner")(x)


class ByField(nn.Module):
    use_running_average: bool = True

    @nn.compact
    def __call__(self, x):
        return normed(x, not self.use_running_average)


class Untold(nn.Module):
    """Whose statistics move whatever it is told."""

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(2, name="above")(Always(name="always")(nn.Dense(3, name="dense")(x)))


class Always(nn.Module):
    @nn.compact
    def __call__(self, x):
        mean = self.variable("batch_stats", "mean", lambda: jnp.zeros(x.shape[-1]))
        if self.is_mutable_collection("batch_stats"):
            mean.value = x.mean(0)
        return (x - mean.value[None]) * self.param("scale", nn.initializers.ones, ())


class Spliced(nnx.Module):
    """As a researcher writes it: modules in attributes and in a list, and a layer without parameters."""

    def __init__(self, channels: int = 4, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, channels, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(channels, rngs=rngs)
        self.drop = nnx.Dropout(0.3, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(channels, channels, rngs=rngs) for _ in range(2)])
        self.top = nnx.BatchNorm(channels, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.drop(self.norm(self.conv(x)))), (2, 2), (2, 2)).mean(axis=(1, 2))
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.top(x)


def made(backbone, x=X):
    """Return (model, parameters and statistics that are nothing special)."""
    model = Model(backbone, T)
    found = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    rng = np.random.default_rng(1)
    return model, *jax.tree.map(lambda a: jnp.asarray(rng.uniform(0.2, 1.0, a.shape), a.dtype), found)


def run(model, params, state, train, x=X, key=DROPOUT):
    """What is given is no constant of the program: programs are the same for all keys, and nothing is folded."""
    fn = jax.jit(lambda p, s, x, key: model.trunk(p["backbone"], s, x, train=train, rng=key))
    return fn(params, state, x, key)


def equal(a, b, tolerance=0.0):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * max(1.0, float(jnp.abs(y).max())))


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_a_linen_module_gives_what_it_gives_when_it_is_used_plainly(train, kernels, monkeypatch):
    """To the bit with XLA's own operations, to rounding with kernels for a CPU; so do gradients."""
    monkeypatch.setattr(replace, "used", lambda: kernels)
    model, params, state = made(Plain())

    def plainly(p, s, x, key):
        found, new = Plain().apply(
            {"params": p, **s}, x, train, rngs={"dropout": key}, mutable=list(s) if train else []
        )
        return found, {**s, **new}

    given = params["backbone"], state, X, DROPOUT
    equal(run(model, params, state, train), jax.jit(plainly)(*given), 1e-5 * kernels)
    trunk = lambda p, s, x, key: model.trunk(p, s, x, train=train, rng=key)  # noqa: E731
    ours, theirs = (
        jax.jit(jax.grad(lambda *given, f=f: (f(*given)[0] * jnp.cos(jnp.arange(5.0))[None]).sum()))(*given)
        for f in (trunk, plainly)
    )
    equal(ours, theirs, 1e-5 * kernels)


def test_the_modules_that_a_linen_module_holds_are_its_blocks():
    """In the order in which they run, not in that of their names; what lies in none is in none."""
    own = anatomy(Model(Plain(), T), SHAPE)
    assert own.blocks == ("backbone/zoo", "backbone/ark", "backbone/last")
    assert set(own.params["backbone"]) == {"zoo", "ark", "last", "position"}
    assert set(own.values) == {f"{b}/{n}" for b in ("zoo", "ark") for n in ("BatchNorm_0", "Inner_0/BatchNorm_0")}


@pytest.mark.parametrize("train", [{"last"}, {"ark", "last"}, {"zoo"}, {"ark"}])
def test_frozen_blocks_of_a_linen_module_rest(train):
    """Their statistics stay; dropout drops where a block trains, and in the layer without parameters behind it."""
    model, params, state = made(Plain())
    _, new = run(model, params, state, frozenset(train))
    for name in ("zoo", "ark"):
        for (path, before), after in zip(
            flatten(state["batch_stats"][name]).items(), jax.tree.leaves(new["batch_stats"][name]), strict=True
        ):
            assert np.array_equal(before, after) == (name not in train), path
    one, two = (run(model, params, state, frozenset(train), key=jax.random.key(k))[0] for k in (1, 2))
    assert np.array_equal(one, two) == (not train & {"zoo", "ark"})
    off = run(model, params, state, False)[0]
    assert np.array_equal(run(model, params, state, frozenset(train))[0], off) == (train == {"last"})


def test_a_frozen_block_gives_what_it_gives_in_eval_mode():
    """Oracle: the module written out with the mode of each part."""
    model, params, state = made(Plain())

    class ByHand(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = x + self.param("position", nn.initializers.normal(0.02), (1, *x.shape[1:]))
            x = Convolved(4, name="zoo")(x, False)
            x = nn.Dropout(0.3, deterministic=True, name="Dropout_0")(x)
            x = Convolved(4, name="ark")(x, True)
            return nn.relu(nn.Dense(5, name="last")(x.reshape(len(x), -1)))

    variables = {"params": params["backbone"], **state}
    want, stats = jax.jit(lambda v: ByHand().apply(v, X, rngs={"dropout": DROPOUT}, mutable=["batch_stats"]))(variables)
    found, new = run(model, params, state, frozenset({"ark", "last"}))
    equal((found, new), (want, dict(stats)), 1e-5)


@pytest.mark.parametrize("cls", [Training, Deterministic, ByDefault, ByField])
def test_however_a_module_is_told_that_it_trains(cls):
    x = jnp.asarray(np.random.default_rng(0).normal(2.0, 3.0, size=(6, 4)), jnp.float32)
    model, params, state = made(cls(), x)
    for train in (False, True, frozenset({"dense"}), frozenset({"norm"})):
        _, new = run(model, params, state, train, x)
        moved = not all(map(np.array_equal, jax.tree.leaves(new["batch_stats"]), jax.tree.leaves(state["batch_stats"])))
        assert moved == (train is True or (isinstance(train, frozenset) and "norm" in train))


def test_a_layer_that_cannot_be_told_is_found_and_its_statistics_are_kept():
    x = jnp.ones((6, 4))
    model, params, state = made(Untold(), x)
    train = frozenset({"dense", "above"})
    assert untold(model, (4,), train) == ("always/mean",)
    assert untold(model, (4,), frozenset({"always"})) == ()
    equal(run(model, params, state, train, x)[1], state)
    moved = run(model, params, state, True, x)[1]["batch_stats"]["always"]["mean"]
    assert not np.array_equal(moved, state["batch_stats"]["always"]["mean"])


class Recomputed(nn.Module):
    """Blocks behind ``remat`` and ``jit``, through which what they hand on comes as something new."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.remat(Convolved, static_argnums=(2,))(3, name="zoo")(x, train)
        x = nn.jit(Convolved, static_argnums=(2,))(3, name="ark")(x, train)
        return nn.Dense(5, name="last")(x.reshape(len(x), -1))


@pytest.mark.parametrize("train", [{"last"}, {"ark", "last"}, {"zoo"}])
def test_frozen_blocks_behind_remat_and_jit_rest(train):
    model, params, state = made(Recomputed())
    assert untold(model, SHAPE, frozenset(train)) == ()
    _, new = run(model, params, state, frozenset(train))
    for name in ("zoo", "ark"):
        same = map(
            np.array_equal, jax.tree.leaves(state["batch_stats"][name]), jax.tree.leaves(new["batch_stats"][name])
        )
        assert all(same) == (name not in train)


class Scanned(nn.Module):
    """Blocks in a scan, whose statistics are stacked."""

    @nn.compact
    def __call__(self, x, train: bool):
        axes, rngs = {"params": 0, "batch_stats": 0}, {"params": True}
        stack = nn.scan(Layer, variable_axes=axes, split_rngs=rngs, in_axes=nn.broadcast, length=3)(name="stack")
        return nn.Dense(2, name="last")(stack(x, train)[0])


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x)), None


def test_frozen_blocks_in_a_scan_rest():
    x = jnp.asarray(np.random.default_rng(0).normal(2.0, 3.0, size=(6, 4)), jnp.float32)
    model, params, state = made(Scanned(), x)
    for train in ({"last"}, {"stack"}):
        assert untold(model, (4,), frozenset(train)) == ()
        _, new = run(model, params, state, frozenset(train), x)
        same = map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(new))
        assert all(same) == (train == {"last"})


def test_our_own_blocks_rest_behind_remat_too():
    model = build("cnn", {"channels": (3, 3), "features": 4, "norm": "batch", "remat": True}, T)
    params, state = model.init(jax.random.key(0), X)
    train = frozenset({"block_1", "dense"})
    assert untold(model, SHAPE, train) == ()
    _, new = run(model, params, state, train)
    equal(new["batch_stats"]["block_0"], state["batch_stats"]["block_0"])
    assert not np.array_equal(
        new["batch_stats"]["block_1"]["norm"]["mean"], state["batch_stats"]["block_1"]["norm"]["mean"]
    )


class Named(nn.Module):
    """Which is called by a method of its own, and whose weights lie in a layer that keeps statistics of its own."""

    def setup(self):
        self.noisy, self.spectral = Noisy(), nn.SpectralNorm(nn.Dense(3))
        self.last = nn.Dense(2)

    def __call__(self, x, train=False):
        return self.last(self.spectral(self.noisy.encode(x, train), update_stats=train))


class Noisy(nn.Module):
    def setup(self):
        self.dense = nn.Dense(4)

    def encode(self, x, train):
        x = self.dense(x)
        return x + jax.random.normal(self.make_rng("noise"), x.shape) if train else x


def test_a_frozen_block_that_is_called_by_another_method_rests():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)
    model, params, state = made(Named(), x)
    own = anatomy(model, (4,))
    train = frozenset({own.blocks[-1].removeprefix("backbone/")})
    one, new = run(model, params, state, train, x)
    two, _ = run(model, params, state, train, x, key=jax.random.key(9))
    np.testing.assert_array_equal(one, two)
    equal(new, state)
    assert not np.array_equal(
        run(model, params, state, True, x)[0], run(model, params, state, True, x, jax.random.key(9))[0]
    )


class Jittery(nn.Module):
    """Whose first block is told to train by a flag of a name that nobody knows, and keeps no statistics."""

    hidden: bool = True

    @nn.compact
    def __call__(self, x, train: bool):
        x = Noise(name="noise")(x, active=train) if self.hidden else Noise(name="noise")(x, train=train)
        return nn.Dense(2, name="last")(nn.Dropout(0.1)(x, deterministic=not train))


class Noise(nn.Module):
    @nn.compact
    def __call__(self, x, active: bool = False, train: bool = False):
        x = nn.Dense(4)(x)
        return x + jax.random.normal(self.make_rng("noise"), x.shape) if active or train else x


def test_a_frozen_block_that_would_draw_at_random_is_refused(monkeypatch):
    x = jnp.ones((6, 4))
    for hidden in (True, False):
        model, params, state = made(Jittery(hidden), x)
        for train in ({"noise"}, {"noise", "last"}):
            assert untold(model, (4,), frozenset(train)) == ()
            one, two = (run(model, params, state, frozenset(train), x, jax.random.key(k))[0] for k in (1, 2))
            assert not np.array_equal(one, two)
        if hidden:
            said = r"^model: noise would draw at random while its block is frozen: its layer must be told .*training"
            with pytest.raises(ValueError, match=said):
                untold(model, (4,), frozenset({"last"}))
            with pytest.raises(ValueError, match=said):  # Nor does it ever.
                run(model, params, state, frozenset({"last"}), x)
        else:
            assert untold(model, (4,), frozenset({"last"})) == ()

    (stage,) = stages(trial(regime="scratch"))
    fields = {"blocks": ("backbone/noise", "backbone/last"), "trainable": ("backbone/last/kernel", "heads/t/bias")}
    program = dataclasses.replace(stage.program, model=Model(Jittery(), T), trunk_mode="eval", **fields)
    assert program.train == frozenset({"last"})
    with pytest.raises(ConfigError, match=r"^config\.model: noise would draw at random while its block is frozen"):
        check_statistics(program, (4,))


class Restless(nnx.Module):
    """Which has noise whatever its mode; a key that it draws and does not use is no noise."""

    def __init__(self, noise: float = 1.0, *, rngs: nnx.Rngs):
        self.dense, self.rngs, self.noise = nnx.Linear(4, 3, rngs=rngs), rngs, noise

    def __call__(self, x):
        key = self.rngs.dropout()
        return self.dense(x) + jax.random.normal(key, (len(x), 3)) if self.noise else self.dense(x)


def test_an_nnx_module_that_draws_at_random_in_eval_mode_is_refused():
    assert anatomy(Model(NNX(Restless, (("noise", 0.0),)), T), (4,)).blocks == ("backbone/dense",)
    with pytest.raises(ValueError, match=r"^model: draws at random in eval mode: each of its layers must go by"):
        anatomy(Model(NNX(Restless), T), (4,))


class Bare(nn.Module):
    """Whose parameters are its own, in no module."""

    @nn.compact
    def __call__(self, x, train: bool):
        return nn.Dropout(0.5)(x @ self.param("w", nn.initializers.normal(), (x.shape[-1], 3)), deterministic=not train)


def test_a_backbone_without_blocks_trains_where_its_parameters_do():
    model = Model(Bare(), T)
    own = anatomy(model, (4,))
    assert own.blocks == ()
    (stage,) = stages(trial(regime="scratch"))
    for trainable, mode, trains in (
        (("backbone/w",), "eval", True),
        (("heads/t/bias",), "eval", False),
        ((), "train", True),
    ):
        program = dataclasses.replace(stage.program, model=model, blocks=(), trainable=trainable, trunk_mode=mode)
        assert program.train is trains


class Shared(nnx.Module):
    """Of which one module has two names."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.a = nnx.Sequential(nnx.Linear(4, 4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs))
        self.c, self.b = nnx.Linear(4, 2, rngs=rngs), self.a

    def __call__(self, x):
        return self.c(self.b(x))


def test_a_module_of_two_names_is_frozen_under_both():
    x = jnp.ones((6, 4))
    model = Model(NNX(Shared), T)
    assert anatomy(model, (4,)).blocks == ("backbone/a", "backbone/c")
    params, state = model.init(jax.random.key(0), x)
    one, two = (run(model, params, state, frozenset({"c"}), x, jax.random.key(k))[0] for k in (1, 2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_an_nnx_module_gives_what_it_gives_when_it_is_used_plainly(train, kernels, monkeypatch):
    monkeypatch.setattr(replace, "used", lambda: kernels)
    model = Model(NNX(_without_dropout, (("channels", 4),)), T)  # Whose keys are its own.
    params, state = model.init(jax.random.key(0), X)
    plain = _without_dropout(4, rngs=nnx.Rngs(0))
    for path, leaf in flatten(params["backbone"]).items():
        at = functools.reduce(lambda m, n: m[int(n)] if n.isdecimal() else getattr(m, n), path.split("/"), plain)
        at.set_value(leaf)
    plain.train() if train else plain.eval()
    found, new = run(model, params, state, train)
    equal(found, nnx.jit(lambda m: m(X))(plain), 1e-5 * kernels)
    equal(new["batch_stats"]["norm"]["mean"], plain.norm.mean.get_value(), 1e-5 * kernels)


def _without_dropout(channels, *, rngs):
    module = Spliced(channels, rngs=rngs)
    module.drop.rate = 0.0
    return module


def test_frozen_blocks_of_an_nnx_module_rest():
    model = Model(NNX(Spliced), T)
    own = anatomy(model, SHAPE)
    assert own.blocks == tuple(f"backbone/{b}" for b in ("conv", "norm", "layers/0", "layers/1", "top"))
    params, state = model.init(jax.random.key(0), X)
    for train, moves, drops in (
        ({"top"}, {"top"}, False), ({"layers/1"}, set(), False), ({"norm"}, {"norm"}, True), ({"conv"}, set(), False),
    ):  # fmt: skip
        one, new = run(model, params, state, frozenset(train))
        for name in ("norm", "top"):
            same = np.array_equal(state["batch_stats"][name]["mean"], new["batch_stats"][name]["mean"])
            assert same == (name not in moves)
        two, _ = run(model, params, state, frozenset(train), key=jax.random.key(8))
        assert np.array_equal(one, two) == (not drops)


def test_an_nnx_module_that_is_told_by_its_call_has_no_frozen_blocks():
    class Told(nnx.Module):
        def __init__(self, *, rngs):
            self.a, self.b = nnx.Linear(4, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)

        def __call__(self, x, train):
            return self.b(self.a(x), use_running_average=not train)

    x = jnp.ones((6, 4))
    model = Model(NNX(Told), T)
    params, state = model.init(jax.random.key(0), x)
    assert not np.array_equal(run(model, params, state, True, x)[1]["batch_stats"]["b"]["mean"], jnp.zeros(3))
    with pytest.raises(ValueError, match=r"^model: its call takes train, so that no block .*: must go by"):
        run(model, params, state, frozenset({"a"}), x)


def test_equal_nnx_backbones_are_equal_and_have_their_options_checked(monkeypatch):
    monkeypatch.setattr("mtl.models.MODELS", dict(MODELS))
    register("spliced")(Spliced)
    one, two = (build("spliced", {"channels": 3}, T) for _ in range(2))
    assert one == two and hash(one) == hash(two) and one != build("spliced", {"channels": 5}, T)
    assert anatomy(one, SHAPE).params["backbone"]["conv"]["kernel"].shape == (3, 3, 3, 3)
    with pytest.raises(ValueError, match=r'model\.options\.chanels: .* did you mean "channels"'):
        build("spliced", {"chanels": 3}, T)
    with pytest.raises(ValueError, match="channels"):
        build("spliced", {"channels": "many"}, T)
    register("number")(lambda: 3)
    with pytest.raises(
        ValueError, match=r'^model\.name = "number": gives a int: must give a Linen module, or take rngs'
    ):
        build("number", {}, T)
