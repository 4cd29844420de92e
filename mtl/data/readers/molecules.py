"""Molecules in CSV files, as MoleculeNet gives them: SMILES to features and groups, blanks to masks."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from mtl.data.extras import needs
from mtl.data.paths import MAX_BYTES, read, resolve, text_of
from mtl.data.problems import DataError, Problems, prefixed
from mtl.data.readers.cells import Markers, Missing, plain, spelled
from mtl.data.readers.columns import Labels, Roles, build, choose
from mtl.data.readers.csv_file import read_columns
from mtl.data.table import Table
from mtl.ranges import Count, CountOrNone, Range

#: Of a table of hashed counts: how many it may have.
Bins = Annotated[int, Range(1, 2**24)]


def molecules_table(
    path: str,
    smiles: str = "smiles",
    labels: Labels = "*",
    ignore: Sequence[str] | str = (),
    features: str = "ngrams",
    bins: Bins = 1024,
    length: Count = 4,
    groups: str = "smiles",
    bad_molecules: str = "error",
    min_labels: CountOrNone = 1,
    min_positives: CountOrNone = 0,
    missing: Markers | str = (),
    directory: str = "",
    sha256: str = "",
    name: str = "",
    about: str = "",
    max_bytes: int = MAX_BYTES,
) -> Table:
    """Return the table of a CSV file with a column of SMILES and columns of labels, blanks missing.

    Args:
      path: of the file, inside the data directory.
      smiles: the column of SMILES.
      labels: as in ``csv_table``; ``*`` takes every column that is not SMILES or ignored.
      ignore: columns that are neither.
      features: ``ngrams`` (see ``ngrams``), or ``ecfp4``: RDKit's Morgan fingerprint of radius 2 (the extra
        "chem"; D. Rogers and M. Hahn 2010, doi:10.1021/ci100050t).
      bins: number of features.
      length: the longest n-gram.
      groups: which rows no split may part: ``smiles``, of the same SMILES text (without RDKit two spellings
        of one molecule count as two); ``molecule``, of the same canonical SMILES; ``scaffold``, of the same
        Bemis-Murcko scaffold, molecules without a ring being one group (G. W. Bemis and M. A. Murcko 1996,
        doi:10.1021/jm9602928); ``none``. The middle two need RDKit.
      bad_molecules: where RDKit is used, ``error`` or ``skip`` for a SMILES that it cannot read.
      min_labels: tasks with fewer labels are left out.
      min_positives: tasks with fewer labels that are 1 are left out.
      missing, directory, sha256, name, about, max_bytes: as in ``csv_table``.

    Returns:
      The table; inputs [N, bins].

    Raises:
      DataError: for everything that is wrong, one sentence each with file, line and column.
    """
    for field, value, right in (
        ("features", features, ("ngrams", "ecfp4")),
        ("groups", groups, ("smiles", "molecule", "scaffold", "none")),
        ("bad_molecules", bad_molecules, ("error", "skip")),
    ):
        if value not in right:
            raise DataError(f'{field} = "{value}": must be one of {", ".join(right)}')
    if bins < 1 or length < 1:
        raise DataError(f"bins = {bins}, length = {length}: must be at least 1")
    chemical = features == "ecfp4" or groups in ("molecule", "scaffold")
    if chemical:
        needs("rdkit", "chem", f'Molecules with features "{features}" and groups "{groups}"')
    full = resolve(path, directory)
    where = f'file "{full.name}"'
    problems = Problems()
    columns = read_columns(
        text_of(read(full, sha256, max_bytes), full.name),
        where,
        lambda names: _roles(names, labels, smiles, ignore),
        problems,
        Missing(missing),
    )
    (smiles,) = columns.roles.texts
    texts = [spelled(text) or "" for text in columns.cells[smiles]]
    rows = np.arange(len(texts))
    for row in [r for r, text in enumerate(texts) if not text]:
        problems.add(f'{columns.at(row)}, column "{smiles}": is blank: must be a SMILES')
    told = ""
    if chemical:
        read_by_rdkit, bad = parse(texts)
        if bad_molecules == "error":
            for row in bad if all(texts) else []:
                problems.add(f'{columns.at(row)}, column "{smiles}": RDKit cannot read "{texts[row]}"')
        elif bad:
            told = f" {len(bad)} of {len(texts)} molecules skipped, whose SMILES RDKit cannot read."
            rows = np.setdiff1d(rows, bad)
        if problems.count:
            raise prefixed(DataError(problems.sentences, problems.count), where)
        molecules = [read_by_rdkit[r] for r in rows]
        texts = [texts[r] for r in rows]
    x = fingerprints(molecules, bins) if features == "ecfp4" else ngrams(texts, bins, length)
    cells = {key: values[rows] for key, values in columns.cells.items()}
    together = None
    if groups != "none":  # To the letter: c1ccccc1 and C1CCCCC1 are two molecules, and "" is a scaffold.
        names = texts if groups == "smiles" else canonical(molecules, groups == "scaffold")
        place: dict[str, int] = {}
        together = np.array([place.setdefault(n, len(place)) for n in names])
    kept = {k: v for k, v in columns.roles.labels.items() if _enough(cells[k], min_labels, min_positives, missing)}
    if not kept:
        problems.add(f"no task has min_labels = {min_labels} labels and min_positives = {min_positives} that are 1")
    return build(
        name or full.name.removesuffix(".gz").removesuffix(".csv"),
        where,
        dataclasses.replace(columns.roles, labels=kept),
        x,
        cells,
        problems,
        lambda row: columns.at(int(rows[row])),
        missing,
        about=f"{about}{told}".strip(),
        groups=together,
    )


def _roles(names: list[str], labels: Labels, smiles: str, ignore: Sequence[str] | str) -> Roles:
    ignored = {ignore} if isinstance(ignore, str) else set(ignore)
    every = [n for n in names if n != smiles and n not in ignored]
    chosen = choose(names, every if labels == "*" else labels, smiles, ignore)
    return dataclasses.replace(chosen, inputs=(), texts=chosen.inputs)


def _enough(cells: np.ndarray, min_labels: int, min_positives: int, missing: Markers | str) -> bool:
    if min_labels <= 1 and min_positives <= 0:
        return True
    import pandas as pd  # here: it takes 0.2 s to import, and not every study needs it

    absent = Missing(missing)
    counts = {cell: int(n) for cell, n in pd.Series(cells).value_counts().items() if not absent(cell)}
    positive = sum(n for cell, n in counts.items() if plain(spelled(cell) or "") == "1")
    return sum(counts.values()) >= min_labels and positive >= min_positives


def ngrams(texts: Sequence[str], bins: int = 1024, length: int = 4) -> np.ndarray:
    """Return counts of the texts' n-grams, hashed: x_b = log(1 + number of n-grams g with crc32(g) mod B = b).

    Args:
      texts: N texts; n-grams are of their UTF-8 bytes.
      bins: B.
      length: n goes from 1 to this.

    Returns:
      [N, B] float32.

    >>> x = ngrams(["CCO", "OCC"], bins=64, length=1)
    >>> bool((x[0] == x[1]).all()), int((x[0] > 0).sum())
    (True, 2)
    """
    counts = np.zeros((len(texts), bins), np.float32)
    place: dict[bytes, int] = {}
    for row, text in enumerate(texts):
        data = text.encode()
        found = []
        for n in range(1, length + 1):
            for start in range(len(data) - n + 1):
                gram = data[start : start + n]
                if gram not in place:
                    place[gram] = zlib.crc32(gram) % bins
                found.append(place[gram])
        counts[row] = np.bincount(found, minlength=bins)
    return np.log1p(counts)


def parse(texts: Sequence[str]) -> tuple[list[object], list[int]]:
    """Return (RDKit's molecule of each SMILES, None where it cannot be read; the rows of those)."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        molecules: list[object] = [Chem.MolFromSmiles(text) if text else None for text in texts]
    return molecules, [row for row, molecule in enumerate(molecules) if molecule is None]


def fingerprints(molecules: Sequence[object], bins: int = 1024) -> np.ndarray:
    """Return ECFP4 fingerprints, [N, bins] float32 of 0 and 1."""
    from rdkit.Chem import rdFingerprintGenerator

    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=bins)
    return np.stack([morgan.GetFingerprintAsNumPy(m) for m in molecules]).astype(np.float32)


def canonical(molecules: Sequence[object], scaffold: bool = False) -> list[str]:
    """Return each molecule's canonical SMILES, or that of its Bemis-Murcko scaffold."""
    from rdkit import Chem
    from rdkit.Chem.Scaffolds import MurckoScaffold

    if scaffold:
        return [MurckoScaffold.MurckoScaffoldSmiles(mol=m) for m in molecules]
    return [Chem.MolToSmiles(m) for m in molecules]
