"""``mtl data``: what it prints, everything wrong at once with lines, exit codes, one sentence."""

import json

import pytest
from PIL import Image

from mtl import data
from mtl.cli import main


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MTL_DATA_DIR", raising=False)
    (tmp_path / "pets.csv").write_text("weight,pet,ill\n4.1,cat,0\n9.5,dog,1\n3.9,,0\n4.1,cat,1\n")
    (tmp_path / "bad.csv").write_text("weight,pet\n4.1,cat\n9.5\nheavy,dog\n3,?\n")
    yield
    data.SOURCES.pop("copied", None)


def run(capsys, *arguments):
    code = main(["data", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def kind_of(path):
    with Image.open(path) as image:
        return image.format


def test_list(capsys):
    code, out, err = run(capsys, "list")
    assert code == 0 and not err
    assert "digits" in out and "get it: npm install" in out and "licence: CC BY 4.0" in out
    code, out, _ = run(capsys, "list", "--json")
    entries = {e["name"]: e for e in json.loads(out)}
    assert code == 0 and entries["road_scenes"]["available"] is True


def test_describe_a_file(capsys, tmp_path):
    code, out, _ = run(capsys, "describe", "pets.csv", "labels=ill:binary,pet", "--out", "pictures")
    assert code == 0
    for part in ("pets: 4 examples", "25.0 %", "(dog; else cat)", "1 examples repeat", "differ in ill 1"):
        assert part in out
    assert out.rstrip().endswith("picture  pictures/labels.png")
    assert kind_of(tmp_path / "pictures" / "labels.png") == "PNG"


def test_options_may_stand_anywhere_and_json_is_the_same_in_numbers(capsys):
    code, out, _ = run(capsys, "describe", "--json", "pets.csv", "--no-pictures", "labels=ill", "ignore=pet")
    found = json.loads(out)
    assert code == 0 and found["examples"] == 4 and [t["name"] for t in found["tasks"]] == ["ill"]
    assert found["pictures"] == []


def test_describe_images(capsys, tmp_path):
    code, out, _ = run(capsys, "describe", "road_scenes", "examples=20", "size=16")
    assert code == 0 and "picture  runs/data/road_scenes/images.png" in out
    assert kind_of(tmp_path / "runs/data/road_scenes/images.png") == "PNG"


CONFIG = """
import numpy as np
import mtl.data
from mtl.config import default
from mtl.data import make_table
from mtl.tasks import Task

@mtl.data.register("copied")
def copied():
    x = np.repeat(np.random.default_rng(0).normal(size=(100, 3)), 2, axis=0)
    y = (x[:, 0] > 0) * 1.0
    return make_table("copied", x, [Task("a", "binary"), Task("b", "binary")], {"a": y, "b": 1 - y})

def get_config():
    c = default()
    c.name = "copied"
    c.data.name, c.data.source, c.data.target = "copied", ("a",), "b"
    c.data.test_size, c.data.target_pool, c.data.target_size, c.data.source_size = 50, 50, 40, 50
    c.data.source_val_size = 10
    c.source.total_steps = c.target.total_steps = 2
    c.evaluations = 1
    return c
"""


def test_describe_a_config_with_its_split(capsys, tmp_path):
    (tmp_path / "copied.py").write_text(CONFIG)
    code, out, _ = run(
        capsys, "describe", "--config=copied.py", "--config.data.target_size=20", "--no-pictures", "--json"
    )
    found = json.loads(out)["split"]
    assert code == 0 and found["roles"]["b"] == {"train": 16, "val": 4, "test": 50}
    assert found["duplicates"]["test in train"] > 0
    code, out, _ = run(capsys, "describe", "--config=copied.py", "--no-pictures")
    assert "Rows with a copy in another role: " in out and "There are no groups" in out


def test_check_says_everything_at_once_with_lines(capsys):
    code, out, err = run(capsys, "check", "bad.csv", "labels=pet")
    assert code == 2 and not out
    lines = err.splitlines()
    assert len(lines) == 3 and all(line.startswith('mtl: file "bad.csv", line ') for line in lines)
    assert [line.split("line ")[1].split(":")[0].split(",")[0] for line in lines] == ["3", "4", "5"]
    code, out, _ = run(capsys, "check", "bad.csv", "labels=pet", "--json")
    assert code == 2 and json.loads(out)["count"] == 3 and len(json.loads(out)["problems"]) == 3


def test_check_of_what_is_right(capsys):
    code, out, err = run(capsys, "check", "pets.csv", "labels=ill,pet")
    assert code == 0 and out.endswith("nothing is wrong\n") and not err
    code, out, _ = run(capsys, "check", "pets.csv", "labels=ill,pet", "--json")
    assert code == 0 and json.loads(out) == {"right": True, "count": 0, "problems": [], "examples": 4}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "the following arguments are required"),
        (("listen",), "invalid choice: 'listen'"),
        (("describe",), "nothing to describe"),
        (("describe", "digit"), 'digit: is no file and no data: did you mean "digits"?'),
        (("describe", "digits", "--config=x.py"), "give one of the two"),
        (("describe", "digits", "--config.seed=3"), "--config.seed: is for"),
        (("describe", "--config=x.py"), "there is no file x.py"),
        (("describe", "digits", "image=1"), 'has no option "image": did you mean "images"?'),
        (("describe", "digits", "images=1", "images=1"), "images is given twice"),
        (("describe", "digits", "images"), "images: must be OPTION=VALUE"),
        (("describe", "latent", "rows=x"), 'has no option "rows"'),
        (("describe", "road_scenes", "size=x"), "size = 'x': must be a whole number"),
        (("describe", "digits", "--out=pets.csv"), "--out=pets.csv: cannot be written"),
        (("check", "none.csv", "labels=a"), "does not exist"),
        (("check", "pets.csv"), 'data "csv": labels is missing'),
        (("check", "pets.csv", "labels=ilk"), 'labels: "ilk" is no column: did you mean "ill"?'),
        (("check",), "the following arguments are required: FILE"),
        (("list", "digits=1"), "unknown argument digits=1"),
        (("prepare", "mnist"), 'data "mnist": is not prepared by mtl'),
        (("describe", "tfds:../x", "labels=a"), "tfds"),
    ],
)
def test_what_cannot_be_is_told_in_one_sentence(capsys, arguments, line):
    code, _, err = run(capsys, *arguments)
    assert code == 2 and line in err
    assert err.startswith("mtl: ") and err.count("\n") == 1 and "Traceback" not in err


def test_prepare(capsys, tmp_path):
    pytest.importorskip("tensorflow_datasets", reason='needs the extra: pip install "mtl[tfds]"')
    code, out, _ = run(capsys, "prepare", "road_scenes", "--data-dir", "sets", "examples=10", "size=16")
    assert code == 0 and out.strip() == "sets/road_scenes/examples_10-size_16/1.0.0"
    code, out, _ = run(
        capsys, "describe", "tfds:road_scenes", "labels=car,pedestrian", "directory=sets", "--no-pictures"
    )
    assert code == 0 and "10 examples, inputs (16, 16, 3)" in out


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["data", "describe", "--help"])
    assert ended.value.code == 0 and "mtl data describe digits" in capsys.readouterr().out
