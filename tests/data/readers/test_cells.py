"""One canonical value for a cell: the same classes, masks and groups in every container, encoding, dtype and order."""

import csv
import io
import unicodedata
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mtl.config import default, flatten, override, resolve
from mtl.data import (
    Asked,
    DataError,
    arff_table,
    arrays_table,
    csv_table,
    frame_table,
    make_table,
    npz_table,
    parquet_table,
    summary,
    transfer_split,
)
from mtl.data.describe import description, text
from mtl.data.readers.cells import Missing, canonical, plain, quantity, spelled
from mtl.data.readers.columns import choose
from mtl.data.readers.labels import SUSPECTS
from mtl.tasks import Task


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("cells")


# --- one cell ---


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=6), st.sampled_from(["", " ", "\t", "\u00a0", "\ufeff", "\u2003", " \u200b "]))
def test_blanks_and_unicode_forms_change_nothing_and_spelling_again_neither(name, blank):
    once = spelled(name)
    for form in ("NFC", "NFD"):
        assert spelled(blank + unicodedata.normalize(form, name) + blank) == once
    assert once is None or spelled(once) == once


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.integers(-(10**25), 10**25), st.floats(allow_nan=False, allow_infinity=False)))
def test_a_number_is_one_value_however_programs_write_it(value):
    """The oracle is Python's exact decimal arithmetic."""
    exact = Decimal(str(value))
    ways = [str(value), f"{exact:f}", f"{exact:e}", f"{exact:.40e}", f"{exact:.40E}"]
    ways = [w for w in ways if Decimal(w) == exact]
    assert {plain(w) for w in ways} == {plain(str(value))} != {None}
    assert Decimal(plain(str(value))) == exact == quantity(str(value))


@settings(max_examples=300, deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=3), st.decimals(allow_nan=False, allow_infinity=False))
@example(Decimal(9007199254740993), Decimal(9007199254740992))
def test_two_numbers_are_never_one_value(one, two):
    assume(abs(one.adjusted()) < 1000 and abs(two.adjusted()) < 1000)
    assert (plain(f"{one:f}") == plain(f"{two:f}")) == (one == two)


@pytest.mark.parametrize(
    "code", ["007", "-01", "00", "1E10", "1e3", "12E4567", "0x10", "1_0", "١", "１", "1.2.3", ".", "e"]
)
def test_codes_are_no_numbers(code):
    assert plain(code) is None
    assert canonical([code, "2"], Missing()) == [spelled(code), "2"]


# --- labels ---


def read(cells, labels="y", **options):
    """Return (kind, classes of the present rows) of a column of texts in a CSV file, by way of a frame of texts."""
    table = frame_table(
        pd.DataFrame({"x": np.arange(len(cells)), "y": pd.Series(cells, dtype=object)}), labels, **options
    )
    names = table.classes.get("y")
    return table, [
        None if not there else names[int(v)] if names else float(v)
        for v, there in zip(table.labels["y"], table.mask["y"], strict=True)
    ]


def test_a_class_called_nan_that_is_declared_is_a_class():
    cells = ["Nan", "Phrae", "Tak", "Nan", None]
    assert read(cells, classes=[("y", "Nan", "Phrae", "Tak")])[1] == cells
    assert read(["nan", "0", "1"], classes=[("y", "0", "1")])[1] == [None, 0.0, 1.0]
    # What is declared for the column stands above what is missing elsewhere.
    assert read(["NA", "EU"], classes=[("y", "EU", "NA")], missing="NA")[1] == ["NA", "EU"]


@pytest.mark.parametrize("kind", ["", ":multiclass"])
@pytest.mark.parametrize("suspect", ["Nan", "nan", "NaN", "NA", "n/a", "none", "?", "-", "NULL", "<NA>"])
def test_what_could_mean_missing_among_texts_is_refused_undeclared(suspect, kind):
    with pytest.raises(DataError, match="declare missing="):
        read([suspect, "Phrae", "Tak"], f"y{kind}")
    assert read([suspect, "Phrae", "Tak"], f"y{kind}", missing=suspect)[1] == [None, "Phrae", "Tak"]


