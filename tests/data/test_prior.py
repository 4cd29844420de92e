"""Predicting the prior: closed forms for each kind of task."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from mtl.data import Asked, make_table
from mtl.data.prior import prior_outputs
from mtl.data.shared import shared_split
from mtl.tasks import Task

ROWS = 60


def split_of(tasks, labels):
    table = make_table("toy", np.arange(2.0 * ROWS).reshape(ROWS, 2), tasks, labels)
    asked = {"rows": "shared", "target_size": 30, "test_size": 20, "target_pool": 30, "val_fraction": 0.2}
    names = tuple(t.name for t in tasks)
    return table, shared_split(table, Asked(source=(), targets=names, source_size=0, source_val_size=0, **asked))


def outputs(table, split, name):
    return prior_outputs(table, split, table.task(name))


def test_of_classes_it_is_their_frequencies():
    ids = np.arange(ROWS) % 3
    tasks = [Task("b", "binary"), Task("m", "multiclass", num_classes=3)]
    table, split = split_of(tasks, {"b": (ids == 0).astype(float), "m": ids})
    for name, classes in (("b", 2), ("m", 3)):
        labels = table.labels[name][split.train[name]].astype(int)
        counts = np.bincount(labels, minlength=classes)
        p = (counts + 0.5) / (len(labels) + classes / 2)
        found = outputs(table, split, name)
        assert (softmax(found) if classes > 2 else [expit(-found[0]), expit(found[0])]) == pytest.approx(p)


def test_of_one_class_alone_the_other_is_not_impossible():
    labels = np.zeros(ROWS)
    labels[: ROWS // 2 : 10] = np.nan
    labels[-1] = 1
    table, split = split_of([Task("b", "binary")], {"b": np.where(np.arange(ROWS) % 2, labels, 1 - labels)})
    split.train["b"][:] &= table.labels["b"] == 0
    n = int(split.train["b"].sum())
    assert expit(outputs(table, split, "b")[0]) == pytest.approx(0.5 / (n + 1))


def test_of_a_regression_it_is_the_mean_which_is_0_where_labels_are_standardised():
    table, split = split_of([Task("y", "regression")], {"y": 1e6 + 300.0 * np.arange(ROWS)})
    assert outputs(table, split, "y").tolist() == [0.0]


def test_of_a_dense_task_it_is_over_positions():
    maps = np.random.default_rng(0).integers(0, 2, (ROWS, 2, 2))
    maps[::7, 0, 0] = -1
    table, split = split_of([Task("s", "segmentation", num_classes=2, shape=(2, 2))], {"s": maps})
    seen = maps[split.train["s"]]
    counts = np.array([(seen == 0).sum(), (seen == 1).sum()])
    p = (counts + 0.5) / (counts.sum() + 1)
    assert softmax(outputs(table, split, "s")) == pytest.approx(p)
