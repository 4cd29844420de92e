"""The studies of the notes' claims: each states beforehand what refutes it, resolves, and computes what it says."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from mtl import data, losses, metrics, tasks
from mtl.config import flatten, load, override, resolve
from mtl.data import make_table
from mtl.data.sets.yeast import LABELS
from mtl.hypothesis import hypothesis_of
from mtl.sweep.expand import sweeps_of
from mtl.sweep.study import settle
from mtl.tasks import Task

ROOT = Path(__file__).parents[2]
STUDIES = (
    *("probe_or_finetune", "source_size", "self_driving", "several_positives", "partly_labelled", "low_level"),
    "plain_sum",
)
RNG = np.random.default_rng(0)


def digits(examples: int = 60, tasks: tuple[str, ...] = ("digit", "even", "at_least_five")):
    """A table such as MNIST's and MultiMNIST's."""
    digit = np.arange(examples) % 10
    labels = {"digit": digit, "even": digit % 2 == 0, "at_least_five": digit >= 5, "left": digit, "right": digit}
    kinds = [Task(t, "binary") if t in ("even", "at_least_five") else Task(t, "multiclass", 10) for t in tasks]
    part = np.arange(examples) % 3 // 2 * 2
    return make_table("digits", RNG.random((examples, 28, 28, 1)), kinds, {t: labels[t] for t in tasks}, part=part)


def pairs(examples: int = 60):
    return digits(examples, ("left", "right"))


def yeast(path: str = "", rows: int = 2417):
    labels = {name: RNG.integers(2, size=rows) for name in LABELS}
    return make_table("yeast", RNG.normal(size=(rows, 5)), [Task(name, "binary") for name in LABELS], labels)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What the configs register is forgotten after the test; files that may not be there are stood in for."""
    known = (data.SOURCES, losses.LOSSES, metrics.METRICS, tasks.KINDS)
    before = [dict(names) for names in known]
    data.SOURCES.update(mnist=digits, multi_mnist=pairs, yeast=yeast)
    with jax.numpy_rank_promotion("allow"):  # As it is for users.
        yield
    for names, was in zip(known, before, strict=True):
        names.clear()
        names.update(was)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_states_what_refutes_it_and_resolves(name):
    config, module = load(str(ROOT / "configs" / f"{name}.py"))
    assert config.name == name and sweeps_of(module)
    for sweep in sweeps_of(module).values():
        base, entries = settle(flatten(config), sweep())
        assert hypothesis_of(base) is not None and base["report.margin"] <= 0.02
        assert len({changes["seed"] for changes in entries}) >= 20
        trial = override(base, entries[-1])
        small = {"data.options": {**trial["data.options"], "examples": 40}} if name != "partly_labelled" else {}
        table = data.load(trial["data.name"], **override(trial, small)["data.options"])
        resolved = resolve(
            override(trial, {"data.target": table.tasks[0].name} if trial["data.targets"] else {}), table
        )
        assert resolved.config["phases"]


def module_of(name):
    return load(str(ROOT / "configs" / f"{name}.py"))[1]


def test_several_positives_are_losses_and_a_metric_that_scipy_and_scikit_learn_know():
    study = module_of("several_positives")
    z, codes = RNG.normal(size=(64, 5)).astype(np.float32), np.arange(64.0) % 16
    there = (codes[:, None].astype(int) // [1, 2, 4, 8]) % 2
    given = jnp.asarray(z), jnp.asarray(codes)
    summed = np.where(there, -scipy.special.log_expit(z[:, :4]), -scipy.special.log_expit(-z[:, :4])).sum(axis=1)
    np.testing.assert_allclose(study.sum_of_logistic(*given), summed, rtol=1e-5)
    aims = np.column_stack([there, codes == 0]) / np.maximum(there.sum(axis=1), 1)[:, None]
    own = -(aims * scipy.special.log_softmax(z, axis=1)).sum(axis=1)
    np.testing.assert_allclose(study.softmax_of_objects(*given), own, rtol=1e-5)
    mean = np.mean([sklearn.metrics.average_precision_score(there[:, k], z[:, k]) for k in range(4)])
    assert float(study.mean_average_precision(*given, jnp.ones(64, bool))) == pytest.approx(mean, rel=1e-5)


def test_the_control_of_several_positives_has_exactly_one():
    study = module_of("several_positives")
    one, several = (study.objects(60, exactly_one).labels["objects"] for exactly_one in (True, False))
    assert set(one) == {1, 2, 4, 8} and {0, 15} < set(several) and len(one) == len(several) == 60


def test_part_of_the_labels_is_missing_zero_or_their_rows_are():
    study = module_of("partly_labelled")
    mask, zero, drop, full = (
        study.yeast_in_part(*of) for of in (("mask", 0.5), ("zero_fill", 0.5), ("drop", 0.1), ("mask", 0.0))
    )
    training, truth = full.part == 0, np.stack([full.labels[t] for t in LABELS], axis=1)
    there, complete = (np.stack([t.mask[name] for name in LABELS], axis=1) for t in (mask, drop))
    assert 0.48 < there[training].mean() < 0.52 and there[~training].all() and complete[~training].all()
    filled = np.stack([zero.labels[t] for t in LABELS], axis=1)
    np.testing.assert_array_equal(filled, np.where(there, truth, 0))
    assert set(complete.sum(axis=1)) == {0, 14} and 0.17 < complete[training].mean() < 0.29
    assert all(t.mask["row"].all() for t in (mask, zero, drop))


def test_shuffled_names_keep_their_frequencies_and_tell_nothing():
    study = module_of("low_level")
    table = study.mnist_and_shuffled(examples=600)
    digit, shuffled = table.labels["digit"], table.labels["shuffled"]
    np.testing.assert_array_equal(np.bincount(digit), np.bincount(shuffled))
    assert (digit == shuffled).mean() < 0.2
    np.testing.assert_array_equal(table.labels["even"], digit % 2 == 0)
