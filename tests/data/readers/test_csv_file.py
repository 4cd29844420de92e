"""CSV files against pandas, and everything that can be wrong with them, with its line."""

import csv
import gzip
import hashlib
import io
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtl.data import csv_table, load, summary
from mtl.data.problems import DataError
from tests.data.readers.damage import damaged, refusal

PETS = """id,weight,height,pet,age,"healthy, now"
1,4.5,25,cat,3.5,1
2,9,40,dog,,0

3,"3.9",24,,1.5,
4,1e1,45,dog,2,1
"""


@pytest.fixture(autouse=True)
def field_limit():
    """The limit that Python begins with: scipy.io.arff lifts it for the whole process when it is imported."""
    before = csv.field_size_limit(131072)
    yield
    csv.field_size_limit(before)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_DATA_DIR", str(tmp_path))
    return tmp_path


def write(folder, text, name="a.csv"):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    return name


def refused(*sentences, path="a.csv", labels="y", **options):
    with pytest.raises(DataError) as error:
        csv_table(path, labels, **options)
    for sentence in sentences:
        assert sentence in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["pets.csv", "pets.csv.gz"])
def test_the_whole_way(folder, name):
    write(folder, PETS, name)
    options = {"labels": ["pet", "age:regression", "healthy, now"], "ignore": "id"}
    table = csv_table(name, **options)
    np.testing.assert_array_equal(table.x, np.array([[4.5, 25], [9, 40], [3.9, 24], [10, 45]]))
    assert table.name == "pets"
    assert [(t.name, t.kind) for t in table.tasks] == [
        ("pet", "binary"),
        ("age", "regression"),
        ("healthy, now", "binary"),
    ]
    assert table.classes == {"pet": ("cat", "dog")}
    np.testing.assert_array_equal(table.labels["pet"], [0, 1, 0, 1])
    np.testing.assert_array_equal(table.mask["pet"], [True, True, False, True])
    np.testing.assert_array_equal(table.labels["age"], [3.5, 0, 1.5, 2])
    np.testing.assert_array_equal(table.mask["healthy, now"], [True, True, False, True])
    assert load("csv", path=name, **options).sha256 == table.sha256
    assert summary(table).splitlines()[1] == (
        "pet           binary      3 labels, 25.0 % missing, 2 positive (66.7 %) (cat = 0, dog = 1)"
    )


def test_columns_by_pattern_groups_and_flags(folder):
    write(folder, "f1,f2,g,t1,t2\n1,,a,0,1\n2,3,b,1,0\n3,4,a,1,\n4,5,,0,1\n5,6,,0,1\n")
    refused('line 2, column "f2": 1 inputs missing, the first here: missing_inputs="flag"', labels="t*", ignore="g")
    table = csv_table("a.csv", ["t*:binary"], groups="g", missing_inputs="flag")
    np.testing.assert_array_equal(table.x, [[1, np.nan, 1], [2, 3, 0], [3, 4, 0], [4, 5, 0], [5, 6, 0]])
    assert table.columns == ("f1", "f2", "f2 is missing")
    assert [t.name for t in table.tasks] == ["t1", "t2"]
    groups = table.groups
    assert groups[0] == groups[2]
    assert len(set(groups.tolist())) == 4  # rows without a group stand for themselves
    assert csv_table("a.csv", "t1", inputs="f1", ignore="g").x.shape == (5, 1)


def test_markers_are_missing_in_inputs_too_and_only_where_declared(folder):
    write(folder, "a,b,y\n1,?,0\n-1,2,1\n-1.0,nan,?\n 3 ,4,1\n")
    table = csv_table("a.csv", "y", missing=["?", -1], missing_inputs="flag")
    gap = np.nan
    np.testing.assert_array_equal(table.x, [[1, gap, 0, 1], [gap, 2, 1, 0], [gap, gap, 1, 1], [3, 4, 0, 0]])
    np.testing.assert_array_equal(table.mask["y"], [True, True, False, True])
    refused('line 2, column "b": "?": must be a number', missing=["-1"])


