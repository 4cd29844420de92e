"""Handwritten digits: 1,797 scans of 8x8 pixels that come inside scikit-learn, and seven tasks on them."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from mtl.data.table import Table, make_table
from mtl.tasks import Task

#: For each binary attribute, the digits that have it and the digits for which it is missing.
ATTRIBUTES: dict[str, tuple[frozenset[int], frozenset[int]]] = {
    "even": (frozenset({0, 2, 4, 6, 8}), frozenset()),
    "prime": (frozenset({2, 3, 5, 7}), frozenset()),
    "at_least_five": (frozenset({5, 6, 7, 8, 9}), frozenset()),
    "has_loop": (frozenset({0, 6, 8, 9}), frozenset({4})),  # people write a 4 open and closed
}

ABOUT = (
    "Optical recognition of handwritten digits, the 1,797 scans of the test set as scikit-learn carries them "
    "(load_digits). Source: Alpaydin & Kaynak 1998, UCI Machine Learning Repository, optdigits, "
    "doi:10.24432/C50P49. Licence: CC BY 4.0 (UCI), as distributed by scikit-learn (BSD-3-Clause). The scans "
    "do not say who wrote them: random splits mix writers, and conclusions hold for this data set."
)


def _scans() -> tuple[np.ndarray, np.ndarray]:
    """Return (pixels [N, 64], digits [N]) from the file that scikit-learn carries.

    Read without importing scikit-learn, which takes longer than all else that a second run of a study does.
    """
    found = importlib.util.find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise ValueError('data.name = "digits": scikit-learn, which carries the scans, is not installed')
    with gzip.open(Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    return table[:, :-1], table[:, -1]


def digits_table(images: bool = False) -> Table:
    """Return scikit-learn's digits with seven tasks over the same scans.

    ``identity`` has 10 classes. The binary attributes ``even``, ``prime`` (2, 3, 5, 7), ``at_least_five`` and
    ``has_loop`` (0, 6, 8, 9; missing for 4, which people write both ways) are functions of the digit. For a
    control, ``low_identity`` tells 0–4 apart (missing for 5–9) and ``high_identity`` tells 5–9 apart, as ids
    0–4 (missing for 0–4): no scan has both labels.

    Random splits mix writers (the data do not say who wrote what), so conclusions hold for this data set and
    not for digits by unseen writers.

    Args:
      images: give inputs as images [N, 8, 8, 1] rather than as vectors [N, 64] (a reshape of them).

    Returns:
      A table of N = 1,797 rows; inputs in [0, 1], the pixel's count of 0 to 16 divided by 16.

    Source: E. Alpaydin and C. Kaynak, 1998, UCI optdigits, CC BY 4.0 (see ``ABOUT``).

    >>> table = digits_table()
    >>> table.x.shape, int(table.mask["has_loop"].sum())
    ((1797, 64), 1616)
    >>> digits_table(images=True).x.shape
    (1797, 8, 8, 1)
    """
    pixels, digit = _scans()
    x = (pixels / 16.0).astype(np.float32)
    tasks = [Task("identity", "multiclass", num_classes=10)]
    labels: dict[str, np.ndarray] = {"identity": digit}
    for name, (true_for, missing_for) in ATTRIBUTES.items():
        tasks.append(Task(name, "binary"))
        holds = np.isin(digit, sorted(true_for)).astype(np.float32)
        labels[name] = np.where(np.isin(digit, sorted(missing_for)), np.float32(np.nan), holds)
    tasks += [Task(name, "multiclass", num_classes=5) for name in ("low_identity", "high_identity")]
    labels["low_identity"] = np.where(digit < 5, digit, -1)
    labels["high_identity"] = np.where(digit >= 5, digit - 5, -1)
    return make_table("digits", x.reshape(-1, 8, 8, 1) if images else x, tasks, labels, ABOUT, pixels=True)
