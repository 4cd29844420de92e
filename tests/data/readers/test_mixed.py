"""Tables of mixed columns: what each is taken for, how it is encoded, and what is said."""

import gzip
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.preprocessing import OneHotEncoder

from mtl.data import DataError, load, mixed_frame, mixed_table
from mtl.data.readers.cells import Missing
from mtl.data.readers.encoder import from_json, read_later
from tests.data.readers.damage import damaged, refusal

ROWS = 500
WORDS = ["kommt", "wieder", "müde", "Fieber", "Husten", "gut"]


def german(value, digits=2):
    return f"{value:,.{digits}f}".translate(str.maketrans(",.", ".,"))


def messy(seed=0):
    """A table as a European office writes it: every kind of column; its texts."""
    rng = np.random.default_rng(seed)
    salary, share = rng.uniform(900, 9000, ROWS), rng.uniform(0, 100, ROWS)
    born = pd.to_datetime("1950-01-01") + pd.to_timedelta(rng.integers(0, 20_000, ROWS), unit="D")
    ill = rng.random(ROWS) < 0.3
    frame = pd.DataFrame(
        {
            "Kunde": [f"K{i:05d}" for i in rng.permutation(ROWS)],
            "Größe": [german(v, 1) for v in rng.normal(170, 10, ROWS)],
            "Gehalt": [f"{german(v)} €" for v in salary],
            "Anteil": [f"{german(v, 1)} %" for v in share],
            "Stadt": rng.choice(["Köln", "Zürich", "Bern", "Åre"], ROWS, p=[0.5, 0.3, 0.195, 0.005]),
            "Raucher": rng.choice(["ja", "nein"], ROWS),
            "geboren": born.strftime("%d.%m.%Y"),
            "Uhrzeit": [f"{h:02d}:{m:02d}" for h, m in rng.integers(0, (24, 60), (ROWS, 2))],
            "Notiz": [" ".join(words) for words in rng.choice(WORDS, (ROWS, 4))],
            "Land": "CH",
            "krank": np.where(ill, "ja", "nein"),
            "Dosis": [german(v, 1) for v in 5 + 10 * ill + rng.normal(0, 1, ROWS)],
        }
    )
    frame.loc[rng.choice(ROWS, 25, replace=False), "Größe"] = ""
    frame.loc[rng.choice(ROWS, 10, replace=False), "Stadt"] = "k. A."
    frame.loc[rng.choice(ROWS, 15, replace=False), "Dosis"] = ""
    return frame


@pytest.fixture(scope="module")
def office(tmp_path_factory):
    folder = tmp_path_factory.mktemp("office")
    messy().to_csv(folder / "kunden.csv", sep=";", index=False, encoding="cp1252")
    return folder, mixed_table("kunden.csv", labels=("krank", "Dosis"), missing="k. A.", directory=str(folder))


def column(table, name):
    return table.x[:, table.columns.index(name)]


def test_a_messy_table_is_read_as_pandas_reads_it_when_it_is_told(office):
    folder, table = office
    own = pd.read_csv(
        folder / "kunden.csv",
        sep=";",
        decimal=",",
        thousands=".",
        encoding="cp1252",
        na_values=["k. A."],
        dtype={"geboren": str},
    )
    np.testing.assert_array_equal(column(table, "Größe"), own["Größe"])
    np.testing.assert_array_equal(column(table, "Größe is missing"), own["Größe"].isna())
    for name, unit in (("Gehalt", " €"), ("Anteil", " %")):
        numbers = own[name].str.removesuffix(unit).str.replace(".", "").str.replace(",", ".").astype(float)
        np.testing.assert_allclose(column(table, name), numbers / (100 if name == "Anteil" else 1), rtol=1e-12)
    np.testing.assert_array_equal(column(table, "Raucher"), own["Raucher"] == "ja")
    born = pd.to_datetime(own["geboren"], format="%d.%m.%Y")
    np.testing.assert_array_equal(column(table, "geboren"), (born - pd.Timestamp(0)).dt.days)
    hours = pd.to_timedelta(own["Uhrzeit"] + ":00") / pd.Timedelta(days=1)
    np.testing.assert_allclose(column(table, "Uhrzeit: cos of the day"), np.cos(2 * np.pi * hours), atol=1e-9)
    words = HashingVectorizer(
        n_features=64, binary=True, norm=None, alternate_sign=False, token_pattern=r"(?u)\b\w+\b"
    ).transform(own["Notiz"])
    bins = [table.columns.index(f"Notiz#{i}") for i in range(64)]
    np.testing.assert_array_equal(table.x[:, bins], words.toarray())
    cities = own["Stadt"].dropna()
    encoder = OneHotEncoder(min_frequency=3, handle_unknown="ignore", sparse_output=False)
    levels = encoder.fit_transform(cities.to_frame())
    names = [f"Stadt={c}" for c in encoder.categories_[0] if (cities == c).sum() >= 3]
    found = table.x[:, [table.columns.index(name) for name in names]]
    np.testing.assert_array_equal(found[cities.index], levels[:, : len(names)])
    assert not found[own["Stadt"].isna()].any() and column(table, "Stadt is missing").sum() == own["Stadt"].isna().sum()
    np.testing.assert_array_equal(table.labels["krank"], own["krank"] == "ja")
    np.testing.assert_array_equal(table.labels["Dosis"][table.mask["Dosis"]], own["Dosis"].dropna())