def test_everything_wrong_at_once(folder):
    write(folder, "a,b,y,z\n1,2,0,\n3,4\nx,5,2,\n6,7,1,,9\n8,1e39,1,\n")
    message = refused(
        'file "a.csv", line 3: 2 cells: must be 4, as in the first record',
        'file "a.csv", line 4, column "a": "x": must be a number, finite in float32',
        'file "a.csv", line 4, column "y": label 2: must be 0, 1 or missing',
        'file "a.csv", line 5: 5 cells: must be 4',
        'file "a.csv", line 6, column "b": "1e39": must be a number, finite in float32',
        'file "a.csv", column "z": all 3 labels are missing',
        labels=["y:binary", "z"],
    )
    assert len(message.splitlines()) == 6
    write(folder, "a,y\n" + "x,0\nz,1\n" * 5000)
    message = refused('file "a.csv", line 2, column "a": "x": must be a number, finite in float32; 9,999 more rows')
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("", {}, 'file "a.csv": is empty'),
        ("\n\n", {}, 'file "a.csv": is empty'),
        ("a,y\n", {}, 'file "a.csv", has no row under its header'),
        ("a,y,a\n1,0,2\n", {}, 'column 3: the name "a" is that of column 1 too'),
        ("a,,y\n1,0,2\n", {}, "column 2: has no name"),
        ("a,y\n1,0\n", {"labels": "z"}, 'labels: "z" is no column: Valid: a, y'),
        ("a,weight\n1,0\n", {"labels": "wieght"}, 'labels: "wieght" is no column: did you mean "weight"?'),
        ("a,y\n1,0\n", {"labels": "y:binry"}, 'labels: "y" has kind "binry": did you mean "binary"?'),
        ("a,y\n1,0\n", {"labels": ["y", "a"]}, "inputs: none"),
        ("a,y\n1,0\n", {"labels": []}, "labels: none"),
        ("a,y\n1,0\n", {"inputs": "y"}, 'inputs: "y" is a label too'),
        ("a,y\n1,0\n", {"inputs": ["a", "b"]}, 'inputs: "b" is no column'),
        ("a,y\n1,0\n", {"ignore": "y"}, 'ignore: "y" is a label too'),
        ("a,y\n1,0\n", {"groups": "y"}, 'groups: "y" is a label too'),
        ("a,y\n1,0\n", {"classes": [("z", "a", "b")]}, 'classes: "z" is no label'),
        ("a,y\n1,0\n", {"missing_inputs": "mean"}, 'missing_inputs = "mean": must be "error" or "flag"'),
        ("a,y\n1,0\n", {"delimiter": ",,"}, 'delimiter = ",,": must be one character'),
        (b"a,y\n1,0\n\xff,1\n", {}, 'file "a.csv", line 3: byte 0xff is not UTF-8'),
        ('a,y\n1,0\n2,"1\n', {}, "line 3: unexpected end of data: the rest of the file was not read"),
        ("a,y\n" + "1" * 200_000 + ",0\n", {}, "line 2: field larger than field limit"),
        ("a,y\n1,0\n1_0,1\n", {}, 'line 3, column "a": "1_0": must be a number'),
        ("a,y\n1,0\n", {"max_bytes": 5}, "8 bytes: must be at most max_bytes = 5"),
    ],
)
def test_what_is_refused(folder, text, options, sentence):
    write(folder, text)
    refused(sentence, **options)


def test_lines_count_records_that_span_several(folder):
    write(folder, 'a,note,y\r\n1,"two\r\nlines",0\r\nx,one,1\r\n')
    refused('line 4, column "a": "x"', ignore="note")


def test_files_that_are_not_the_right_ones(folder):
    write(folder, PETS, "pets.csv.gz")
    data = (folder / "pets.csv.gz").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    assert len(csv_table("pets.csv.gz", "pet", ignore="*age", inputs="weight", sha256=digest)) == 4
    refused(f"sha256 {digest}: must be {'0' * 64}", path="pets.csv.gz", labels="pet", sha256="0" * 64)
    (folder / "cut.csv.gz").write_bytes(data[:-12])
    refused('file "cut.csv.gz": damaged or truncated gzip', path="cut.csv.gz")
    (folder / "plain.csv.gz").write_text(PETS)
    refused("damaged or truncated gzip", path="plain.csv.gz")
    write(folder, b"a,y\n" + b"0,0\n" * 10**6, "bomb.csv.gz")
    refused("more than max_bytes = 100,000 bytes once decompressed", path="bomb.csv.gz", max_bytes=100_000)


