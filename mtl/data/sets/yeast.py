"""Yeast: 2,417 genes, 103 numbers each, 14 functional classes; every label known, so that hiding them is a study."""

from __future__ import annotations

import importlib.util
import pathlib

from mtl.data.paths import resolve
from mtl.data.problems import DataError
from mtl.data.readers.arff import arff_table
from mtl.data.readers.csv_file import csv_table
from mtl.data.sets.about import About
from mtl.data.table import Table

YEAST = About(
    "Yeast: micro-array expression and phylogenetic profiles of 2,417 genes (103 numbers), 14 functional classes.",
    "A. Elisseeff and J. Weston 2002, A kernel method for multi-labelled classification, NIPS 14, 681-687; as "
    "distributed with Mulan (G. Tsoumakas et al. 2011, JMLR 12, 2411-2414).",
    "none stated for the data; the package river that carries a copy is BSD-3-Clause.",
    'pip install --no-deps "river==0.26.1" (its file river/datasets/yeast.csv.gz), or Mulan\'s yeast.arff.',
    (("yeast.csv.gz", "2969cb4bab877a27adcbe17871fa0b378a1e54b98816cd6106b542ee450a1c09"),),
)

LABELS = tuple(f"Class{i}" for i in range(1, 15))


def yeast_table(path: str = "", directory: str = "") -> Table:
    """Return Yeast: 14 binary tasks over 103 inputs, no label missing.

    Args:
      path: of ``yeast.csv.gz`` (river's, whose sha256 is checked) or of Mulan's ``yeast.arff``; empty for the
        file of an installed river, which is not imported.
      directory: the data directory.

    Raises:
      DataError: where there is no such file, saying what to install.

    Source: see ``YEAST``.
    """
    path = path or find_yeast()
    if resolve(path, directory).name.endswith((".arff", ".arff.gz")):
        return arff_table(path, LABELS, directory=directory, name="yeast", about=str(YEAST))
    kinds = [f"{name}:binary" for name in LABELS]
    return csv_table(path, kinds, directory=directory, sha256=YEAST.sha256[0][1], name="yeast", about=str(YEAST))


def find_yeast() -> str:
    """Return the path of the copy in an installed river, which is not imported.

    Raises:
      DataError: where there is none, saying what to install.
    """
    river = importlib.util.find_spec("river")
    folder = pathlib.Path(river.origin).parent if river and river.origin else pathlib.Path()
    path = folder.absolute() / "datasets" / "yeast.csv.gz"
    if river is None or not path.is_file():
        raise DataError(f'data "yeast": no path given and no river installed. {YEAST.obtained}')
    return str(path)
