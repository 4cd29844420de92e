"""Tox21 as a data set of TFDS, from DeepChem's file."""

from __future__ import annotations

import csv
import hashlib
import inspect
import io
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from mtl.data.paths import read, resolve, text_of
from mtl.data.problems import DataError
from mtl.data.readers import molecules
from mtl.data.sets.tox21 import TOX21, tox21_table
from mtl.data.tfds.download import download
from mtl.data.tfds.recipe import Contents, Options, Recipe
from mtl.host.files import sha256_of_file

#: Where the file can be had; its checksum decides whether it is the one that is meant.
URL = "https://raw.githubusercontent.com/deepchem/deepchem/master/datasets/tox21.csv.gz"
FILE, SHA256 = TOX21.sha256[0]

_MAX_BYTES = 2**24


def _found(options: Options, start: pathlib.Path) -> pathlib.Path:
    """Return where the file lies: in ``directory``, or in the folder of downloads if one was asked for."""
    try:
        return resolve(FILE, options["directory"])
    except DataError as error:
        if not options["download"]:
            raise DataError(
                f"{error}: give directory=FOLDER that holds it, or download=true to fetch it from {URL}"
            ) from None
    path = start / "downloads" / FILE
    if not path.is_file() or sha256_of_file(path) != SHA256:
        download(URL, path, SHA256, _MAX_BYTES)
    return path


def _open(options: Options, start: pathlib.Path) -> Contents:
    path, bins = _found(options, start), options["bins"]
    table = tox21_table(str(path), bins=bins)
    lines = list(csv.DictReader(io.StringIO(text_of(read(path, SHA256, _MAX_BYTES), path.name))))
    names = [task.name for task in table.tasks]
    labels = {t: np.where(table.mask[t], table.labels[t], np.nan).astype(np.float32) for t in names}
    x = np.asarray(table.x)

    def features() -> dict[str, Any]:
        import tensorflow_datasets as tfds

        return {
            "ngrams": tfds.features.Tensor(shape=(bins,), dtype=np.float32),
            "smiles": tfds.features.Text(),
            "mol_id": tfds.features.Text(),
            **{name: tfds.features.Scalar(dtype=np.float32) for name in names},
        }

    def examples(begin: int, end: int) -> Iterator[dict[str, Any]]:
        for i in range(begin, end):
            texts = {key: lines[i][key].strip() for key in ("smiles", "mol_id")}
            yield {"ngrams": x[i], **texts, **{t: labels[t][i] for t in names}}

    digest = hashlib.sha256(f"{SHA256} {bins}".encode())
    digest.update(inspect.getsource(molecules).encode())
    return Contents(
        features=features,
        total=len(table),
        bytes_each=4 * bins,
        examples=examples,
        description=f"{TOX21.title} Inputs: {bins} hashed n-grams of the SMILES; NaN: no label. "
        f"Licence: {TOX21.licence} {TOX21.caveats}",
        citation=TOX21.citation,
        digest=digest.hexdigest()[:16],
    )


def _check(options: Options) -> None:
    if not 1 <= options["bins"] <= 2**16:
        raise ValueError(f'data "tox21": bins = {options["bins"]}: must be from 1 to 65536')
    if not isinstance(options["download"], bool):
        raise ValueError(f'data "tox21": download = {options["download"]!r}: must be true or false')


TOX21_RECIPE = Recipe({"bins": 1024, "directory": "", "download": False}, ("bins",), ("bins",), _check, _open)