def test_nan_is_missing_among_numbers_and_words_for_infinity_are_texts_among_texts():
    assert read(["1.0", "0.0", "", "1", "nan", "NaN"])[1] == [1, 0, None, 1, None, None]
    assert read(["inf", "sup", "inf"])[1] == ["inf", "sup", "inf"]
    assert read(["Infinity", "Visa"])[1] == ["Infinity", "Visa"]
    with pytest.raises(DataError, match="must be finite"):
        read(["inf", "1", "2"])


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["01", "1", "001", "2"], ("001", "01", "1", "2")),
        (["1e3", "1000", "2e3"], ("1000", "1e3", "2e3")),
        (["1E10", "1E11", "10000000000"], ("10000000000", "1E10", "1E11")),
        (["250.0", "250.00", "V45"], ("250.0", "250.00", "V45")),
    ],
)
def test_codes_stay_apart_and_that_is_told(cells, classes):
    with pytest.warns(UserWarning, match="are two classes, though one number"):
        table, found = read(cells, "y:multiclass")
    assert (found, table.classes["y"]) == (cells, classes)
    for told in (summary(table), text(description(table))):
        assert "are two classes, though one number" in told
    # Declared, they are meant.
    assert read(cells, classes=[("y", *classes)])[1] == cells


def test_many_codes_are_not_taken_for_numbers():
    codes = [f"{i:03}" for i in range(40)]
    with pytest.raises(DataError, match='is "000" a code or a number'):
        read(codes)
    assert read(codes, "y:multiclass")[1] == codes
    np.testing.assert_array_equal(read(codes, "y:regression")[0].labels["y"], np.arange(40))


def test_large_numbers_are_not_rounded_into_one_class():
    cells = ["9007199254740992", "9007199254740993", "9007199254740994"]
    assert read(cells, "y:multiclass")[1] == cells
    assert read([int(c) for c in cells], "y:multiclass")[1] == cells


def test_spellings_of_one_class_are_one_and_that_is_told():
    table, found = read(["caf\u00e9", "cafe\u0301", "th\u00e9 ", "th\u00e9"])
    assert found == ["caf\u00e9", "caf\u00e9", "th\u00e9", "th\u00e9"]
    assert "are one class, and 1 more such" in summary(table)
    assert '"1" and "1.0" are one class' in summary(read(["1", "1.0", "2"])[0])


@pytest.mark.parametrize(("one", "two"), [("Yes", "yes"), ("CO₂", "CO2"), ("a  b", "a b"), ("Ａ", "A")])
def test_classes_that_look_alike_are_refused_unless_declared(one, two):
    with pytest.raises(DataError, match="differ"):
        read([one, two, "other"])
    assert read([one, two, "other"], classes=[("y", one, two, "other")])[1] == [one, two, "other"]


@pytest.mark.parametrize(
    "classes", [[("y", "a", "a ")], [("y", "a", " ")], {"y": ["caf\u00e9", "cafe\u0301"]}, {"y": ["1", "1 "]}]
)
def test_declared_classes_that_are_one_are_refused(classes):
    with pytest.raises(DataError, match="must differ, and not be blank"):
        read(["a", "b"], classes=classes)


DTYPES = [
    np.int8,
    np.int64,
    np.uint16,
    np.float16,
    np.float32,
    np.float64,
    object,
    str,
    "S2",
    "category",
    "Int64",
    "string",
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=20, deadline=None)
@given(values=st.lists(st.integers(0, 12), min_size=3, max_size=20), missing=st.lists(st.booleans(), min_size=20))
def test_a_dtype_changes_no_class_and_no_order(dtype, values, missing):
    assume(len(set(values)) > 2)
    want, _ = read([str(v) for v in values], "y:multiclass")
    column = (
        np.array(values).astype(dtype)
        if dtype not in ("category", "Int64", "string")
        else pd.Series(values, dtype=dtype)
    )
    if dtype == "category":  # Its order is that of the rows.
        column = pd.Series(pd.Categorical(values, categories=list(dict.fromkeys(values))))
    if isinstance(column, np.ndarray):
        found = arrays_table(np.eye(len(values)), {"y": column}, ["y:multiclass"])
    else:
        found = frame_table(pd.DataFrame({"x": 1.0, "y": column}), "y:multiclass")
    assert found.classes == want.classes
    np.testing.assert_array_equal(found.labels["y"], want.labels["y"])


