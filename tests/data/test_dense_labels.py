"""Dense labels at the door, [N, *shape]: what enters, what is refused, and what tells one table from another."""

import numpy as np
import pytest

from mtl.data import Asked, make_table, transfer_split
from mtl.data.describe import description, text
from mtl.data.duplicates import within
from mtl.data.scaling import fit
from mtl.data.summary import summary
from mtl.tasks import Task

SHAPE = (2, 3)
SEGMENTATION = Task("c", "segmentation", num_classes=4, shape=SHAPE)
REGRESSION = Task("r", "dense_regression", shape=SHAPE)


def table(labels, task=SEGMENTATION, x=None):
    x = np.arange(2.0 * len(labels)).reshape(-1, 2) if x is None else x
    return make_table("toy", x, [task], {task.name: labels})


def ids(rows=4):
    return np.random.default_rng(0).integers(4, size=(rows, *SHAPE))


def test_what_is_missing_becomes_a_mask_of_positions_and_of_rows():
    labels = ids()
    labels[0, 1, 2] = -1
    labels[2] = -1
    found = table(labels)
    np.testing.assert_array_equal(found.positions["c"], labels != -1)
    np.testing.assert_array_equal(found.mask["c"], [True, True, False, True])
    np.testing.assert_array_equal(found.labels["c"], np.where(labels == -1, 0, labels))
    assert found.labels["c"].dtype == np.int32
    assert not found.positions["c"].flags.writeable
    np.testing.assert_array_equal(found.rows("c"), [0, 1, 3])
    np.testing.assert_array_equal(found.present_labels("c", np.array([0, 1])), np.delete(labels[:2].ravel(), 5))
    floats = np.where(labels == -1, np.nan, labels)
    assert table(floats).sha256 == found.sha256
    numbers = table(np.where(labels == -1, np.nan, labels / 3 + 1e6), REGRESSION)
    assert numbers.labels["r"].dtype == np.float64
    np.testing.assert_array_equal(numbers.positions["r"], labels != -1)


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        (SEGMENTATION, np.zeros(4, int), r'task "c": labels of shape \(4,\): must be \(4, 2, 3\), one label at each'),
        (SEGMENTATION, np.zeros((4, 3, 2), int), r"labels of shape \(4, 3, 2\): must be \(4, 2, 3\)"),
        (SEGMENTATION, np.zeros((4, 2, 3, 1), int), r"labels of shape \(4, 2, 3, 1\): must be \(4, 2, 3\)"),
        (Task("b", "binary"), np.zeros((4, 2, 3)), r"labels of shape \(4, 2, 3\): must be \(4,\), one label a row"),
        (SEGMENTATION, np.full((4, 2, 3), -1), "none of its 4 labels is present"),
        (REGRESSION, np.full((4, 2, 3), np.nan), "none of its 4 labels is present"),
    ],
)
def test_labels_of_another_shape_are_refused(task, labels, message):
    x = np.arange(8.0).reshape(4, 2)
    with pytest.raises(ValueError, match=message):
        table(labels, task, x)


@pytest.mark.parametrize(
    ("task", "value", "message"),
    [
        (SEGMENTATION, 4, r"label 4\.0 in row 2, position \(1, 0\): class ids must be 0 to 3, -1 or NaN"),
        (SEGMENTATION, -2, r"label -2\.0 in row 2, position \(1, 0\): class ids must be 0 to 3"),
        (SEGMENTATION, 0.5, r"label 0\.5 in row 2, position \(1, 0\): class ids must be integers"),
        (SEGMENTATION, np.inf, r"label inf in row 2, position \(1, 0\): class ids must be 0 to 3"),
        (REGRESSION, np.inf, r"label inf in row 2, position \(1, 0\): must be finite in float32"),
        (REGRESSION, 1e39, r"label 1e\+39 in row 2, position \(1, 0\): must be finite in float32"),
    ],
)
def test_a_label_that_cannot_be_is_refused_with_its_position(task, value, message):
    labels = ids().astype(float)
    labels[2, 1, 0] = value
    with pytest.raises(ValueError, match=message):
        table(labels, task)


