"""Metrics of dense tasks against scikit-learn on the positions that are there, each with its image's weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from mtl import metrics
from mtl.tasks import KINDS, Task

IMAGES, SHAPE, CLASSES = 30, (4, 3), 5
TASKS = {
    "segmentation": Task("c", "segmentation", num_classes=CLASSES, shape=SHAPE),
    "dense_regression": Task("r", "dense_regression", shape=SHAPE),
}
EACH = [(kind, name) for kind in TASKS for name in KINDS[kind].metrics]


def draw(kind, seed):
    """Outputs, labels with missing ones, and weights; some images have no label at all.

    Class 2 is labelled and never predicted, class 3 is predicted and never labelled, and class 4 is neither.
    """
    rng = np.random.default_rng(seed)
    gone = (rng.random((IMAGES, *SHAPE)) < 0.3) | (rng.random((IMAGES, 1, 1)) < 0.2)
    weights = rng.integers(0, 4, size=IMAGES).astype(np.float32)
    if kind == "dense_regression":
        labels = rng.normal(size=(IMAGES, *SHAPE)).astype(np.float32)
        outputs = labels[..., None] + rng.normal(size=(IMAGES, *SHAPE, 1)).astype(np.float32)
        return outputs, np.where(gone, np.float32(np.nan), labels), weights
    # Images differ in how hard they are, as images do.
    labels = rng.integers(3, size=(IMAGES, *SHAPE))
    outputs = rng.normal(size=(IMAGES, *SHAPE, CLASSES)) + rng.uniform(0, 3, (IMAGES, 1, 1, 1)) * np.eye(5)[labels]
    outputs[..., [2, 4]] = -9.0
    return outputs.astype(np.float32), np.where(gone, -1, labels).astype(np.int32), weights


def there(labels):
    return labels >= 0 if labels.dtype == np.int32 else ~np.isnan(labels)


def oracle(name, outputs, labels, weights):
    """The metric by scikit-learn, of one long list of positions."""
    mask = there(labels)
    w = np.broadcast_to(weights.reshape(-1, 1, 1), labels.shape)[mask]
    y, z = labels[mask], outputs[mask].astype(np.float64)
    if name == "pixel_squared_error":
        return sklearn.metrics.mean_squared_error(y, z[:, 0], sample_weight=w)
    guess = z.argmax(axis=1)
    if name == "pixel_accuracy":
        return sklearn.metrics.accuracy_score(y, guess, sample_weight=w)
    appearing = np.union1d(y[w > 0], guess[w > 0])
    return sklearn.metrics.jaccard_score(y, guess, average="macro", labels=appearing, sample_weight=w)


def value(name, outputs, labels, weights=None):
    """The metric; what is missing holds something that must not count."""
    mask = there(labels)
    held = np.where(mask, labels, 10**6 if labels.dtype == np.int32 else np.float32(np.inf))
    outputs = np.where(mask[..., None], outputs, np.float32(np.nan))
    return float(metrics.METRICS[name].value(*map(jnp.asarray, (outputs, held, mask)), weights))


def per_example(kind, name, outputs, labels):
    found = metrics.per_example(TASKS[kind], name, jnp.asarray(outputs), jnp.asarray(labels))
    return np.asarray(found, np.float64)


@pytest.mark.parametrize(("kind", "name"), EACH)
@pytest.mark.parametrize("weighted", [True, False])
def test_a_metric_is_scikit_learns_on_the_positions_that_are_there(kind, name, weighted):
    for seed in range(3):
        outputs, labels, weights = draw(kind, seed)
        weights = weights if weighted else np.ones_like(weights)
        want = oracle(name, outputs, labels, weights)
        assert value(name, outputs, labels, jnp.asarray(weights)) == pytest.approx(want, rel=1e-5)
        if not weighted:
            assert value(name, outputs, labels) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(("kind", "name"), EACH)
def test_a_weight_is_an_image_that_is_there_so_often(kind, name):
    outputs, labels, weights = draw(kind, 5)
    times = weights.astype(int)
    repeated = value(name, np.repeat(outputs, times, axis=0), np.repeat(labels, times, axis=0))
    assert value(name, outputs, labels, jnp.asarray(weights)) == pytest.approx(repeated, rel=1e-5)


@pytest.mark.parametrize(("kind", "name"), EACH)
def test_a_metric_without_labels_or_of_outputs_that_are_none_is_nan(kind, name):
    outputs, labels, _ = draw(kind, 6)
    missing = np.full_like(labels, -1 if kind == "segmentation" else np.nan)
    assert np.isnan(value(name, outputs, missing))
    assert np.isnan(value(name, outputs, labels, jnp.zeros(IMAGES)))
    spoiled = outputs.copy()
    spoiled[np.nonzero(there(labels))[0][0]] = np.nan
    assert np.isnan(value(name, spoiled, labels))


@pytest.mark.parametrize(("kind", "name"), EACH)
def test_the_mean_of_an_images_numbers_is_the_metric(kind, name):
    outputs, labels, _ = draw(kind, 7)
    each = per_example(kind, name, outputs, labels)
    assert each.shape == (IMAGES,)
    np.testing.assert_array_equal(np.isnan(each), ~there(labels).any(axis=(1, 2)))
    assert np.nanmean(each) == pytest.approx(oracle(name, outputs, labels, np.ones(IMAGES)), rel=1e-4)


@pytest.mark.parametrize(("kind", "name"), EACH)
def test_an_images_numbers_are_how_the_metric_moves_with_its_weight(kind, name):
    """Against finite differences of scikit-learn's metric: mean + n · d metric / d weight."""
    outputs, labels, _ = draw(kind, 8)
    seen = np.flatnonzero(there(labels).any(axis=(1, 2)))
    h, want = 1e-4, []
    for i in seen:
        up, down = np.ones(IMAGES), np.ones(IMAGES)
        up[i], down[i] = 1 + h, 1 - h
        slope = (oracle(name, outputs, labels, up) - oracle(name, outputs, labels, down)) / (2 * h)
        want.append(oracle(name, outputs, labels, np.ones(IMAGES)) + len(seen) * slope)
    np.testing.assert_allclose(per_example(kind, name, outputs, labels)[seen], want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("kind", "name"), EACH)
def test_the_spread_of_images_numbers_is_that_of_metrics_of_redrawn_images(kind, name):
    """The interval is over images: redrawing whole images moves the metric as the numbers say."""
    outputs, labels, _ = draw(kind, 9)
    each = per_example(kind, name, outputs, labels)
    seen, rng = np.flatnonzero(~np.isnan(each)), np.random.default_rng(0)
    redrawn = [np.bincount(rng.choice(seen, len(seen)), minlength=IMAGES) for _ in range(400)]
    spread = np.std([oracle(name, outputs, labels, w.astype(float)) for w in redrawn])
    assert each[seen].std() / np.sqrt(len(seen)) == pytest.approx(spread, rel=0.2)


def test_of_any_number_of_positions():
    """Labels along a line, and of a volume: positions are positions."""
    outputs, labels, _ = draw("segmentation", 10)
    want = value("iou", outputs, labels)
    for shape in ((12,), (2, 2, 3)):
        flat = (a.reshape(IMAGES, *shape, *a.shape[3:]) for a in (outputs, labels, there(labels)))
        assert float(jax.jit(metrics.iou)(*map(jnp.asarray, flat))) == pytest.approx(want, rel=1e-6)
