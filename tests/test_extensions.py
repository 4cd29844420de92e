"""What a researcher brings fits from a config file alone, in a few lines, and trains from the command line."""

import pathlib
import re

import jax
import numpy as np
import pytest

from mtl import adapt, balance, data, models, optim, regimes
from mtl.cli import main
from mtl.sweep.store import Workdir

FILES = sorted((pathlib.Path(__file__).parent / "fixtures" / "extensions").glob("*.py"))
README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
#: Most lines that one may take: what it is, without the study's question.
MOST = 25


def lines(file):
    return len(file.read_text().partition("\n\n# The question")[0].splitlines())


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a config registers is forgotten after the test."""
    known = (optim.OPTIMIZERS, balance.BALANCERS, adapt.ADAPTERS, models.MODELS, data.SOURCES, regimes.REGIMES)
    before = [dict(names) for names in known]
    with jax.numpy_rank_promotion("allow"):  # As it is for users.
        yield
    for names, was in zip(known, before, strict=True):
        names.clear()
        names.update(was)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_an_extension_is_short_and_the_readme_says_how_short(file):
    assert lines(file) <= MOST
    (said,) = re.findall(rf"\[{file.stem}\.py\]\(tests/fixtures/extensions/{file.stem}\.py\) \| (\d+) \|", README)
    assert int(said) == lines(file)


def trained(file, tmp_path):
    assert main(["run", f"--config={file}", f"--workdir={tmp_path}", "--quiet"]) == 0
    workdir = Workdir(tmp_path)
    (digest,) = workdir.hashes()
    return workdir.result(digest)


#: What of the result says that the extension was used.
USED = {
    "loss": lambda r: r["config"]["tasks"][-1]["loss"] == "hinge",
    "metric": lambda r: r["config"]["tasks"][-1]["metric"] == "mcc" and "mcc" in r["test"]["even"],
    "optimizer": lambda r: r["config"]["optimizer"]["options"] == {"b1": 0.9, "bound": 0.5},
    "balancer": lambda r: r["config"]["balancer"] == {"name": "worst_first", "options": {"sharpness": 2.0}},
    "adapter": lambda r: "scaled" in r["config"]["phases"][1]["adapt"],
    "linen": lambda r: (
        r["config"]["phases"][-1]["trainable"] == ["heads/even/.*", "backbone/.*"] and len(r["phases"]) == 5
    ),
    "nnx": lambda r: (
        r["config"]["phases"][-1]["trainable"] == ["heads/even/.*", "backbone/.*"] and len(r["phases"]) == 5
    ),
    "regime": lambda r: (
        [p["trainable"] for p in r["config"]["phases"]][1:]
        == [["heads/even/.*"], ["heads/even/.*", "backbone/dense_1/.*"]]
    ),
    "data": lambda r: r["config"]["data"]["options"] == {"noise": 0.2} and set(r["test"]) == {"inner"},
}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_an_extension_trains_from_the_command_line(file, tmp_path):
    result = trained(file, tmp_path)
    assert USED[file.stem](result), result["config"]
    assert result["status"] == "done"
    assert all(np.isfinite(v) for values in result["test"].values() for v in values.values())
