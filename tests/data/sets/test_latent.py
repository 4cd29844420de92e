"""Generated tasks: the subspaces' angles, what rho may change, and that transfer pays at rho = 1 only."""

import re

import numpy as np
import pytest
import scipy.linalg
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from mtl.data import latent_table, load
from mtl.data.sets.latent import subspaces


@settings(max_examples=20, deadline=None)
@given(rho=st.floats(0, 1), latent=st.integers(1, 5), extra=st.integers(0, 10), seed=st.integers(0, 2**32))
def test_every_principal_angle_has_cosine_rho(rho, latent, extra, seed):
    own, shared = subspaces(rho, 2 * latent + extra, latent, seed)
    np.testing.assert_allclose(own @ own.T, np.eye(latent), atol=1e-7)
    np.testing.assert_allclose(np.cos(scipy.linalg.subspace_angles(own.T, shared.T)), rho, atol=1e-7)


def test_rho_moves_the_target_alone():
    one, none = latent_table(rho=1.0, examples=2000), latent_table(rho=0.0, examples=2000)
    np.testing.assert_array_equal(one.x, none.x)
    for task in one.tasks:
        same = (one.labels[task.name] == none.labels[task.name]).mean()
        assert same == 1 if task.name != "target" else 0.4 < same < 0.6
    more = latent_table(rho=1.0, examples=2000, source_tasks=9)
    np.testing.assert_array_equal(more.labels["target"], one.labels["target"])


def test_labels_and_seeds():
    table = latent_table(examples=1000, source_kind="regression", noise=0.2, seed=3)
    assert [t.name for t in table.tasks] == ["target", *(f"source_{j}" for j in range(8))]
    assert [t.kind for t in table.tasks] == ["binary"] + ["regression"] * 8
    assert all(mask.all() for mask in table.mask.values())
    assert 0.45 < table.labels["target"].mean() < 0.55
    for j in range(8):
        assert abs(table.labels[f"source_{j}"].std() - 1) < 0.1
    assert latent_table(examples=50).sha256 == latent_table(examples=50).sha256
    assert latent_table(examples=50).sha256 != latent_table(examples=50, seed=1).sha256
    assert load("latent", rho=0.5, examples=50).sha256 == latent_table(rho=0.5, examples=50).sha256


def test_noise_flips_the_share_of_labels_it_names():
    clean, noisy = latent_table(noise=0.0), latent_table(noise=0.2)
    flipped = np.mean([(clean.labels[t.name] != noisy.labels[t.name]).mean() for t in clean.tasks])
    assert abs(flipped - 0.2) < 0.01
    spread = 4000**-0.5
    assert abs(clean.labels["target"].mean() - 0.5) < spread


@threadpoolctl.threadpool_limits.wrap(limits=1)  # matrices this small lose more to threads than they gain
def test_pretraining_pays_at_rho_one_and_not_at_rho_zero():
    """A perceptron pretrained on 1,000 rows, then probed with 50 labels, against a probe of the inputs.

    Logistic regression on the inputs does better here than the perceptron from scratch.
    """
    gains = {}
    for rho in (1.0, 0.0):
        table = latent_table(rho=rho)
        x, target = table.x, table.labels["target"]
        sources = np.stack([table.labels[t.name] for t in table.tasks[1:]], axis=1)
        pretrained = MLPClassifier(
            (64, 64), max_iter=60, learning_rate_init=2e-3, early_stopping=True, random_state=0
        ).fit(x[:1000], sources[:1000])
        features = x
        for weights, bias in zip(pretrained.coefs_[:-1], pretrained.intercepts_[:-1], strict=True):
            features = np.maximum(features @ weights + bias, 0)
        probe, scratch = [], []
        for start in range(1000, 1500, 50):
            few, test = slice(start, start + 50), slice(2000, 4000)
            probe.append(LogisticRegression(C=0.1).fit(features[few], target[few]).score(features[test], target[test]))
            scratch.append(LogisticRegression(C=0.1).fit(x[few], target[few]).score(x[test], target[test]))
        gains[rho] = np.mean(probe) - np.mean(scratch)
    assert gains[1.0] > 0.04
    assert gains[0.0] < 0.0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rho": 1.5}, 'data "latent": rho = 1.5: must be in [0, 1]'),
        ({"rho": float("nan")}, "rho = nan: must be in [0, 1]"),
        ({"inputs": 5}, "inputs = 5: must be at least 6 (2 · latent)"),
        ({"latent": 0}, "latent = 0: must be at least 1"),
        ({"source_tasks": 0}, "source_tasks = 0: must be at least 1"),
        ({"examples": 1}, "examples = 1: must be at least 2"),
        ({"hidden": 0}, "hidden = 0: must be at least 1"),
        ({"noise": 0.5}, "noise = 0.5: must be in [0, 0.5)"),
        ({"gain": 0.0}, "gain = 0.0: must be positive and finite"),
        ({"seed": -1}, "seed = -1: must be at least 0"),
    ],
)
def test_options_out_of_range(options, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        latent_table(**options)
