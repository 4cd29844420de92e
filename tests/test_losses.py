"""Losses against scipy, scikit-learn, finite differences and the definitions written out in float64 numpy."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl import losses, tasks
from mtl.config import ConfigError, augmentation
from mtl.models import build
from mtl.tasks import Task
from tests.train.build import stages, trial

N, C = 12, 5  # One shape for all draws, so that nothing compiles twice.
TASKS = {
    "binary": Task("b", "binary"),
    "binary with options": Task("bo", "binary", pos_weight=3.0, label_smoothing=0.1, focal_gamma=0.5),
    "multiclass": Task("c", "multiclass", num_classes=C),
    "multiclass with options": Task("co", "multiclass", num_classes=C, label_smoothing=0.1, focal_gamma=2.0),
    "regression": Task("r", "regression"),
}
GARBAGE = {
    "outputs": [np.nan, np.inf, -np.inf, 1e30, -7.0],
    "float": [np.nan, -1, 5, 1e30],
    "int": [-1, C, 99],
}


def double(x):
    return np.asarray(x, np.float64)


def draw(task, seed, n=N, scale=3.0):
    rng = np.random.default_rng(seed)
    outputs = (scale * rng.normal(size=(n, task.outputs))).astype(np.float32)
    if task.kind == "regression":
        labels = rng.normal(size=n).astype(np.float32)
    else:
        labels = rng.integers(max(task.num_classes, 2), size=n).astype(task.label_dtype)
    return tuple(jnp.asarray(x) for x in (outputs, labels, rng.random(n) < 0.6))


@pytest.fixture(scope="module")
def value_and_gradient():
    """Compiled, one for each task: a sum in which every value has another weight, and the values."""

    def of(task):
        def total(outputs, labels, mask):
            v = losses.values(task, outputs, labels, mask)
            return jnp.sum(v * (1 + jnp.arange(v.shape[0], dtype=v.dtype))), v

        return jax.jit(jax.value_and_grad(total, has_aux=True))

    return {name: of(task) for name, task in TASKS.items()}


# --- against other people's code ---


def test_logistic_is_scipys():
    z, y, _ = draw(TASKS["binary"], 0)
    want = -scipy.special.log_expit(double(np.where(y == 1, z[:, 0], -z[:, 0])))
    np.testing.assert_allclose(losses.logistic(z[:, 0], y), want, rtol=1e-6)


def test_logistic_keeps_relative_accuracy_far_from_zero():
    z = jnp.linspace(-80, 80, 33)
    want = -scipy.special.log_expit(double(z))
    np.testing.assert_allclose(losses.logistic(z, jnp.ones_like(z)), want, rtol=1e-5)
    got = jax.jit(jax.vmap(jax.grad(losses.logistic)))(z, jnp.ones_like(z))
    np.testing.assert_allclose(got, -scipy.special.expit(-double(z)), rtol=1e-5)


def test_logistic_mean_is_scikit_learns():
    z, y, _ = draw(TASKS["binary"], 1)
    want = sklearn.metrics.log_loss(y, scipy.special.expit(double(z[:, 0])))
    assert float(losses.logistic(z[:, 0], y).mean()) == pytest.approx(want, rel=1e-6)


def test_softmax_is_scipys():
    z, y, _ = draw(TASKS["multiclass"], 2)
    want = -scipy.special.log_softmax(double(z), axis=-1)[np.arange(N), y]
    np.testing.assert_allclose(losses.softmax(z, y), want, rtol=1e-5)


def test_softmax_mean_is_scikit_learns():
    z, y, _ = draw(TASKS["multiclass"], 3)
    p = scipy.special.softmax(double(z), axis=-1)
    want = sklearn.metrics.log_loss(y, p, labels=range(C))
    assert float(losses.softmax(z, y).mean()) == pytest.approx(want, rel=1e-6)


def test_squared_is_scikit_learns():
    z, y, _ = draw(TASKS["regression"], 4)
    want = sklearn.metrics.mean_squared_error(y, z[:, 0])
    assert float(losses.squared(z[:, 0], y).mean()) == pytest.approx(want, rel=1e-6)


# --- options, by PyTorch's definitions in float64 ---


@pytest.mark.parametrize("pos_weight", [1.0, 0.25, 4.0])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.9])
def test_logistic_options_are_bce_with_logits(pos_weight, eps):
    z, y, _ = draw(TASKS["binary"], 5)
    x, t = double(z[:, 0]), double(y) * (1 - eps) + eps / 2
    p = scipy.special.expit(x)
    want = -(pos_weight * t * np.log(p) + (1 - t) * np.log1p(-p))
    np.testing.assert_allclose(losses.logistic(z[:, 0], y, pos_weight=pos_weight, label_smoothing=eps), want, rtol=1e-5)


@pytest.mark.parametrize("eps", [0.1, 0.9])
def test_softmax_smoothing_is_cross_entropy_loss(eps):
    z, y, _ = draw(TASKS["multiclass"], 6)
    log_p = scipy.special.log_softmax(double(z), axis=-1)
    want = (1 - eps) * -log_p[np.arange(N), y] + eps / C * -log_p.sum(-1)
    np.testing.assert_allclose(losses.softmax(z, y, label_smoothing=eps), want, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_is_sigmoid_focal_loss(gamma):
    # torchvision.ops.sigmoid_focal_loss with alpha = -1: ce * (1 - p_t)^gamma, p_t = p y + (1 - p)(1 - y).
    z, y, _ = draw(TASKS["binary"], 7)
    p = scipy.special.expit(double(z[:, 0]))
    p_t = p * double(y) + (1 - p) * (1 - double(y))
    np.testing.assert_allclose(
        losses.logistic(z[:, 0], y, focal_gamma=gamma), -np.log(p_t) * (1 - p_t) ** gamma, rtol=2e-5
    )
    z, y, _ = draw(TASKS["multiclass"], 7)
    p_t = scipy.special.softmax(double(z), axis=-1)[np.arange(N), y]
    np.testing.assert_allclose(
        losses.softmax(z, y, focal_gamma=gamma), -np.log(p_t) * (1 - p_t) ** gamma, rtol=1e-4, atol=1e-7
    )


def test_golden_values():
    # By hand: p = 3/4 at z = ln 3, so the loss is ln(4/3) and the focal factor (1/4)^2; smoothed, t = 0.9, it
    # is 0.9 ln(4/3) + 0.1 ln 4; and with pos_weight 2, 1.8 ln(4/3) + 0.1 ln 4.
    z, y = jnp.full(N, jnp.log(3.0)), jnp.ones(N)
    for options, want in (
        ({}, 0.28768207),
        ({"focal_gamma": 2.0}, 0.01798013),
        ({"label_smoothing": 0.2}, 0.39754330),
        ({"label_smoothing": 0.2, "pos_weight": 2.0}, 0.65645716),
    ):
        np.testing.assert_allclose(losses.logistic(z, y, **options), want, rtol=1e-6)
    # p = (1/2, 1/4, 1/4): ln 2; smoothed by 0.3 over 3 classes, 0.8 ln 2 + 0.2 ln 4 = 1.2 ln 2.
    z, y = jnp.tile(jnp.log(jnp.array([2.0, 1.0, 1.0])), (N, 1)), jnp.zeros(N, jnp.int32)
    for options, want in (
        ({}, 0.69314718),
        ({"label_smoothing": 0.3}, 0.83177662),
        ({"focal_gamma": 1.0}, 0.34657359),
    ):
        np.testing.assert_allclose(losses.softmax(z, y, **options), want, rtol=1e-6)


# --- labels mixed of several: probabilities ---


def mixed(seed):
    """Logits, and probabilities, of which the last row's are one class's."""
    z, _, _ = draw(TASKS["multiclass"], seed)
    soft = np.random.default_rng(seed).dirichlet(np.ones(C), N).astype(np.float32)
    soft[-1] = np.eye(C)[2]
    return z, jnp.asarray(soft)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.9])
def test_softmax_of_probabilities_is_cross_entropy_loss_of_probabilities(eps):
    # PyTorch's CrossEntropyLoss of class probabilities: −Σ_c ((1 − ε) π_c + ε/C) log p_c.
    z, soft = mixed(17)
    want = -(((1 - eps) * double(soft) + eps / C) * scipy.special.log_softmax(double(z), axis=-1)).sum(axis=-1)
    found = losses.softmax(z, soft, label_smoothing=eps)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    assert float(found[-1]) == pytest.approx(float(losses.softmax(z[-1], jnp.int32(2), label_smoothing=eps)), rel=1e-5)


def test_golden_values_of_probabilities():
    # By hand: p = (1/2, 1/4, 1/4) and π = (0.7, 0.3, 0): 0.7 ln 2 + 0.3 ln 4 = 1.3 ln 2; smoothed by 0.3, t is
    # (0.59, 0.31, 0.1), so the loss is (0.59 + 2 · 0.41) ln 2 = 1.41 ln 2.
    z = jnp.tile(jnp.log(jnp.array([2.0, 1.0, 1.0])), (N, 1))
    soft = jnp.tile(jnp.array([0.7, 0.3, 0.0]), (N, 1))
    np.testing.assert_allclose(losses.softmax(z, soft), 1.3 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(losses.softmax(z, soft, label_smoothing=0.3), 1.41 * np.log(2), rtol=1e-6)
    # Of a binary task, z = ln 3: 0.7 ln(4/3) + 0.3 ln 4.
    z, y = jnp.full(N, jnp.log(3.0)), jnp.full(N, 0.7)
    np.testing.assert_allclose(losses.logistic(z, y), 0.7 * np.log(4 / 3) + 0.3 * np.log(4), rtol=1e-6)


def test_the_loss_of_mixed_labels_is_the_mixed_loss():
    """So λ l(z, y) + (1 − λ) l(z, y'), as mixup was defined, is what the mixed label gives."""
    z, y, mask = draw(TASKS["multiclass"], 18)
    other, share = jnp.roll(y, 1), jnp.asarray(np.random.default_rng(18).random(N), jnp.float32)
    task = dataclasses.replace(TASKS["multiclass"], label_smoothing=0.1)
    soft = share[:, None] * jax.nn.one_hot(y, C) + (1 - share)[:, None] * jax.nn.one_hot(other, C)
    soft = jnp.where(mask[:, None], soft, jnp.nan)
    parts = share * losses.values(task, z, y, mask) + (1 - share) * losses.values(task, z, other, mask)
    np.testing.assert_allclose(losses.values(task, z, soft, mask), parts, rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda z: losses.values(task, z, soft, mask).sum())(z)
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[~np.asarray(mask)].any()


def test_two_classes_are_the_logistic_loss():
    z, y, _ = draw(TASKS["binary"], 8)
    two = jnp.concatenate([jnp.zeros_like(z), z], axis=-1)
    options = {"label_smoothing": 0.2, "focal_gamma": 1.5}
    np.testing.assert_allclose(
        losses.softmax(two, y.astype(jnp.int32), **options), losses.logistic(z[:, 0], y, **options), rtol=1e-4
    )


def test_flipping_label_and_logit_changes_nothing():
    z, y, _ = draw(TASKS["binary"], 9)
    for options in ({}, {"label_smoothing": 0.2}, {"focal_gamma": 0.7}):
        np.testing.assert_allclose(
            losses.logistic(z[:, 0], y, **options), losses.logistic(-z[:, 0], 1 - y, **options), rtol=1e-6
        )


def test_a_constant_added_to_all_logits_changes_nothing():
    z, y, _ = draw(TASKS["multiclass"], 10)
    np.testing.assert_allclose(losses.softmax(z + 64, y), losses.softmax(z, y), rtol=1e-4, atol=1e-5)


def test_gamma_zero_is_exactly_the_plain_loss():
    z, y, _ = draw(TASKS["binary"], 11)
    traced = jax.jit(lambda gamma: losses.logistic(z[:, 0], y, focal_gamma=gamma))(jnp.array(0.0))
    np.testing.assert_array_equal(traced, jax.jit(lambda: losses.logistic(z[:, 0], y))())
    z, y, _ = draw(TASKS["multiclass"], 11)
    traced = jax.jit(lambda gamma: losses.softmax(z, y, focal_gamma=gamma))(jnp.array(0.0))
    np.testing.assert_allclose(traced, jax.jit(lambda: losses.softmax(z, y))(), rtol=1e-6)


# --- gradients ---


@pytest.mark.parametrize("name", TASKS)
def test_gradient_is_the_finite_difference(name):
    task = TASKS[name]
    with jax.enable_x64(True):
        outputs, labels, mask = draw(task, 12, n=6)
        outputs, h = jnp.asarray(double(outputs)), 1e-6
        steps = h * jnp.eye(outputs.size).reshape(-1, *outputs.shape)

        @jax.jit
        def both_ways(z):
            def total(z):
                return losses.values(task, z, labels, mask).sum()

            ends = jax.vmap(total)(jnp.concatenate([z[None] + steps, z[None] - steps])).reshape(2, -1)
            return jax.grad(total)(z).ravel(), (ends[0] - ends[1]) / (2 * h)

        got, want = both_ways(outputs)
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)
    assert jnp.ones(1).dtype == jnp.float32


