"""The config of Tox21: MoleculeNet's shares, one budget, few lines; on a table as large as the set, of random bits."""

import ast
from pathlib import Path

import numpy as np
import pytest

from mtl.config import flatten, load, override, resolve
from mtl.data import make_table
from mtl.sweep.expand import sweeps_of
from mtl.tasks import Task

FILE = Path(__file__).parents[2] / "configs" / "tox21.py"


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    tasks = [Task(f"assay_{k}", "binary") for k in range(12)]
    labels = {t.name: rng.integers(2, size=8006) for t in tasks}
    return make_table("tox21", rng.integers(2, size=(8006, 16)).astype(np.float32), tasks, labels)


def test_it_has_at_most_25_lines():
    text = FILE.read_text()
    (docstring, *_) = ast.parse(text).body
    code = text.splitlines()[docstring.end_lineno :]
    assert sum(bool(line.strip()) for line in code) <= 25


def test_its_sweeps_resolve_to_the_protocol(table):
    config, module = load(str(FILE))
    assert set(sweeps_of(module)) == {"tox21", "twenty", "references"}
    steps = set()
    for name, sweep in sweeps_of(module).items():
        for changes in sweep():
            trial = resolve(override(flatten(config), {**changes, "data.target": "assay_3"}), table).config
            data, targets = trial["data"], trial["targets"]
            validated = round(data["val_fraction"] * data["target_size"])
            rows = (1280, 320) if name == "references" else (6400, 800)
            assert (data["target_size"] - validated, validated) == rows and data["test_size"] == 800
            assert len(targets) == (12 if trial["regime"] == "multitask" else 1)
            assert data["options"]["features"] == "ecfp4" and {t["metric"] for t in trial["tasks"]} == {"auroc"}
            steps |= {p["total_steps"] for p in trial["phases"] if p["solver"] == "gradient"}
    assert len(steps) == 1
