"""What a researcher brings fits from a config file alone, in a few lines, and trains from the command line."""

import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import scipy.special
import sklearn.metrics

import mtl
from mtl import adapt, balance, data, losses, metrics, models, optim, regimes, tasks
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
    known = (
        *(optim.OPTIMIZERS, balance.BALANCERS, adapt.ADAPTERS, models.MODELS, data.SOURCES, regimes.REGIMES),
        *(losses.LOSSES, metrics.METRICS, tasks.KINDS),
    )
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
    "kind": lambda r: r["config"]["tasks"][-1]["kind"] == "count" and r["test"]["visits"].keys() == {"squared_error"},
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


#: Whose backbones no other test compiles.
SLOW = ("linen", "nnx")


@pytest.mark.parametrize(
    "file", [pytest.param(f, id=f.stem, marks=[pytest.mark.slow] if f.stem in SLOW else []) for f in FILES]
)
def test_an_extension_trains_from_the_command_line(file, tmp_path):
    result = trained(file, tmp_path)
    assert USED[file.stem](result), result["config"]
    assert result["status"] == "done"
    assert all(np.isfinite(v) for values in result["test"].values() for v in values.values())


@pytest.mark.slow
def test_a_table_needs_no_config_at_hand_and_a_model_says_what_it_needs(tmp_path, capsys):
    """A metric and a loss of a config file's own, in a process that has not executed it."""
    folder = FILES[0].parent
    text = "".join(
        (folder / f"{name}.py").read_text().partition("\n\ndef change")[0] + "\n\n" for name in ("metric", "loss")
    )
    text += """
from mtl.sweep import product, sweep


def get_config():
    from mtl.config import default

    c = default()
    c.name, c.source.total_steps, c.target.total_steps, c.evaluations, c.metric = "own", 6, 6, 1, "mcc"
    c.task_options.even = {"loss": "hinge"}
    return c


def sweep_two():
    return product(sweep("regime", ("scratch", "finetune")), sweep("seed", range(2)))
"""
    (tmp_path / "own.py").write_text(text)
    work = tmp_path / "work"
    assert main(["sweep", f"--config={tmp_path / 'own.py'}", f"--workdir={work}", "--jobs=0"]) == 0
    shown = capsys.readouterr().out
    assert "mcc" in shown
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    elsewhere = lambda *command: subprocess.run(  # noqa: E731
        [sys.executable, "-m", "mtl.cli", *command], capture_output=True, text=True, env=env, check=False
    )
    table = elsewhere("table", str(work))
    assert table.returncode == 0, table.stderr
    assert table.stdout.strip() in shown or table.stdout == shown
    workdir = Workdir(work)
    digest = workdir.hashes()[0]
    arrays, test = workdir.predictions(digest, "even"), workdir.result(digest)["test"]["even"]
    want = sklearn.metrics.matthews_corrcoef(arrays["labels"], arrays["outputs"][:, 0] > 0)
    assert np.nan_to_num(arrays["scores"].mean()) == pytest.approx(want, abs=1e-5)
    assert test["log_loss"] == pytest.approx(
        sklearn.metrics.log_loss(arrays["labels"], scipy.special.expit(arrays["outputs"][:, 0].astype(float))), rel=1e-5
    )
    load = f"import mtl; mtl.load({str(workdir.trial(digest))!r})"
    refused = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, env=env, check=False)
    assert 'has the loss "hinge", which this process does not know: first execute what registers it' in refused.stderr
    assert mtl.load(workdir.trial(digest)).predict(np.zeros((2, 64))).shape == (2,)  # Here it is known.