EXTREME = (
    jnp.array([1e4, -1e4, 1e4, -1e4, 88.0, -88.0, 0.0]),
    jnp.array([1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
)


def both_losses(z, y, **options):
    pair = jnp.stack([jnp.zeros(()), z])
    return losses.logistic(z, y, **options) + losses.softmax(pair, y.astype(jnp.int32), **options)


def test_extreme_logits_have_finite_losses_and_gradients():
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(both_losses)))(*EXTREME)
    np.testing.assert_allclose(value[:4], [0.0, 2e4, 2e4, 0.0])
    np.testing.assert_allclose(gradient[:4], [0.0, -2.0, 2.0, 0.0])
    # Half of it each, at 0, where a head of zeros starts and where the pieces of the stable formula meet.
    assert float(gradient[-1]) == -1.0

    @jax.jit
    def with_options(gamma, eps):
        f = jax.value_and_grad(lambda z, y: both_losses(z, y, focal_gamma=gamma, label_smoothing=eps))
        return jax.vmap(f)(*EXTREME)

    for gamma in (0.0, 0.5, 2.0):
        for eps in (0.0, 0.1):
            assert all(np.isfinite(part).all() for part in with_options(gamma, eps))


@pytest.mark.parametrize("eps", [0.0, 0.2])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_gradient_of_the_logistic_loss_at_zero(eps, gamma):
    # By hand: d/dz of q^gamma times the loss at p = 1/2; the derivative of the loss is 1/2 - t.
    f = jax.jit(jax.grad(lambda z, y: losses.logistic(z, y, focal_gamma=gamma, label_smoothing=eps)))
    for y in (0.0, 1.0):
        t, sign = y * (1 - eps) + eps / 2, 2 * y - 1
        want = 0.5**gamma * ((0.5 - t) - gamma * sign * 0.5 * np.log(2))
        assert float(f(0.0, jnp.array(y))) == pytest.approx(want, rel=1e-6)


