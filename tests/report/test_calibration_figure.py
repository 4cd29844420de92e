import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.calibration import calibration_curve

from mtl.report.analyse import analyse
from mtl.report.calibration import calibration, calibration_figure, probabilities, reliability
from mtl.report.picked import Picked
from tests.report.studies import crossed, scores_of


def test_bins_are_those_of_scikit_learn_and_the_error_is_their_mean():
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 3000)
    y = rng.uniform(0, 1, 3000) < p**2
    found = reliability(p, y.astype(float))
    observed, predicted = calibration_curve(y, p, n_bins=10)
    np.testing.assert_allclose(found.observed, observed)
    np.testing.assert_allclose(found.predicted, predicted)
    assert found.predictions.sum() == 3000
    by_hand = sum(abs(y[at].mean() - p[at].mean()) * at.sum() for k in range(10) for at in [(p * 10).astype(int) == k])
    assert found.error == pytest.approx(by_hand / 3000)


def test_probabilities_of_logits_without_missing_labels():
    p, right = probabilities(np.array([[0.0], [2.0], [-900.0]]), np.array([1.0, np.nan, 0.0]))
    np.testing.assert_allclose(p, expit([0.0, -900.0]), atol=1e-300)
    assert right.tolist() == [1, 0]
    logits = np.array([[1.0, 3.0, 2.0], [900.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    p, right = probabilities(logits, np.array([1, 2, -1]))
    np.testing.assert_allclose(p, softmax(logits[:2], axis=1).max(axis=1))
    assert right.tolist() == [1, 0]


def kept(digest, task):
    logits = np.random.default_rng(int(digest)).normal(0, 2, (200, 1))
    return {"outputs": logits, "labels": (np.arange(200) % 2).astype(np.float32)}


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_predictions_of_all_replicates_are_pooled_at_the_ends_of_the_sizes(kind):
    values = crossed(np.array([[0.7, 0.7, 0.8], [0.75, 0.7, 0.8]]), 2, 20)
    analysis = analyse(scores_of(values, ("scratch", "b"), task="t"), 50)
    result = {"config": {"tasks": [{"name": "t", "kind": kind}]}, "test": {"t": {}}}
    trials = [Picked(r, n, s, "", str(s), result) for r in ("scratch", "b") for n in (10.0, 20.0, 50.0) for s in (0, 1)]
    figure = calibration(kept, analysis, trials)
    if kind == "regression":
        assert figure is None
        return
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["scratch", "b"]
    logits = np.concatenate([kept(str(s), "t")["outputs"][:, 0] for s in (0, 1)])
    observed, _ = calibration_curve(np.arange(400) % 2, expit(logits), n_bins=10)
    lines = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_label().split(",")[0] for line in lines] == ["n = 10", "n = 50"]
    np.testing.assert_allclose(lines[1].get_ydata(), observed)


def test_bins_of_few_predictions_are_not_drawn():
    found = reliability(np.r_[np.full(5, 0.05), np.full(100, 0.55)], np.zeros(105))
    figure = calibration_figure({"a": {"n = 10": found}}, "told")
    (line,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert line.get_xdata() == pytest.approx([0.55])