def test_booleans_are_0_and_1_or_the_classes_that_are_declared():
    cells = np.array([True, False, True])
    for classes in ([("y", "0", "1")], [("y", "False", "True")], []):
        table = arrays_table(np.eye(3), {"y": cells}, classes=classes)
        assert table.labels["y"].tolist() == [1, 0, 1]
    assert arrays_table(np.eye(3), {"Gro\u0308\u00dfe ": cells}).tasks[0].name == "Gr\u00f6\u00dfe"


@pytest.mark.parametrize("cell", [[1], (1, 2), np.eye(2), {"a": 1}], ids=str)
@pytest.mark.parametrize("column", ["y", "who"])
def test_a_cell_holds_one_value(cell, column):
    frame = pd.DataFrame({"x": [1.0, 2], "y": ["a", "b"], "who": ["p", "q"]}, dtype=object)
    frame.at[1, column] = cell
    with pytest.raises(DataError, match=f'row 1, column "{column}": holds a {type(cell).__name__}: must be a number'):
        frame_table(frame, "y", inputs="x", groups="who")


def test_one_marker_need_not_stand_in_a_list():
    for marker in (99, 99.0, "99", ["99.0"]):
        frame = pd.DataFrame({"x": [1.0, 2, 3], "y": ["099", "99", "1"]})
        assert frame_table(frame, "y:multiclass", missing=[marker] if marker == 99 else marker).mask["y"].tolist() == [
            True,
            False,
            True,
        ]
    assert Missing(-1)("-1.0") and Missing(-1).number("-1.00") != Missing(-1).number("-1.00")


def test_an_ordered_category_keeps_its_order():
    cells = pd.Categorical(["low", "high", None], ["low", "mid", "high"], ordered=True)
    table = frame_table(pd.DataFrame({"x": [1.0, 2, 3], "y": cells}), "y")
    assert (table.classes["y"], table.labels["y"].tolist()) == (("low", "mid", "high"), [0, 2, 0])


@pytest.mark.parametrize(
    ("cells", "ids"),
    [([True, False], [1, 0]), (["True", "False"], [1, 0]), (["True", "True"], [1, 1]), ([None, True], [0, 1])],
)
def test_true_and_false_are_two_classes_also_where_one_is_seen(cells, ids):
    table, _ = read(cells)
    assert table.task("y").kind == "binary"
    assert table.labels["y"].tolist() == ids


# --- containers ---

LETTERS = st.characters(codec="utf-8", categories=["Ll", "Lu", "Nd", "Po", "Sm"], exclude_characters="'\"\\,{}%?\x00")
WORD = st.text(LETTERS, min_size=1, max_size=4).map(lambda t: spelled(t))
BLANK = st.sampled_from(["", " ", "\t", "\u00a0"])


#: What is refused or read otherwise where it stands among names.
NO_NAMES = {*SUSPECTS, "inf", "infinity"}


@st.composite
def columns(draw):
    """Return (what is true of each row, what stands there): texts or numbers, spelled anyhow, or blanks."""
    if draw(st.booleans()):
        names = draw(
            st.lists(WORD, min_size=2, max_size=5, unique_by=lambda t: unicodedata.normalize("NFKC", t).lower())
        )
        assume(not any(quantity(n) is not None or n.lower() in NO_NAMES for n in names))
        spell = lambda n: draw(BLANK) + unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), n) + draw(BLANK)  # noqa: E731
    else:
        names = [str(i) for i in draw(st.lists(st.integers(0, 300), min_size=2, max_size=5, unique=True))]
        spell = lambda n: draw(BLANK) + draw(st.sampled_from([n, f"{n}.0", f"{float(n):e}", f"+{n}"])) + draw(BLANK)  # noqa: E731
    truth = draw(st.lists(st.sampled_from([*names, None]), min_size=2, max_size=12))
    truth += names
    return truth, ["" if t is None else spell(t) for t in truth]


