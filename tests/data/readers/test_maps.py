"""Dense labels from arrays and from NPZ files: their kinds and classes are inferred, and what is doubtful refused."""

import numpy as np
import pytest

import mtl.data
from mtl.data.problems import DataError
from mtl.data.readers.frames import arrays_table, frame_table

X = np.linspace(0, 1, 6 * 4 * 5).reshape(6, 4, 5, 1)


def maps(*values):
    """Class ids or numbers of six images, in which each of the values is."""
    return np.resize(np.array(values), (6, 4, 5))


def arrays(labels, **options):
    return arrays_table(X, labels, **options)


def test_integers_are_classes_and_other_numbers_are_numbers():
    table = arrays({"c": maps(0, 1, 2, -1), "r": maps(0.5, 1.5, np.nan), "b": np.arange(6) % 2})
    assert [(t.name, t.kind, t.num_classes, t.shape) for t in table.tasks] == [
        ("c", "segmentation", 3, (4, 5)), ("r", "dense_regression", 0, (4, 5)), ("b", "binary", 0, ()),
    ]  # fmt: skip
    np.testing.assert_array_equal(table.positions["c"], maps(0, 1, 2, -1) != -1)
    np.testing.assert_array_equal(table.positions["r"], ~np.isnan(maps(0.5, 1.5, np.nan)))


def test_a_kind_is_declared_and_classes_are_listed():
    table = arrays({"c": maps(0.0, 2.0, np.nan)}, kinds={"c": "segmentation"}, classes={"c": ("sky", "road", "car")})
    assert (table.tasks[0].kind, table.tasks[0].num_classes) == ("segmentation", 3)
    assert table.classes["c"] == ("sky", "road", "car")
    assert arrays({"c": maps(0, 3)}, kinds=["c:dense_regression"]).tasks[0].kind == "dense_regression"
    line = arrays({"c": maps(0, 1)[:, :, 0]}, kinds={"c": "segmentation"})
    assert line.tasks[0].shape == (4,)
    assert [t.name for t in arrays({"c": maps(0, 1)[:, :, 0]}).tasks] == [f"c_{j}" for j in range(4)]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, float])
def test_ids_that_jump_are_refused_until_they_are_declared(dtype):
    """255 means "ignore" in many sets of 21 classes, and would make 256 classes of them."""
    labels = maps(*range(21), 255).astype(dtype)
    kinds = {"c": "segmentation"}
    with pytest.raises(
        DataError, match=r'labels "c": class id 255, and the next below it is 20: declare missing=\(255,'
    ):
        arrays({"c": labels}, kinds=kinds)
    table = arrays({"c": labels}, kinds=kinds, missing=(255,))
    assert table.tasks[0].num_classes == 21
    np.testing.assert_array_equal(table.positions["c"], labels != 255)
    named = arrays({"c": labels}, kinds=kinds, classes={"c": [f"k{i}" for i in range(256)]})
    assert named.tasks[0].num_classes == 256
    assert named.positions["c"].all()


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (maps(0, 1)[:5], {}, r'labels of "c": shape \(5, 4, 5\)'),
        (maps("sky", "road"), {}, r'labels "c": <U4 \(6, 4, 5\), .*: must be numbers .* a kind that is dense: segm'),
        (maps(0, 1), {"kinds": {"c": "binary"}}, r"\(6, 4, 5\), binary: must be numbers .* dense: segmentation, dense"),
        (np.arange(6) % 2, {"kinds": {"c": "segmentation"}}, r"\(6,\), segmentation: must be numbers \[N, positions"),
        (maps(0, 1, 2), {"classes": {"c": ("sky", "road")}}, "class ids must be 0 to 1, -1 or NaN"),
        (
            maps(0.0, 1.0, np.inf),
            {"kinds": {"c": "segmentation"}},
            r"label inf in row 0, position .*: class ids must be 0 to 1, -1 or NaN",
        ),
        (maps(0.0, 0.5), {"kinds": {"c": "segmentation"}}, "class ids must be integers"),
        (maps(0, 1, -3), {}, "class ids must be 0 to 1, -1 or NaN"),
    ],
)
def test_labels_that_cannot_be_are_refused_in_a_sentence(labels, options, message):
    with pytest.raises((DataError, ValueError), match=message):
        arrays({"c": labels}, **options)


def test_a_column_of_cells_is_no_map():
    import pandas as pd

    frame = pd.DataFrame({"a": [0.1, 0.2, 0.3], "c": [0, 1, 0]})
    with pytest.raises(DataError, match=r'labels "c": int64 \(3,\), segmentation: must be numbers \[N, positions'):
        frame_table(frame, labels=["c:segmentation"])


@pytest.mark.parametrize("declared", [("c", "r", "b"), ("c:segmentation", "r:dense_regression", "b:binary")])
def test_from_a_file_they_are_what_went_in(tmp_path, declared):
    labels = {"c": maps(0, 1, 2, -1), "r": maps(1e6, 1e6 + 0.25, np.nan), "b": np.arange(6) % 2}
    np.savez(tmp_path / "own.npz", x=X, **labels)
    table = mtl.data.load("npz", path=str(tmp_path / "own.npz"), labels=declared)
    held = arrays(labels)
    assert [(t.name, t.kind, t.num_classes, t.shape) for t in table.tasks] == [
        (t.name, t.kind, t.num_classes, t.shape) for t in held.tasks
    ]
    for task in ("c", "r"):
        np.testing.assert_array_equal(table.labels[task], held.labels[task])
        np.testing.assert_array_equal(table.positions[task], held.positions[task])
    np.testing.assert_array_equal(table.labels["r"][table.positions["r"]], labels["r"][~np.isnan(labels["r"])])


def test_a_line_of_labels_from_a_file_is_a_map_if_it_is_declared(tmp_path):
    np.savez(tmp_path / "own.npz", x=X, c=maps(0, 1)[:, :, 0])
    path = str(tmp_path / "own.npz")
    assert mtl.data.load("npz", path=path, labels=("c:segmentation",)).tasks[0].shape == (4,)
    assert len(mtl.data.load("npz", path=path, labels=("c",)).tasks) == 4
