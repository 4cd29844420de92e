"""Optimizers by name: their numbers, what is refused, schedules and multiples of the rate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl import optim
from mtl.optim import OPTIMIZERS, evaluated, init, optimizer, options_of, register, update
from mtl.optim.rates import multiples, rate
from tests.train.build import gap

rng = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def tree():
    return {"kernel": draw(4, 3), "bias": draw(3)}


def run(section, rates=None, columns=None):
    """Return (parameters, state) after six updates, by one compiled function whose numbers are arguments."""
    o, numbers = optimizer(section)
    step = jax.jit(lambda n, *a: update(o, n, 0.05, *a, rates))
    found = []
    for of in [slice(None)] if columns is None else columns:
        part = jax.tree.map(lambda a, c=of: a[..., c], BEGIN)
        state = init(o, numbers, part)
        for gradient in GRADS:
            part, state = step(numbers, jax.tree.map(lambda a, c=of: a[..., c], gradient), state, part)
        found.append((part, state))
    return found[0] if len(found) == 1 else [part for part, _ in found]


GRADS = [tree() for _ in range(6)]
BEGIN = tree()


#: Exact in float32, and so is one less each: our numbers are float32 arrays, those of optax are Python's.
BETAS = {"b1": 0.875, "b2": 0.96875}


def by_hand(transformation):
    params, state, run = BEGIN, transformation.init(BEGIN), jax.jit(transformation.update)
    for gradient in GRADS:
        updates, state = run(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(
    ("section", "oracle"),
    [
        ({"name": "adam", "weight_decay": 0.1, "options": BETAS}, optax.adamw(0.05, weight_decay=0.1, **BETAS)),
        ({"name": "adamw", "weight_decay": 0.1, "options": BETAS}, optax.adamw(0.05, weight_decay=0.1, **BETAS)),
        ({"name": "lion", "weight_decay": 0.1, "options": BETAS}, optax.lion(0.05, weight_decay=0.1, **BETAS)),
        ({"name": "lamb", "weight_decay": 0.1, "options": BETAS}, optax.lamb(0.05, weight_decay=0.1, **BETAS)),
        ({"name": "sgd", "options": {"momentum": 0.9, "nesterov": True}}, optax.sgd(0.05, momentum=0.9, nesterov=True)),
        (
            {"name": "adamw", "weight_decay": 0.1, "decay": "kernels", "options": BETAS},
            optax.adamw(0.05, weight_decay=0.1, mask=lambda p: jax.tree.map(lambda a: a.ndim > 1, p), **BETAS),
        ),
        (
            {"name": "sgd", "weight_decay": 0.1, "decay": "kernels"},
            optax.chain(optax.masked(optax.add_decayed_weights(0.1), {"kernel": True, "bias": False}), optax.sgd(0.05)),
        ),
    ],
)
def test_updates_are_those_of_optax(section, oracle):
    assert gap(run(section)[0], by_hand(oracle)) < 1e-6
    assert gap(run(section)[0], BEGIN) > 0.01


@pytest.mark.parametrize("name", sorted(n for n in OPTIMIZERS if OPTIMIZERS[n].elementwise))
def test_what_is_called_elementwise_is(name):
    """Each column by itself is what the matrix is."""
    each = [slice(i, i + 1) for i in range(3)]
    whole = run({"name": name})[0]
    for one, column in zip(run({"name": name}, columns=each), each, strict=True):
        assert gap(one, jax.tree.map(lambda a, c=column: a[..., c], whole)) < 1e-6


def test_control_lamb_is_not_elementwise():
    with pytest.raises(ValueError, match="its updates are not those of each column alone"):
        register("lamb_again", elementwise=True)(optax.lamb)


def test_numbers_are_data_and_everything_that_is_none_is_static():
    o, numbers = optimizer({"name": "adamw", "options": {"b1": 0.7, "nesterov": True}})
    other, _ = optimizer({"name": "adamw", "options": {"b1": 0.9, "eps": 1e-6, "nesterov": True}})
    assert o == other
    assert o.static == (("nesterov", True),)
    assert numbers["options"] == {"b1": 0.7, "b2": 0.999, "eps": 1e-8, "eps_root": 0.0}
    assert o != optimizer({"name": "adamw", "options": {"nesterov": False}})[0]


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"name": "adamm"}, 'optimizer.name = "adamm": did you mean "adam"'),
        ({"name": "adam", "options": {"b3": 0.9}}, 'optimizer.options.b3: optimizer adam has no option "b3"'),
        ({"name": "adam", "options": {"b1": 1.0}}, "optimizer.options.b1 = 1.0: must be a number in [0, 1)"),
        ({"name": "adam", "options": {"b1": "maybe"}}, "optimizer.options.b1 = 'maybe': must be a number in [0, 1)"),
        ({"name": "adam", "options": {"b1": True}}, "optimizer.options.b1 = True: must be a number in [0, 1)"),
        ({"name": "adam", "options": {"eps": float("nan")}}, "optimizer.options.eps = nan: must be a"),
        (
            {"name": "sgd", "options": {"momentum": -0.1}},
            "optimizer.options.momentum = -0.1: must be a number in [0, 1)",
        ),
        ({"name": "sgd", "options": {"nesterov": 1}}, "optimizer.options.nesterov = 1: must be True or False"),
        ({"name": "adam", "options": {"learning_rate": 1.0}}, 'has no option "learning_rate"'),
        ({"name": "adamw", "options": {"weight_decay": 1.0}}, 'has no option "weight_decay"'),
        ({"name": "lbfgs"}, 'optimizer.name = "lbfgs": cannot be used: '),
        ({"name": "noisy_sgd"}, "it keeps a random key in its state"),
        ({"name": "novograd", "decay": "kernels"}, 'optimizer novograd decays all that it moves: must be "all"'),
        ({"name": "schedule_free_sgd", "ema": 0.9}, "has an average of its own: must be 0"),
        ({"name": "schedule_free_sgd", "layer_decay": 0.5}, "must be without rates of parameters"),
        ({"name": "schedule_free_adamw", "per_task": True}, "must be without per_task"),
        ({"name": "schedule_free_sgd", "options": {"b1": 0.0}}, "must be without b1 = 0"),
        ({"name": "rprop", "options": {"eta_minus": -3.0}}, "optimizer.options.eta_minus = -3.0: must be a number in"),
        ({"name": "adagrad", "options": {"initial_accumulator_value": -1.0}}, "must be a number at least 0"),
        ({"name": "adam", "schedule": "cosin"}, 'optimizer.schedule = "cosin": did you mean "cosine"'),
    ],
)
def test_what_cannot_be_is_one_sentence(section, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT012 — as a config does, in this order
        options_of(section["name"], section.get("options", {}))
        optimizer(section)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["adam", "adamw", "lion"])
def test_parameters_decay_once_whatever_the_number_of_tasks(name):
    o, numbers = optimizer({"name": name, "weight_decay": 0.1, "per_task": True})
    params, none = {"w": jnp.ones((2, 2))}, {"w": jnp.zeros((3, 2, 2))}
    step = jax.jit(functools.partial(update, o))
    moved, _ = step(
        numbers, 0.1, none, init(o, numbers, params, tasks=3), params, shown=jnp.asarray([True, True, False])
    )
    np.testing.assert_allclose(moved["w"], 1 - 0.1 * 0.1, rtol=1e-6)


@pytest.mark.parametrize(("decay", "bias"), [("all", 1 - 0.05), ("kernels", 1.0)])
def test_muon_decays_what_it_is_told_to(decay, bias):
    o, numbers = optimizer({"name": "muon", "weight_decay": 0.5, "decay": decay})
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    none = jax.tree.map(jnp.zeros_like, params)
    moved, _ = jax.jit(functools.partial(update, o))(numbers, 0.1, none, init(o, numbers, params), params)
    np.testing.assert_allclose(moved["kernel"], 0.95, rtol=1e-6)
    np.testing.assert_allclose(moved["bias"], bias, rtol=1e-6)


def test_options_are_what_a_program_can_be_compiled_for(monkeypatch):
    monkeypatch.setitem(
        OPTIMIZERS, "grouped", optim.Transformation(lambda learning_rate, groups=(): optax.sgd(learning_rate))
    )
    assert options_of("grouped", {"groups": (1, 2)}) == {"groups": (1, 2)}
    with pytest.raises(ValueError, match="must be a"):
        options_of("grouped", {"groups": {"a": 1}})


def test_an_average_of_the_parameters_in_closed_form():
    """θ_k = −k η, and the average is Σ (1 − d) dⁿ⁻ᵏ θ_k, begun at θ_0 = 0."""
    o, numbers = optimizer({"name": "sgd", "ema": 0.8})
    params = {"w": jnp.zeros(2)}
    state = init(o, numbers, params)
    for _ in range(5):
        params, state = update(o, numbers, 0.1, {"w": jnp.ones(2)}, state, params)
    expected = sum(0.2 * 0.8 ** (5 - k) * -0.1 * k for k in range(1, 6))
    np.testing.assert_allclose(evaluated(o, state, params)["w"], expected, rtol=1e-6)
    np.testing.assert_allclose(params["w"], -0.5, rtol=1e-6)


def test_schedule_free_evaluates_its_average():
    section = {"name": "schedule_free_sgd"}
    params, state = run(section)
    theirs = optax.contrib.schedule_free_sgd(0.05)
    held, of, move = BEGIN, theirs.init(BEGIN), jax.jit(theirs.update)
    for gradient in GRADS:
        updates, of = move(gradient, of, held)
        held = optax.apply_updates(held, updates)
    expected = optax.contrib.schedule_free_eval_params(of, held)
    assert gap(evaluated(optimizer(section)[0], state, params), expected) < 1e-6
    assert gap(expected, held) > 1e-3


def test_multiples_of_the_rate():
    """The lowest of three blocks learns at 0.5³, heads at all of it, and a multiple of 0 freezes."""
    paths = ("backbone/a/w", "backbone/b/w", "backbone/c/w", "backbone/loose/w", "heads/x/w")
    blocks = ("backbone/a", "backbone/b", "backbone/c")
    assert multiples({"layer_decay": 0.5}, paths, blocks) == ((0.125, 0.25, 0.5, 1.0, 1.0), [])
    rates = {"backbone/[bc]/.*": 2.0, "heads/x/.*": 0.0, "heads/y/.*": 1.0}
    assert multiples({"rates": rates}, paths, blocks) == ((1.0, 2.0, 2.0, 1.0, 0.0), ["heads/y/.*"])
    moved = run({"name": "adam", "rates": {"": 1}}, rates={"kernel": 0.0, "bias": 1.0})[0]
    assert gap(moved["kernel"], BEGIN["kernel"]) == 0
    assert gap(moved["bias"], run({"name": "adam"})[0]["bias"]) < 1e-7


# --- schedules ---


def rates_of(lr=0.3, steps=40, **section):
    o, numbers = optimizer({"name": "sgd", **section})
    return np.asarray(jax.vmap(lambda k: jnp.float32(rate(o.schedule, numbers, lr, steps, k)))(jnp.arange(steps)))


def test_a_constant_rate_is_constant():
    np.testing.assert_array_equal(rates_of(), np.full(40, 0.3, np.float32))


def test_cosine_without_warm_up_equals_optax():
    expected = optax.schedules.cosine_decay_schedule(0.3, 40)(jnp.arange(40))
    np.testing.assert_allclose(rates_of(schedule="cosine"), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_warm_up_equals_optax(schedule):
    """A quarter of 40 steps: step 0 has a tenth of the rate (not none), step 9 all of it; then the schedule."""
    after = {
        "constant": lambda k: jnp.full(k.shape, 0.3),
        "cosine": optax.schedules.cosine_decay_schedule(0.3, 30),
        "linear": optax.schedules.linear_schedule(0.3, 0.0, 30),
    }[schedule]
    rise = optax.schedules.linear_schedule(0.0, 0.3, 10)(jnp.arange(1, 11))
    expected = np.concatenate([rise, after(jnp.arange(30))])
    np.testing.assert_allclose(rates_of(schedule=schedule, warmup=0.25), expected, rtol=1e-5, atol=1e-7)


def test_a_schedule_of_ones_own(monkeypatch):
    monkeypatch.setitem(optim.SCHEDULES, "square", lambda t: (1 - t) ** 2)
    np.testing.assert_allclose(rates_of(schedule="square"), 0.3 * (1 - np.arange(40) / 40) ** 2, rtol=1e-5)


def test_clipping_bounds_the_norm_and_leaves_small_gradients():
    small, large = ({"w": jnp.full(4, v)} for v in (0.1, 10.0))
    assert gap(optim.clipped(1.0, small), small) == 0
    assert float(optax.tree.norm(optim.clipped(1.0, large))) == pytest.approx(1.0, rel=1e-6)
    assert gap(optim.clipped(0.7, {"w": jnp.zeros(4)}), {"w": jnp.zeros(4)}) == 0


def test_names_are_taken_once():
    register("of_mine")(optax.sgd)
    register("of_mine")(optax.sgd)
    with pytest.raises(ValueError, match='optimizer "of_mine" is already registered'):
        register("of_mine")(optax.adam)
    del OPTIMIZERS["of_mine"]