# --- the mask ---


@pytest.mark.parametrize("name", TASKS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), data=st.data())
def test_what_stands_in_a_masked_slot_changes_no_bit(value_and_gradient, name, seed, data):
    task, f = TASKS[name], value_and_gradient[name]
    outputs, labels, _ = (np.array(x) for x in draw(task, seed))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=N, max_size=N)))
    kind = "int" if task.kind == "multiclass" else "float"
    dirty_outputs, dirty_labels = outputs.copy(), labels.copy()
    dirty_outputs[~mask] = data.draw(st.sampled_from(GARBAGE["outputs"]))
    dirty_labels[~mask] = data.draw(st.sampled_from(GARBAGE[kind]))
    (total, v), gradient = f(outputs, labels, mask)
    (dirty_total, dirty_v), dirty_gradient = f(dirty_outputs, dirty_labels, mask)
    assert total.tobytes() == dirty_total.tobytes()
    assert v.tobytes() == dirty_v.tobytes()
    assert gradient.tobytes() == dirty_gradient.tobytes()
    assert np.all(np.asarray(v)[~mask] == 0)
    assert np.all(np.asarray(gradient)[~mask] == 0)


@pytest.mark.parametrize("name", TASKS)
def test_present_values_are_those_without_a_mask(name):
    task = TASKS[name]
    outputs, labels, mask = draw(task, 13)
    everything = losses.values(task, outputs, labels, jnp.ones(N, bool))
    np.testing.assert_array_equal(losses.values(task, outputs, labels, mask), np.where(mask, everything, 0))