def as_csv(rows, ending, encoding):
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=ending).writerows(rows)
    return out.getvalue().encode(encoding)


def every_container(place, cells, who):
    """Yield the table of each container that can hold a label and a group a row."""
    rows = [["x", "y", "who"], *([i, c, w] for i, (c, w) in enumerate(zip(cells, who, strict=True)))]
    options = {"labels": "y:multiclass", "groups": "who"}
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be-mark"):
        for ending in ("\n", "\r\n", "\r"):
            data = as_csv(rows, ending, encoding.removesuffix("-mark"))
            data = b"\xfe\xff" + data if encoding.endswith("-mark") else data
            (place / "a.csv").write_bytes(data)
            yield csv_table("a.csv", directory=str(place), name="t", **options)
    frame = pd.DataFrame({"x": np.arange(len(cells)), "y": cells, "who": who})
    yield frame_table(frame, name="t", **options)
    yield frame_table(frame.replace("", None).astype({"y": "string", "who": "category"}), name="t", **options)
    frame.replace("", None).to_parquet(place / "a.parquet")
    yield parquet_table("a.parquet", directory=str(place), name="t", **options)
    frame.astype({"y": "category"}).to_parquet(place / "b.parquet")
    yield parquet_table("b.parquet", directory=str(place), name="t", **options)
    np.savez(place / "a.npz", x=np.arange(len(cells))[:, None], y=np.array(cells), who=np.array(who))
    yield npz_table("a.npz", directory=str(place), name="t", **options)
    bare = {"y": np.char.encode(cells, "utf-8")}
    yield arrays_table(np.arange(len(cells))[:, None], bare, ["y:multiclass"], np.array(who, object), name="t")


@settings(max_examples=15, deadline=None)
@given(column=columns(), data=st.data())
def test_containers_and_encodings_change_neither_classes_nor_masks_nor_groups(place, column, data):
    truth, cells = column
    people = data.draw(st.lists(st.integers(0, 3), min_size=len(truth), max_size=len(truth)))
    who = [f"{data.draw(BLANK)}M\u00fc{p}{data.draw(BLANK)}" for p in people]
    who = [unicodedata.normalize(data.draw(st.sampled_from(["NFC", "NFD"])), w) for w in who]
    names = sorted({t for t in truth if t}, key=lambda t: (quantity(t) or 0, t))
    tables = list(every_container(place, cells, who))
    for table in tables:
        assert table.classes.get("y", tuple(map(str, range(len(names))))) == tuple(names)
        np.testing.assert_array_equal(table.mask["y"], [t is not None for t in truth])
        np.testing.assert_array_equal(table.labels["y"], [names.index(t) if t else 0 for t in truth])
        np.testing.assert_array_equal(
            table.groups[:, None] == table.groups, np.array(people)[:, None] == np.array(people)
        )
    assert len({t.sha256 for t in tables}) == 1


@settings(max_examples=25, deadline=None)
@given(column=columns())
def test_an_arff_file_with_its_values_declared_in_order_is_the_csv_file(place, column):
    truth, cells = column
    names = sorted({t for t in truth if t}, key=lambda t: (quantity(t) or 0, t))
    assume(set(names) != {"0", "1"})
    rows = "\n".join(f"{i},{'?' if t is None else repr(t)}" for i, t in enumerate(truth))
    header = f"@relation r\n@attribute x numeric\n@attribute y {{{','.join(map(repr, names))}}}\n@data\n"
    (place / "a.arff").write_text(header + rows, encoding="utf-8")
    found = arff_table("a.arff", "y:multiclass", directory=str(place), name="t")
    frame = frame_table(pd.DataFrame({"x": np.arange(len(cells)), "y": cells}), "y:multiclass", name="t")
    assert found.sha256 == frame.sha256 and found.classes == frame.classes