def test_each_decision_is_said_with_the_option_that_changes_it(office):
    _, table = office
    said = "\n".join(table.told)
    for sentence in (
        'file "kunden.csv": read as cp1252; encoding= changes that',
        'column "Kunde": an id, dropped (500 different codes); kinds={"Kunde": "category"} keeps it',
        'column "Größe": numbers with a decimal comma, 25 missing; kinds={"Größe": "category"} or ignore="Größe"',
        'column "Gehalt": numbers with a decimal comma in €;',
        'column "Anteil": numbers with a decimal comma in %;',
        'column "Raucher": booleans, 1 is "ja" and 0 "nein"; kinds={"Raucher": "category"}',
        'column "geboren": dates as %d.%m.%Y: days, and where in the week and the year;',
        'column "Uhrzeit": dates as %H:%M: days, and where in the day;',
        'column "Notiz": texts, whose words are hashed into 64 inputs; kinds={"Notiz": "category"}',
        'column "Land": dropped, as it is always "CH"; kinds={"Land": "category"} keeps it',
        'label "krank": 1 is "ja"',
        'classes={"krank": ("ja", "nein")} turns it round',
        'label "Dosis": numbers,',
    ):
        assert sentence in said
    assert len(table.told) >= 13 and table.decided == len(table.told)
    assert all("\n" not in sentence for sentence in table.told)


def test_labels_never_are_inputs(office):
    _, table = office
    assert not [name for name in table.columns if name.startswith(("krank", "Dosis"))]
    assert not [c for c in table.reading["encoder"] if c["name"] in ("krank", "Dosis")]


def test_a_row_is_encoded_alike_alone_among_others_and_in_any_order_of_columns(office):
    folder, table = office
    frame = pd.read_csv(folder / "kunden.csv", sep=";", dtype=str, encoding="cp1252", keep_default_na=False)
    inputs = frame.drop(columns=["krank", "Dosis"])
    whole = mixed_frame(frame, ("krank", "Dosis"), missing="k. A.")
    np.testing.assert_array_equal(whole.x, table.x)
    assert whole.columns == table.columns
    rng = np.random.default_rng(1)
    flags = sum(name.endswith(" is missing") and not name.startswith("Stadt") for name in table.columns)
    for rows in ([7], rng.permutation(ROWS)[:31], np.arange(ROWS)):
        cells = {c: inputs[c].to_numpy(object)[rows] for c in rng.permutation(inputs.columns)}
        x, told = read_later(from_json(table.reading["encoder"]), cells, Missing("k. A."), str)
        np.testing.assert_array_equal(x, table.x[rows][:, : table.x.shape[1] - flags])
        assert not told


def test_files_of_all_kinds_are_one_table(office, tmp_path):
    folder, table = office
    text = (folder / "kunden.csv").read_bytes().decode("cp1252")
    ways = {
        "bom.csv": text.encode("utf-8-sig"),
        "wide.csv": text.encode("utf-16"),
        "bare.txt": text.encode("utf-16-le"),
        "packed.csv.gz": gzip.compress(text.encode()),
        "tabs.tsv": text.replace(";", "\t").encode("latin-1", "replace"),
    }
    for name, data in ways.items():
        (tmp_path / name).write_bytes(data)
        other = mixed_table(name, ("krank", "Dosis"), missing="k. A.", directory=str(tmp_path), kinds=("Gehalt:text",))
        np.testing.assert_array_equal(other.x[:, 0], table.x[:, 0])
        np.testing.assert_array_equal(other.labels["Dosis"], table.labels["Dosis"])
    pytest.importorskip("pyarrow", reason='needs the extra: pip install "mtl[parquet]"')
    pd.read_csv(folder / "kunden.csv", sep=";", dtype=str, encoding="cp1252").to_parquet(tmp_path / "k.parquet")
    other = mixed_table("k.parquet", ("krank", "Dosis"), missing="k. A.", directory=str(tmp_path))
    np.testing.assert_array_equal(other.x, table.x)


