"""New rows of each sort of file become the inputs that training had; a model that lies about them is a sentence."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mtl.data import DataError, csv_table, images_table, mixed_frame, molecules_table, npz_table
from mtl.data.scaling import described
from mtl.sweep.new_rows import file_rows, frame_rows


def section(name, **options):
    return {"name": name, "options": options}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_DATA_DIR", str(tmp_path))
    return tmp_path


def test_arrays_of_an_npz_file(folder):
    rng = np.random.default_rng(0)
    pixels, words = rng.integers(0, 256, (9, 4, 4), np.uint8), rng.integers(0, 7, (9, 3))
    np.savez(folder / "one.npz", x=pixels, y=np.arange(9) % 2)
    table = npz_table("one.npz", "y:binary")
    np.testing.assert_array_equal(file_rows("one.npz", described(table), section("npz")).x, table.x)
    np.savez(folder / "two.npz", **{"in/image": pixels, "in/words": words, "y": np.arange(9) % 2})
    table = npz_table("two.npz", "y:binary", inputs="in", vocabulary="words:7")
    found = file_rows("two.npz", described(table), section("npz", inputs="in")).x
    assert found.keys() == table.x.keys()
    for leaf, x in table.x.items():
        np.testing.assert_array_equal(found[leaf], x)
    with pytest.raises(DataError, match=r'file "one\.npz", has no array "in/image": must have in/image, in/words'):
        file_rows("one.npz", described(table), section("npz", inputs="in"))


def test_pictures_of_a_folder_and_of_a_table(folder):
    rng = np.random.default_rng(0)
    (folder / "new").mkdir()
    for name in "bac":
        Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).save(folder / "new" / f"{name}.png")
    (folder / "new" / "notes.txt").write_text("no picture")
    rows = "".join(f"new/{name}.png,{i % 2}\n" for i, name in enumerate("abc"))
    (folder / "l.csv").write_text(f"path,y\n{rows}")
    table = images_table("l.csv", "y:binary", size=(4, 4), file_column="path")
    data = section("images", file_column="path")
    for source, names in (("new", ["a.png", "b.png", "c.png"]), ("l.csv", ["new/a.png", "new/b.png", "new/c.png"])):
        found = file_rows(source, described(table), data)
        np.testing.assert_array_equal(found.x, table.x)
        assert found.names["path"].tolist() == names
    (folder / "bad.csv").write_text("path\nnew/a.png\n../../x.png\n")
    with pytest.raises(DataError, match="leaves the data directory"):
        file_rows("bad.csv", described(table), data)


def test_molecules(folder):
    (folder / "m.csv").write_text("smiles,y\nCCO,1\nc1ccccc1O,0\nCCN,1\n")
    for options in ({"bins": 32, "length": 2}, {"features": "ecfp", "radius": 3, "bins": 64}):
        if "radius" in options:
            pytest.importorskip("rdkit", reason='needs the extra: pip install "mtl[chem]"')
        table = molecules_table("m.csv", **options)
        found = file_rows("m.csv", described(table), section("molecules", path="m.csv", **options))
        np.testing.assert_array_equal(found.x, table.x)
        assert found.names["smiles"].tolist() == ["CCO", "c1ccccc1O", "CCN"]
    (folder / "bad.csv").write_text("smiles\nCCO\nC(C\n")
    with pytest.raises(DataError, match=r'line 3, column "smiles": "C\(C" cannot be read: must be a SMILES'):
        file_rows("bad.csv", described(table), section("molecules", **options))


def test_numbers_of_a_plain_table(folder):
    (folder / "a.csv").write_text("t,p,y\n1,2,0\n,3,1\n?,4,1\n2,5,0\n")
    table = csv_table("a.csv", "y", missing="?", missing_inputs="flag")
    facts = described(table)
    assert facts["columns"] == ["t", "p", "t is missing"]
    (folder / "new.csv").write_text("p;t;colour\n2;1;red\n3;;red\n4;?;red\n5;2;red\n")
    np.testing.assert_array_equal(file_rows("new.csv", facts, section("csv", missing="?")).x, table.x)
    frame = pd.DataFrame({"p": [2, 3, 4, 5], "t": [1, None, -1, 2.0]})
    np.testing.assert_array_equal(frame_rows(frame, facts, [-1]).x, table.x)
    with pytest.raises(DataError, match='column "t": "\\?": must be a number'):
        file_rows("new.csv", facts, section("csv"))
    with pytest.raises(DataError, match='has no column "t": must have t, p, as in training'):
        frame_rows(frame[["p"]], facts)
    (folder / "twice.csv").write_text("p,p,t\n1,2,3\n")
    with pytest.raises(DataError, match='column "p" is there twice'):
        file_rows("twice.csv", facts, section("csv"))


def test_an_encoder_that_is_none_is_a_sentence():
    frame = pd.DataFrame({"n": [1.0, 2, 3], "c": ["a", "b", "b"], "when": ["2020-01-01"] * 2 + [""], "y": [0, 1, 1]})
    facts = described(mixed_frame(frame, "y", rare=1))
    encoder = facts["reading"]["encoder"]
    assert frame_rows(frame, facts).x.shape == (3, len(facts["columns"]))
    wrong = [
        "text",
        [1],
        [{"name": "n"}],
        [{"name": "n", "kind": "pickle"}],
        [{"name": "n", "kind": "number", "decimal": "x"}],
        [{"name": "n", "kind": "text", "bins": 10**9}],
        [{"name": "n", "kind": "number", "evil": 1}],
        encoder[:1],
        [*encoder, {"name": "n", "kind": "text", "bins": 3}],
        [{**encoder[0], "kind": "boolean", "levels": []}, *encoder[1:]],
        [*encoder[:2], {**encoder[2], "format": "%Q"}],
    ]
    for each in wrong:
        with pytest.raises(DataError) as error:
            frame_rows(frame, {**facts, "reading": {"encoder": each}})
        assert "\n" not in str(error.value) and len(str(error.value)) < 400
    for gaps in ([99], [-1]):
        with pytest.raises(DataError, match="holds no encoder that can be used: it gives"):
            frame_rows(frame, {**facts, "gaps": gaps})
    with pytest.raises(DataError, match="no encoder"):
        frame_rows(frame, {**facts, "reading": {**facts["reading"], "missing": 3.5j}})
