"""Molecules in CSV files, as MoleculeNet gives them: SMILES to features and groups, blanks to masks."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from mtl.data.extras import needs
from mtl.data.paths import resolve
from mtl.data.problems import DataError
from mtl.data.readers.cells import Missing, plain, spelled
from mtl.data.readers.columns import Roles, build, choose
from mtl.data.readers.csv_file import read_columns
from mtl.data.readers.options import Labels, ReadOptions, reader
from mtl.data.table import Table
from mtl.ranges import Count, CountOrNone, Range

#: Of a table of hashed counts: how many it may have.
Bins = Annotated[int, Range(1, 2**24)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoleculeOptions(ReadOptions):
    """Options of ``molecules_table``.

    Args:
      labels: as in ``ReadOptions``; ``*``, the default, takes every column that is not SMILES or ignored.
      smiles: the column of SMILES.
      features: ``ngrams``, the default (see ``ngrams``), or ``ecfp``: RDKit's Morgan fingerprint of a ``radius`` (the
        extra "chem"; D. Rogers and M. Hahn 2010, doi:10.1021/ci100050t); ``ecfp4`` is that of radius 2.
      bins: number of features, at least 1: the bits of a fingerprint.
      length: the longest n-gram, at least 1.
      radius: of a fingerprint's environments, in bonds; 2 by default.
      groups: which rows no split may part: ``smiles``, of the same SMILES text (without RDKit two spellings
        of one molecule count as two); ``molecule``, of the same canonical SMILES; ``scaffold``, of the same
        Bemis-Murcko scaffold, molecules without a ring, which have none, each by itself (G. W. Bemis and M. A. Murcko
        1996, doi:10.1021/jm9602928); ``none``. The middle two need RDKit.
      bad_molecules: where RDKit is used, ``skip``, the default, leaves out a SMILES that it cannot read, and how many
        were is said; or ``error``.
      min_labels: tasks with fewer labels are left out.
      min_positives: tasks with fewer labels that are 1 are left out.
    """

    labels: Labels = "*"
    smiles: str = "smiles"
    features: str = "ngrams"
    bins: Bins = 1024
    length: Count = 4
    radius: CountOrNone = 2
    groups: str = "smiles"
    bad_molecules: str = "skip"
    min_labels: CountOrNone = 1
    min_positives: CountOrNone = 0


@reader(MoleculeOptions, without=("inputs", "missing_inputs", "classes"))
def molecules_table(path: str, options: MoleculeOptions) -> Table:
    """Return the table of a CSV file with a column of SMILES and columns of labels, blanks missing.

    Args:
      path: of the file, inside the data directory.
      options: see ``MoleculeOptions``; given by name.

    Returns:
      The table; inputs [N, bins].

    Raises:
      DataError: for everything that is wrong, one sentence each with file, line and column.
    """
    features, groups, bins = options.features, options.groups, options.bins
    for field, value, right in (
        ("features", features, ("ngrams", "ecfp", "ecfp4")),
        ("groups", groups, ("smiles", "molecule", "scaffold", "none")),
        ("bad_molecules", options.bad_molecules, ("error", "skip")),
    ):
        if value not in right:
            raise DataError(f'{field} = "{value}": must be one of {", ".join(right)}')
    if bins < 1 or options.length < 1:
        raise DataError(f"bins = {bins}, length = {options.length}: must be at least 1")
    if features == "ecfp4" and options.radius != 2:
        raise DataError(f'features = "ecfp4", radius = {options.radius}: must be 2, or features "ecfp"')
    chemical = features != "ngrams" or groups in ("molecule", "scaffold")
    if chemical:
        needs("rdkit", "chem", f'Molecules with features "{features}" and groups "{groups}"')
    columns = read_columns(resolve(path, options.directory), options, lambda names: _roles(names, options))
    where, problems = columns.where, columns.problems
    (smiles,) = columns.roles.texts
    texts = [spelled(text) or "" for text in columns.cells[smiles]]
    rows = np.arange(len(texts))
    for row in [r for r, text in enumerate(texts) if not text]:
        problems.add(f'{columns.at(row)}, column "{smiles}": is blank: must be a SMILES')
    told, molecules = "", list[object]()
    if chemical:
        read_by_rdkit, bad = parse(texts)
        if options.bad_molecules == "error":
            for row in bad if all(texts) else []:
                problems.add(f'{columns.at(row)}, column "{smiles}": RDKit cannot read "{texts[row]}"')
        elif bad:
            told = (
                f"{len(bad):,} of {len(texts):,} molecules skipped, whose SMILES RDKit cannot read (the first in "
                f'{columns.at(bad[0])}: "{texts[bad[0]][:60]}")'
            )
            rows = np.setdiff1d(rows, bad)
        problems.stop(where)
        molecules = [read_by_rdkit[r] for r in rows]
        texts = [texts[r] for r in rows]
    x = molecule_inputs(texts, molecules, options)
    cells = {key: values[rows] for key, values in columns.cells.items()}
    together = None
    if groups != "none":  # To the letter: c1ccccc1 and C1CCCCC1 are two molecules, and "" is a scaffold.
        names = texts if groups == "smiles" else canonical(molecules, groups == "scaffold")
        if "" in names:  # No ring, no scaffold: what such molecules have in common is nothing.
            names = [name or f" {alone}" for name, alone in zip(names, canonical(molecules), strict=True)]
        place: dict[str, int] = {}
        together = np.array([place.setdefault(n, len(place)) for n in names])
    kept = {k: v for k, v in columns.roles.labels.items() if _enough(cells[k], options)}
    if not kept:
        problems.add(
            f"no task has min_labels = {options.min_labels} labels and min_positives = {options.min_positives} "
            "that are 1"
        )
    table = build(
        where,
        dataclasses.replace(columns.roles, labels=kept),
        x,
        cells,
        problems,
        lambda row: columns.at(int(rows[row])),
        dataclasses.replace(options.named(columns.name), about=f"{options.about} {told}".strip()),
        groups=together,
    )
    return dataclasses.replace(table, told=(*filter(None, [told]), *table.told))


def molecule_inputs(texts: Sequence[str], molecules: Sequence[object], options: MoleculeOptions) -> np.ndarray:
    """Return what SMILES become as inputs, [N, bins].

    Args:
      texts: the SMILES.
      molecules: RDKit's, where fingerprints are asked for.
      options: which features, and of what size.
    """
    if options.features == "ngrams":
        return ngrams(texts, options.bins, options.length)
    return fingerprints(molecules, options.bins, options.radius)


def _roles(names: list[str], options: MoleculeOptions) -> Roles:
    labels, ignore = options.labels, options.ignore
    ignored = {ignore} if isinstance(ignore, str) else set(ignore)
    every = [n for n in names if n not in (options.smiles, options.part) and n not in ignored]
    chosen = choose(names, every if labels == "*" else labels, options.smiles, ignore, part=options.part)
    return dataclasses.replace(chosen, inputs=(), texts=chosen.inputs)


def _enough(cells: np.ndarray, options: MoleculeOptions) -> bool:
    """Return whether a task has the labels, and the positive ones, that are asked for."""
    if options.min_labels <= 1 and options.min_positives <= 0:
        return True
    import pandas as pd  # here: it takes 0.2 s to import, and not every study needs it

    absent = Missing(options.missing)
    counts = {cell: int(n) for cell, n in pd.Series(cells).value_counts().items() if not absent(cell)}
    positive = sum(n for cell, n in counts.items() if plain(spelled(cell) or "") == "1")
    return sum(counts.values()) >= options.min_labels and positive >= options.min_positives


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


def fingerprints(molecules: Sequence[object], bins: int = 1024, radius: int = 2) -> np.ndarray:
    """Return ECFP fingerprints (of radius 2 ECFP4), [N, bins] float32 of 0 and 1."""
    from rdkit.Chem import rdFingerprintGenerator

    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=bins)
    return np.stack([morgan.GetFingerprintAsNumPy(m) for m in molecules]).astype(np.float32)


def canonical(molecules: Sequence[object], scaffold: bool = False) -> list[str]:
    """Return each molecule's canonical SMILES, or that of its Bemis-Murcko scaffold."""
    from rdkit import Chem
    from rdkit.Chem.Scaffolds import MurckoScaffold

    if scaffold:
        return [MurckoScaffold.MurckoScaffoldSmiles(mol=m) for m in molecules]
    return [Chem.MolToSmiles(m) for m in molecules]
