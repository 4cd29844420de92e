"""Through the command line: images changed at random are asked for, shown, tuned, refused; copies are told."""

import pytest

from mtl.cli import main
from mtl.data import SOURCES
from mtl.report.collect import collect
from mtl.sweep.store import Workdir
from tests.sweep.by_hand import results

CONFIG = """
import numpy as np
import mtl.data
from mtl.config import default
from mtl.data import make_table
from mtl.sweep import product, sweep
from mtl.tasks import Task

TASKS = (Task("even", "binary"), Task("identity", "binary"))

@mtl.data.register("doubled")
def doubled():
    x = np.repeat(np.random.default_rng(0).random((60, 4, 4, 1)).astype(np.float32), 2, axis=0)
    y = (x.mean(axis=(1, 2, 3)) > 0.5).astype(np.float32)
    return make_table("doubled", x, TASKS, {"even": y, "identity": 1 - y})

@mtl.data.register("wide")
def wide():
    x = np.random.default_rng(0).random((120, 4, 4, 1)).astype(np.float32) * 255
    y = np.arange(120) % 2 * 1.0
    return make_table("wide", x, TASKS, {"even": y, "identity": 1 - y})

def get_config():
    c = default()
    c.name = "changed"
    c.data.options = {"images": True}
    c.model.options = {"hidden": (4,)}
    c.source.total_steps = 4
    c.target.total_steps = 4
    c.evaluations = 1
    c.regime = "scratch"
    c.augment = ("flip", ("crop", {"padding": 1}))
    return c

def sweep_kinds():
    return product(sweep("regime", ("scratch", "linear_probe")), sweep("augment", ((), ("flip",))))
"""

COPIED = [
    "--config.data.name=doubled", "--config.data.options={}", "--config.data.test_size=30",
    "--config.data.target_pool=60", "--config.data.target_size=40", "--config.data.source_size=20",
    "--config.data.source_val_size=5",
]  # fmt: skip


@pytest.fixture(autouse=True)
def registry():
    """What a config file registers goes with its test."""
    known = dict(SOURCES)
    yield
    SOURCES.clear()
    SOURCES.update(known)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "changed.py"
    path.write_text(CONFIG)
    return f"--config={path}"


def test_a_run_says_how_images_are_changed_and_keeps_it_with_the_result(config, tmp_path, capsys):
    assert main(["run", config, f"--workdir={tmp_path / 'work'}"]) == 0
    said = capsys.readouterr()
    shown = "images changed: flip (probability 0.5), crop (padding 1, mode reflect)"
    assert shown in said.err + said.out
    (result,) = results(tmp_path / "work").values()
    (phase,) = result["config"]["phases"]
    assert phase["augment"] == [["flip", {"probability": 0.5}], ["crop", {"mode": "reflect", "padding": 1}]]


@pytest.mark.slow
def test_a_run_tells_of_copies_as_a_sweep_does(config, tmp_path, capsys):
    work = f"--workdir={tmp_path / 'work'}"
    assert main(["run", config, work, "--config.augment=cutout", *COPIED]) == 0
    said = capsys.readouterr()
    assert "warning: " in said.err + said.out
    assert "test inputs of doubled are copies of inputs that training or validation sees" in said.err + said.out
    assert main(["run", config, work, "--config.augment=cutout", "--quiet", *COPIED]) == 0
    assert "copies" not in capsys.readouterr().err


def test_a_dry_run_shows_what_would_be_changed(config, tmp_path, capsys):
    assert main(["sweep", config, "--dry-run", "--list", f"--workdir={tmp_path / 'work'}"]) == 0
    told = capsys.readouterr().out
    assert "images changed in 3 of the phases: flip (probability 0.5)\n" in told
    assert '{"augment":["flip"],"regime":"scratch"}' in told


@pytest.mark.slow
def test_a_sweep_chooses_among_ways_to_change_images_and_its_table_says_so(config, tmp_path):
    work = tmp_path / "work"
    assert main(["sweep", config, "--jobs=0", f"--workdir={work}"]) == 0
    notes = " ".join(collect(Workdir(work), "kinds").notes)
    assert "augment is chosen from (flip (probability 0.5)), none by validation" in notes
    assert "Training images are changed at random in some phases: flip (probability 0.5)." in notes


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--config.augment=flop"], 'config.augment: "flop" does not exist: did you mean "flip"?'),
        (["--config.augment=(('crop', {'padding': 0}),)"], "crop.padding = 0: must be a whole number from 1 to 512"),
        (["--config.augment=(('crop', {'padding': 8}),)"], "crop.padding = 8: must be below the sides (8, 8) of"),
        (["--config.data.options={}"], "config.augment: inputs of digits are of shape (64,): must be images"),
        (["--config.data.name=wide", *COPIED[1:]], "config.augment: inputs of wide go from"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(config, tmp_path, capsys, arguments, line):
    assert main(["run", config, f"--workdir={tmp_path / 'work'}", *arguments]) == 2
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1
    assert not (tmp_path / "work").exists()
