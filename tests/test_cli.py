"""Through the command line: bad input gives one sentence and exit code 2, and leaves nothing behind."""

import subprocess
import sys
import time

import pytest

from mtl.cli import main
from mtl.data import SOURCES
from mtl.regimes import REGIMES

GOOD = """
from mtl.config import default
import numpy as np
import mtl.data
from mtl.data import make_table
from mtl.regimes import Phase, Regime, register
from mtl.tasks import Task

register("frozen_typo", Regime((Phase(trainable="backbone/dens_0/.*"),), "a typo"))

@mtl.data.register("bad_labels")
def bad_labels():
    y = np.arange(100) % 3 * 1.0
    return make_table("bad", np.zeros((100, 4), np.float32), (Task("even", "binary"),), {"even": y})

@mtl.data.register("one_sided")
def one_sided():
    # The source task is labelled in the test rows' half only, so no source row is left for it.
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    even = np.where(np.arange(60) < 40, np.arange(60) % 2 * 1.0, np.nan)
    identity = np.where(np.arange(60) < 2, 0, -1)
    tasks = (Task("even", "binary"), Task("identity", "multiclass", num_classes=2))
    return make_table("one", x, tasks, {"even": even, "identity": identity})

def get_config():
    c = default()
    c.name = "good"
    c.model.options = {"hidden": (4,)}
    c.source.total_steps = 4
    c.target.total_steps = 4
    c.evaluations = 1
    return c

def sweep_small():
    yield {"seed": 0}
"""


@pytest.fixture(autouse=True)
def registries():
    """What a config file registers goes with its test: the names that there are stand in docstrings."""
    known = [(registry, dict(registry)) for registry in (SOURCES, REGIMES)]
    yield
    for registry, before in known:
        registry.clear()
        registry.update(before)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "good.py"
    path.write_text(GOOD)
    return path


def refused(capsys, *arguments):
    """Run a command that must be refused; return its one line."""
    code = main([str(a) for a in arguments])
    err = capsys.readouterr().err
    assert code == 2, err
    assert err.startswith("mtl: ") and err.count("\n") == 1, err
    return err


BAD = [
    (["--config.lrr=1"], ["lrr", 'did you mean "lr"']),
    (["--config.data.targt_size=1"], ['"data.target_size"']),
    (["--config.regime=finetun"], ["finetun", '"finetune"', "scratch"]),
    (["--config.model.name=mpl"], ["mpl", '"mlp"']),
    (["--config.data.name=digit"], ["digit", '"digits"']),
    (["--config.data.target=evn"], ["evn", '"even"']),
    (["--config.lr=nan"], ["config.lr = nan", "finite"]),
    (["--config.lr=-1"], ["config.lr = -1.0", "above 0"]),
    (["--config.lr=abc"], ["config.lr = abc", "float"]),
    (["--config.metric=r2"], ["r2", "binary", "accuracy"]),
    (["--config.data.target_size=501"], ["501", "500"]),
    (["--config.regime=frozen_typo"], ["backbone/dens_0", "matches no parameter"]),
    (["--config.data.name=bad_labels", "--config.data.source="], ["even", "2"]),
    (["--config.target.total_epochs=3"], ["total_steps = 4", "total_epochs = 3", "exactly one"]),
    (["--config.model.options.hiden=3"], ["hiden", '"hidden"']),
    (["--config.init.path=/nowhere/model.safetensors"], ["/nowhere/model.safetensors"]),
    (["--wrokdir=x"], ["--wrokdir", '"--workdir"']),
]


@pytest.mark.parametrize(("arguments", "expected"), BAD, ids=[a[0][0] for a in BAD])
def test_bad_input(config, tmp_path, capsys, arguments, expected):
    work = tmp_path / "work"
    line = refused(capsys, "run", f"--config={config}", f"--workdir={work}", *arguments)
    for part in expected:
        assert part in line
    assert not work.exists()


