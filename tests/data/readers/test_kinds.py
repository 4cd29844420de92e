"""What a column is taken for, and numbers and dates as people write them."""

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl.data import mixed_frame, mixed_table
from mtl.data.readers.dates import ISO, days
from mtl.data.readers.figures import figure

N = 40
RNG = np.random.default_rng(0)
WORDS = ["red", "green", "blue", "car", "tree", "house"]

#: A column, and what is said of it.
COLUMNS = {
    "floats": ([f"{v:.3e}" for v in RNG.normal(size=N)], "numbers;"),
    "points": ([f"{v:,.1f}" for v in RNG.uniform(1e3, 1e6, N)], "numbers;"),
    "swiss": ([f"CHF {v:,.2f}".replace(",", "'") for v in RNG.uniform(1e3, 1e6, N)], "numbers in CHF;"),
    "minus": ([f"\u2212{v}" for v in RNG.integers(1, 9, N)], "numbers;"),
    "bits": (RNG.integers(0, 2, N), 'booleans, 1 is "1" and 0 "0";'),
    "flags": (RNG.random(N) < 0.5, 'booleans, 1 is "True" and 0 "False";'),
    "oui": (RNG.choice(["oui", "non"], N), 'booleans, 1 is "oui" and 0 "non";'),
    "colours": (RNG.choice(["Red", "red ", "blue"], N), "a category of 2 levels, of all rows;"),
    "zip": ([f"0{v}" for v in RNG.integers(1000, 1004, N)], "a category of 4 levels, of all rows;"),
    "grades": (pd.Categorical(RNG.integers(1, 4, N)), "a category of 3 levels, of all rows;"),
    "tail": (
        ["a"] * 30 + ["b"] * 6 + ["c", "d", "e", "f"],
        "a category of 2 levels, 4 rare ones together, of all rows;",
    ),
    "names": ([" ".join(RNG.choice(WORDS, 3)) + f" {i}" for i in range(N)], "texts, whose words are hashed into 64"),
    "row": (np.arange(N)[::-1], "an id, dropped (it counts the rows);"),
    "customerID": (RNG.permutation(10_000)[:N], "an id, dropped (whole numbers, all different, by its name);"),
    "valid": (RNG.permutation(10_000)[:N], "numbers;"),
    "uuid": ([f"{v:x}-ff" for v in RNG.permutation(10**6)[:N]], "an id, dropped (40 different codes);"),
    "same": (["x"] * N, 'dropped, as it is always "x";'),
    "blank": ([""] * N, "dropped, as it is blank in every row;"),
    "some": ([*(["x"] * (N - 1)), ""], "a category of 1 level, of all rows, 1 missing;"),
    "iso": (
        [f"2020-01-{i % 28 + 1:02d}T{i % 24:02d}:30" for i in range(N)],
        f"dates as {ISO}: days, and where in the d",
    ),
    "us": (["12/31/2020", "01/02/2021"] * (N // 2), "dates as %m/%d/%Y: days"),
    "either": (["03/04/2020", "05/06/2021"] * (N // 2), 'dates as %d/%m/%Y (the day first: "either:date:%m/%d/'),
    "stamps": (pd.date_range("2020-01-01", periods=N, freq="7D"), f"dates as {ISO}: days;"),
    "dates": ([datetime.date(2020, 1 + i % 12, 1) for i in range(N)], f"dates as {ISO}: days, and where in the week;"),
}


@pytest.fixture(scope="module")
def told():
    frame = pd.DataFrame({name: values for name, (values, _) in COLUMNS.items()}).assign(y=RNG.integers(0, 2, N))
    table = mixed_frame(frame, "y")
    return dict(zip(COLUMNS, table.told, strict=False))


@pytest.mark.parametrize("name", COLUMNS)
def test_what_a_column_is_taken_for(told, name):
    assert told[name].startswith(f'column "{name}": {COLUMNS[name][1]}'), told[name]
    assert f'kinds={{"{name}": "' in told[name]


@given(
    value=st.decimals(-(10**9), 10**9, places=2), mark=st.sampled_from([(",", "."), (".", ","), (",", "'"), (".", " ")])
)
def test_a_number_is_read_as_it_was_written(value, mark):
    decimal, thousands = mark
    text = f"{value:,}".translate(str.maketrans(",.", f"{thousands}{decimal}"))
    assert figure(text, decimal) == (float(value), "")
    assert figure(f"{text} €", decimal) == (float(value), "€")


@given(when=st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1)))
def test_days_are_those_of_pandas(when):
    expected = (pd.Timestamp(when) - pd.Timestamp(0)) / pd.Timedelta(days=1)
    np.testing.assert_allclose(days([when.isoformat()], ISO), expected, rtol=1e-12, atol=1e-9)
    np.testing.assert_array_equal(days([when.strftime("%d.%m.%Y")], "%d.%m.%Y"), np.floor(expected))


def test_what_one_column_cannot_say_the_others_do(tmp_path):
    """1.234 is a thousand where another column has decimal commas, and little more than one where none has."""
    (tmp_path / "a.csv").write_text("a;b;y\n1.234;1,5;0\n2.345;2,5;1\n5.678;2,25;1\n")
    (tmp_path / "b.csv").write_text("a,b,y\n1.234,1.5,0\n2.345,2.5,1\n5.678,2.25,1\n")
    for name, first, options in (
        ("a.csv", 1234.0, {}),
        ("b.csv", 1.234, {}),
        ("a.csv", 1.234, {"decimal": ".", "ignore": "b"}),
        ("b.csv", 1234.0, {"decimal": ",", "ignore": "b"}),
    ):
        table = mixed_table(name, "y", directory=str(tmp_path), **options)
        np.testing.assert_allclose(table.x[0, 0], first)
    assert 'decimal="," reads them otherwise' in mixed_table("b.csv", "y", ignore="b", directory=str(tmp_path)).told[0]


def test_an_index_that_pandas_wrote_is_an_id(tmp_path):
    frame = pd.DataFrame({"a": RNG.normal(size=N), "y": RNG.integers(0, 2, N)})
    frame.to_csv(tmp_path / "a.csv")
    table = mixed_table("a.csv", "y", directory=str(tmp_path))
    assert table.columns == ("a",) and table.told[0].startswith(
        'column "column 1": an id, dropped (it counts the rows)'
    )
