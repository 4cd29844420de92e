"""Files in the current directory that are called as modules are: none is executed that nobody asked for."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

import mtl
from mtl.config import load
from mtl.host.spawn import python, started
from mtl.sweep.sources import sources_of
from tests.sweep.by_hand import results

ROOT = pathlib.Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu"}
#: Modules of the standard library and of packages, those that are looked for and seldom there, and another checkout.
NAMES = (
    *("queue", "csv", "json", "logging", "select", "tempfile", "subprocess", "secrets", "runpy"),
    *("jax", "numpy", "jax_plugins", "pandas", "pyarrow", "cupy", "tensorflow", "sitecustomize", "rich", "matplotlib"),
    "mtl",
)
CONFIG = """
import helper
from mtl.config import default
from mtl.sweep import product, sweep

def get_config():
    c = default()
    c.name = "strange"
    c.model.options = {"hidden": (helper.WIDTH,)}
    c.source.total_steps = c.target.total_steps = 4
    c.evaluations = 2
    return c

def sweep_even():
    '''Is it even?'''
    return product(
        sweep("regime", ("scratch", "finetune")), sweep("data.target_size", (20,)), sweep("seed", range(2)))
"""


@pytest.fixture
def strange(tmp_path):
    """Return a directory of strangers, each of which leaves its name when it is executed."""
    for name in NAMES:
        text = f"open({str(tmp_path / 'executed')!r}, 'a').write('{name} ')\nraise SystemExit('{name} was executed')\n"
        if name in ("jax", "mtl", "matplotlib"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(text)
        else:
            (tmp_path / f"{name}.py").write_text(text)
    # Installed by its looks: its plugin would be loaded.
    about = tmp_path / "evil-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[jax_plugins]\nevil = jax_plugins\n[flax]\nevil = queue\n")
    return tmp_path


def executed(folder):
    file = folder / "executed"
    return file.read_text() if file.exists() else ""


@pytest.mark.parametrize("words", [[], [str(os.dup(2))]], ids=["mtl.sweep.worker", "mtl.host.witness"])
def test_a_process_of_ours_executes_none_and_is_of_the_same_package(strange, words):
    module = "mtl.host.witness" if words else "mtl.sweep.worker"
    done = subprocess.run(
        python(module, *words), cwd=strange, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True,
        pass_fds=[int(word) for word in words], timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, executed(strange)) == (0, "")


@pytest.mark.parametrize("how", [["-m", "mtl.sweep.worker"], ["-c", "import queue"]], ids=str)
def test_control_a_process_that_is_started_as_usual_executes_them(strange, how):
    subprocess.run([sys.executable, *how], cwd=strange, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert executed(strange)


def test_a_process_of_ours_imports_from_where_this_one_does(tmp_path, monkeypatch):
    (tmp_path / "mtl_asked.py").write_text(
        "def main():\n    import mtl, sys\n    print(mtl.__file__, sys.path)\n    return 3"
    )
    monkeypatch.setattr(sys, "path", ["", *sys.path, str(tmp_path)])
    done = subprocess.run(python("mtl_asked"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{mtl.__file__} {sys.path[1:]}\n", "")


def test_a_process_of_ours_runs_the_package_of_this_one_though_another_comes_first(tmp_path, monkeypatch):
    (tmp_path / "mtl").mkdir()
    (tmp_path / "mtl" / "__init__.py").write_text("raise SystemExit('another one')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    done = subprocess.run(python("mtl.host.witness", "0"), cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True)
    assert b"another one" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name"), [("mtl", "csv.py"), ("mtl", "study.py"), ("python -m mtl.cli", "queue.py")]
)
def test_a_sweep_is_run_among_them(strange, name, command):
    """The config itself may be called as a module is, and import what lies beside it."""
    if command != "mtl":
        (strange / "mtl" / "__init__.py").unlink()  # What Python does before anything of ours runs is not ours.
        (strange / "mtl").rmdir()
        (strange / "runpy.py").unlink()
    (strange / name).write_text(CONFIG)
    (strange / "helper.py").write_text("WIDTH = 4\n")
    words = [sys.executable, "-m", "mtl.cli"] if command != "mtl" else [pathlib.Path(sys.executable).with_name("mtl")]
    environment = ENVIRONMENT | ({"PYTHONPATH": str(ROOT)} if command != "mtl" else {})
    done = subprocess.run(
        [*words, "sweep", f"--config={name}", "--jobs=2", "--workdir=work"], cwd=strange, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, executed(strange)) == (0, ""), done.stderr
    assert len(results(strange / "work")) == 4


# --- What lies beside a config ---


@pytest.fixture
def beside(tmp_path):
    """Return a directory of a config and its modules."""
    files = {
        "helper.py": (
            "from pack.inner import number\nWIDTH = number()\n\ndef late():\n    import later\n    return later.X\n"
        ),
        "later.py": "X = 5\n",
        "pack/__init__.py": "",
        "pack/inner.py": "def number():\n    import later\n    return later.X + 1\n",
        "json.py": "raise RuntimeError",
        "stranger.py": "X = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


USES = """
import importlib, json
import mtl.models
from mtl.config import default
from mtl.models import MLP
import helper

@mtl.models.register("beside")
def beside():
    return MLP((helper.WIDTH,))

def get_config():
    assert json.loads("[1]") == [1] and importlib.import_module("later").X == 5
    return default()
"""


@pytest.mark.parametrize("at", [".", "elsewhere"])
def test_a_config_imports_what_lies_beside_it_or_in_the_current_directory_and_nobody_else_does(beside, at, monkeypatch):
    """Late imports and those of packages too; what it imports is part of its code for all that."""
    config = beside / at / "cfg.py"
    config.parent.mkdir(exist_ok=True)
    config.write_text(USES)
    if at != ".":
        monkeypatch.chdir(beside)
    path = list(sys.path)
    _, module = load(str(config))
    try:
        assert sys.path == path
        assert (module.helper.WIDTH, module.helper.late()) == (6, 5)
        assert sources_of(str(config)).of == "cfg.py, __init__.py, helper.py, inner.py, later.py"
        (beside / "spread" / "deeper").mkdir(parents=True)  # A package without a file of its own.
        monkeypatch.setattr(sys, "path", [*path, str(beside / "spread")])
        for name in ("stranger", "deeper.stranger", "jax_plugins.stranger"):
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module(name)
    finally:
        mtl.models.MODELS.pop("beside")


def test_a_worker_may_run_on_any_core_and_keeps_one_busy():
    """Two sweeps of one worker each would share a core if each chose it."""
    with started(1) as (hand,):
        assert os.sched_getaffinity(hand.process.pid) == os.sched_getaffinity(0)
        environment = pathlib.Path(f"/proc/{hand.process.pid}/environ").read_bytes().split(b"\0")
    assert b"PJRT_NPROC=1" in environment and b"MTL_WORKERS=1" in environment


@pytest.mark.parametrize(("name", "threads"), [("1", 1), ("3", 3)])
def test_xla_has_so_many_threads(name, threads):
    code = (
        "import os, jax, jax.numpy as jnp\njax.jit(lambda a: a @ a)(jnp.ones((512, 512))).block_until_ready()\n"
        "named = [open(f'/proc/self/task/{t}/comm').read().strip() for t in os.listdir('/proc/self/task')]\n"
        "print(sum('XLAEigen' in n for n in named))"
    )
    environment = ENVIRONMENT | {"PJRT_NPROC": name, "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == threads
