"""ARFF files against scipy's reader, sparse rows, Mulan's and MEKA's ways to name labels, and Yeast."""

import gzip
import importlib.util
import io
import os
import pathlib
import re

import numpy as np
import pandas as pd
import pytest
import scipy.io.arff
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtl.data import DataError, arff_table, load
from mtl.data.problems import Problems
from mtl.data.readers.arff import read_arff
from mtl.data.sets.yeast import LABELS
from tests.data.readers.damage import damaged, refusal

HEADER = """% a comment
@RELATION 'Pets: -C 2'

@attribute 'is ill' {0,1}
@attribute size {small,'very large',medium}
@attribute weight numeric
@ATTRIBUTE "it's" Real
@attribute colour {red,green,blue}
@attribute wild {no,yes}
@data
"""
DENSE = (
    HEADER
    + """0,small,1.5,2,red,no
% another

1,'very large',-2e1,3,blue,yes
?,medium , 0,4,green,no
"""
)
SPARSE = HEADER + "{2 1.5,3 2}\n{0 1, 1 'very large', 2 -2e1, 3 3, 4 blue, 5 yes}\n{0 ?,1 medium,3 4,4 green}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_DATA_DIR", str(tmp_path))
    return tmp_path


def write(folder, text, name="a.arff"):
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return name


@pytest.mark.parametrize("text", [DENSE, SPARSE])
def test_dense_and_sparse_rows_with_meka_s_count(folder, text):
    table = arff_table(write(folder, text, "a.arff.gz"))
    assert table.name == "a"
    assert [(t.name, t.kind, t.num_classes) for t in table.tasks] == [
        ("is ill", "binary", 0),
        ("size", "multiclass", 3),
    ]
    np.testing.assert_array_equal(table.mask["is ill"], [True, True, False])
    np.testing.assert_array_equal(table.labels["is ill"], [0, 1, 0])
    np.testing.assert_array_equal(table.labels["size"], [0, 1, 2])
    assert table.classes == {"size": ("small", "very large", "medium")}
    np.testing.assert_array_equal(
        table.x, np.array([[1.5, 2, 1, 0, 0, 0], [-20, 3, 0, 0, 1, 1], [0, 4, 0, 1, 0, 0]], np.float32)
    )
    assert load("arff", path="a.arff.gz").sha256 == table.sha256


def test_labels_by_name_by_xml_and_by_negative_count(folder):
    write(folder, DENSE)
    by_name = arff_table("a.arff", ["weight", "wild:binary"], ignore=["size", "is ill"])
    assert [(t.name, t.kind) for t in by_name.tasks] == [("weight", "regression"), ("wild", "binary")]
    assert by_name.classes == {"wild": ("no", "yes")}
    xml = '<?xml version="1.0" encoding="utf-8"?>\n<labels xmlns="http://mulan.sourceforge.net/labels">'
    write(folder, xml + '<label name="wild"><label name="is ill"></label></label></labels>', "a.xml")
    assert [t.name for t in arff_table("a.arff", xml="a.xml").tasks] == ["wild", "is ill"]
    write(folder, DENSE.replace("-C 2", "-C -1"), "b.arff")
    assert [t.name for t in arff_table("b.arff", missing_inputs="flag").tasks] == ["wild"]
    for text, sentence in (
        ("<labels><label></labels>", 'file "c.xml": damaged or truncated XML'),
        ("<labels></labels>", 'file "c.xml": has 0 labels'),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><labels/>", 'file "c.xml": declares a document type'),
        ('<labels><label name="q"/></labels>', 'file "a.arff", labels: "q" is no column'),
    ):
        write(folder, text, "c.xml")
        with pytest.raises(DataError, match=re.escape(sentence)):
            arff_table("a.arff", xml="c.xml")