@pytest.mark.parametrize(
    ("name", "label"), [("binary", np.nan), ("regression", np.nan), ("multiclass", -1), ("multiclass", C)]
)
def test_a_present_label_that_cannot_be_makes_loss_and_gradient_nan(name, label, value_and_gradient):
    outputs, labels, _ = draw(TASKS[name], 14)
    labels = labels.at[3].set(label)
    (_, v), gradient = value_and_gradient[name](outputs, labels, jnp.ones(N, bool))
    assert np.isnan(v[3])
    assert np.isnan(gradient[3]).all()
    assert np.isfinite(np.delete(v, 3)).all()


@pytest.mark.parametrize("name", ["binary with options", "multiclass with options", "regression"])
def test_compiled_vmap_and_lax_map_agree_with_the_loop(name):
    task = TASKS[name]
    batches = [draw(task, seed) for seed in range(3)]
    want = [losses.values(task, *b) for b in batches]

    @jax.jit
    def compiled(*stacked):
        one = jax.tree.map(lambda x: x[0], stacked)
        mapped = jax.lax.map(lambda b: losses.values(task, *b), stacked)
        return losses.values(task, *one), jax.vmap(lambda *b: losses.values(task, *b))(*stacked), mapped

    alone, vmapped, mapped = compiled(*(jnp.stack(x) for x in zip(*batches, strict=True)))
    for got, expected in ((alone, want[0]), (vmapped, want), (mapped, want)):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_half_precision_outputs_are_raised():
    outputs, labels, mask = draw(TASKS["binary"], 15)
    half = jnp.asarray(outputs, jnp.bfloat16)
    v = losses.values(TASKS["binary"], half, labels, mask)
    assert v.dtype == jnp.float32
    np.testing.assert_array_equal(v, losses.values(TASKS["binary"], half.astype(jnp.float32), labels, mask))


