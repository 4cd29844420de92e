"""Metrics against scikit-learn, with masks, weights and ties; and what has to leave them as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl import metrics
from mtl.tasks import KINDS, Task

N, C = 40, 4  # One shape for all draws, so that each kind compiles once.
TASKS = {
    "binary": Task("b", "binary"),
    "multiclass": Task("c", "multiclass", num_classes=C),
    "regression": Task("r", "regression"),
}
EVERYTHING = jnp.ones(N, bool)
ONES = jnp.ones(N)


def draw(kind, seed, ties=True):
    """Outputs, labels, mask and weights; the scores of a ranking fall on a few values."""
    rng = np.random.default_rng(seed)
    task = TASKS[kind]
    outputs = rng.normal(scale=2.0, size=(N, task.outputs))
    outputs = np.round(outputs) + 0.25 if ties else outputs
    labels = rng.normal(size=N) if kind == "regression" else rng.integers(max(task.num_classes, 2), size=N)
    mask, weights = rng.random(N) < 0.6, rng.integers(1, 4, size=N)
    return outputs.astype(np.float32), labels.astype(task.label_dtype), mask, weights.astype(np.float32)


@pytest.fixture(scope="module")
def compiled():
    """For each kind, all its metrics in one compiled function of (outputs, labels, mask, weights)."""

    def of(kind):
        f = jax.jit(lambda *data: {name: metrics.METRICS[name].value(*data) for name in KINDS[kind].metrics})
        return lambda *data: {name: float(value) for name, value in f(*map(jnp.asarray, data)).items()}

    return {kind: of(kind) for kind in TASKS}


def per_example(kind, name, outputs, labels):
    """Return ``metrics.per_example``, compiled whole, as a report calls it."""
    each = jax.jit(lambda *data: metrics.per_example(TASKS[kind], name, *data))
    return np.asarray(each(jnp.asarray(outputs), jnp.asarray(labels)))


def ece_by_hand(p, y, w):
    # Guo et al. (2017), equation 3, bin by bin.
    confidence, right, total = p.max(axis=1), p.argmax(axis=1) == y, 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            mean = [np.average(x[inside], weights=w[inside]) for x in (right, confidence)]
            total += w[inside].sum() / w.sum() * abs(mean[0] - mean[1])
    return total


def oracle(kind, outputs, labels, w):
    """Every metric of rows that are all present, by scikit-learn in float64."""
    z = outputs.astype(np.float64)
    if kind == "regression":
        return {
            "r2": sklearn.metrics.r2_score(labels, z[:, 0], sample_weight=w),
            "squared_error": sklearn.metrics.mean_squared_error(labels, z[:, 0], sample_weight=w),
        }
    if kind == "binary":
        p = np.stack([scipy.special.expit(-z[:, 0]), scipy.special.expit(z[:, 0])], axis=1)
        more = {
            "auroc": sklearn.metrics.roc_auc_score(labels, z[:, 0], sample_weight=w),
            "average_precision": sklearn.metrics.average_precision_score(labels, z[:, 0], sample_weight=w),
            "brier": sklearn.metrics.brier_score_loss(labels, p[:, 1], sample_weight=w),
        }
    else:
        p = scipy.special.softmax(z, axis=1)
        more = {"brier": np.average(((p - np.eye(C)[labels]) ** 2).sum(axis=1), weights=w)}
    guess = p.argmax(axis=1)
    average = "binary" if kind == "binary" else "macro"
    return {
        "accuracy": sklearn.metrics.accuracy_score(labels, guess, sample_weight=w),
        "f1": sklearn.metrics.f1_score(labels, guess, average=average, sample_weight=w),
        "log_loss": sklearn.metrics.log_loss(labels, p, sample_weight=w, labels=range(p.shape[1])),
        "ece": ece_by_hand(p, labels, w),
        **more,
    }


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_every_metric_is_scikit_learns_on_the_rows_present(compiled, kind, ties, weighted):
    for seed in range(5):
        outputs, labels, mask, weights = draw(kind, seed, ties)
        weights = weights if weighted else np.ones_like(weights)
        want = oracle(kind, outputs[mask], labels[mask], weights[mask].astype(np.float64))
        got = compiled[kind](outputs, labels, mask, weights)
        assert got == pytest.approx(want, rel=1e-5, abs=1e-6), seed
        assert got.keys() == set(KINDS[kind].metrics)


def test_multiclass_brier_is_scikit_learns(compiled):
    outputs, labels, _, weights = draw("multiclass", 0)
    p = scipy.special.softmax(outputs.astype(np.float64), axis=1)
    want = sklearn.metrics.brier_score_loss(labels, p, sample_weight=weights, scale_by_half=False)
    got = compiled["multiclass"](outputs, labels, EVERYTHING, weights)
    assert got["brier"] == pytest.approx(want, rel=1e-5)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below(compiled):
    # 1/3 = 5/15, right, shares (4/15, 5/15] with 0.3, wrong: |(1 - 1/3) - 0.3| / 2, and not the sum of both.
    outputs = np.full((N, C), -1e9, np.float32)
    outputs[0, :3] = 0
    outputs[1] = np.log([0.3, 0.25, 0.25, 0.2])
    labels = np.array([0, 1] + [0] * (N - 2), np.int32)
    got = compiled["multiclass"](outputs, labels, np.arange(N) < 2, ONES)
    assert got["ece"] == pytest.approx((2 / 3 - 0.3) / 2, rel=1e-5)


def test_auroc_is_the_mann_whitney_statistic_of_midranks(compiled):
    outputs, labels, mask, _ = draw("binary", 1)
    ranks = scipy.stats.rankdata(outputs[mask, 0])
    ones = labels[mask] == 1
    n1, n0 = ones.sum(), (~ones).sum()
    want = (ranks[ones].sum() - n1 * (n1 + 1) / 2) / (n1 * n0)
    assert compiled["binary"](outputs, labels, mask, ONES)["auroc"] == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("kind", TASKS)
def test_a_batch_of_evaluations_is_the_evaluations_alone(compiled, kind):
    draws = [draw(kind, seed) for seed in range(2)]
    stacked = [jnp.stack(x) for x in zip(*draws, strict=True)]
    task = TASKS[kind]

    @jax.jit
    @jax.vmap
    def batched(outputs, labels, mask):
        name = task.name
        return metrics.evaluate([task], {name: outputs}, {name: labels}, {name: mask})[name]

    values = batched(*stacked[:3])
    for i, data in enumerate(draws):
        alone = compiled[kind](*data[:3], np.ones(N, np.float32))
        assert {k: float(v[i]) for k, v in values.items()} == pytest.approx(alone, rel=1e-5)


# --- the mask ---


@pytest.mark.parametrize("kind", TASKS)
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    output=st.sampled_from([np.nan, np.inf, -np.inf, 1e30]),
    label=st.sampled_from([np.nan, -1, 7]),
)
def test_what_stands_in_a_masked_slot_changes_no_bit(compiled, kind, seed, output, label):
    outputs, labels, mask, weights = draw(kind, seed)
    want = compiled[kind](outputs, labels, mask, weights)
    outputs[~mask] = output
    labels[~mask] = -1 if np.isnan(label) and kind == "multiclass" else label
    weights[~mask] = np.nan
    got = compiled[kind](outputs, labels, mask, weights)
    np.testing.assert_array_equal(list(got.values()), list(want.values()))


@pytest.mark.parametrize("kind", TASKS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31))
def test_the_order_of_examples_does_not_matter(compiled, kind, seed):
    data = draw(kind, seed)
    order = np.random.default_rng(seed).permutation(N)
    want = compiled[kind](*data)
    assert compiled[kind](*(x[order] for x in data)) == pytest.approx(want, rel=1e-5, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("kind", TASKS)
def test_weight_zero_is_a_mask_and_weight_two_is_twice_the_row(compiled, kind):
    outputs, labels, mask, _ = draw(kind, 2)
    want = compiled[kind](outputs, labels, mask, ONES)
    by_weight = compiled[kind](outputs, labels, EVERYTHING, mask.astype(np.float32))
    np.testing.assert_array_equal(list(by_weight.values()), list(want.values()))
    half = np.arange(N) < N // 2
    twice = compiled[kind](outputs, labels, half, 2 * ONES)
    repeated = [np.concatenate([x[: N // 2]] * 2) for x in (outputs, labels)]
    assert compiled[kind](*repeated, EVERYTHING, ONES) == pytest.approx(twice, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("kind", TASKS)
def test_without_labels_every_metric_is_undefined(compiled, kind):
    outputs, labels, _, weights = draw(kind, 3)
    assert all(np.isnan(v) for v in compiled[kind](outputs, labels, ~EVERYTHING, weights).values())


@pytest.mark.parametrize(
    ("kind", "label"), [("binary", np.nan), ("binary", 0.5), ("multiclass", C), ("multiclass", -1)]
)
def test_a_present_label_that_cannot_be_makes_every_metric_nan(compiled, kind, label):
    outputs, labels, _, weights = draw(kind, 4)
    labels[5] = label
    assert all(np.isnan(v) for v in compiled[kind](outputs, labels, EVERYTHING, weights).values())


@pytest.mark.parametrize("kind", TASKS)
def test_a_present_nan_among_the_outputs_makes_every_metric_nan(compiled, kind):
    outputs, labels, _, weights = draw(kind, 5)
    outputs[5, -1] = np.nan
    assert all(np.isnan(v) for v in compiled[kind](outputs, labels, EVERYTHING, weights).values())


# --- undefined, and never a number in its place ---


def test_auroc_needs_both_classes_and_average_precision_a_positive(compiled):
    outputs, labels, mask, _ = draw("binary", 6)
    zeros = compiled["binary"](outputs, np.where(mask, 0, labels), mask, ONES)
    assert np.isnan([zeros["auroc"], zeros["average_precision"]]).all()
    assert zeros["accuracy"] > 0
    ones = compiled["binary"](outputs, np.where(mask, 1, labels), mask, ONES)
    assert np.isnan(ones["auroc"])
    assert ones["average_precision"] == 1.0


def test_f1_without_positive_labels_or_predictions_is_undefined_but_zero_when_all_wrong(compiled):
    outputs, labels, _, _ = draw("binary", 7)
    assert np.isnan(compiled["binary"](-np.abs(outputs), 0 * labels, EVERYTHING, ONES)["f1"])
    assert compiled["binary"](-np.abs(outputs), 0 * labels + 1, EVERYTHING, ONES)["f1"] == 0.0


def test_macro_f1_leaves_out_classes_that_do_not_appear(compiled):
    outputs, labels, _, _ = draw("multiclass", 8)
    outputs[:, 3] = -100
    labels = np.minimum(labels, 2)
    want = sklearn.metrics.f1_score(labels, outputs.argmax(axis=1), average="macro")
    assert compiled["multiclass"](outputs, labels, EVERYTHING, ONES)["f1"] == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.1, -3.3, 1e6])
def test_r2_of_constant_labels_is_undefined(compiled, level):
    outputs, labels, mask, _ = draw("regression", 9)
    got = compiled["regression"](outputs, np.where(mask, level, labels).astype(np.float32), mask, ONES)
    assert np.isnan(got["r2"])
    assert np.isfinite(got["squared_error"])


def test_r2_of_the_mean_is_zero_and_of_the_labels_one(compiled):
    _, labels, mask, weights = draw("regression", 10)
    mean = np.average(labels[mask], weights=weights[mask]).astype(np.float32)
    got = compiled["regression"](np.full((N, 1), mean), labels, mask, weights)
    assert got["r2"] == pytest.approx(0, abs=1e-6)
    assert compiled["regression"](labels[:, None], labels, mask, weights)["r2"] == 1.0


# --- what a ranking does not see ---


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31))
def test_rankings_do_not_see_the_scale_and_turn_with_the_sign(compiled, seed):
    outputs, labels, mask, weights = draw("binary", seed)
    want = compiled["binary"](outputs, labels, mask, weights)
    scaled = compiled["binary"](np.exp(outputs / 4), labels, mask, weights)
    for name in ("auroc", "average_precision"):
        assert scaled[name] == pytest.approx(want[name], rel=1e-6, nan_ok=True)
    turned = compiled["binary"](-outputs, labels, mask, weights)
    flipped = compiled["binary"](outputs, 1 - labels, mask, weights)
    assert turned["auroc"] == pytest.approx(1 - want["auroc"], abs=1e-6, nan_ok=True)
    assert flipped["auroc"] == pytest.approx(1 - want["auroc"], abs=1e-6, nan_ok=True)


def test_scores_that_all_tie_give_a_half_and_the_prevalence(compiled):
    _, labels, _, _ = draw("binary", 11)
    # Both zeros and both infinities are ties too.
    for score in (np.zeros(N), np.where(np.arange(N) % 2, 0.0, -0.0), np.full(N, np.inf)):
        got = compiled["binary"](score[:, None].astype(np.float32), labels, EVERYTHING, ONES)
        assert got["auroc"] == 0.5
        assert got["average_precision"] == pytest.approx(labels.mean(), rel=1e-6)


def test_a_large_ranking_is_exact():
    rng = np.random.default_rng(12)
    labels = (rng.random(20_000) < 0.3).astype(np.float32)
    scores = np.round(rng.normal(size=20_000) + labels, 2).astype(np.float32)
    data = jnp.asarray(scores[:, None]), jnp.asarray(labels), jnp.ones(20_000, bool)
    got = jax.jit(lambda *x: (metrics.auroc(*x), metrics.average_precision(*x)))(*data)
    want = (
        sklearn.metrics.roc_auc_score(labels, scores),
        sklearn.metrics.average_precision_score(labels, scores),
    )
    assert [float(v) for v in got] == pytest.approx(want, rel=2e-6)


def test_extreme_logits_leave_the_metrics_finite(compiled):
    for kind in ("binary", "multiclass"):
        outputs, labels, _, _ = draw(kind, 13)
        got = compiled[kind](1e4 * np.sign(outputs), labels, EVERYTHING, ONES)
        assert np.isfinite(list(got.values())).all()


# --- one number an example ---


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in TASKS for n in KINDS[k].metrics])
def test_the_mean_of_the_numbers_per_example_is_the_metric(compiled, kind, name):
    outputs, labels, mask, _ = draw(kind, 14)
    labels[~mask] = -1 if kind == "multiclass" else np.nan
    each = per_example(kind, name, outputs, labels)
    assert each.shape == (N,)
    np.testing.assert_array_equal(np.isnan(each), ~mask)
    want = compiled[kind](outputs, labels, mask, ONES)[name]
    assert each[mask].mean() == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param("binary", "auroc", marks=pytest.mark.slow)]
    + [("binary", n) for n in ("average_precision", "f1")]
    + [("regression", "r2")],
)
def test_pseudo_values_are_those_of_leaving_out_each_example(kind, name):
    """To first order: against the jackknife by hand, with scikit-learn's metrics."""
    rng = np.random.default_rng(3)
    n = 400
    y = (rng.random(n) < 0.4).astype(np.float32) if kind == "binary" else rng.normal(size=n).astype(np.float32)
    z = (y + rng.normal(0, 1, n)).round(1).astype(np.float32)  # With ties.
    oracle = {
        "auroc": sklearn.metrics.roc_auc_score,
        "average_precision": sklearn.metrics.average_precision_score,
        "f1": lambda y, z: sklearn.metrics.f1_score(y, z > 0),
        "r2": sklearn.metrics.r2_score,
    }[name]
    whole = oracle(y, z)
    left_out = np.array([oracle(np.delete(y, i), np.delete(z, i)) for i in range(n)])
    pseudo = n * whole - (n - 1) * left_out
    each = per_example(kind, name, z[:, None], y)
    assert np.corrcoef(pseudo, each)[0, 1] > 0.999
    assert each.std() == pytest.approx(pseudo.std(), rel=0.02)


