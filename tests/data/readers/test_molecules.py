"""Molecules: hashed n-grams, Tox21 and ToxCast against pandas, and splits without leakage."""

import importlib.util
import re
import zlib
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from mtl.data import Asked, DataError, load, molecules_table, transfer_split
from mtl.data.readers.molecules import ngrams
from mtl.data.sets.tox21 import TOX21
from tests.data.shared import folder_with

chem = pytest.mark.skipif(
    importlib.util.find_spec("rdkit") is None, reason='RDKit is not installed: pip install "mtl[chem]"'
)
SMALL = "y,smiles,z\n1,CCO,\n0,OCC,0\n,c1ccccc1O,1\n1,c1ccccc1N,1\n0,C(C,1\n1,CCO,0\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_DATA_DIR", str(tmp_path))
    (tmp_path / "m.csv").write_text(SMALL)
    return tmp_path


@pytest.fixture(scope="module")
def tox21():
    return load("tox21", directory=folder_with("tox21.csv.gz"))


def frame(file):
    return pd.read_csv(f"{folder_with(file)}/{file}")


def test_ngrams_are_counted():
    texts = ["CC(=O)Oc1ccccc1", "N", "", "é"]
    x = ngrams(texts, bins=32, length=3)
    for row, text in zip(x, texts, strict=True):
        data = text.encode()
        grams = [data[i : i + n] for n in (1, 2, 3) for i in range(len(data) - n + 1)]
        count = Counter(zlib.crc32(g) % 32 for g in grams)
        np.testing.assert_array_equal(row, np.log1p(np.array([count[b] for b in range(32)], np.float32)))


def test_a_small_file(folder):
    table = molecules_table("m.csv", bins=16)
    assert [(t.name, t.kind) for t in table.tasks] == [("y", "binary"), ("z", "binary")]
    np.testing.assert_array_equal(table.mask["y"], [True, True, False, True, True, True])
    np.testing.assert_array_equal(table.x, ngrams(["CCO", "OCC", "c1ccccc1O", "c1ccccc1N", "C(C", "CCO"], 16, 4))
    np.testing.assert_array_equal(table.groups, [0, 1, 2, 3, 4, 0])  # texts: CCO and OCC are two
    assert molecules_table("m.csv", groups="none").groups is None
    assert [t.name for t in molecules_table("m.csv", min_labels=5, min_positives=3).tasks] == ["y", "z"]
    assert [t.name for t in molecules_table("m.csv", ignore="z").tasks] == ["y"]
    lines = SMALL.splitlines()
    fold = ["fold", "train", "train", "valid", "test", "test", "train"]
    (folder / "parts.csv").write_text("".join(f"{line},{part}\n" for line, part in zip(lines, fold, strict=True)))
    table = molecules_table("parts.csv", part="fold")
    assert [t.name for t in table.tasks] == ["y", "z"] and table.part.tolist() == [0, 0, 1, 2, 2, 0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"features": "ecfp6"}, 'features = "ecfp6": must be one of ngrams, ecfp, ecfp4'),
        ({"groups": "smile"}, 'groups = "smile": must be one of'),
        ({"bins": 0}, "bins = 0, length = 4: must be at least 1"),
        ({"smiles": "SMILES"}, 'file "m.csv", inputs: "SMILES" is no column: did you mean'),
        ({"min_labels": 9}, "no task has min_labels = 9 labels"),
        ({"sha256": "0" * 64}, 'file "m.csv": sha256'),
    ],
)
def test_what_is_refused(folder, options, sentence):
    if "SMILES" in str(options):
        sentence = sentence.removesuffix(" did you mean")
    with pytest.raises(DataError, match=re.escape(sentence)):
        molecules_table("m.csv", **options)


def test_without_rdkit_one_sentence_says_which_extra(folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=re.escape('pip install "mtl[chem]"')):
        molecules_table("m.csv", groups="scaffold")