def test_a_task_without_a_label_in_train(config, tmp_path, capsys):
    sizes = {"test_size": 10, "source_size": 10, "source_val_size": 2, "target_pool": 20, "target_size": 10}
    changes = [f"--config.data.{k}={v}" for k, v in sizes.items()]
    line = refused(
        capsys, "run", f"--config={config}", f"--workdir={tmp_path / 'w'}", "--config.data.name=one_sided", *changes
    )
    assert "identity" in line or "source" in line


def test_a_typo_in_a_config_file(tmp_path, capsys):
    path = tmp_path / "bad.py"
    path.write_text(
        "from mtl.config import default\ndef get_config():\n    c = default()\n    c.lrr = 1.0\n    return c\n"
    )
    line = refused(capsys, "run", f"--config={path}")
    assert "line 4" in line and 'did you mean "lr"' in line


def test_config_files_that_are_none(tmp_path, capsys):
    assert "there is no file" in refused(capsys, "run", f"--config={tmp_path / 'none.py'}")
    (tmp_path / "syntax.py").write_text("def get_config(:\n")
    assert "line 1" in refused(capsys, "run", f"--config={tmp_path / 'syntax.py'}")
    (tmp_path / "empty.py").write_text("")
    assert "get_config" in refused(capsys, "run", f"--config={tmp_path / 'empty.py'}")


@pytest.mark.slow
def test_workers_find_a_config_that_takes_an_argument_in_a_folder_with_a_colon(tmp_path, capsys):
    folder = tmp_path / "a:b.py:c"
    folder.mkdir()
    (folder / "good.py").write_text(GOOD.replace("get_config()", "get_config(name)").replace('"good"', "name"))
    work = tmp_path / "w:x"
    arguments = ["sweep", f"--config={folder / 'good.py'}:wide:1", f"--workdir={work}", "--jobs=1"]
    assert main([*arguments, "--config.name=wide"]) == 0
    assert " 1 done of 1 trials" in _said(capsys, "status", work)


def _said(capsys, *arguments):
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 0
    return capsys.readouterr().out


def test_work_directories(config, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "is empty" in refused(capsys, "table", tmp_path / "empty")
    work = tmp_path / "work"
    assert main(["run", f"--config={config}", f"--workdir={work}", "--quiet"]) == 0
    capsys.readouterr()
    line = refused(capsys, "run", f"--config={config}", f"--workdir={work}", "--config.name=other")
    assert 'belongs to the study "good"' in line
    # A head of the wrong size in a loaded checkpoint.
    model = next(work.glob("trials/*/model.safetensors"))
    line = refused(
        capsys, "run", f"--config={config}", f"--workdir={tmp_path / 'w2'}", f"--config.init.path={model}",
        "--config.data.source=low_identity",
        "--config.data.source_size=300",
    )  # fmt: skip
    assert "heads/" in line and "model.safetensors" in line
    line = refused(capsys, "sweep", f"--config={config}", "--sweep=smal")
    assert '"small"' in line
    assert "--jobs=-1" in refused(capsys, "sweep", f"--config={config}", "--jobs=-1")


def test_a_sweep_is_not_named_all(config, capsys):
    config.write_text(config.read_text().replace("sweep_small", "sweep_all"))
    assert "sweep_all(): --sweep=all means every sweep" in refused(capsys, "sweep", f"--config={config}", "--dry-run")


def test_a_foreign_sweep_file_expands_and_is_not_run(tmp_path, capsys):
    path = tmp_path / "foreign.py"
    path.write_text(
        "import ml_collections\n"
        "def get_config():\n    return ml_collections.ConfigDict({'lr': 0.1, 'dataset': 'a'})\n"
        "def get_hyper(hyper):\n"
        "    return hyper.product([hyper.sweep('config.lr', [1, 2]), hyper.sweep('config.dataset', ['a', 'b'])])\n"
    )
    assert main(["sweep", f"--config={path}", "--dry-run"]) == 0
    assert capsys.readouterr().out.count('"dataset"') == 4
    assert "mtl.config.default()" in refused(capsys, "sweep", f"--config={path}")


def test_through_a_process_within_five_seconds(config):
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "mtl.cli", "run", f"--config={config}", "--config.lrr=1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("mtl: ") and done.stderr.count("\n") == 1
    assert time.monotonic() - begun < 15  # Five on an idle machine; tests share theirs.
