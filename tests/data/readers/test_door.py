"""What the door must not lose, whatever holds it: markers of other widths, large codes, names beside names."""

import numpy as np
import pandas as pd
import pytest

from mtl.data import DataError, arff_table, arrays_table, frame_table, parquet_table


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_declared_marker_is_found_in_every_width(dtype):
    frame = pd.DataFrame({"a": np.array([1, 2, -999.9, 3], dtype), "y": [0, 1, 0, 1]})
    table = frame_table(frame, "y", missing=[-999.9], missing_inputs="flag")
    np.testing.assert_array_equal(np.isnan(table.x[:, 0]), [False, False, True, False])
    y = np.array([0.5, 1.5, -999.9, 3.25], dtype)
    table = frame_table(pd.DataFrame({"a": [1.0, 2, 3, 4], "y": y}), "y:regression", missing=[-999.9])
    np.testing.assert_array_equal(table.mask["y"], [True, True, False, True])


def test_codes_beyond_floats_stay_apart_beside_nulls_in_parquet(tmp_path):
    codes = pd.array([900000000000207008, 900000000000207009, None, 138875005], "Int64")
    pd.DataFrame({"a": [1.0, 2, 3, 4], "y": codes}).to_parquet(tmp_path / "a.parquet")
    table = parquet_table("a.parquet", "y:multiclass", directory=str(tmp_path))
    assert table.classes["y"] == ("138875005", "900000000000207008", "900000000000207009")
    np.testing.assert_array_equal(table.mask["y"], [True, True, False, True])


def test_a_column_called_star_hides_no_other():
    frame = pd.DataFrame({"*": [1.0, 2, 3], "b": [4.0, 5, 6], "y": [0, 1, 0]})
    assert frame_table(frame, "y").columns == ("*", "b")


def test_a_flag_and_a_column_of_one_name_are_refused():
    frame = pd.DataFrame({"a": [1.0, np.nan, 3], "a is missing": [1.0, 2, 3], "y": [0, 1, 0]})
    with pytest.raises(DataError, match=r"columns: 3 names for inputs \(3,\): must be a name of its own"):
        frame_table(frame, "y", missing_inputs="flag")


def test_groups_that_are_not_one_a_row_are_refused():
    with pytest.raises(DataError, match=r'data "arrays", groups: shape \(8, 2\): must be \(8,\), one a row'):
        arrays_table(np.eye(8), {"y": np.arange(8) % 2}, groups=np.zeros((8, 2)))


def test_one_person_in_letters_that_are_one():
    persons = ["Straße", "STRASSE", "P1", "P\u200d1", "x", "y"]
    frame = pd.DataFrame({"a": np.arange(6.0), "y": [0, 1] * 3, "p": persons})
    with pytest.warns(UserWarning, match="are taken as one group"):
        groups = frame_table(frame, "y", groups="p").groups
    assert groups[0] == groups[1]
    assert groups[2] == groups[3]
    assert len(set(groups.tolist())) == 4


def test_what_a_sparse_row_leaves_out_is_the_first_declared_value(tmp_path):
    (tmp_path / "a.arff").write_text(
        "@relation r\n@attribute x numeric\n@attribute y {1,0}\n@attribute z {0,1}\n"
        "@data\n{0 2}\n{0 3, 1 0}\n{0 4, 2 1}\n"
    )
    table = arff_table("a.arff", ["y", "z"], directory=str(tmp_path))
    assert table.labels["y"].tolist() == [1, 0, 1]
    assert table.labels["z"].tolist() == [0, 0, 1]


def test_an_indicators_name_that_is_there_is_refused(tmp_path):
    text = "@relation r\n@attribute c {r,g,b}\n@attribute 'c=r' numeric\n@attribute y {0,1}\n@data\nr,7,0\ng,8,1\n"
    (tmp_path / "a.arff").write_text(text)
    with pytest.raises(DataError, match='attribute "c": its value "r" would be an input "c=r", which is there'):
        arff_table("a.arff", "y", directory=str(tmp_path))