def test_the_variance_of_auroc_is_delongs():
    rng = np.random.default_rng(4)
    y = np.repeat([1, 0], (30, 50))
    z = (y + rng.normal(0, 1, 80)).astype(np.float32)
    wins = (z[:30, None] > z[None, 30:]) + 0.5 * (z[:30, None] == z[None, 30:])
    up, down = wins.mean(axis=1) - wins.mean(), wins.mean(axis=0) - wins.mean()
    delong = (up**2).sum() / 30**2 + (down**2).sum() / 50**2
    each = per_example("binary", "auroc", z[:, None], y)
    assert each.var() / 80 == pytest.approx(delong, rel=1e-4)


def test_per_example_refuses_what_the_task_cannot_have_and_is_undefined_with_the_metric():
    outputs, labels, _, _ = map(jnp.asarray, draw("binary", 15))
    with pytest.raises(ValueError, match='task "b": a binary task cannot have metric "squared_error"'):
        metrics.per_example(TASKS["binary"], "squared_error", outputs, labels)
    assert np.isnan(per_example("binary", "auroc", outputs, jnp.ones_like(labels))).all()


# --- by name ---


def test_every_metric_a_task_can_have_exists_and_no_other():
    assert {name for kind in KINDS.values() for name in kind.metrics} <= metrics.METRICS.keys()


