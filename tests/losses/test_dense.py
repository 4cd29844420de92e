"""Losses of dense tasks: an example's is the mean over its positions with a label, by closed form in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mtl import losses
from mtl.tasks import Task

SHAPE, CLASSES = (3, 4), 4
SEGMENTATION = Task("c", "segmentation", num_classes=CLASSES, shape=SHAPE)
REGRESSION = Task("r", "dense_regression", shape=SHAPE)


def draw(task, seed=0):
    """Outputs, labels and mask of six examples; the last has one label, the one before has none."""
    rng = np.random.default_rng(seed)
    outputs = rng.normal(scale=2, size=(6, *SHAPE, task.outputs)).astype(np.float32)
    labels = rng.integers(CLASSES, size=(6, *SHAPE)) if task.labels == "ids" else rng.normal(size=(6, *SHAPE))
    mask = rng.random((6, *SHAPE)) < 0.6
    mask[4:] = False
    mask[5, 1, 2] = True
    return outputs, labels.astype(np.int32 if task.labels == "ids" else np.float32), mask


def by_hand(task, outputs, labels, mask):
    """One example after the other, in float64: cross-entropy as PyTorch has it with ``ignore_index``, or squares."""
    z, found = outputs.astype(np.float64), np.zeros(len(outputs))
    for i in range(len(z)):
        y, own = labels[i][mask[i]], z[i][mask[i]]
        if not len(y):
            continue
        if task.labels == "ids":
            each = -np.take_along_axis(scipy.special.log_softmax(own, axis=1), y[:, None], axis=1)[:, 0]
        else:
            each = np.square(own[:, 0] - y)
        found[i] = each.sum() / len(y)
    return found


def summed(task):
    return lambda z, y, m: losses.values(task, z, y, m).sum()


@pytest.mark.parametrize("task", [SEGMENTATION, REGRESSION], ids=lambda t: t.kind)
def test_an_examples_loss_is_the_mean_over_its_positions_with_a_label(task):
    outputs, labels, mask = draw(task)
    found = losses.values(task, *map(jnp.asarray, (outputs, labels, mask)))
    assert found.shape == (6,)
    np.testing.assert_allclose(found, by_hand(task, outputs, labels, mask), rtol=1e-5)
    assert found[4] == 0


def test_segmentation_is_pytorchs_cross_entropy_a_sample():
    torch = pytest.importorskip("torch")
    outputs, labels, mask = draw(SEGMENTATION)
    found = losses.values(SEGMENTATION, *map(jnp.asarray, (outputs, labels, mask)))
    for i in (0, 1, 2, 3, 5):
        z, y = torch.tensor(outputs[i]).permute(2, 0, 1)[None], torch.tensor(np.where(mask, labels, -1)[i])[None]
        want = torch.nn.functional.cross_entropy(z, y.long(), ignore_index=-1)
        assert float(found[i]) == pytest.approx(float(want), rel=1e-5)


@pytest.mark.parametrize("task", [SEGMENTATION, REGRESSION], ids=lambda t: t.kind)
def test_gradients_are_those_of_finite_differences_and_zero_where_no_label_is(task):
    outputs, labels, mask = draw(task, 1)
    grad = np.asarray(jax.grad(summed(task))(*map(jnp.asarray, (outputs, labels, mask))))
    h = 1e-5
    for at in [*np.argwhere(mask)[::4], *np.argwhere(~mask)[::8]]:
        up, down = outputs.astype(np.float64), outputs.astype(np.float64)
        up[(*at, 0)] += h
        down[(*at, 0)] -= h
        slope = (by_hand(task, up, labels, mask).sum() - by_hand(task, down, labels, mask).sum()) / (2 * h)
        assert grad[(*at, 0)] == pytest.approx(slope, rel=1e-3, abs=1e-6)
    assert (grad[~mask] == 0).all()
    assert np.abs(grad[mask]).max(axis=-1).min() > 0


@pytest.mark.parametrize("task", [SEGMENTATION, REGRESSION], ids=lambda t: t.kind)
@pytest.mark.parametrize("held", [np.nan, np.inf, -np.inf, 1e30])
def test_what_stands_where_no_label_is_changes_no_bit(task, held):
    outputs, labels, mask = draw(task, 2)
    spoiled = np.where(mask[..., None], outputs, np.float32(held))
    other = np.where(mask, labels, 2**31 - 1 if task.labels == "ids" else np.float32(held))
    both = jax.value_and_grad(summed(task))
    for a, b in zip(
        both(*map(jnp.asarray, (outputs, labels, mask))),
        both(*map(jnp.asarray, (spoiled, other.astype(labels.dtype), mask))),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_options_of_a_loss_are_of_each_position():
    """Smoothing and focus, by their definitions at each position."""
    task = Task("c", "segmentation", num_classes=CLASSES, shape=SHAPE, label_smoothing=0.1, focal_gamma=2.0)
    outputs, labels, mask = draw(task, 3)
    log_p = scipy.special.log_softmax(outputs.astype(np.float64), axis=-1)
    target = 0.9 * np.eye(CLASSES)[labels] + 0.1 / CLASSES
    true = np.exp(np.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0])
    each = (1 - true) ** 2 * -(target * log_p).sum(axis=-1)
    want = np.where(mask, each, 0).sum(axis=(1, 2)) / np.maximum(mask.sum(axis=(1, 2)), 1)
    np.testing.assert_allclose(losses.values(task, *map(jnp.asarray, (outputs, labels, mask))), want, rtol=1e-5)


def test_a_registered_loss_and_its_link_are_given_positions_as_labels():
    @losses.register("dense_of_a_test", "dense_regression", link=lambda outputs: jnp.exp(outputs))
    def poisson(outputs, labels):
        assert outputs.shape == (*labels.shape, 1) == (6 * 12, 1)
        return jnp.exp(outputs[:, 0]) - labels * outputs[:, 0]

    try:
        task = Task("r", "dense_regression", shape=SHAPE, loss="dense_of_a_test")
        outputs, labels, mask = draw(task, 4)
        each = np.exp(outputs[..., 0].astype(np.float64)) - labels * outputs[..., 0]
        want = np.where(mask, each, 0).sum(axis=(1, 2)) / np.maximum(mask.sum(axis=(1, 2)), 1)
        found = losses.values(task, *map(jnp.asarray, (outputs, labels, mask)))
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(losses.linked(task, jnp.asarray(outputs)), np.exp(outputs), rtol=1e-5)
    finally:
        from mtl.tasks import KINDS

        del losses.LOSSES["dense_of_a_test"]
        object.__setattr__(KINDS["dense_regression"], "losses", ("squared",))
