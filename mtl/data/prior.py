"""The loss of predicting the prior: what a task's losses are measured by, whatever its unit and its classes."""

from __future__ import annotations

import numpy as np

from mtl.data.scaling import training_labels
from mtl.data.splits import Split
from mtl.data.table import Table


def prior_loss(table: Table, split: Split, task: str) -> float:
    """Return the loss, on a task's training labels, of predicting the same for every row.

    Of a classification it is −Σ_c (n_c/n) log p_c, the log loss of the frequencies p_c = (n_c + ½) / (n + C/2), which
    is above 0 whatever the labels are (the ½ is Krichevsky and Trofimov's, 1981). Of numbers it is the variance,
    which is 1 in the unit that the loss of a regression is computed in (see ``scaling.fit``).

    Args:
      table: the data.
      split: of it.
      task: a task of the split.

    >>> from mtl.data.asked import Asked
    >>> from mtl.data.sets.digits import digits_table
    >>> from mtl.data.shared import shared_split
    >>> asked = Asked(source=(), targets=("even", "identity"), rows="shared", target_size=200, test_size=500,
    ...     source_size=0, source_val_size=0, target_pool=500, val_fraction=0.2)
    >>> split = shared_split(digits_table(), asked)
    >>> [round(prior_loss(digits_table(), split, task), 3) for task in ("even", "identity")]
    [0.692, 2.297]
    """
    spec = table.task(task)
    labels = training_labels(table, split, spec)
    if spec.labels == "numbers":
        return 1.0 if spec.scaled or not len(labels) else float(labels.var()) or 1.0
    counts = np.bincount(labels.astype(np.int64), minlength=spec.classes)
    smoothed = (counts + 0.5) / (counts.sum() + len(counts) / 2)
    return float(-(counts @ np.log(smoothed)) / max(counts.sum(), 1))