def test_values_refuses_what_does_not_fit():
    outputs, labels, mask = draw(TASKS["multiclass"], 16)
    with pytest.raises(ValueError, match='task "b": outputs of width 5: must be 1'):
        losses.values(TASKS["binary"], outputs, labels, mask)
    with pytest.raises(ValueError, match='task "c": class ids of type float32: must be integers'):
        losses.values(TASKS["multiclass"], outputs, labels.astype(jnp.float32), mask)
    with pytest.raises(ValueError, match=r'task "b": labels .*, 1.: must be one number an example'):
        losses.values(TASKS["binary"], outputs[:, :1], jnp.zeros_like(outputs[:, :1]), mask)
    focal = dataclasses.replace(TASKS["multiclass"], focal_gamma=2.0)
    with pytest.raises(ValueError, match="focal_gamma: is for class ids, and labels are probabilities"):
        losses.values(focal, outputs, jax.nn.one_hot(labels, C), mask)


# --- from values to one number ---


def batch(seed, n=N, present=0.5):
    rng = np.random.default_rng(seed)
    masks = {k: jnp.asarray(rng.random(n) < present) for k in "abc"}
    return {k: jnp.asarray(rng.exponential(size=n), jnp.float32) for k in "abc"}, masks


def by_hand(values, masks, denominator, weights):
    # The definitions, as loops over tasks and examples.
    total, labels, task_means, examples = 0.0, 0, [], len(next(iter(values.values())))
    for k in values:
        terms = [float(v) for v, m in zip(values[k], masks[k], strict=True) if m]
        total, labels = total + weights[k] * sum(terms), labels + len(terms)
        if terms:
            task_means.append(weights[k] * sum(terms) / len(terms))
    if denominator == "examples":
        return total / examples
    if denominator == "labels":
        return total / labels if labels else 0.0
    return sum(task_means) / len(task_means) if task_means else 0.0


WEIGHTS = {"a": 0.5, "b": 2.0, "c": 1.25}


