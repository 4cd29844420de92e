"""The door: what enters, what is refused and how."""

import hashlib
import re
import subprocess
import sys

import numpy as np
import pytest

from mtl.data import make_table
from mtl.tasks import Task

NAN = float("nan")
BINARY = Task("even", "binary")
CLASSES = Task("digit", "multiclass", num_classes=3)
REAL = Task("height", "regression")


def table(**labels):
    tasks = {t.name: t for t in (BINARY, CLASSES, REAL)}
    length = len(next(iter(labels.values())))
    return make_table("toy", np.ones((length, 2)), [tasks[k] for k in labels], labels)


def test_missing_labels_become_a_mask_and_a_harmless_zero():
    t = table(even=[1.0, NAN, 0.0], digit=np.array([2, -1, 0]), height=[NAN, -1.0, 0.5])
    np.testing.assert_array_equal(t.labels["even"], [1, 0, 0])
    np.testing.assert_array_equal(t.labels["digit"], [2, 0, 0])
    np.testing.assert_array_equal(t.labels["height"], [0, -1, 0.5])  # −1 is a value here
    np.testing.assert_array_equal(t.mask["even"], [True, False, True])
    np.testing.assert_array_equal(t.mask["digit"], [True, False, True])
    np.testing.assert_array_equal(t.mask["height"], [False, True, True])
    assert [t.labels[k].dtype.name for k in t.labels] == ["float32", "int32", "float64"]
    assert t.x.dtype == np.float32
    np.testing.assert_array_equal(t.rows("height"), [1, 2])
    assert len(t) == 3


def test_class_ids_may_come_as_floats_with_nan_and_binary_labels_as_booleans_or_bytes():
    np.testing.assert_array_equal(table(digit=[2.0, NAN, -1.0, 0.0]).mask["digit"], [True, False, False, True])
    np.testing.assert_array_equal(table(even=[True, False]).labels["even"], [1.0, 0.0])
    np.testing.assert_array_equal(table(digit=np.array([2, 0], np.uint8)).labels["digit"], [2, 0])
    np.testing.assert_array_equal(table(digit=[True, False]).labels["digit"], [1, 0])


