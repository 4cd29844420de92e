"""The door for ids and for inputs of several leaves: what comes in, what is said, and that arrays are as they were."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtl.data import Asked, DataError, Streamed, contact_sheet, make_table, npz_table, summary
from mtl.data.describe import description, text
from mtl.data.duplicates import copies, within
from mtl.data.scaling import centred, changes, check_cast, chosen, coded, counts, described, fit
from mtl.data.splits import transfer_split
from mtl.inputs import Structure, like, structure
from mtl.tasks import Task
from mtl.train.dataset import device_inputs

TASKS = [Task("even", "binary")]
N = 60


def table(x, **options):
    count = len(next(iter(x.values()))) if isinstance(x, dict) else len(x)
    return make_table("toy", x, TASKS, {"even": np.arange(count) % 2}, **options)


def three(seed=0):
    rng = np.random.default_rng(seed)
    numbers = np.column_stack([300 + rng.normal(size=N), rng.random(N) > 0.5, 1e9 + rng.normal(size=N)])
    image = rng.integers(0, 256, (N, 8, 8, 1)).astype(np.uint8)
    return {"words": rng.integers(0, 9, (N, 5)), "numbers": numbers, "image": image}


def refused(sentence, x, **options):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        table(x, **options)


ids = hnp.arrays(
    st.sampled_from(["i1", "u1", "i4", "u2", "i8", "u8"]), hnp.array_shapes(min_dims=2, max_dims=4, max_side=4),
    elements={"min_value": 0, "max_value": 100},
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(given=ids)
def test_ids_stay_the_integers_that_they_are(given):
    of = table(given, vocabulary=101)
    assert of.x.dtype == np.int32 and not of.x.flags.writeable
    np.testing.assert_array_equal(of.x, given)
    assert of.measured is None and of.gaps is None and of.vocabulary == 101
    assert of.shape == Structure((("", given.shape[1:], 101),))
    assert not changes(of, "standardize") and not chosen(of, "standardize").any()
    assert device_inputs(of, False) is of.x


def test_ids_above_what_float32_holds():
    x = 2**24 + np.arange(6)[:, None]
    of = table(x, vocabulary=2**31)
    assert len(np.unique(of.x)) == len(np.unique(copies(of))) == 6
    assert len(np.unique(device_inputs(of, True))) == 6
    assert len(np.unique(table(x).x.astype(np.float32))) < 6


def test_an_array_that_is_not_declared_is_what_it_was():
    """Hashes of version 0: whoever changes how tables enter sees it here."""
    x = np.arange(12).reshape(6, 2)
    plain = table(x)
    assert plain.x.dtype == np.float32 and plain.vocabulary is None and plain.shape == (2,)
    assert plain.sha256 == "d570596f7af8a0e77db5ed411f464a238a5da28f50f1b5f1277bece0a9c4d13e"
    assert len({plain.sha256, table(x, vocabulary=12).sha256, table(x, vocabulary=13).sha256}) == 3
    assert table({"x": x}).sha256 not in (plain.sha256, table({"y": x}).sha256)


def test_what_is_refused_of_ids():
    refused('data "toy", x: id 5 in row 1: must be from 0 to 4, as vocabulary = 5 says', [[0], [5]], vocabulary=5)
    refused('data "toy", x: id -1 in row 0: must be from 0 to 4', [[-1], [2]], vocabulary=5)
    refused('data "toy", x: dtype float64: must be whole numbers', [[0.0]], vocabulary=5)
    refused('data "toy", x: dtype bool: must be whole numbers', [[True]], vocabulary=5)
    refused('data "toy", x: shape (3,): must be [N, ...]', np.arange(3), vocabulary=5)
    for count in (0, -1, 2**31 + 1, True):
        refused(
            f'data "toy", vocabulary = {count!r}: must be a whole number from 1 to 2,147,483,648',
            [[0]],
            vocabulary=count,
        )
    refused('data "toy", x["w"]: id 5 in row 0', {"w": [[5]]}, vocabulary={"w": 5})
    refused('data "toy", vocabulary["w"] = 0: must be', {"w": [[5]]}, vocabulary={"w": 0})


def test_what_is_refused_of_leaves():
    x = {"a": np.eye(3), "b": np.eye(3)}
    refused('data "toy", x["b"]: 2 rows, and x["a"] has 3: must be as many', x | {"b": np.eye(2)})
    refused('data "toy", x["b"]: inf in row 0', x | {"b": np.full((3, 1), np.inf)})
    refused('data "toy", x["b"]: dtype object: must be real numbers', x | {"b": np.array([[{}]] * 3)})
    refused('data "toy", vocabulary: x has no leaf "c": Valid: a, b', x, vocabulary={"c": 5})
    refused('data "toy", vocabulary = 5: must be a dict of leaves, as x is', x, vocabulary=5)
    refused('data "toy", columns: a dict: must be one value, as x is one array', np.eye(3), columns={"a": "b"})
    refused('data "toy", missing_inputs["a"] = "no": must be', x, missing_inputs={"a": "no"})
    refused('data "toy", columns["b"]: 1 names for inputs (3,)', x, columns={"b": ["one"]})
    with pytest.raises(ValueError, match=r"leaves \[\]: must be one or more"):
        make_table("toy", {}, TASKS, {"even": []})
    refused("data \"toy\", x: leaves ['']: must be one or more, named by texts", {"": np.eye(2)})


def test_each_leaf_has_its_own_rule():
    x = three()
    x["numbers"][3, 0] = np.nan
    of = table(x, vocabulary={"words": 9}, missing_inputs={"numbers": "flag"}, columns={"numbers": ["t", "b", "p"]})
    assert list(of.x) == ["image", "numbers", "words"]
    assert {k: v.dtype for k, v in of.x.items()} == {"image": np.float32, "numbers": np.float64, "words": np.int32}
    assert of.x["image"].max() <= 1 and of.reading == {"divided_by": {"image": 255}}
    assert of.columns == {"numbers": ("t", "b", "p", "t is missing")}
    assert of.measured.keys() == of.gaps.keys() == {"numbers"}
    assert of.measured["numbers"].tolist() == [True, False, True, False]
    assert of.column(0, "numbers") == 'column "t" of numbers'
    sizes = {"target_size": 10, "target_pool": 20, "test_size": 20, "source_size": 0, "source_val_size": 0}
    split = transfer_split(of, Asked(source=(), targets=("even",), val_fraction=0.2, **sizes))
    own = fit(of, split)
    assert own.shift.keys() == own.scale.keys() == own.fill.keys() == {"numbers"}
    assert counts(of, own) == {"all": 64 + 4 + 5, "measured": 2, "scaled": 2}
    seen = own.inputs(of.x, of.vocabulary)
    assert {k: v.dtype for k, v in seen.items()} == {"image": np.float32, "numbers": np.float32, "words": np.int32}
    assert seen["image"] is of.x["image"] and seen["words"] is of.x["words"]
    alone = make_table("toy", x["numbers"], TASKS, {"even": np.arange(N) % 2}, missing_inputs="flag")
    np.testing.assert_array_equal(seen["numbers"], fit(alone, split).inputs(alone.x))
    shift, scale, fill = coded(of, own)
    for found, right in zip((shift, scale, fill), coded(alone, fit(alone, split)), strict=True):
        np.testing.assert_array_equal(found["numbers"], right)
        assert found.keys() == {"numbers"}
    np.testing.assert_array_equal(centred(of)[0]["numbers"], centred(alone)[0])
    both = fit(of, split, "standardize")
    assert both.shift.keys() == {"image", "numbers"}
    with pytest.raises(ValueError, match='column "p" of numbers of toy spreads by'):
        check_cast(of)
    facts = described(of)
    assert facts["shape"] == {"image": [8, 8, 1], "numbers": [4], "words": [5]}
    assert facts["pixels"] == {"image": True, "numbers": False, "words": False}
    assert facts["gaps"] == {"image": [], "numbers": [0], "words": []} and facts["vocabulary"] == {"words": 9}
    assert "vocabulary" not in described(alone)


def test_data_are_described(tmp_path):
    x = three()
    x["words"][1], x["numbers"][1], x["image"][1] = x["words"][0], x["numbers"][0], x["image"][0]
    x["words"][2], x["numbers"][2] = x["words"][0], x["numbers"][0]
    x["words"][:, 4] = 3
    of = table(x, vocabulary={"words": 9})
    assert (within(of).rows, within(of).sets) == (1, 1)
    said = "inputs {image: (8, 8, 1), numbers: (3,), words: (5,) of ids below 9}"
    assert said in summary(of) and said in text(description(of))
    assert "1 of 72 inputs are constant" in text(description(of))
    contact_sheet(of, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()
    words = table(x["words"], vocabulary=9)
    assert "inputs (5,) of ids below 9" in summary(words) and "inputs (5,) of ids below 9" in text(description(words))
    for none in (words, table({"a": x["image"], "b": x["image"]})):
        with pytest.raises(ValueError, match="must be images"):
            contact_sheet(none, tmp_path / "sheet.png")


def test_streams_of_ids():
    pytest.importorskip("grain", reason='needs the extra: pip install "mtl[stream]"')
    x = np.random.default_rng(0).integers(0, 2**25, (N, 5)).astype(np.int32)
    stream = Streamed(x.shape, lambda rows: x[rows], vocabulary=2**25)
    of, held = table(stream), table(x, vocabulary=2**25)
    assert of.sha256 == held.sha256 and of.shape == held.shape and described(of) == described(held)
    np.testing.assert_array_equal(copies(of), copies(held))
    assert of.measured is None and not changes(of, "standardize")
    with pytest.raises(ValueError, match="id 33554432 in row 0: must be from 0 to 33,554,431"):
        table(Streamed(x.shape, lambda rows: np.full((len(rows), 5), 2**25, np.int32), vocabulary=2**25))
    with pytest.raises(ValueError, match=r"read int32 .*: must be float32"):
        table(Streamed(x.shape, lambda rows: x[rows]))
    with pytest.raises(ValueError, match="streamed inputs say themselves how many ids they have"):
        table(stream, vocabulary=3)
    with pytest.raises(ValueError, match=r'x\["a"\]: is streamed: only inputs that are one array can be'):
        table({"a": stream})


def test_npz_files_hold_leaves(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_DATA_DIR", str(tmp_path))
    x, even = three(), np.arange(N) % 2
    np.savez(tmp_path / "a.npz", even=even, **{f"x/{leaf}": a for leaf, a in x.items()})
    of = npz_table("a.npz", "even", vocabulary=("words:9",), name="toy")
    assert of.sha256 == table(x, vocabulary={"words": 9}).sha256
    assert npz_table("a.npz", "even", name="toy").x["words"].dtype == np.float32
    np.savez(tmp_path / "b.npz", even=even, x=x["words"])
    assert npz_table("b.npz", "even", vocabulary=9, name="toy").sha256 == table(x["words"], vocabulary=9).sha256
    for wrong, sentence in (
        (("words",), 'vocabulary: "words": must be a number, or leaf:number'),
        (("word:9",), 'vocabulary: x has no leaf "word": did you mean "words"'),
        (9, "vocabulary = 9: must be a dict of leaves"),
        (("words:3",), 'x["words"]: id '),
    ):
        with pytest.raises(DataError, match=re.escape(sentence)):
            npz_table("a.npz", "even", vocabulary=wrong)
    np.savez(
        tmp_path / "c.npz", even=even, **{"x/a": x["words"], "x/b": np.full((N, 2), np.inf), "x/c": x["words"][1:]}
    )
    with pytest.raises(DataError, match=r'inputs "b", row 0: 120 values are not finite'):
        npz_table("c.npz", "even")


def test_one_input_as_a_structure():
    x = three()
    shape = structure(x, {"words": 9})
    assert hash(shape) == hash(structure(x, {"words": 9})) != hash(structure(x, {"words": 8}))
    made = like(shape, 2, np.zeros)
    assert {k: (v.shape, v.dtype) for k, v in made.items()} == {
        "image": ((2, 8, 8, 1), np.float32), "numbers": ((2, 3), np.float32), "words": ((2, 5), np.int32)
    }  # fmt: skip
