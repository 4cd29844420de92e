"""What the README shows is run as it stands there, as far as it can be without its minutes of training."""

import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from mtl.cli import main
from mtl.config import default, flatten, override, resolve
from mtl.data import load
from mtl.sweep.store import Workdir
from mtl.train.trial import stages_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def snippets(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def snippet(word):
    """Return the one Python snippet that holds a word."""
    (found,) = [text for text in snippets("python") if word in text]
    return found


COMMANDS = [
    shlex.split(line, comments=True)
    for text in snippets("sh")
    for line in text.splitlines()
    if line.startswith(("mtl ", "./"))
]


@pytest.fixture
def config(tmp_path):
    (tmp_path / "mine.py").write_text(snippet("def get_config"))
    return tmp_path / "mine.py"


def test_every_snippet_is_known_here():
    assert len(snippets("python")) == 7
    assert len(COMMANDS) == 19
    assert all(text.count("\n") > 1 for text in snippets("python"))


PETS = "\n".join(
    ["id,age,ill,breed"]
    + [f"{i},{i / 3:.2f},{i % 2 if i else '?'},{('cat', 'dog', 'owl', '?')[i % 4]}" for i in range(12)]
)


def test_a_table_of_ones_own_is_read(tmp_path, monkeypatch):
    (tmp_path / "pets.csv").write_text(PETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MTL_DATA_DIR", raising=False)  # As on a user's machine: paths begin where the user is.
    (tmp_path / "c.py").write_text(
        f"from mtl.config import default\nc = default()\n{textwrap.dedent(snippet('pets.csv'))}"
    )
    config = runpy.run_path("c.py")["c"]
    table = load(config.data.name, **config.data.options.to_dict())
    assert [(t.name, t.kind) for t in table.tasks] == [("ill", "binary"), ("breed", "multiclass")]
    assert [int(table.mask[name].sum()) for name in ("ill", "breed")] == [11, 9]
    assert table.x.shape == (12, 1)


def test_a_table_of_mixed_columns_is_read(tmp_path, monkeypatch):
    doses = ["k. A." if i == 1 else f"{i / 4:.2f}".replace(".", ",") for i in range(40)]
    rows = [f"{i};{10000 + i % 3};{1 + i % 28:02d}.05.1980;{'ja' if i % 2 else 'nein'};{doses[i]}" for i in range(40)]
    text = "\n".join(["nr;zip;born;ill;dose", *rows])
    (tmp_path / "office.csv").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MTL_DATA_DIR", raising=False)
    (tmp_path / "c.py").write_text(
        f"from mtl.config import default\nc = default()\n{textwrap.dedent(snippet('office.csv'))}"
    )
    flat = flatten(runpy.run_path("c.py")["c"])
    table = load(flat["data.name"], **flat["data.options"])
    assert table.columns == ("zip=10000", "zip=10001", "zip=10002", "born", *table.columns[4:])
    assert table.classes["ill"] == ("nein", "ja") and table.labels["dose"][2] == 0.5
    assert not table.mask["dose"][1]


def test_the_config_expands(config, tmp_path, capsys):
    assert main(["sweep", f"--config={config}", "--dry-run", f"--workdir={tmp_path / 'work'}"]) == 0
    shown = capsys.readouterr().out
    assert "sweep sizes: 240 trials, 240 to run" in shown
    assert not (tmp_path / "work").exists()


def test_images_are_changed_and_tasks_mixed_as_it_says(tmp_path):
    (tmp_path / "c.py").write_text(
        f"from mtl.config import default\nc = default()\n{textwrap.dedent(snippet('c.augment'))}"
    )
    config = runpy.run_path(str(tmp_path / "c.py"))["c"]
    changes = {"regime": "multitask", "source.total_steps": 1, "target.total_steps": 2}
    (phase,) = resolve(override(flatten(config), changes), load("digits")).phases
    assert [type(op).__name__ for op in phase.augment] == ["Flip", "Crop", "Mixup"]
    assert phase.sampling == "one_task"


def test_optimizers_and_balancers_are_what_it_says(tmp_path):
    (tmp_path / "c.py").write_text(
        f"from mtl.config import default\nc = default()\n{textwrap.dedent(snippet('c.balancer'))}"
    )
    config = runpy.run_path(str(tmp_path / "c.py"))["c"]
    changes = {"regime": "multitask", "source.total_steps": 1, "target.total_steps": 2}
    trial = resolve(override(flatten(config), changes), load("digits"))
    (stage,) = stages_of(trial, load("digits").x.shape[1:])
    assert stage.hypers.optimizer["options"] == {"b1": 0.9, "b2": 0.98, "eps": 1e-8, "eps_root": 0.0}
    assert stage.hypers.rates == pytest.approx(
        [0.75 ** (2 - i) for i in (0, 0, 1, 1)] + [10.0] * 4
    )  # Two blocks below the heads.
    assert stage.program.balancer.floats == ("lr",)


def test_its_study_can_be_read_and_its_models_predict(config, tmp_path, capsys):
    work = tmp_path / "work"
    changes = [f"--config.{field}=2" for field in ("source.total_steps", "target.total_steps", "evaluations")]
    assert main(["run", f"--config={config}", f"--workdir={work}", "--quiet", *changes]) == 0
    (trial,) = (work / "trials").iterdir()
    code = snippet("mtl.results").replace("runs/digits/trials/0123456789abcdef", str(trial))
    code = code.replace("runs/digits", str(work)).replace("runs/mine", str(tmp_path / "mine"))
    assert code.count(str(work)) == 3
    mine = default()
    mine.name, mine.source.total_steps = "mine", 2
    mine.target.total_steps = mine.evaluations = 2
    (tmp_path / "read.py").write_text(code)
    names = runpy.run_path(str(tmp_path / "read.py"), {"x": load("digits").x[:3], "config": mine})
    assert names["p"].shape == (3,)
    assert names["result"]["status"] == "done" and names["result"]["config"]["seed"] == 1
    assert list(names["frame"])[1] == f"{names['frame'].columns[0]}=1"  # A class, and the probability of the positive.
    np.testing.assert_allclose(names["frame"].iloc[:, 1], names["p"], rtol=1e-6)
    assert names["trials"].empty  # A single run is in no sweep.


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_are_there(command, config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    name, *arguments = command
    if name != "mtl":
        assert (ROOT / name).is_file()
        return
    if arguments[0] == "data":
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("MTL_DATA_DIR", raising=False)
        (tmp_path / "pets.csv").write_text(PETS.replace("?", ""))
        if "prepare" in arguments:
            pytest.importorskip("array_record", reason='needs the extra: pip install "mtl[tfds]"')
        if "tox21" in arguments:  # Without the file the command is understood, and says what it wants.
            assert main(arguments) == 2
            assert "give directory=FOLDER that holds it, or download=true" in capsys.readouterr().err
            return
        assert main([a.replace("70000", "64") for a in arguments]) == 0, capsys.readouterr()
        assert capsys.readouterr().out
        return
    if arguments[0] in ("compare", "init"):
        monkeypatch.chdir(tmp_path)
        rows = [f"{i / 7:.2f},{i % 2},{('cat', 'dog', 'owl')[i % 3]},{i * 37 % 61 / 10}" for i in range(60)]
        (tmp_path / "pets.csv").write_text("\n".join(["age,ill,breed,weight", *rows]))
        # The time is spent before anything can be said: that is said.
        assert main(["1s" if word == "10m" else word for word in arguments]) == 0, capsys.readouterr()
        assert re.search(r"^(pets\.py$|verdict Cannot tell: the time)", capsys.readouterr().out, re.MULTILINE)
        return
    if "runs/digits" in arguments:  # Not there in a fresh clone: the command is understood, and says so.
        arguments[arguments.index("runs/digits")] = str(tmp_path / "none")
        assert main(arguments) == 2
        assert "work directory" in capsys.readouterr().err
        return
    if arguments[0] == "sweep":
        if arguments[-1] != "--dry-run":  # To expand the digits study once is enough.
            arguments = [a.replace("configs/digits.py", str(config)) for a in arguments]
        words = [sys.executable, "-m", "mtl.cli", *dict.fromkeys([*arguments, "--dry-run"])]
        # In a process of its own, where no types are checked: 4 s, and 30 s here.
        done = subprocess.run([*words, f"--workdir={tmp_path / 'work'}"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert re.search(r"^sweep (even_from_identity: 4,800|sizes: 240) trials", done.stdout)
        return
    if "--mesh=data:8" in arguments:  # Here there are two.
        assert main([*arguments, f"--workdir={tmp_path / 'work'}"]) == 2
        assert "asks for 8 devices" in capsys.readouterr().err
        arguments[arguments.index("--mesh=data:8")] = "--mesh=data:2"
    changes = [f"--config.{section}.total_steps=2" for section in ("source", "target")]
    assert main([*arguments, *changes, "--quiet", f"--workdir={tmp_path / 'work'}"]) == 0
    assert len(Workdir(tmp_path / "work").hashes()) == 1