def test_arrays_are_read_only_copies():
    x, y = np.ones((2, 2), np.float32), np.array([0, 1], np.float32)
    t = make_table("toy", x, [BINARY], {"even": y})
    x[0, 0], y[0] = 7, 1
    assert t.x[0, 0] == 1
    assert t.labels["even"][0] == 0
    with pytest.raises(ValueError, match="read-only"):
        t.x[0, 0] = 3
    with pytest.raises(AttributeError):
        t.name = "other"


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"even": [0, 1, 2]}, 'data "toy", task "even": label 2 in row 2: must be 0, 1 or NaN (missing)'),
        ({"even": [0, -1, -1]}, 'task "even": label -1 in row 1: must be 0, 1 or NaN'),
        ({"even": [0.5, 1.0]}, 'task "even": label 0.5 in row 0: must be 0, 1'),
        ({"digit": [0, 3]}, 'task "digit": label 3 in row 1: class ids must be 0 to 2, -1 or NaN (missing)'),
        ({"digit": [0, -2]}, 'task "digit": label -2 in row 1: class ids must be 0 to 2'),
        ({"digit": [0, 1.5]}, 'task "digit": label 1.5 in row 1: class ids must be integers'),
        ({"digit": [0, np.inf]}, 'task "digit": label inf in row 1: class ids must be 0 to 2'),
        ({"height": [0, NAN, -np.inf]}, 'task "height": label -inf in row 2: must be finite in float32'),
        ({"height": [0, 1e300]}, 'task "height": label 1e+300 in row 1: must be finite in float32'),
        ({"even": [NAN, NAN]}, 'task "even": none of its 2 labels is present: must have at least one'),
        ({"digit": [-1, -1]}, 'task "digit": none of its 2 labels is present'),
        ({"even": ["yes", "no"]}, 'task "even": labels: dtype <U3: must be real numbers or booleans'),
        ({"even": [0, 1], "digit": [0, 1, 2]}, 'task "digit": labels of shape (3,): must be (2,)'),
        (
            {"even": [[0, 1], [1, 0]]},
            'task "even": labels of shape (2, 2): must be (2,), one label a row of x',
        ),
        (
            {"even": [[0, 1], [1]]},
            'task "even": labels: rows of different lengths: must be one array of numbers',
        ),
    ],
)
def test_labels_that_are_refused(labels, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        table(**labels)


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.zeros((0, 3)), 'data "toy", x: shape (0, 3): must be [N, ...] with at least one row'),
        (np.zeros((3, 0)), "x: shape (3, 0)"),
        (np.zeros(2), "x: shape (2,)"),
        ([[1, 2], [3, NAN]], "x: nan in row 1: inputs must be finite"),
        ([[1, 1e39], [3, 4]], "x: 1e+39 in row 0: inputs must be finite in float32"),
        ([["a", "b"]], "x: dtype <U1: must be real numbers"),
    ],
)
def test_inputs_that_are_refused(x, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make_table("toy", x, [BINARY], {"even": [0, 1]})


@pytest.mark.parametrize(
    ("tasks", "labels", "sentence"),
    [
        ([], {}, 'data "toy" has no tasks'),
        ([BINARY, BINARY], {"even": [0, 1]}, 'task "even" is there twice or more: names must differ'),
        ([BINARY, CLASSES], {"even": [0, 1]}, 'task "digit" has no labels: give labels["digit"]'),
        (
            [BINARY],
            {"even": [0, 1], "evn": [0, 1]},
            'labels of "evn", which is no task: did you mean "even"?',
        ),
    ],
)
def test_tasks_that_are_refused(tasks, labels, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make_table("toy", np.ones((2, 2)), tasks, labels)


def test_unknown_task_is_an_error_with_a_suggestion():
    for method in (table(even=[0, 1]).task, table(even=[0, 1]).rows):
        with pytest.raises(ValueError, match='data "toy" has no task "evn": did you mean "even"'):
            method("evn")


def test_sha256_sees_every_change_and_no_order():
    x = np.arange(6.0).reshape(3, 2)
    tasks, labels = [BINARY, CLASSES], {"even": [1, 0, NAN], "digit": [0, 1, 2]}
    one = make_table("toy", x, tasks, labels).sha256
    assert re.fullmatch("[0-9a-f]{64}", one)
    assert make_table("toy", x, tasks[::-1], dict(reversed(labels.items()))).sha256 == one
    assert make_table("toy", x, tasks, labels, about="said otherwise").sha256 == one
    others = [
        make_table("tay", x, tasks, labels),
        make_table("toy", x + 1, tasks, labels),
        make_table("toy", x.reshape(3, 2, 1), tasks, labels),
        make_table("toy", x, tasks, labels | {"even": [1, 0, 0]}),  # the mask alone differs
        make_table("toy", x, tasks, labels | {"digit": [0, 1, 1]}),
        make_table("toy", x, [BINARY, Task("digit", "multiclass", num_classes=4)], labels),
    ]
    assert len({one, *(t.sha256 for t in others)}) == 7


def test_sha256_is_the_one_of_the_bytes_as_documented():
    t = make_table("toy", np.array([[1.0], [2.0]], dtype=">f8"), [BINARY], {"even": [1, NAN]})
    h = hashlib.sha256(b"[('data', 'toy'), ('kinds', [('even', 'binary', 0)])]")
    h.update(b"('labels/even', '<f4', (2,))" + np.array([1, 0], "<f4").tobytes())
    h.update(b"('mask/even', '|b1', (2,))" + b"\x01\x00")
    h.update(b"('x', '<f4', (2, 1))" + np.array([1, 2], "<f4").tobytes())
    assert t.sha256 == h.hexdigest()


def test_importing_the_room_imports_no_pandas():
    code = "import mtl.data, sys; sys.exit('pandas' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_groups_are_part_of_the_sha256_and_class_names_are_not():
    def make(**options):
        return make_table("toy", np.ones((3, 2)), [BINARY, CLASSES], {"even": [0, 1, 1], "digit": [0, 1, 2]}, **options)

    plain = make()
    assert plain.groups is None
    assert plain.classes == {}
    grouped = make(groups=[5, 5, 7], classes={"even": ("odd", "even")})
    np.testing.assert_array_equal(grouped.groups, [5, 5, 7])
    assert not grouped.groups.flags.writeable
    assert grouped.classes == {"even": ("odd", "even")}
    assert len({plain.sha256, grouped.sha256, make(groups=[5, 7, 7]).sha256}) == 3
    assert make(classes={"digit": ("a", "b", "c")}).sha256 == plain.sha256
    for options, sentence in (
        ({"groups": [1, 2]}, 'data "toy", groups: int64 (2,): must be integers (3,)'),
        ({"groups": [1.0, 2.0, 3.0]}, "groups: float64 (3,): must be integers (3,)"),
        ({"classes": {"digit": ("a", "b")}}, "task \"digit\": class names ('a', 'b'): must be 3 different names"),
        ({"classes": {"digit": ("a", "b", "a")}}, "must be 3 different names"),
        ({"classes": {"digt": ("a", "b")}}, 'classes of "digt", which is no task: did you mean "digit"'),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            make(**options)