@settings(max_examples=50, deadline=None)
@given(column=columns(), data=st.data())
def test_the_order_of_rows_changes_no_class(column, data):
    _, cells = column
    order = data.draw(st.permutations(range(len(cells))))
    one, other = read(cells, "y:multiclass")[0], read([cells[i] for i in order], "y:multiclass")[0]
    assert one.classes == other.classes and one.tasks == other.tasks
    np.testing.assert_array_equal(one.labels["y"][order], other.labels["y"])
    np.testing.assert_array_equal(one.mask["y"][order], other.mask["y"])


@settings(max_examples=100, deadline=None)
@given(
    cells=st.lists(
        st.sampled_from(["1", "1.0", "01", "nan", "", "A", "inf", 1, 1.0, True, None, "True", 0]),
        min_size=2,
        max_size=8,
    ),
    data=st.data(),
)
def test_nothing_about_a_column_depends_on_the_order_of_its_rows(cells, data):
    order = data.draw(st.permutations(range(len(cells))))
    found = []
    for some in (cells, [cells[i] for i in order]):
        try:
            with warnings.catch_warnings(action="ignore"):
                table, values = read(some, data.draw(st.just("y")))
        except DataError:
            found.append("refused")
        else:
            found.append((table.tasks, table.classes, values))
    if "refused" in found:
        assert found == ["refused", "refused"]
    else:
        assert found[0][:2] == found[1][:2]
        assert [found[0][2][i] for i in order] == found[1][2]


# --- groups ---

SPELLINGS = {
    "blank behind": lambda p, k: f"P{p:02d}" + " " * k,
    "1 and 1.0": lambda p, k: f"{p + 100}" + ".0" * k,
    "case": lambda p, k: f"{'Pp'[k]}{p:02d}",
    "NFC and NFD": lambda p, k: unicodedata.normalize(("NFC", "NFD")[k], f"M\u00fc{p}"),
    "leading zero": lambda p, k: f"{p:03d}" if k else f"{p}",
    "leading zero in a text": lambda p, k: f"P{p:03d}" if k else f"P{p}",
    "exponent": lambda p, k: f"{(p + 1) * 1000:e}" if k else f"{(p + 1) * 1000}",
    "wide": lambda p, k: f"{'PＰ'[k]}{p}",
    "blanks inside": lambda p, k: f"ward{' ' * (k + 1)}{p}",
    "mixed with texts": lambda p, k: f"{p}{'.0' * k}" if p else "control",
}


@pytest.mark.parametrize("what", SPELLINGS)
def test_no_spelling_lets_a_test_hold_a_trained_person(folder, what):
    rng = np.random.default_rng(0)
    people, k = np.repeat(np.arange(60), 8), np.tile(np.arange(8) % 2, 60)
    rows = [["a", "person", "src", "ill"]]
    rows += [[rng.normal(), SPELLINGS[what](p, i), i, p % 2] for p, i in zip(people, k, strict=True)]
    (folder / "g.csv").write_bytes(as_csv(rows, "\n", "utf-8"))
    with warnings.catch_warnings(record=True, action="always") as caught:
        table = csv_table("g.csv", ("src:binary", "ill:binary"), inputs="a", groups="person")
    assert table.told and all(str(w.message).split(": ", 1)[1] in table.told for w in caught)
    assert table.told[0] in summary(table)
    np.testing.assert_array_equal(table.groups, people)
    split = transfer_split(
        table,
        Asked(
            **{"source": ("src",), "targets": ("ill",), "seed": 0, "target_size": 60, "test_size": 120},
            **{"source_size": 120, "source_val_size": 40, "target_pool": 80, "val_fraction": 0.25},
        ),
    )
    trained = set(people[split.train["ill"] | split.train["src"] | split.val["ill"] | split.val["src"]])
    assert not trained & set(people[split.test["ill"]])


