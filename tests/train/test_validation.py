"""Validation losses against scikit-learn: heads of one kind are one matrix, and that is nobody's business."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit, softmax
from sklearn.metrics import log_loss, mean_squared_error

from mtl.models import MLP, Model
from mtl.tasks import Task
from mtl.train.phase import validation_sums

ROWS = 50
TASKS = (
    Task("zebra", "binary", pos_weight=3.0),
    Task("kind", "multiclass", num_classes=4, label_smoothing=0.1),
    Task("ant", "binary", focal_gamma=2.0, weight=5.0),
    Task("depth", "regression"),
    Task("other", "multiclass", num_classes=3),
    Task("height", "regression"),
    Task("empty", "binary"),
)


def test_each_tasks_plain_loss_over_its_present_labels():
    rng = np.random.default_rng(0)
    model = Model(MLP((6,)), TASKS, "lecun_normal")
    x = jnp.asarray(rng.normal(size=(ROWS, 5)), jnp.float32)
    params, state = model.init(jax.random.key(0), x)
    params = jax.tree.map(lambda a: a + 0.1 * rng.normal(size=a.shape).astype(np.float32), params)
    labels = {t.name: rng.integers(0, max(2, t.num_classes), ROWS).astype(t.label_dtype) for t in TASKS}
    masks = {t.name: jnp.asarray(rng.random(ROWS) < 0.6) for t in TASKS} | {"empty": jnp.zeros(ROWS, bool)}
    features = model.features(params, state, x)
    names = [t.name for t in TASKS]
    y, m = (
        jnp.stack([jnp.asarray(of[t], kind) for t in names], axis=1)
        for of, kind in ((labels, "float32"), (masks, bool))
    )
    sums, counts = validation_sums(model, names, params, features, y, m)
    outputs = {name: np.asarray(z, np.float64) for name, z in model.heads(params, features).items()}
    for task, total, count in zip(TASKS, sums, counts, strict=True):
        there = np.asarray(masks[task.name])
        assert int(count) == there.sum()
        if not there.any():
            assert float(total) == 0
            continue
        y, z = labels[task.name][there], outputs[task.name][there]
        if task.kind == "regression":
            expected = mean_squared_error(y, z[:, 0])
        elif task.kind == "binary":
            expected = log_loss(y, expit(z[:, 0]))
        else:
            expected = log_loss(y, softmax(z, axis=1), labels=range(task.num_classes))
        np.testing.assert_allclose(float(total) / int(count), expected, rtol=1e-5)