@pytest.fixture(scope="module")
def reduced():
    """Compiled, for each denominator: (loss, gradient) of a batch, and the loss from micro-batches of 4."""

    @jax.jit
    def of(values, masks, weights):
        parts = {
            k: jax.vmap(losses.sum_and_count)(v.reshape(-1, 4), masks[k].reshape(-1, 4)) for k, v in values.items()
        }
        sums = {k: total.sum() for k, (total, _) in parts.items()}
        counts = {k: count.sum() for k, (_, count) in parts.items()}
        return {
            d: (
                jax.value_and_grad(losses.reduce)(values, masks, d, weights),
                losses.reduce_sums(sums, counts, N, d, weights),
            )
            for d in losses.DENOMINATORS
        }

    return lambda values, masks: of(values, masks, {k: jnp.asarray(w) for k, w in WEIGHTS.items()})


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), present=st.sampled_from([0.05, 0.3, 1.0]))
def test_reduce_is_its_definition_and_adds_up_over_micro_batches(reduced, seed, present):
    values, masks = batch(seed, present=present)
    for denominator, ((got, _), added) in reduced(values, masks).items():
        want = by_hand(values, masks, denominator, WEIGHTS)
        assert float(got) == pytest.approx(want, rel=1e-5), denominator
        assert float(added) == pytest.approx(want, rel=1e-5), denominator


def test_no_label_at_all_gives_exactly_zero_with_zero_gradient(reduced):
    values, masks = batch(17)
    values = {k: jnp.full_like(v, np.nan) for k, v in values.items()}
    masks = {k: jnp.zeros_like(m) for k, m in masks.items()}
    for (got, gradient), added in reduced(values, masks).values():
        assert float(got) == float(added) == 0.0
        assert all(np.all(np.asarray(g) == 0) for g in gradient.values())


@pytest.mark.parametrize("name", TASKS)
def test_no_label_at_all_leaves_the_outputs_gradient_at_zero(name):
    task = TASKS[name]
    outputs, labels, _ = draw(task, 18)
    none = jnp.zeros(N, bool)

    def loss(z, denominator):
        return losses.reduce({"t": losses.values(task, z, labels, none)}, {"t": none}, denominator)

    @jax.jit
    def all_three(z):
        return [jax.value_and_grad(lambda z, d=d: loss(z, d))(z) for d in losses.DENOMINATORS]

    for value, gradient in all_three(jnp.full_like(outputs, np.nan)):
        assert float(value) == 0.0
        assert np.all(np.asarray(gradient) == 0)


@pytest.mark.parametrize("denominator", losses.DENOMINATORS)
def test_reduce_does_not_mind_the_order_of_examples_or_tasks(denominator):
    values, masks = batch(19)
    order = np.random.default_rng(0).permutation(N)
    want = losses.reduce(values, masks, denominator, WEIGHTS)
    shuffled = losses.reduce(
        {k: v[order] for k, v in values.items()},
        {k: m[order] for k, m in masks.items()},
        denominator,
        WEIGHTS,
    )
    assert float(shuffled) == pytest.approx(float(want), rel=1e-6)
    backwards = losses.reduce(
        dict(reversed(values.items())),
        dict(reversed(masks.items())),
        denominator,
        dict(reversed(WEIGHTS.items())),
    )
    assert backwards.tobytes() == want.tobytes()


def test_a_task_without_labels_is_as_if_it_were_not_there():
    values, masks = batch(20)
    masks["c"] = jnp.zeros(N, bool)
    values["c"] = jnp.full(N, np.nan)
    for denominator in losses.DENOMINATORS:
        without = losses.reduce({k: values[k] for k in "ab"}, {k: masks[k] for k in "ab"}, denominator, WEIGHTS)
        got = losses.reduce(values, masks, denominator, WEIGHTS)
        assert float(got) == pytest.approx(float(without), rel=1e-6)


def test_masking_rows_is_dropping_them():
    values, masks = batch(21)
    keep = np.random.default_rng(1).random(N) < 0.5
    dropped = {k: v[keep] for k, v in values.items()}, {k: m[keep] for k, m in masks.items()}
    masked = values, {k: m & keep for k, m in masks.items()}
    for denominator in ("labels", "tasks"):
        got = float(losses.reduce(*masked, denominator))
        assert got == pytest.approx(float(losses.reduce(*dropped, denominator)), rel=1e-6)
    # `examples` counts the rows themselves.
    scale = keep.sum() / N
    got = float(losses.reduce(*masked, "examples"))
    assert got == pytest.approx(scale * float(losses.reduce(*dropped, "examples")), rel=1e-6)


