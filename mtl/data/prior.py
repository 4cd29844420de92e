"""Predicting the prior, the same for every row, from a task's training labels: what its errors are measured by."""

from __future__ import annotations

import numpy as np

from mtl.data.scaling import training_labels
from mtl.data.splits import Split
from mtl.data.table import Table
from mtl.losses import loss_of
from mtl.tasks import Task


def prior_outputs(table: Table, split: Split, task: Task) -> np.ndarray:
    """Return the outputs of a head that predicts the prior, [outputs].

    Of a classification they are the logits of the frequencies p_c = (n_c + ½) / (n + C/2) (the ½ is Krichevsky and
    Trofimov's, 1981), so that its loss is never 0. Of numbers it is their mean, which is 0 where they are standardised.
    With a loss that a config registers, whose outputs mean what it says, it is 0, as heads begin.

    Args:
      table: the data.
      split: of it.
      task: a task of the split, as it is trained.

    >>> from mtl.data.asked import Asked
    >>> from mtl.data.sets.digits import digits_table
    >>> from mtl.data.shared import shared_split
    >>> asked = Asked(source=(), targets=("even", "identity"), rows="shared", target_size=200, test_size=500,
    ...     source_size=0, source_val_size=0, target_pool=500, val_fraction=0.2)
    >>> split = shared_split(digits_table(), asked)
    >>> [prior_outputs(digits_table(), split, digits_table().task(t)).shape for t in ("even", "identity")]
    [(1,), (10,)]
    """
    found, labels = np.zeros(task.outputs), training_labels(table, split, task)
    if loss_of(task) not in ("logistic", "softmax", "squared") or task.scaled or not len(labels):
        return found
    if task.labels == "numbers":
        return found + labels.mean()
    counts = np.bincount(labels.astype(np.int64), minlength=task.classes) + 0.5
    return np.log(counts[1:] / counts[:1]) if task.labels == "binary" else np.log(counts / counts.sum())
