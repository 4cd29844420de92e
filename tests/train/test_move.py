"""TrainState a trunk and stacks of heads, against loops that are written out: one optimizer of optax for each head."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from mtl.models import build
from mtl.optim import optimizer
from mtl.params import flatten
from mtl.tasks import Task
from mtl.train import move, phase
from mtl.train.descent import Descent
from mtl.train.program import Hypers, Program
from mtl.train.stacks import Stack, columns, ordered, stacks_of, together
from tests.train.build import gap, same

TASKS = (Task("z", "binary"), Task("a/b", "multiclass", num_classes=3), Task("m", "regression"))
MODEL = build("mlp", {"hidden": (4,)}, TASKS, "lecun_normal")
PARAMS = MODEL.init(jax.random.key(0), jnp.zeros((1, 5)))[0]


def case(section, trainable=None):
    """Return (a phase of three tasks, its numbers)."""
    o, numbers = optimizer(section)
    names = tuple(t.name for t in TASKS)
    program = Program(
        MODEL, (), names, tuple(trainable or sorted(flatten(PARAMS))), Descent(), o, 8, "rows", 1.0, "examples",
        "eval", "last", ("z",),
    )  # fmt: skip
    none, ones = jnp.zeros(3, jnp.int32), jnp.ones(3)
    hypers = Hypers(jnp.uint32(0), jnp.float32(0.05), numbers, {}, {}, ones, jnp.int32(12), none, jnp.int32(0))
    return program, jax.tree.map(jnp.asarray, hypers)


#: Of 12 steps, those in which each task has labels; ``m`` has none in the first.
SHOWN = {"z": [1] * 12, "a/b": [1, 0, 0, 1, 1, 0, 1, 0, 1, 1, 0, 1], "m": [0, 0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 0]}


def gradients(step):
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), PARAMS)


def ours(section, trainable=None, rates=()):
    program, hypers = case(section, trainable)
    hypers = dataclasses.replace(hypers, rates=rates)
    part, frozen = phase.divide(program, PARAMS)
    opt_state = move.init(program, hypers, part)
    run = jax.jit(lambda k, g, s, p, active: move.move(program, hypers, k, g, s, p, active))
    for k in range(12):
        active = jnp.asarray([SHOWN[t.name][k] for t in ordered(program)], bool)
        part, opt_state = run(k, phase.divide(program, gradients(k))[0], opt_state, part, active)
    return phase.whole(program, move.evaluated(program, opt_state, part), frozen)


def by_hand(transformation, evaluate=lambda state, params: params):
    """Return the parameters after the same updates: the trunk and each head have a state of their own."""
    parts = {"backbone": PARAMS["backbone"], **PARAMS["heads"]}
    states = {name: transformation.init(part) for name, part in parts.items()}
    move = jax.jit(transformation.update)
    for k in range(12):
        grads = {"backbone": gradients(k)["backbone"], **gradients(k)["heads"]}
        for name in parts:
            if name == "backbone" or SHOWN[name][k]:
                updates, states[name] = move(grads[name], states[name], parts[name])
                parts[name] = optax.apply_updates(parts[name], updates)
    parts = {name: evaluate(states[name], part) for name, part in parts.items()}
    return {"backbone": parts.pop("backbone"), "heads": parts}


LR = 0.05


#: Exact in float32, and so is one less each: our numbers are float32 arrays, those of optax are Python's.
BETAS = {"b1": 0.875, "b2": 0.96875}
CASES = [
    ("adam", {}, BETAS),
    ("adamw", {"weight_decay": 0.1}, BETAS),
    ("sgd", {}, {"momentum": 0.75}),
    ("lion", {"weight_decay": 0.1}, BETAS),
    ("rmsprop", {}, {"decay": 0.875}),
    ("adagrad", {}, {}),
    ("radam", {}, BETAS),
    ("amsgrad", {}, BETAS),
    ("nadamw", {"weight_decay": 0.1}, BETAS),
    ("lamb", {"weight_decay": 0.1}, BETAS),
    ("lars", {"weight_decay": 0.1}, {"momentum": 0.75}),
    ("adafactor", {}, {}),
    ("novograd", {}, BETAS),
    # Its matrices are rounded otherwise where XLA compiles as `scripts/test` asks it to.
    pytest.param("muon", {}, {"beta": 0.9375, "adam_b1": 0.875, "adam_b2": 0.96875}, marks=pytest.mark.slow),
    ("prodigy", {}, {"estim_lr0": 0.125}),
]


@pytest.mark.parametrize(("name", "fields", "options"), CASES)
def test_heads_move_and_rest_as_with_an_optimizer_each(name, fields, options):
    make = getattr(optax, name, None) or getattr(optax.contrib, name)
    found, expected = ours({"name": name, "options": options, **fields}), by_hand(make(LR, **options, **fields))
    assert gap(found, expected) < 1e-6
    assert min(gap(found["heads"][t], PARAMS["heads"][t]) for t in SHOWN) > 1e-4


def test_schedule_free_shows_the_average_of_each_head():
    oracle = optax.contrib.schedule_free_adamw(LR, **BETAS)
    expected = by_hand(oracle, optax.contrib.schedule_free_eval_params)
    assert gap(ours({"name": "schedule_free_adamw", "options": BETAS}), expected) < 1e-6


@pytest.mark.parametrize("name", ["adam", "lamb"])
def test_a_head_whose_bias_alone_moves_is_a_stack_of_its_own(name):
    every = sorted(flatten(PARAMS))
    trainable = [p for p in every if p != "heads/m/kernel" and not p.startswith("backbone")]
    program, _ = case({"name": name}, trainable)
    assert sorted(len(s.tasks) for s in stacks_of(program)) == ([1, 2] if name == "adam" else [1, 1, 1])
    found, whole = ours({"name": name}, trainable), ours({"name": name})
    assert same(found["backbone"], PARAMS["backbone"])
    assert same(found["heads"]["m"]["kernel"], PARAMS["heads"]["m"]["kernel"])
    # What an element does depends on no other, or (lamb) on its own leaf's norm: the rest moves as before.
    assert same(found["heads"]["m"]["bias"], whole["heads"]["m"]["bias"])
    assert same([found["heads"][t] for t in ("z", "a/b")], [whole["heads"][t] for t in ("z", "a/b")])


@pytest.mark.parametrize("name", ["adam", "lamb"])
def test_rates_of_their_own(name):
    """A multiple of ½ halves each update of a gradient sequence that does not depend on the parameters."""
    every = sorted(flatten(PARAMS))
    halved = jnp.asarray([0.5 if p.startswith(("heads/a", "backbone")) else 1.0 for p in every])
    found, whole = ours({"name": name, "layer_decay": 0.9}, rates=halved), ours({"name": name})
    for part, factor in (("z", 1.0), ("m", 1.0), ("a/b", 0.5)):
        moved, all_of = (jax.tree.map(jnp.subtract, p["heads"][part], PARAMS["heads"][part]) for p in (found, whole))
        if name == "adam" or factor == 1.0:
            assert gap(moved, jax.tree.map(lambda a, f=factor: a * f, all_of)) < 1e-6
        assert gap(moved, all_of) > 1e-3 or factor == 1.0


def test_stacks_undo_themselves_in_every_order_of_tasks():
    heads = PARAMS["heads"]
    for width, tasks in ((0, TASKS), (1, (TASKS[2], TASKS[0]))):
        stack = Stack(tuple(sorted(tasks, key=lambda t: t.name)), width)
        assert same(stack.apart(stack.of(heads)), {t.name: heads[t.name] for t in sorted(tasks, key=lambda t: t.name)})
        lanes = jax.tree.map(lambda a: np.stack([a, a + 1]), heads)  # On the host, with lanes before.
        assert isinstance(stack.of(lanes)["kernel"], np.ndarray)
        assert same(stack.apart(stack.of(lanes)), {t.name: lanes[t.name] for t in stack.tasks})
    one, other = (
        dataclasses.replace(case({"name": "lamb"})[0], tasks=order) for order in (("z", "a/b", "m"), ("m", "z", "a/b"))
    )
    assert stacks_of(one) == stacks_of(other)


def test_columns_of_tasks_of_one_kind_lie_together():
    tasks = (Task("a", "binary"), Task("b", "multiclass", num_classes=3), Task("c", "binary", weight=2.0))
    found = {c.names: c for c in columns(tasks)}
    assert set(found) == {("a", "c"), ("b",)}
    outputs = jnp.arange(10.0).reshape(2, 5)
    np.testing.assert_array_equal(found["a", "c"].outputs(outputs)[0, :, 0], [0.0, 4.0])
    np.testing.assert_array_equal(found["b",].outputs(outputs)[1, 0], [6.0, 7.0, 8.0])
    numbers = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(found["a", "c"].of(numbers), [[0.0, 2.0], [3.0, 5.0]])
    np.testing.assert_array_equal(found["b",].of(numbers), [[1.0], [4.0]])
    np.testing.assert_array_equal(together(list(found.values()), [numbers[0, :2], numbers[1, 2:]]), [0.0, 5.0, 1.0])