def test_a_config_gives_dictionaries(office):
    folder, _ = office
    table = load(
        "table",
        path=str(folder / "kunden.csv"),
        labels={"krank": "binary"},
        classes={"krank": ["ja", "nein"]},
        kinds={"Land": "category", "Kunde": "text"},
        ignore=("Dosis", "Stadt"),
    )
    assert table.classes["krank"] == ("ja", "nein")
    assert "Land=CH" in table.columns and "Kunde#0" in table.columns


def refused(frame, *sentences, **options):
    with pytest.raises(DataError) as error:
        mixed_frame(frame, **{"labels": "y", **options})
    for sentence in sentences:
        assert re.search(sentence, str(error.value)), str(error.value)
    return error.value


def test_everything_wrong_is_said_at_once_a_line_a_column():
    rows = 12_100
    frame = pd.DataFrame(
        {
            "a": ["unknown" if i % 10 == 0 else str(i / 7) for i in range(rows)],
            "b": ["?" if i % 2 else str(i / 3) for i in range(rows)],
            "when": ["never" if i == 3 else "2020-01-01" for i in range(rows)],
            "y": ["?" if i > 30 else str(i / 3) for i in range(rows)],
            "z": [i % 2 for i in range(rows)],
        }
    )
    frame.loc[5, "when"] = "2021-05-05"
    error = refused(
        frame,
        r'row 0 and 1,209 more, column "a": "unknown": must be a number; missing=\("unknown",\) .* or kinds={"a": "cat',
        r'row 1 and 6,049 more, column "b": "\?": must be a number; missing=\("\?",\)',
        r'row 3, column "when": "never": must be a date, as 2024-12-31; missing=\("never",\)',
        r'row 31, column "y": label \?: .*; 12,068 more rows',
        labels=("y:regression", "z"),
    )
    assert error.count == 4


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kinds": ("a:numbr",)}, r'kinds: "a:numbr": must be COLUMN:KIND: did you mean "number"\?'),
        ({"kinds": ("q:number",)}, 'kinds: "q" is no input column'),
        ({"kinds": ("a:number:%d",)}, "only dates have a format"),
        ({"kinds": {"a": "date:%Q"}}, 'kinds: "a:date:%Q": "%Q" is no format of dates, as %d.%m.%Y is'),
        ({"ignore": ("a", "b")}, "inputs: none"),
        ({"missing_inputs": "error"}, 'column "b": 1 inputs missing: missing_inputs="flag" takes the mean'),
        ({"max_bytes": 50, "directory": "."}, "unexpected"),
    ],
)
def test_what_is_refused(options, sentence):
    frame = pd.DataFrame({"a": [1.0, 2, 3], "b": [1.0, None, 4], "y": [0, 1, 1]})
    if "max_bytes" in options:
        with pytest.raises(TypeError, match=sentence):
            mixed_frame(frame, "y", **options)
    else:
        refused(frame, sentence, **options)


def test_inputs_of_one_name_are_refused():
    frame = pd.DataFrame({"c=a": [1.5, 2, 3], "c": ["a", "b", "a"], "y": [0, 1, 1]})
    refused(frame, 'columns "c=a" and "c" would both be the input "c=a": rename one', rare=1)


def test_hostile_tables_keep_their_bounds(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_DATA_DIR", str(tmp_path))
    (tmp_path / "big.csv").write_text("a,y\n" + "1,0\n" * 1000)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b"a,y\n" + b"1,0\n" * 100_000))
    (tmp_path / "wide.csv").write_text("t,y\n" + "".join(f"word{i} and more{i},{i % 2}\n" for i in range(60)))
    (tmp_path / "bytes.csv").write_bytes(bytes(range(256)) * 4)
    for name, options, sentence in (
        ("big.csv", {"max_bytes": 1000}, "must be at most max_bytes = 1,000"),
        ("bomb.csv.gz", {"max_bytes": 1000}, "more than max_bytes = 1,000"),
        ("wide.csv", {"max_bytes": 5000, "bins": 4096}, "60 rows of 4,096 inputs: must be at most max_bytes = 5,000"),
        ("bytes.csv", {}, "is no text in utf-8-sig: must be a text file"),
        ("big.csv", {"encoding": "rot13"}, 'encoding = "rot13": must be a text encoding'),
        ("a.exe", {}, "does not exist"),
    ):
        with pytest.raises(DataError, match=re.escape(sentence)):
            mixed_table(name, "y", **options)
    (tmp_path / "a.exe").write_text("")
    with pytest.raises(DataError, match=r'"a\.exe": must end in \.csv, \.tsv'):
        mixed_table("a.exe", "y")


