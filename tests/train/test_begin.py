"""What a phase begins from, against plain dictionaries: every leaf, statistics with their parameters."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from mtl import params as paths
from mtl.models import CNN, MLP, EfficientNetLite, Model, ResNet, anatomy
from mtl.tasks import Task
from mtl.train.begin import follow, freshen, load
from mtl.train.program import Weights
from mtl.train.trial import shapes

TASKS = (Task("a", "binary"), Task("b", "multiclass", num_classes=3))


class Bare(nn.Module):
    """Two blocks: one whose normalisation has no parameters, one with a statistic that is nobody's but its own."""

    @nn.compact
    def __call__(self, x, train):
        x = Dense(name="first")(x.reshape(x.shape[0], -1), train)
        return Dense(name="second")(x, train)


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        norm = nn.BatchNorm(use_running_average=not train, use_scale=False, use_bias=False, name="norm")
        return nn.relu(norm(nn.Dense(3, name="dense")(x)))


LITE = ((3, 1, 1, 8, 1), (3, 2, 6, 8, 2))
MODELS = {
    "mlp": (Model(MLP((4, 3)), TASKS), (5,)),
    "bare": (Model(Bare(), TASKS), (5,)),
    "cnn": (Model(CNN((4, 4), 5, "batch"), TASKS), (8, 8, 1)),
    "group": (Model(CNN((4, 4), 5, "group"), TASKS), (8, 8, 1)),
    "resnet": (Model(ResNet(18, norm="batch", width=4), TASKS), (16, 16, 1)),
    "efficientnet_lite": (
        Model(EfficientNetLite(LITE, stem=8, features=8), TASKS),
        (16, 16, 3),
    ),
}


def filled(model, shape, value):
    """Return weights of a model's shapes, every leaf another number near ``value``."""
    leaves, tree = jax.tree.flatten(shapes(model, shape))
    return jax.tree.unflatten(tree, [np.full(s.shape, value + i / 1000, s.dtype) for i, s in enumerate(leaves)])


def expected(old, new, is_new):
    """Return {path: leaf} of weights: of ``new`` where its path (of a statistic: its module's place) says so."""
    found = {p: new.params[p] if is_new(p) else leaf for p, leaf in old.params.items()}
    at = {s: "backbone/" + s.split("/", 1)[1] for s in old.state}
    return Weights(found, {s: new.state[s] if is_new(at[s]) else leaf for s, leaf in old.state.items()})


def flat(weights):
    return Weights(paths.flatten(weights.params), paths.flatten(weights.state))


def equal(found, want):
    found = flat(found)
    for a, b in ((found.params, want.params), (found.state, want.state)):
        assert a.keys() == b.keys()
        for path, leaf in b.items():
            np.testing.assert_array_equal(a[path], leaf, err_msg=path)


@pytest.mark.parametrize("name", MODELS)
def test_each_block_made_fresh_is_fresh_with_its_statistics_and_nothing_else_is(name):
    model, shape = MODELS[name]
    weights, initial = filled(model, shape, 1.0), filled(model, shape, 2.0)
    every = list(paths.flatten(weights.params))
    blocks = anatomy(model, shape).blocks
    cases = [(b,) for b in blocks] + [blocks[-2:], ("backbone",), ("heads",), ("heads/a",)]
    for parts in cases:
        fresh = [p for p in every if any(p.startswith(f"{part}/") for part in parts)]
        want = expected(flat(weights), flat(initial), lambda p, parts=parts: any(p.startswith(f"{b}/") for b in parts))
        equal(freshen(weights, initial, fresh), want)
        # Loaded from a file the other way round: what is fresh there stays as it was.
        patterns = [f"{part}/.*" for part in parts]
        equal(load(initial, weights.params, weights.state, patterns), want)
    equal(freshen(weights, initial, ()), flat(weights))
    equal(load(initial, weights.params, weights.state), flat(weights))


def test_batch_statistics_are_there_to_be_tested():
    counts = {name: len(paths.flatten(shapes(*MODELS[name]).state)) for name in MODELS}
    assert counts["mlp"] == counts["group"] == 0
    assert all(counts[name] >= 4 for name in ("bare", "cnn", "resnet", "efficientnet_lite"))