def test_paths_outside_the_data_directory(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write(other, "a,y\n1,0\n2,1\n")
    refused('file "nope.csv": does not exist', path="nope.csv")
    refused("leaves the data directory", path=f"../{other.name}/a.csv")
    (folder / "link.csv").symlink_to(other / "a.csv")
    refused("leaves the data directory", path="link.csv")
    refused("leaves the data directory", path=str(other / "a.csv"), directory=str(folder))
    refused("cannot be read", path=".")
    refused("must be the path of a file", path="")
    refused("cannot be looked up", path="x" * 5000)
    assert len(csv_table(str(other / "a.csv"), "y")) == 2  # an absolute path is meant


def test_a_file_that_changes_is_read_again(folder, tmp_path_factory, monkeypatch):
    write(folder, "a,y\n1,0\n2,1\n")
    first = load("csv", path="a.csv", labels="y")
    assert load("csv", path="a.csv", labels="y") is first
    write(folder, "a,y\n1,0\n2,1\n3,1\n")
    assert len(load("csv", path="a.csv", labels="y")) == 3
    other = tmp_path_factory.mktemp("other")
    write(other, "a,y\n7,0\n2,1\n")
    monkeypatch.setenv("MTL_DATA_DIR", str(other))
    assert load("csv", path="a.csv", labels="y").x[0, 0] == 7
    (other / "a.csv").unlink()
    with pytest.raises(DataError, match="does not exist"):
        load("csv", path="a.csv", labels="y")


def test_an_error_survives_the_way_out_of_a_worker_process(folder):
    write(folder, "a,y\n" + "1,2,3\n" * 58 + "x,2\n" * 30)
    with pytest.raises(DataError) as error:
        csv_table("a.csv", "y:binary")
    copy = pickle.loads(pickle.dumps(error.value))  # noqa: S301
    assert (str(copy), copy.count, copy.sentences) == (str(error.value), 60, error.value.sentences)


finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(finite, finite, st.sampled_from(["0", "1", ""])), min_size=1, max_size=30),
    compress=st.booleans(),
)
def test_round_trip_is_what_pandas_reads(folder, rows, compress):
    if not any(label for *_, label in rows):
        return
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([("a", "b", "y"), *((repr(a), repr(b), y) for a, b, y in rows)])
    name = write(folder, buffer.getvalue(), "r.csv.gz" if compress else "r.csv")
    table, frame = csv_table(name, "y:binary"), pd.read_csv(folder / name)
    np.testing.assert_array_equal(table.x, frame[["a", "b"]].to_numpy().astype(np.float32))
    np.testing.assert_array_equal(table.mask["y"], frame["y"].notna())
    np.testing.assert_array_equal(table.labels["y"], frame["y"].fillna(0).to_numpy().astype(np.float32))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), compress=st.booleans())
def test_corruption_gives_a_data_error_or_a_table(folder, data, compress):
    write(folder, PETS, "c.csv.gz" if compress else "c.csv")
    path = folder / ("c.csv.gz" if compress else "c.csv")
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    said = refusal(lambda: csv_table(path.name, ["pet", "age"], ignore=["id", "healthy*"]))
    assert said is None or said.startswith(f'file "{path.name}"')


def test_a_large_file_in_little_time(folder):
    rows = np.random.default_rng(0).integers(0, 2, (20_000, 20))
    text = ",".join(f"c{i}" for i in range(20)) + "\n" + "\n".join(",".join(map(str, r)) for r in rows.tolist())
    write(folder, text)
    table = csv_table("a.csv", "c19")
    np.testing.assert_array_equal(table.x, rows[:, :19])
    np.testing.assert_array_equal(table.labels["c19"], rows[:, 19])
