"""What validation says of a state, against scikit-learn: losses, and the scores by which states are chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics as sk

from mtl.models import MLP, Model
from mtl.tasks import Task
from mtl.train import judge
from mtl.train.dataset import Data
from mtl.train.program import Weights

ROWS = 400
TASKS = (
    Task("zebra", "binary", pos_weight=3.0),
    Task("kind", "multiclass", num_classes=4, label_smoothing=0.1),
    Task("ant", "binary", focal_gamma=2.0, weight=5.0, metric="auroc"),
    Task("depth", "regression", metric="r2"),
    Task("other", "multiclass", num_classes=3, metric="log_loss"),
    Task("height", "regression", metric="squared_error"),
    Task("rare", "binary", metric="average_precision"),
    Task("empty", "binary"),
)
LOGITS = np.log(np.array([0.1, 0.2, 0.3, 0.4]))


def outputs_and_labels(present):
    """Return (model, weights, features, labels and masks by task, each task's outputs, the prior's outputs)."""
    rng = np.random.default_rng(0)
    model = Model(MLP((6,)), TASKS, "lecun_normal")
    x = jnp.asarray(rng.normal(size=(ROWS, 5)), jnp.float32)
    params, state = model.init(jax.random.key(0), x)
    params = jax.tree.map(lambda a: a + rng.normal(size=a.shape).astype(np.float32), params)
    labels = {t.name: rng.integers(0, max(2, t.num_classes), ROWS).astype(t.label_dtype) for t in TASKS}
    labels["depth"], labels["height"] = (rng.normal(size=ROWS).astype("float32") for _ in range(2))
    labels["rare"] = np.float32(np.arange(ROWS) < 9)
    masks = {t.name: rng.random(ROWS) < present for t in TASKS} | {"empty": np.zeros(ROWS, bool)}
    masks["rare"] = np.ones(ROWS, bool)
    features = model.features(params, state, x)
    outputs = {name: np.asarray(z, np.float64) for name, z in model.heads(params, features).items()}
    prior = {t.name: np.zeros(t.outputs) for t in TASKS} | {"kind": LOGITS, "ant": np.array([0.3])}
    return model, Weights(params, state), features, labels, masks, outputs, prior


def found(present):
    """Return what ``of_rows`` finds, and what it was asked of."""
    model, weights, features, labels, masks, outputs, prior = outputs_and_labels(present)
    names = [t.name for t in TASKS]
    y, m = (
        jnp.stack([jnp.asarray(of[t], kind) for t in names], axis=1)
        for of, kind in ((labels, "float32"), (masks, bool))
    )
    guess = jnp.asarray([np.pad(prior[t], (0, 4 - len(prior[t]))) for t in names], jnp.float32)
    return judge.of_rows(model, names, weights, features, y, m, guess), model, labels, masks, outputs, prior, guess


def each_loss(task, y, z):
    """Return the plain losses, by hand."""
    if task.kind == "regression":
        return (y - z[:, 0]) ** 2
    p = softmax(z, axis=1) if task.kind == "multiclass" else np.stack([expit(-z[:, 0]), expit(z[:, 0])], axis=1)
    return -np.log(p[np.arange(len(y)), y.astype(int)])


def test_each_tasks_plain_loss_over_its_present_labels():
    judged, _, labels, masks, outputs, *_ = found(0.6)
    for task, total, count in zip(TASKS, judged.loss, judged.labels, strict=True):
        there = masks[task.name]
        assert int(count) == there.sum()
        if not there.any():
            assert float(total) == 0
            continue
        y, z = labels[task.name][there], outputs[task.name][there]
        if task.kind == "regression":
            expected = sk.mean_squared_error(y, z[:, 0])
        elif task.kind == "binary":
            expected = sk.log_loss(y, expit(z[:, 0]))
        else:
            expected = sk.log_loss(y, softmax(z, axis=1), labels=range(task.num_classes))
        np.testing.assert_allclose(float(total) / int(count), expected, rtol=1e-5)


def score_by_hand(task, y, z, prior):
    """Return a task's score by scikit-learn: of its metric, or where validation is small of its clipped loss."""
    small = len(y) < judge.SMALL or (task.classes and np.bincount(y.astype(int), minlength=task.classes).min() < 10)
    guess = np.broadcast_to(prior, z.shape)
    if small:
        most = judge.SQUARES if task.kind == "regression" else judge.NATS
        return np.minimum(each_loss(task, y, z), most).sum() / np.minimum(each_loss(task, y, guess), most).sum()
    classes = lambda z: z.argmax(axis=1) if z.shape[1] > 1 else z[:, 0] > 0  # noqa: E731
    by = {
        "accuracy": (1.0, lambda z: sk.accuracy_score(y, classes(z))),
        "auroc": (1.0, lambda z: sk.roc_auc_score(y, z[:, 0])),
        "average_precision": (1.0, lambda z: sk.average_precision_score(y, z[:, 0])),
        "r2": (1.0, lambda z: sk.r2_score(y, z[:, 0])),
        "squared_error": (0.0, lambda z: sk.mean_squared_error(y, z[:, 0])),
        "log_loss": (0.0, lambda z: each_loss(task, y, z).mean()),
    }
    best, metric = by[task.metric]
    return (best - metric(z)) / (best - metric(guess))


@pytest.mark.parametrize("present", [0.7, 0.11])
def test_scores_are_of_the_metric_or_of_a_bounded_loss_relative_to_the_prior(present):
    one, model, labels, masks, outputs, prior, guess = found(present)
    names = tuple(t.name for t in TASKS)
    nothing = jnp.zeros((1, 1, len(names)))
    data = Data(names, (), nothing, nothing > 0, nothing > 0, (), {}, {}, guess[None])
    blocks = jax.tree.map(lambda a: a[None], one)
    judged = judge.judge(model, names, jnp.int32(0), blocks, data)
    for k, task in enumerate(TASKS):
        there = masks[task.name]
        if not there.any():
            assert np.isnan(judged.scores[k]) and np.isnan(judged.losses[k])
            continue
        expected = score_by_hand(task, labels[task.name][there], outputs[task.name][there], prior[task.name])
        np.testing.assert_allclose(float(judged.scores[k]), expected, rtol=2e-4, err_msg=task.name)


def test_what_predicts_the_prior_has_score_one():
    *_, prior, guess = found(0.7)
    model, weights, features, labels, masks, _, _ = outputs_and_labels(0.7)
    heads = {
        t.name: {"kernel": jnp.zeros((6, t.outputs)), "bias": jnp.asarray(prior[t.name], jnp.float32)} for t in TASKS
    }
    weights = Weights({**weights.params, "heads": heads}, weights.state)
    names = tuple(t.name for t in TASKS)
    y, m = (
        jnp.stack([jnp.asarray(of[t], kind) for t in names], axis=1)
        for of, kind in ((labels, "float32"), (masks, bool))
    )
    one = judge.of_rows(model, names, weights, features, y, m, guess)
    np.testing.assert_allclose(one.bounded, one.prior, rtol=1e-6)