def test_metric_is_the_tasks_own_unless_named():
    assert metrics.metric(TASKS["regression"]) is metrics.r2
    assert metrics.metric(TASKS["regression"], "squared_error") is metrics.squared_error
    with pytest.raises(ValueError, match='cannot have metric "aurco": did you mean "auroc"'):
        metrics.metric(TASKS["binary"], "aurco")


def test_evaluate_gives_each_task_the_metrics_it_can_have():
    tasks = list(TASKS.values())
    data = [{t.name: jnp.asarray(draw(t.kind, 16)[i]) for t in tasks} for i in range(3)]
    got = metrics.evaluate(tasks, *data, ["accuracy", "squared_error"])
    assert {name: list(values) for name, values in got.items()} == {
        "b": ["accuracy"],
        "c": ["accuracy"],
        "r": ["squared_error"],
    }
    assert float(got["b"]["accuracy"]) == float(metrics.accuracy(*(d["b"] for d in data)))
    with pytest.raises(ValueError, match='metric "acuracy": none of the tasks can have it: did you mean'):
        metrics.evaluate(tasks, *data, ["acuracy"])
    with pytest.raises(ValueError, match=r'^masks: no task "c"'):
        metrics.evaluate(tasks, data[0], data[1], {"b": data[2]["b"], "r": data[2]["r"]})