@chem
def test_groups_and_features_by_rdkit(folder):
    with pytest.raises(DataError, match=re.escape('file "m.csv", line 6, column "smiles": RDKit cannot read "C(C"')):
        molecules_table("m.csv", features="ecfp4", bad_molecules="error")
    table = molecules_table("m.csv", features="ecfp4", bins=256, groups="molecule")
    skipped = '1 of 6 molecules skipped, whose SMILES RDKit cannot read (the first in line 6: "C(C")'
    assert skipped in table.about and table.told == (skipped,)
    assert table.x.shape == (5, 256)
    np.testing.assert_array_equal(table.x[0], table.x[1])  # CCO and OCC are one molecule
    np.testing.assert_array_equal(table.groups, [0, 0, 1, 2, 0])
    np.testing.assert_array_equal(table.labels["z"], [0, 0, 1, 1, 0])
    scaffolds = molecules_table("m.csv", groups="scaffold").groups
    np.testing.assert_array_equal(scaffolds, [0, 0, 1, 1, 0])  # benzene, and ethanol, which has no ring
    (folder / "open.csv").write_text("smiles,z\nCCO,1\nCCN,0\nOCC,1\nc1ccccc1C,0\nc1ccccc1O,1\nC1CC1,0\n")
    groups = molecules_table("open.csv", groups="scaffold").groups
    np.testing.assert_array_equal(groups, [0, 1, 0, 2, 2, 3])  # Molecules without a ring are not alike.
    wide = molecules_table("m.csv", features="ecfp", radius=3, bins=256)
    from rdkit import Chem
    from rdkit.Chem import rdFingerprintGenerator

    own = rdFingerprintGenerator.GetMorganGenerator(radius=3, fpSize=256)
    np.testing.assert_array_equal(wide.x[2], own.GetFingerprintAsNumPy(Chem.MolFromSmiles("c1ccccc1O")))
    with pytest.raises(DataError, match='features = "ecfp4", radius = 3: must be 2, or features "ecfp"'):
        molecules_table("m.csv", features="ecfp4", radius=3)


def test_tox21_is_what_pandas_reads(tox21):
    raw = frame("tox21.csv.gz")
    assert len(tox21) == 8014
    assert len(tox21.tasks) == 12
    for task in tox21.tasks:
        np.testing.assert_array_equal(tox21.mask[task.name], raw[task.name].notna())
        np.testing.assert_array_equal(tox21.labels[task.name], raw[task.name].fillna(0))
    missing = 1 - np.mean([tox21.mask[t.name].mean() for t in tox21.tasks])
    assert round(missing, 4) == 0.1726
    assert len(np.unique(tox21.groups)) == raw["smiles"].nunique() == 7831
    assert TOX21.citation in tox21.about


def test_no_smiles_of_tox21_is_in_two_roles(tox21):
    smiles = frame("tox21.csv.gz")["smiles"].to_numpy()
    split = transfer_split(
        tox21,
        Asked(
            source=("NR-AhR", "SR-ARE"),
            targets=("SR-p53",),
            seed=3,
            target_size=500,
            test_size=1000,
            source_size=4000,
            source_val_size=500,
            target_pool=1000,
            val_fraction=0.2,
        ),
    )
    roles = [split.test["SR-p53"], split.train["SR-p53"], split.val["SR-p53"]]
    roles += [split.train["NR-AhR"] | split.train["SR-ARE"], split.val["NR-AhR"] | split.val["SR-ARE"]]
    assert [int(r.sum()) for r in roles] == [1000, 400, 100, 3500, 500]
    held = [set(smiles[role]) for role in roles]
    assert sum(map(len, held)) == len(set.union(*held))


@pytest.mark.slow
def test_toxcast_is_what_pandas_reads():
    raw = frame("toxcast_data.csv.gz")
    table = load("toxcast", directory=folder_with("toxcast_data.csv.gz"), bins=64)
    labels = raw.drop(columns="smiles")
    enough = labels.columns[(labels.notna().sum() >= 500) & ((labels == 1).sum() >= 20)]
    assert [t.name for t in table.tasks] == list(enough)
    assert len(table.tasks) == 441
    assert len(table) == 8615
    assert round(1 - labels.notna().to_numpy().mean(), 4) == 0.7106
    for name in enough[::40]:
        np.testing.assert_array_equal(table.mask[name], raw[name].notna())
        np.testing.assert_array_equal(table.labels[name], raw[name].fillna(0))


@pytest.mark.slow
@chem
def test_no_scaffold_of_tox21_is_in_two_roles():
    from rdkit import Chem
    from rdkit.Chem.Scaffolds import MurckoScaffold

    directory = folder_with("tox21.csv.gz")
    table = load("tox21", directory=directory, groups="scaffold", bad_molecules="skip", features="ecfp4")
    raw = frame("tox21.csv.gz")
    molecules = [Chem.MolFromSmiles(s) for s in raw["smiles"]]
    scaffolds = np.array([MurckoScaffold.MurckoScaffoldSmiles(mol=m) for m in molecules if m is not None])
    assert len(table) == len(scaffolds) == 8006
    assert len(np.unique(table.groups)) > len(np.unique(scaffolds)) + 1000  # Those without a ring are apart.
    split = transfer_split(
        table,
        Asked(
            source=("NR-AhR",),
            targets=("SR-p53",),
            seed=0,
            target_size=100,
            test_size=800,
            source_size=1500,
            source_val_size=300,
            target_pool=400,
            val_fraction=0.2,
        ),
    )
    roles = [
        split.test["SR-p53"],
        split.train["SR-p53"],
        split.val["SR-p53"],
        split.train["NR-AhR"],
        split.val["NR-AhR"],
    ]
    assert [int(r.sum()) for r in roles] == [800, 80, 20, 1200, 300]
    held = [set(scaffolds[role]) - {""} for role in roles]
    assert sum(map(len, held)) == len(set.union(*held))