def test_with_every_label_present_the_denominators_differ_by_the_number_of_tasks():
    values, masks = batch(22, present=2.0)
    by_examples, by_labels, by_tasks = (float(losses.reduce(values, masks, d)) for d in losses.DENOMINATORS)
    assert by_labels == pytest.approx(by_tasks, rel=1e-6)
    assert by_examples == pytest.approx(3 * by_tasks, rel=1e-6)


def test_gradients_accumulate_exactly_with_the_whole_batchs_coefficients():
    task = TASKS["binary"]
    x = jnp.asarray(np.random.default_rng(2).normal(size=(N, 3)), jnp.float32)
    _, labels, _ = draw(task, 23)
    _, masks = batch(23, present=0.4)
    counts = {k: int(m.sum()) for k, m in masks.items()}
    w = jnp.ones((3, 1))

    def values(w, x, y, m):
        return {k: losses.values(task, x @ w, y, m[k]) for k in m}

    @jax.jit
    def of_the_whole(w):
        return {
            d: jax.grad(lambda w, d=d: losses.reduce(values(w, x, labels, masks), masks, d, WEIGHTS))(w)
            for d in losses.DENOMINATORS
        }

    @jax.jit
    def of_a_part(w, x, y, m):
        def loss(w, denominator):
            c, v = losses.coefficients(counts, N, denominator, WEIGHTS), values(w, x, y, m)
            return sum(c[k] * losses.sum_and_count(v[k], m[k])[0] for k in v)

        return {d: jax.grad(lambda w, d=d: loss(w, d))(w) for d in losses.DENOMINATORS}

    parts = [of_a_part(w, *jax.tree.map(lambda a, i=i: a[i : i + 4], (x, labels, masks))) for i in range(0, N, 4)]
    for d, want in of_the_whole(w).items():
        np.testing.assert_allclose(sum(part[d] for part in parts), want, rtol=1e-5, atol=1e-7)


def test_reduce_is_linear_in_the_weights():
    values, masks = batch(24)
    for denominator in losses.DENOMINATORS:
        once = float(losses.reduce(values, masks, denominator, WEIGHTS))
        thrice = float(losses.reduce(values, masks, denominator, {k: 3 * w for k, w in WEIGHTS.items()}))
        assert thrice == pytest.approx(3 * once, rel=1e-6)
        ones = losses.reduce(values, masks, denominator, dict.fromkeys(values, 1.0))
        assert float(ones) == float(losses.reduce(values, masks, denominator))