def test_the_sha256_is_of_the_positions_too():
    labels = ids().astype(float)
    labels[1, 0, 0] = 0  # What is missing holds a zero: only the mask tells it from this one.
    gone = labels.copy()
    gone[1, 0, 0] = np.nan
    shas = {table(a, t).sha256 for a in (labels, gone) for t in (SEGMENTATION, REGRESSION)}
    assert len(shas) == 4
    other = labels.copy()
    other[3, 1, 1] = (other[3, 1, 1] + 1) % 4
    assert table(other).sha256 not in shas
    assert table(labels.copy()).sha256 in shas


@pytest.mark.parametrize("shape", [(), (0, 3), (2, -1)])
def test_a_dense_task_says_where_its_labels_are(shape):
    with pytest.raises(ValueError, match=r'task "c": shape = .*: must be positions, such as \(height, width\)'):
        Task("c", "segmentation", num_classes=2, shape=shape)
    if not shape:
        with pytest.raises(ValueError, match=r'task "b": shape = \(2, 3\): must be empty for binary'):
            Task("b", "binary", shape=(2, 3))


# --- what is said of them ---


@pytest.mark.parametrize("task", [SEGMENTATION, REGRESSION], ids=lambda t: t.kind)
def test_copies_conflict_where_a_position_differs_and_not_where_both_miss_it(task):
    x = np.array([[1.0], [1.0], [2.0], [2.0], [3.0], [3.0], [4.0], [5.0], [5.0]])
    labels = np.zeros((9, *SHAPE))
    labels[:4, 0, 0] = np.nan  # Rows 0 and 1 miss the same position; so do 2 and 3, and differ in another.
    labels[3, 1, 1] = 1
    labels[4] = np.nan  # A copy without a label contradicts nothing,
    labels[7, 1] = np.nan  # nor does one with fewer.
    labels[8, 1] = 3
    found = within(make_table("toy", x, [task], {task.name: labels}))
    assert (found.rows, found.sets, found.conflicts) == (4, 4, {task.name: 1})


def test_a_description_counts_positions_and_rows():
    labels = ids(20).astype(float)
    labels[3] = np.nan
    labels[4, 0] = np.nan
    x = np.arange(40.0).reshape(20, 2)
    plain = Task("b", "binary")
    of = make_table(
        "toy", x, [SEGMENTATION, REGRESSION, plain],
        {"c": labels, "r": labels * 2 + 1, "b": np.arange(20) % 2}, classes={"c": ["sky", "road", "car", "sign"]},
    )  # fmt: skip
    known = labels[~np.isnan(labels)]
    found = {t["name"]: t for t in description(of)["tasks"]}
    assert found["c"]["labels"] == found["r"]["labels"] == 19
    assert found["c"]["positions"] == len(known) == 19 * 6 - 3
    assert found["c"]["classes"] == {
        name: int((known == i).sum()) for i, name in enumerate(("sky", "road", "car", "sign"))
    }
    assert found["r"]["mean"] == pytest.approx((known * 2 + 1).mean())
    for said in (summary(of), text(description(of))):
        share = 100 * (known == 1).mean()
        assert f"road {share:.1f} %" in said.replace(":", "")
        assert "segmentation" in said
        assert "dense_regression" in said
    assert description(of)["co_occurrence"]["tasks"] == ["b"]


def test_a_scaling_is_that_of_the_training_images_positions():
    rng = np.random.default_rng(1)
    labels = rng.normal(5.0, 2.0, size=(60, *SHAPE))
    labels[rng.random(labels.shape) < 0.4] = np.nan
    of = table(labels, REGRESSION, rng.normal(size=(60, 2)))
    split = transfer_split(
        of,
        Asked(
            source=(), targets=("r",), target_size=20, target_pool=30, test_size=15, source_size=0, source_val_size=0,
            val_fraction=0.2,
        ),
    )  # fmt: skip
    known = labels[split.train["r"]]
    known = known[~np.isnan(known)]
    mean, spread = fit(of, split).units["r"]
    assert (mean, spread) == (pytest.approx(known.mean(), rel=1e-12), pytest.approx(known.std(), rel=1e-12))