def test_everything_wrong_at_once(folder):
    rows = "0,small,x,2,red,no\n2,small,1,2,red,no\n1,small,1\n0,small,inf,2,purple,no\n"
    rows += "{9 1}\n{0}\n{0 1\n0,'small,1,2,red,no\n"
    write(folder, HEADER + rows)
    with pytest.raises(DataError) as error:
        arff_table("a.arff")
    assert str(error.value).splitlines() == [
        'file "a.arff", line 11, column "weight": "x": must be a finite number, or ? (missing)',
        'file "a.arff", line 12, column "is ill": "2": must be one of 0, 1, or ? (missing)',
        'file "a.arff", line 13: 3 cells: must be 6, one an attribute',
        'file "a.arff", line 14, column "weight": "inf": must be a finite number, or ? (missing)',
        'file "a.arff", line 14, column "colour": "purple": must be one of red, green, blue, or ? (missing)',
        'file "a.arff", line 15: index 9: must be at most 5, each once',
        'file "a.arff", line 16: "0": a sparse row holds pairs of an index and a value',
        'file "a.arff", line 17: a sparse row without its closing brace',
        'file "a.arff", line 18: an unclosed quote, or text beside a quoted cell',
    ]


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("", {}, "has no @data"),
        ("@relation r\n@data\n1\n", {}, "line 2: @data before any @attribute"),
        ("@relation r\n@attribute a\n@attribute b thing\nhello\n", {}, 'line 4: "hello": must be @relation'),
        ("@relation r\n@attribute a {x,x}\n@data\nx\n", {}, "line 2: no attribute"),
        (HEADER, {}, "has no row under @data"),
        (DENSE.replace("-C 2", ""), {}, "labels: not given: name them"),
        (DENSE.replace("-C 2", "-C 6"), {}, "@relation says -C 6: must be from 1 to 5"),
        (DENSE.replace("numeric", "string"), {}, 'attribute "weight": is a string: must be ignored'),
        (DENSE.replace("1.5", "?"), {}, 'line 11, column "weight": 1 inputs missing, the first here'),
        (DENSE.replace("weight", "it's"), {}, 'column 4: the name "it\'s" is that of column 3 too'),
        (DENSE, {"max_bytes": 10**2}, "must be at most max_bytes = 100"),
        (HEADER + "{}\n" * 200, {"max_bytes": 5000}, "200 rows of 6 attributes: their cells must be at most"),
    ],
)
def test_what_is_refused(folder, text, options, sentence):
    write(folder, text)
    with pytest.raises(DataError, match=re.escape(sentence)):
        arff_table("a.arff", **options)


finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.one_of(st.none(), finite), st.sampled_from(["0", "1"]), finite), min_size=1, max_size=20
    ),
    sparse=st.booleans(),
)
def test_round_trip_is_what_scipy_reads(rows, sparse):
    head = "@relation r\n@attribute a numeric\n@attribute y {0,1}\n@attribute b real\n@data\n"
    cells = [["?" if a is None else repr(a), y, repr(b)] for a, y, b in rows]
    dense = head + "".join(",".join(row) + "\n" for row in cells)
    written = head + "".join("{" + ",".join(f"{i} {c}" for i, c in enumerate(row) if c != "0") + "}\n" for row in cells)
    read, _ = scipy.io.arff.loadarff(io.StringIO(dense))
    ours = read_arff(written if sparse else dense, "here", Problems()).cells
    np.testing.assert_array_equal(ours[:, 0], read["a"])
    np.testing.assert_array_equal(ours[:, 1], read["y"].astype(float))
    np.testing.assert_array_equal(ours[:, 2], read["b"])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), text=st.sampled_from([DENSE, SPARSE]))
def test_corruption_gives_a_data_error_or_a_table(folder, data, text):
    (folder / "c.arff").write_bytes(data.draw(damaged(text.encode())))
    said = refusal(lambda: arff_table("c.arff"))
    assert said is None or said.startswith('file "c.arff"')


def yeast_like(rows=40):
    """An ARFF file of Yeast's shape, made up."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(rows, 103)).round(6), rng.integers(0, 2, (rows, 14))
    head = "@relation MultiLabelData\n\n" + "".join(f"@attribute Att{i} numeric\n" for i in range(1, 104))
    head += "".join(f"@attribute {name} {{0,1}}\n" for name in LABELS) + "\n@data\n"
    return (
        x,
        y,
        head + "".join(",".join([*map(repr, a.tolist()), *map(str, b)]) + "\n" for a, b in zip(x, y, strict=True)),
    )


def test_yeast_from_mulans_file(folder):
    x, y, text = yeast_like()
    table = load("yeast", path=write(folder, text, "yeast.arff"))
    np.testing.assert_array_equal(table.x, x)
    np.testing.assert_array_equal(np.stack([table.labels[n] for n in LABELS], 1), y)
    assert [t.kind for t in table.tasks] == ["binary"] * 14
    assert "Elisseeff" in table.about


def test_yeast_without_a_file_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"no path given and no river installed. pip install --no-deps"):
        load("yeast", directory=".")


def test_yeast_from_river():
    """The real file: in an installed river, or in $MTL_DATA_DIR."""
    spec = importlib.util.find_spec("river")
    places = [pathlib.Path(os.environ.get("MTL_DATA_DIR", "."), "yeast.csv.gz")]
    if spec and spec.origin:
        places.append(pathlib.Path(spec.origin).parent / "datasets" / "yeast.csv.gz")
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        pytest.skip('yeast.csv.gz: no river installed and none in $MTL_DATA_DIR: pip install --no-deps "river==0.26.1"')
    table, frame = load("yeast", path=str(path.absolute())), pd.read_csv(path)
    assert table.x.shape == (2417, 103)
    np.testing.assert_array_equal(table.x, frame.iloc[:, :103].to_numpy())
    y = np.stack([table.labels[n] for n in LABELS], 1)
    np.testing.assert_array_equal(y, frame.iloc[:, 103:])
    assert round(float(y.mean()), 3) == 0.303