def test_macro_skips_what_is_undefined_and_counts_it():
    mean, undefined = metrics.macro(jnp.array([0.5, jnp.nan, 0.25, jnp.nan]))
    assert (float(mean), int(undefined)) == (0.375, 2)
    mean, undefined = metrics.macro(jnp.full(3, jnp.nan))
    assert np.isnan(mean)
    assert int(undefined) == 3


@pytest.fixture
def mcc(monkeypatch):
    """Matthews's correlation, as a user would write it."""
    monkeypatch.setattr("mtl.metrics.registry.METRICS", dict(metrics.METRICS))
    before = dict(KINDS)

    @metrics.register("mcc", ("binary",), range=(-1, 1))
    def mcc(outputs, labels, mask, weights=None):
        w = jnp.where(mask, 1.0 if weights is None else weights, 0.0)
        y, p = labels == 1, outputs[:, 0] > 0
        tp, tn, fp, fn = (jnp.sum(w * (a & b)) for a, b in ((y, p), (~y, ~p), (~y, p), (y, ~p)))
        below = jnp.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        return jnp.where(below > 0, (tp * tn - fp * fn) / below, jnp.nan)

    yield
    KINDS.update(before)


def test_a_users_metric_is_scikit_learns_and_has_its_jackknife(mcc):
    rng, task = np.random.default_rng(0), Task("t", "binary", metric="mcc")
    outputs, labels = rng.normal(size=(40, 1)).astype(np.float32), rng.integers(0, 2, 40).astype(np.float32)
    there = rng.random(40) < 0.8
    gappy = np.where(there, labels, np.nan)
    given = [{"t": jnp.asarray(a)} for a in (outputs, gappy, there)]
    value = metrics.evaluate([task], *given, ["mcc"])["t"]["mcc"]
    want = sklearn.metrics.matthews_corrcoef(labels[there], outputs[there, 0] > 0)
    assert float(value) == pytest.approx(want, abs=1e-6)
    each = np.asarray(metrics.per_example(task, "mcc", jnp.asarray(outputs), jnp.asarray(gappy)))
    assert np.isnan(each[~there]).all()
    assert np.nanmean(each) == pytest.approx(want, abs=1e-5)
    # Leaving one out moves it by what the pseudo-value says, to first order.
    n, at = there.sum(), np.flatnonzero(there)
    rest = [np.delete(at, i) for i in range(n)]
    alone = [sklearn.metrics.matthews_corrcoef(labels[r], outputs[r, 0] > 0) for r in rest]
    np.testing.assert_allclose((want - np.asarray(alone)) * (n - 1) + want, each[there], atol=0.15)


@pytest.mark.parametrize(
    ("kinds", "function", "sentence"),
    [
        (
            ("binary", "ordinal"),
            lambda o, y, m, weights=None: 0.0,
            "kinds = .*: .*Valid: binary, dense",
        ),
        (("binary",), lambda outputs, labels, mask: 0.0, "takes no weights of the examples: must"),
    ],
)
def test_a_metric_that_cannot_be_is_refused(kinds, function, sentence):
    with pytest.raises(ValueError, match=f'^metric "mine": {sentence}'):
        metrics.register("mine", kinds)(function)
    with pytest.raises(ValueError, match='metric "auroc" is already registered; choose another name'):
        metrics.register("auroc", ("binary",))(lambda outputs, labels, mask, weights=None: 0.0)
