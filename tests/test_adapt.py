"""Adapters: the definition of LoRA written out, bits that stay, what moves, what is merged, what it costs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl
from mtl import adapt, data
from mtl import params as paths
from mtl.adapt import ADAPTERS, adapted, adapting, merged, options_of, register
from mtl.config import ConfigError, default, flatten, override, resolve
from mtl.models import anatomy, build
from mtl.regimes import Phase
from mtl.sweep.execute import execute
from mtl.sweep.plan import make_plan
from mtl.sweep.store import Workdir
from mtl.tasks import Task
from mtl.train import phase
from mtl.train.program import Frozen
from mtl.train.trial import shapes, stages_of
from tests.train.build import (
    batches,
    data_of,
    finish,
    gap,
    hypers_of,
    initial_of,
    run_phase,
    same,
    stages,
    table,
    trial,
)

LORA = ("lora", {"rank": 2, "alpha": 3.0})


def adapts(*phases, **changes):
    """Return a trial of a regime of its own."""
    return trial(regime="mine", regimes={"mine": tuple(phases)}, **changes)


SOURCE = Phase(tasks="source", lr="source_lr", budget="source")


def one(**changes):
    return adapts(Phase(fresh=("head",), adapt=LORA), optimizer__weight_decay=0.0, **changes)


@pytest.mark.slow
def test_ten_steps_are_those_of_lora_written_out():
    """Hu et al. 2021: y + (α/r) x A B beside frozen W; Adam on A, B and the head, and W + (α/r) A B in the end."""
    t = one(optimizer__clip=0.0, optimizer__options={"b1": 0.875, "b2": 0.96875}, target__total_steps=10)
    (stage,), data, (initial,) = stages(t), data_of(t), initial_of(t)
    moving, _ = phase.start(stage.program, hypers_of(stage), initial)
    part = jax.tree.map(jnp.asarray, paths.flatten(moving.trainable["backbone"]))
    assert {p: a.shape for p, a in part.items() if a is not None} == {
        "dense_0/+lora/a": (8, 2), "dense_0/+lora/b": (2, 6), "dense_1/+lora/a": (6, 2), "dense_1/+lora/b": (2, 5),
    }  # fmt: skip
    frozen, head = initial.params["backbone"], initial.params["heads"]["goal"]
    for layer, bound in (("dense_0", 8**-0.5), ("dense_1", 6**-0.5)):
        a = np.abs(part[f"{layer}/+lora/a"])
        assert 0.5 * bound < a.max() <= bound and not np.any(part[f"{layer}/+lora/b"])

    def loss(both, x, y):
        part, head = both
        for layer in ("dense_0", "dense_1"):
            low = x @ part[f"{layer}/+lora/a"] @ part[f"{layer}/+lora/b"]
            x = jax.nn.relu(x @ frozen[layer]["kernel"] + frozen[layer]["bias"][None] + 3.0 / 2 * low)
        z = (x @ head["kernel"] + head["bias"][None])[:, 0]
        return jnp.mean(jnp.logaddexp(z, 0) - z * y)

    part = {p: a for p, a in part.items() if a is not None}
    both, oracle, drawn = (part, head), optax.adam(0.02, b1=0.875, b2=0.96875), batches(stage, data)
    state, gradient, update = oracle.init(both), jax.jit(jax.grad(loss)), jax.jit(oracle.update)
    for k in range(10):
        updates, state = update(gradient(both, drawn.x[k], drawn.labels["goal"][k]), state, both)
        both = optax.apply_updates(both, updates)
    (outcome,) = run_phase([t], [stage], data, [initial])
    found = outcome.weights.params
    assert gap(found["heads"]["goal"], both[1]) < 1e-6
    for layer in ("dense_0", "dense_1"):
        grown = frozen[layer]["kernel"] + 1.5 * both[0][f"{layer}/+lora/a"] @ both[0][f"{layer}/+lora/b"]
        assert gap(found["backbone"][layer]["kernel"], grown) < 1e-6
        assert gap(grown, frozen[layer]["kernel"]) > 1e-3
        assert same(found["backbone"][layer]["bias"], frozen[layer]["bias"])
    assert jax.tree.structure(found) == jax.tree.structure(initial.params)


MODELS = {
    "mlp": ({"hidden": (6, 5)}, (7,)),
    "vit": ({"patch": 4, "width": 12, "depth": 2, "heads": 3}, (8, 8, 3)),
    "cnn": ({"channels": (3,), "features": 5}, (6, 6, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_merged_is_adapted_and_at_first_nothing_changes(name):
    options, shape = MODELS[name]
    model = build(name, options, (Task("t", "binary"),), "lecun_normal")
    x = jax.random.normal(jax.random.key(1), (4, *shape))
    params, state = model.init(jax.random.key(0), x)
    a, numbers = adapting("lora", options_of("lora", {"rank": 3}), anatomy(model, shape).dense)
    assert a.layers
    beside = adapted(a, numbers, jax.random.key(2), params)
    assert same(model.features(beside, state, x), model.features(params, state, x)) or name == "vit"
    assert gap(model.features(beside, state, x), model.features(params, state, x)) < 1e-6
    assert same(merged(a, numbers, beside), params)
    moved = jax.tree_util.tree_map_with_path(
        lambda p, v: (
            v + 0.3 * jax.random.normal(jax.random.key(len(paths.path_of(p))), v.shape)
            if paths.path_of(p).endswith("/b")
            else v
        ),
        beside,
    )
    together = merged(a, numbers, moved)
    assert gap(model.features(moved, state, x), model.features(together, state, x)) < 1e-5
    assert gap(model.features(together, state, x), model.features(params, state, x)) > 1e-3


def test_what_a_phase_trains_beside():
    def moving(fields, **changes):
        (stage,) = stages(adapts(Phase(**fields), **changes))
        return [p for p in stage.program.trainable if p.startswith("backbone/")]

    low = ["backbone/dense_1/+lora/a", "backbone/dense_1/+lora/b"]
    assert moving({"adapt": LORA}) == ["backbone/dense_0/+lora/a", "backbone/dense_0/+lora/b", *low]
    assert moving({"adapt": LORA, "trainable": "last_1"}) == low
    assert stages(adapts(Phase(adapt=LORA, trainable="last_1")))[0].program.adapter.layers == ("backbone/dense_1",)
    kernels = moving({"adapt": LORA, "trainable": "backbone/dense_1/.*"})
    assert kernels == [*low, "backbone/dense_1/bias", "backbone/dense_1/kernel"]  # A constant does not train.
    assert moving({"adapt": ("lora", {"layers": ".*dense_1"})}) == low
    own = {"adapt": "lora", "trainable": r"backbone/.*/(\+lora/b|bias)|heads/.*"}
    assert moving(own) == [f"backbone/dense_{i}/{leaf}" for i in (0, 1) for leaf in ("+lora/b", "bias")]


@pytest.mark.slow
@pytest.mark.parametrize("select", ["last", "best"])
def test_what_is_frozen_keeps_its_bits_and_the_next_phase_has_no_adapter(select):
    t = adapts(SOURCE, Phase(fresh=("head",), adapt=LORA, share=0.5), Phase(trainable="head", share=0.5), select=select)
    first, second, third = stages(t)
    data, (initial,) = data_of(t), initial_of(t)
    weights = initial
    outcomes = []
    for stage in (first, second, third):
        (outcome,) = run_phase([t], [stage], data, [weights])
        outcomes.append(outcome.weights.params)
        weights = outcome.weights
    assert jax.tree.structure(outcomes[1]) == jax.tree.structure(outcomes[0])
    for layer in ("dense_0", "dense_1"):
        assert same(outcomes[0]["backbone"][layer]["bias"], outcomes[1]["backbone"][layer]["bias"])
        assert gap(outcomes[0]["backbone"][layer]["kernel"], outcomes[1]["backbone"][layer]["kernel"]) > 1e-5
    assert same(outcomes[1]["backbone"], outcomes[2]["backbone"])


def test_chunks_and_packs_have_the_bits_of_a_trial_alone_and_scale_is_data():
    trials = [one(seed=s) for s in range(2)]
    data, initial, every = data_of(*trials), initial_of(*trials), [stages(t)[0] for t in trials]
    whole = run_phase(trials, every, data, initial)
    cut = run_phase(trials, every, data, initial, chunk_seconds=0.0)
    (alone,) = run_phase(trials[1:], every[1:], data, initial[1:], splits=[1])
    assert all(same(a.weights, b.weights) for a, b in zip(whole, cut, strict=True))
    assert same(alone.weights, whole[1].weights)
    other = stages(adapts(Phase(fresh=("head",), adapt=("lora", {"rank": 2, "alpha": 6.0}))))[0]
    assert (other.program, other.hypers.adapter) == (
        stages(adapts(Phase(fresh=("head",), adapt=LORA)))[0].program,
        {"alpha": 6.0},
    )


def test_the_pure_function_is_the_loop():
    t = one()
    (stage,), data, (initial,) = stages(t), data_of(t), initial_of(t)
    hypers = hypers_of(stage)
    moving, frozen = phase.start(stage.program, hypers, initial)
    run = functools.partial(phase.advance, stage.program, hypers)
    moving = jax.jit(run)(moving, Frozen(frozen), data, jnp.int32(0), jnp.int32(stage.steps))
    found = finish(stage, hypers, moving, frozen)
    assert gap(found, run_phase([t], [stage], data, [initial])[0].weights) < 1e-6


def test_optimizer_state_is_of_the_adapter_and_the_head():
    t = trial(regime="mine", regimes={"mine": (Phase(adapt=("lora", {"rank": 4})),)})
    model = build("vit", {"patch": 4, "width": 24, "depth": 2, "heads": 3}, t.tasks)
    (stage,) = stages_of(dataclasses.replace(t), table().x.shape[1:])
    layers = anatomy(model, (16, 16, 3)).dense
    a, numbers = adapting("lora", options_of("lora", {"rank": 4}), layers)
    own = shapes(model, (16, 16, 3)).params
    key = jax.eval_shape(lambda: jax.random.key(0))
    beside = jax.eval_shape(lambda k, p: adapted(a, numbers, k, p), key, own)
    chosen = [p for p in paths.flatten(beside) if p.endswith(("+lora/a", "+lora/b"))]
    by_hand = sum(4 * sum(paths.flatten(own)[f"{layer}/kernel"].shape) for layer in layers)
    assert sum(paths.flatten(beside)[p].size for p in chosen) == by_hand
    assert stage.program.adapter is not None
    moving, _ = phase.start(stage.program, hypers_of(stage), initial_of(t)[0])
    moves = paths.count(moving.trainable)
    assert paths.count(moving.opt_state) == 2 * moves + 1 + 1


@pytest.mark.slow
def test_the_regime_lora_through_a_sweep(tmp_path):
    """Executed, saved and read again: a model of the same shapes as any other, with the recorded predictions."""
    changes = {"regime": "lora", "source.total_steps": 2, "target.total_steps": 4, "evaluations": 2}
    t = resolve(override(flatten(default()), changes), data.load("digits"))
    workdir = Workdir(tmp_path / "work")
    execute(make_plan([t]), workdir)
    result, kept = workdir.result(t.hash), workdir.predictions(t.hash, t.target)
    assert result["status"] == "done"
    model = mtl.load(workdir.trial(t.hash))
    x = np.asarray(data.load("digits").x)[kept["rows"]]
    expected = 1 / (1 + np.exp(-kept["outputs"][:, 0]))
    np.testing.assert_allclose(model.predict(x), expected, atol=1e-6)
    assert len({make_plan([t]).program_key(k) for k in make_plan([t]).nodes}) == 2


def test_a_second_phase_has_an_adapter_of_its_own():
    t = adapts(Phase(adapt=LORA, share=0.5), Phase(adapt=LORA, share=0.5))
    first, second = stages(t)
    (initial,) = initial_of(t)
    one, two = (phase.start(s.program, hypers_of(s), initial)[0].trainable["backbone"] for s in (first, second))
    assert gap(one["dense_0"]["+lora"]["a"], two["dense_0"]["+lora"]["a"]) > 0.01


def test_an_adapter_of_ones_own():
    """IA³-like (Liu et al. 2022, arXiv:2205.05638): outputs are scaled, one number a feature."""

    @register("scaled")
    def scaled():
        return adapt.Adapter(
            lambda key, kernel: {"by": jnp.ones(kernel.shape[1])},
            lambda own, x, y: y * own["by"][None],
            lambda own, kernel: kernel * own["by"][None],
            ("by",),
        )

    try:
        t = adapts(Phase(adapt="scaled"))
        (stage,), data, (initial,) = stages(t), data_of(t), initial_of(t)
        (outcome,) = run_phase([t], [stage], data, [initial])
        new, old = (w.params["backbone"]["dense_1"]["kernel"] for w in (outcome.weights, initial))
        ratio = np.divide(new, old, where=np.abs(old) > 1e-3, out=np.full_like(old, np.nan))
        np.testing.assert_allclose(ratio, np.nanmean(ratio, axis=0)[None].repeat(len(ratio), 0), rtol=1e-4)
        with pytest.raises(ValueError, match='adapter "scaled" is already registered'):
            register("scaled")(adapt.lora)
    finally:
        ADAPTERS.pop("scaled")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"adapt": "lorra"}, 'adapter "lorra": did you mean "lora"'),
        ({"adapt": ("lora", {"rank": 0})}, "rank = 0: must be a whole number, at least 1"),
        ({"adapt": ("lora", {"alpha": "much"})}, "alpha = 'much': must be a finite number"),
        (
            {"adapt": ("lora", {"layers": "conv.*"})},
            "matches no dense layer of the backbone; there are",
        ),
        ({"adapt": ("lora", {"layers": "("})}, "must be a regular expression"),
        ({"adapt": "lora", "trainable": "head"}, "must be empty where heads alone train"),
        ({"adapt": ("lora", 3)}, "adapt = ('lora', 3): must be a name, or (name, {option: value})"),
        ({"adapt": (3,)}, "must be a name, or (name, {option: value})"),
        ({"adapt": ("lora", {}, {})}, "must be a name, or (name, {option: value})"),
        ({"adapt": "needs_more"}, 'adapter "needs_more": its option size has no default: must have one'),
        ({"adapt": "wide"}, 'adapter "wide": changes the shape of a layer\'s output or kernel: must keep both'),
        ({"adapt": "breaks"}, 'adapter "breaks": cannot be used: '),
        ({"adapt": "still"}, 'adapter "still": moves = (): must be some of a'),
        (
            {"adapt": "unlike"},
            'adapter "unlike": its merged kernel gives other outputs than applying it: must do the same',
        ),
        ({"adapt": "lora", "trainable": "heads/.*"}, "leaves nothing of it to train"),
        ({"adapt": ("lora", {"alpha": 0.0})}, "alpha = 0.0: must be a finite number above 0"),
        ({"adapt": ("listed", {"of": {"a": 1}})}, "must be a number, a text or a tuple"),
        ({"adapt": "nothing"}, 'adapter "nothing": returned None: must return a mtl.adapt.Adapter'),
    ],
)
def test_what_cannot_be_is_one_sentence(fields, sentence, monkeypatch):
    init, same_y, same_w = (lambda key, w: {"a": w}), (lambda own, x, y: y), (lambda own, w: w)
    bad = {
        "needs_more": lambda size: None,
        "wide": lambda: adapt.Adapter(init, lambda own, x, y: x, same_w, ("a",)),
        "breaks": lambda: adapt.Adapter(init, lambda own, x, y: own["b"], same_w, ("a",)),
        "still": lambda: adapt.Adapter(init, same_y, same_w, ()),
        "nothing": lambda: None,
        "listed": lambda of=None: adapt.lora(),
        # What is applied is made without options: what they say must lie in the parameters.
        "unlike": lambda: adapt.Adapter(init, lambda own, x, y: y + x @ own["a"], same_w, ("a",)),
    }
    for name, make in bad.items():
        monkeypatch.setitem(ADAPTERS, name, make)
    with pytest.raises(ConfigError) as error:
        stages(adapts(Phase(**fields)))
    assert sentence in str(error.value) and "\n" not in str(error.value)