def test_reduce_under_vmap_is_the_loop():
    draws = [batch(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *draws)
    for denominator in losses.DENOMINATORS:
        got = jax.jit(jax.vmap(lambda v, m, d=denominator: losses.reduce(v, m, d)))(*stacked)
        np.testing.assert_allclose(got, [losses.reduce(v, m, denominator) for v, m in draws], rtol=1e-6)


def test_reduce_refuses_what_does_not_fit():
    values, masks = batch(25)
    with pytest.raises(ValueError, match='denominator "exampels": did you mean "examples"'):
        losses.reduce(values, masks, "exampels")
    with pytest.raises(ValueError, match=r'task "c" has no weight: .*Valid: a, b'):
        losses.reduce(values, masks, "labels", {"a": 1.0, "b": 1.0})
    with pytest.raises(ValueError, match="must be the same"):
        losses.reduce(values, {"a": masks["a"]}, "labels")
    with pytest.raises(ValueError, match="no task"):
        losses.reduce({}, {}, "labels")
    values["a"], masks["a"] = values["a"][:3], masks["a"][:3]
    with pytest.raises(ValueError, match="batches of different lengths"):
        losses.reduce(values, masks, "labels")


@pytest.fixture
def hinge():
    """The hinge loss, as a user would write it; its outputs are margins, of which the link makes logits."""
    before = dict(losses.LOSSES), dict(tasks.KINDS)

    @losses.register("hinge", "binary", link=lambda outputs: 2 * outputs)
    def hinge(outputs, labels):
        return jnp.maximum(0.0, 1.0 - (2 * labels - 1) * outputs[:, 0])

    yield
    losses.LOSSES.clear()
    losses.LOSSES.update(before[0])
    tasks.KINDS.update(before[1])


def test_a_users_loss_is_scikit_learns_over_the_labels_that_are_present(hinge):
    rng, task = np.random.default_rng(0), Task("t", "binary", loss="hinge")
    outputs, labels = rng.normal(size=(30, 1)).astype(np.float32), rng.integers(0, 2, 30).astype(np.float32)
    mask = rng.random(30) < 0.7
    poisoned = jnp.where(mask, labels, jnp.nan), jnp.asarray(mask)
    found = losses.values(task, jnp.asarray(np.where(mask[:, None], outputs, np.inf)), *poisoned)
    assert not np.any(found[~mask])
    want = sklearn.metrics.hinge_loss(labels[mask], outputs[mask, 0])
    assert float(found.sum() / mask.sum()) == pytest.approx(want, rel=1e-6)
    slope = jax.grad(lambda z: losses.values(task, z, *poisoned).sum())(jnp.asarray(outputs))
    assert not np.any(slope[~mask]) and np.isfinite(slope).all()
    given = jnp.asarray(outputs)
    np.testing.assert_array_equal(losses.linked(task, given), 2 * outputs)
    assert losses.linked(Task("t", "binary"), given) is given


def test_options_of_the_default_loss_are_not_those_of_a_users(hinge):
    with pytest.raises(ValueError, match='task "t": focal_gamma is for the loss "logistic", not "hinge"'):
        Task("t", "binary", loss="hinge", focal_gamma=1.0)
    with pytest.raises(ValueError, match='a regression task cannot have loss "hinge"'):
        Task("t", "regression", loss="hinge")
    with pytest.raises(ValueError, match='loss "hinge" is already registered; choose another name'):
        losses.register("hinge", "binary")(lambda outputs, labels: outputs[:, 0])
    with pytest.raises(ValueError, match='loss "mine": kind = "binry": did you mean "binary"'):
        losses.register("mine", "binry")


def test_what_is_compiled_for_a_loss_is_not_for_another_of_its_name(hinge):
    """A config file that is executed again may say another loss under the same name."""
    task = Task("t", "binary", loss="hinge")
    one = build("mlp", {"hidden": (2,)}, (task,))
    assert one == build("mlp", {"hidden": (2,)}, (task,))
    said = lambda outputs, labels: jnp.square(jnp.maximum(0.0, 1.0 - (2 * labels - 1) * outputs[:, 0]))  # noqa: E731
    changed = types.FunctionType(said.__code__, dict(globals()))  # Each execution has globals of its own.
    known = losses.LOSSES["hinge"].values
    changed.__module__, changed.__qualname__ = known.__module__, known.__qualname__
    losses.register("hinge", "binary")(changed)
    assert one != build("mlp", {"hidden": (2,)}, (task,))


@pytest.mark.parametrize("wrong", [lambda z, y: jnp.abs(z[:, 0] - y).mean(), lambda z, y: jnp.abs(z - y[:, None])])
def test_a_loss_that_is_no_number_a_label_is_refused_before_anything_is_compiled(hinge, wrong):
    """A mean over labels would spread one that is missing over all."""
    losses.register("wrong", "binary")(wrong)
    task, mask = Task("t", "binary", loss="wrong"), jnp.asarray([True, False])
    with pytest.raises(ValueError, match=r'loss "wrong": gives .*: must be \(2,\), a number a label'):
        losses.values(task, jnp.zeros((2, 1)), jnp.asarray([1.0, jnp.nan]), mask)
    with pytest.raises(ValueError, match=r'^loss "wrong": cannot be used: loss "wrong": gives'):
        build("mlp", {"hidden": (2,)}, (task,))


def test_where_a_registered_loss_cannot_be_used_it_is_refused(hinge):
    losses.register("ids", "multiclass")(lambda z, y: -jax.nn.log_softmax(z)[jnp.arange(len(y)), y])
    three = Task("t", "multiclass", num_classes=3, loss="ids")
    with pytest.raises(ValueError, match='mixup mixes labels, and loss "ids" of t takes whole ones'):
        augmentation.parse(("mixup",), [three])
    assert augmentation.parse(("flip",), [three])
    with pytest.raises(ConfigError, match='closed form fits squared errors, and task "goal" has loss "hinge"'):
        stages(trial(regime="ridge_probe", task_options={"goal": {"loss": "hinge"}}))
