"""Tox21 and ToxCast: toxicity assays of molecules, most labels of ToxCast missing."""

from __future__ import annotations

from mtl.data.readers.molecules import Bins, molecules_table
from mtl.data.sets.about import About
from mtl.data.table import Table
from mtl.ranges import CountOrNone

_MOLNET = (
    "Z. Wu et al. 2018, MoleculeNet: a benchmark for molecular machine learning, Chemical Science 9, 513-530, "
    "doi:10.1039/C7SC02664A;"
)
_OBTAINED = "the repository deepchem/deepchem at commit fbe3b911, "
_LICENCE = "none stated for the data; the repository's code is MIT."

TOX21 = About(
    "Tox21: 8,014 rows, 7,831 distinct SMILES, 12 toxicity assays, 17.3 % of labels missing.",
    f"{_MOLNET} R. Huang et al. 2016, Tox21Challenge, Frontiers in Environmental Science 3, 85.",
    _LICENCE,
    f"{_OBTAINED}datasets/tox21.csv.gz.",
    (("tox21.csv.gz", "48b34e4e59a2bae6f95734cd206c1869ab355f50a5e50bb7371a21f861d5e297"),),
    "183 rows repeat another's SMILES: split by groups.",
)

TOXCAST = About(
    "ToxCast: 8,615 rows, 617 assays, 71.1 % of labels missing.",
    f"{_MOLNET} A. M. Richard et al. 2016, Chemical Research in Toxicology 29, 1225-1251.",
    _LICENCE,
    f"{_OBTAINED}examples/toxcast/processing/toxcast_data.csv.gz.",
    (("toxcast_data.csv.gz", "56041515e0bb63c1787a26ecdbeb2bd7ae1f538681caa1b03f768853cf81b1a7"),),
)


def tox21_table(
    path: str = "tox21.csv.gz",
    features: str = "ngrams",
    bins: Bins = 1024,
    groups: str = "smiles",
    bad_molecules: str = "skip",
    directory: str = "",
) -> Table:
    """Return Tox21: 12 assays as binary tasks, 17.3 % of labels missing.

    Args:
      path: of DeepChem's ``tox21.csv.gz``, whose sha256 is checked.
      features, bins, groups, bad_molecules, directory: as in ``molecules_table``. RDKit cannot read 8 of the
        SMILES.

    Raises:
      DataError: for another file, or none; see ``TOX21`` for where it comes from.

    Source: see ``TOX21``.
    """
    return molecules_table(
        path,
        ignore="mol_id",
        features=features,
        bins=bins,
        groups=groups,
        bad_molecules=bad_molecules,
        directory=directory,
        sha256=TOX21.sha256[0][1],
        name="tox21",
        about=str(TOX21),
    )


def toxcast_table(
    path: str = "toxcast_data.csv.gz",
    features: str = "ngrams",
    bins: Bins = 1024,
    groups: str = "smiles",
    bad_molecules: str = "skip",
    min_labels: CountOrNone = 500,
    min_positives: CountOrNone = 20,
    directory: str = "",
) -> Table:
    """Return ToxCast: up to 617 assays as binary tasks, 71.1 % of labels missing.

    Args:
      path: of DeepChem's ``toxcast_data.csv.gz``, whose sha256 is checked.
      features, bins, groups, bad_molecules, min_labels, min_positives, directory: as in ``molecules_table``.

    Raises:
      DataError: for another file, or none; see ``TOXCAST`` for where it comes from.

    Source: see ``TOXCAST``.
    """
    return molecules_table(
        path,
        features=features,
        bins=bins,
        groups=groups,
        bad_molecules=bad_molecules,
        min_labels=min_labels,
        min_positives=min_positives,
        directory=directory,
        sha256=TOXCAST.sha256[0][1],
        name="toxcast",
        about=str(TOXCAST),
    )