def test_a_part_of_a_module_made_fresh_leaves_its_statistics():
    model, shape = MODELS["cnn"]
    every, statistics = (list(paths.flatten(t)) for t in (shapes(model, shape).params, shapes(model, shape).state))
    kernel = ["backbone/block_0/conv/kernel"]
    assert follow(statistics, every, kernel) == set()
    norm = [p for p in every if p.startswith("backbone/block_0/norm/")]
    assert len(norm) == 2
    assert follow(statistics, every, norm[:1]) == set()
    assert follow(statistics, every, norm) == {s for s in statistics if s.startswith("batch_stats/block_0/norm/")}
    # A backbone without parameters has none that could be fresh.
    assert follow(["batch_stats/norm/mean"], ["heads/a/kernel"], ["heads/a/kernel"]) == set()


def without(tree, part):
    return paths.unflatten({p: leaf for p, leaf in paths.flatten(tree).items() if not p.startswith(part)})


def test_a_fresh_block_needs_no_statistics_and_may_have_had_others():
    model, shape = MODELS["cnn"]
    found, initial = filled(model, shape, 1.0), filled(model, shape, 2.0)
    want = expected(flat(found), flat(initial), lambda p: p.startswith("backbone/block_1/"))
    lacking = without(found.params, "backbone/block_1/"), without(found.state, "batch_stats/block_1/")
    equal(load(initial, *lacking, ("backbone/block_1/.*",)), want)
    other = {**found.state["batch_stats"], "block_1": {"norm": {"mean": np.zeros(9), "extra": np.zeros(2)}}}
    equal(load(initial, found.params, {"batch_stats": other}, ("backbone/block_1/.*",)), want)
    # A block of the file that the model does not have, and that is not loaded.
    more = paths.flatten(found.params) | {"backbone/block_2/norm/scale": np.ones(4)}
    beyond = paths.flatten(found.state) | {"batch_stats/block_2/norm/mean": np.ones(4)}
    equal(load(initial, *map(paths.unflatten, (more, beyond)), ("backbone/block_[12]/.*",)), want)
    with pytest.raises(ValueError, match=r"extra backbone/block_2/norm/scale"):
        load(initial, *map(paths.unflatten, (more, beyond)))
    with pytest.raises(ValueError, match=r"missing batch_stats/block_0/norm/mean"):
        load(initial, found.params, without(found.state, "batch_stats/block_0/norm/mean"))
    with pytest.raises(ValueError, match=r"no batch statistics.*block_0"):
        load(initial, found.params, {}, ("backbone/block_1/.*",))
    everything = load(initial, found.params, {}, ("backbone/.*",))
    equal(everything, expected(flat(found), flat(initial), lambda p: p.startswith("backbone/")))


@pytest.mark.parametrize("foreign", [False, True])
def test_statistics_are_renamed_with_their_parameters(foreign):
    model, shape = MODELS["cnn"]
    found, initial = filled(model, shape, 1.0), filled(model, shape, 2.0)
    trunk = {"stem": found.params["backbone"]["block_0"], "rest": found.params["backbone"]["block_1"]}
    state = {"stem": found.state["batch_stats"]["block_0"], "rest": found.state["batch_stats"]["block_1"]}
    trunk["dense"] = found.params["backbone"]["dense"]
    if foreign:  # As Flax keeps it: parameters and statistics have the same paths.
        loaded, root = {"net": trunk, "heads": found.params["heads"]}, "net"
        state = {"net": state}
    else:
        loaded, root = {"backbone": trunk, "heads": found.params["heads"]}, "backbone"
    rename = [(f"{root}/stem/(.*)", r"backbone/block_0/\1"), (f"{root}/rest/(.*)", r"backbone/block_1/\1")]
    if foreign:
        rename.append(("net/(.*)", r"backbone/\1"))
    equal(load(initial, loaded, {"batch_stats": state}, (), rename), flat(found))
    want = expected(flat(found), flat(initial), lambda p: p.startswith("backbone/block_1/"))
    equal(load(initial, loaded, {"batch_stats": state}, ("backbone/block_1/.*",), rename), want)
    twice = [(pattern, replacement.replace("block_1", "block_0")) for pattern, replacement in rename]
    with pytest.raises(ValueError, match="two loaded leaves become backbone/block_0"):
        load(initial, loaded, {"batch_stats": state}, (), twice)