def test_excel_is_read_or_its_extra_named(tmp_path):
    frame = pd.DataFrame({"a": [1.5, 2.5, 3.5], "b": ["x", "y", "x"], "y": ["no", "yes", "yes"]})
    try:
        frame.to_excel(tmp_path / "a.xlsx", index=False)
    except ImportError:
        (tmp_path / "a.xlsx").write_bytes(b"PK")
        with pytest.raises(
            DataError, match=re.escape('need openpyxl, which is not installed: pip install "mtl[excel]"')
        ):
            mixed_table("a.xlsx", "y", directory=str(tmp_path))
        return
    table = mixed_table("a.xlsx", "y", directory=str(tmp_path), rare=1)
    np.testing.assert_array_equal(table.x, mixed_frame(frame, "y", rare=1).x)


def test_what_was_not_seen_in_training_is_said_or_named():
    frame = pd.DataFrame({"n": [1.0, 2, 3], "c": ["a", "b", "b"], "t": ["no", "yes", "no"], "y": [0, 1, 1]})
    encoder = from_json(mixed_frame(frame, "y", rare=1).reading["encoder"])
    cells = {"t": ["yes", ""], "n": ["", "4"], "c": ["b", "zebra"]}
    x, told = read_later(encoder, {k: np.array(v, object) for k, v in cells.items()}, Missing(), "row {}".format)
    np.testing.assert_allclose(x, [[2, 0, 1, 1], [4, 0, 0, 1 / 3]])
    assert [t.partition(":")[0] for t in told] == ['column "n"', 'column "c"', 'column "t"']
    assert '1 cell holds "zebra", not seen in training: 0 for every level' in told[1]
    with pytest.raises(DataError) as error:
        read_later(encoder, {"n": np.array(["many"], object)}, Missing(), "row {}".format)
    assert str(error.value).splitlines() == [
        'has no column "c" (category), which the model needs',
        'has no column "t" (boolean), which the model needs',
    ]


def test_leaks_and_near_copies_are_told():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    frame = pd.DataFrame(
        {
            "noise": rng.normal(size=60),
            "after": y + rng.uniform(0, 0.4, 60),
            "drug": np.where(y, rng.choice(["a", "b"], 60), rng.choice(["c", "d"], 60)),
            "y": y,
            "dose": rng.normal(size=60),
        }
    )
    frame["grams"] = 1000 * frame["dose"] + 3
    told = "\n".join(mixed_frame(frame, ("y", "dose")).told)
    for name, label in (("after", "y"), ("drug", "y"), ("grams", "dose")):
        assert f'column "{name}" alone tells the label "{label}": ignore=("{name}",)' in told
    assert told.count("alone tells") == 3 and "repeat" not in told
    flat = mixed_frame(frame.assign(dose=2.5), ("y", "dose"))
    assert 'label "dose": always 2.5, so that there is nothing to learn' in "\n".join(flat.told)
    twice = pd.concat([frame, frame[:4].assign(noise=frame["noise"] + 1e-7)])
    assert "4 rows repeat the inputs of an earlier one (4 of them nearly)" in mixed_frame(twice, ("y", "dose")).told[-1]


cell = st.one_of(st.text(max_size=6), st.floats(width=32), st.integers(), st.booleans(), st.none(), st.dates())


@settings(max_examples=60, deadline=None)
@given(cells=st.lists(cell, min_size=3, max_size=25), seed=st.integers(0, 9))
def test_any_column_is_encoded_alike_by_row_or_refused_in_one_line(cells, seed):
    values = np.empty(len(cells), object)
    values[:] = cells
    frame = pd.DataFrame({"c": values, "n": np.arange(len(cells)) / 7, "y": np.arange(len(cells)) % 2})
    try:
        table = mixed_frame(frame, "y", rare=1, levels=25)
    except DataError as error:
        told = str(error)
        assert "\n" not in told and 'column "c"' in told
        return
    order = np.random.default_rng(seed).permutation(len(cells))
    encoder = table.reading["encoder"]
    kept = sum(c.get("gaps", False) for c in encoder if c["kind"] in ("category", "text"))
    width = kept + sum(not name.endswith("is missing") for name in table.columns)
    x, told = read_later(from_json(encoder), {k: frame[k].to_numpy(object)[order] for k in ("n", "c")}, Missing(), str)
    np.testing.assert_array_equal(x, table.x[order][:, :width])
    assert not told


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_gives_a_data_error_or_a_table(tmp_path, data):
    path = tmp_path / "c.csv"
    path.write_bytes(data.draw(damaged(messy()[:12].to_csv(sep=";", index=False).encode("utf-16"))))
    said = refusal(lambda: mixed_table(str(path), ("krank", "Dosis"), rare=1))
    assert said is None or said.startswith('file "c.csv"')