def test_what_is_taken_as_one_group_and_may_not_be_is_warned_of():
    with pytest.warns(UserWarning, match='"P1" and "p1" are taken as one group'):
        frame_table(pd.DataFrame({"a": [1.0, 2], "y": [0, 1], "g": ["P1", "p1"]}), "y", groups="g")
    with pytest.warns(UserWarning, match=r'"nan" is one group of 2 rows: if it is none, declare missing='):
        table = frame_table(pd.DataFrame({"a": [1.0, 2, 3], "y": [0, 1, 1], "g": ["nan", "x", "nan"]}), "y", groups="g")
    assert table.groups.tolist() == [0, 1, 0]
    frame = pd.DataFrame({"a": [1.0, 2, 3], "y": [0, 1, 1], "g": ["?", "x", "?"]})
    assert frame_table(frame, "y", groups="g", missing="?").groups.tolist() == [1, 0, 2]


# --- names of columns ---

NAMES = st.text(min_size=1, max_size=6).filter(lambda n: spelled(n) == n and n != "input")


@settings(max_examples=60, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=5, unique=True), kinds=st.data())
@example(names=["dose [mg]", "dose m", "a:b", "a", "*"], kinds=None)
@example(names=["y", "y:binary", "?", "[a]", "a"], kinds=None)
def test_a_columns_name_is_a_name_first(names, kinds):
    assert choose([*names, "input"], names, "input").labels == dict.fromkeys(names, "")
    for name in names:
        ignored = choose([*names, "input", "other"], "other", ignore=[n for n in names if n != name])
        assert ignored.inputs == (name, "input") or "*" in names
        assert choose([*names, "input", "other"], "other", "input", groups=name).groups == name
        if f"{name}:regression" not in names:
            assert choose([*names, "input"], f"{name}:regression", "input").labels == {name: "regression"}


def test_names_of_columns_are_spelled_as_cells_are(folder):
    (folder / "a.csv").write_text(" x, Gro\u0308\u00dfe ,who\n1,0,a\n2,1,b\n")
    table = csv_table("a.csv", "Gr\u00f6\u00dfe", groups=" who")
    assert [t.name for t in table.tasks] == ["Gr\u00f6\u00dfe"]
    frame = pd.DataFrame({" x": [1.0, 2], "Gro\u0308\u00dfe": [0, 1]})
    assert frame_table(frame, "Gr\u00f6\u00dfe").tasks == table.tasks
    frame.to_parquet(folder / "a.parquet")
    assert parquet_table("a.parquet", "Gr\u00f6\u00dfe ").tasks == table.tasks
    with pytest.raises(DataError, match='the name "y" is that of column 1 too'):
        frame_table(pd.DataFrame({"y": [0, 1], "y ": [1, 0], "x": [1.0, 2.0]}), "y")
    flat = override(
        flatten(default()),
        {
            **{"data.source": ("a ",), "data.target": "Gro\u0308\u00dfe", "loss.weights.a ": 2.0},
            **{"source.total_steps": 1, "target.total_steps": 1},
        },
    )
    tasks = [Task("a", "binary"), Task("Gr\u00f6\u00dfe", "binary")]
    labels = {t.name: [0, 1] for t in tasks}
    trial = resolve(flat, make_table("sizes", np.zeros((2, 3)), tasks, labels))
    assert [(t.name, t.weight) for t in trial.tasks] == [("a", 2.0), ("Gr\u00f6\u00dfe", 1.0)]


def test_a_pattern_is_no_name_of_groups_and_two_arrays_are_not_one_task():
    with pytest.raises(DataError, match='groups: "who\\*" is no column'):
        frame_table(pd.DataFrame({"x": [1.0, 2], "y": [0, 1], "whom": ["a", "b"]}), "y", groups="who*")
    with pytest.raises(DataError, match='two are called "y_0"'):
        arrays_table(np.eye(2), {"y": [[0, 1], [1, 0]], "y_0": [1, 1]})


def test_text_files_are_read_in_utf_8_and_utf_16_and_nothing_is_guessed(folder):
    (folder / "a.csv").write_bytes("x,y\n1,0\n2,1\n".encode("utf-16-le"))
    with pytest.raises(DataError, match="holds NUL characters"):
        csv_table("a.csv", "y")
    (folder / "a.csv").write_bytes("x,y\n1,0\n2,1\n".encode("utf-16")[:-1])
    with pytest.raises(DataError, match="begins as UTF-16 and is damaged"):
        csv_table("a.csv", "y")
