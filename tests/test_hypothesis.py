"""A hypothesis in a config: what can be stated, and that what cannot be is refused before anything runs."""

import re

import pytest

from mtl.cli import main
from mtl.config import ConfigError, default, flatten, override
from mtl.host.files import DamagedError
from mtl.hypothesis import Hypothesis, hypothesis_of
from mtl.regimes import Phase
from mtl.sweep import product, sweep
from mtl.sweep.schema import check_study
from mtl.sweep.store import Workdir
from mtl.sweep.study import check_base, make_sweep, settle
from tests.config.test_targets import BASE


def stating(contrast, **changes):
    return override(BASE, {"report.contrast": contrast, **changes})


def test_a_contrast_is_two_regimes_and_sizes():
    assert hypothesis_of(BASE) is None
    assert hypothesis_of(stating("a-b - scratch@2 @ 100,20, 100"))[:3] == ("a-b", "scratch@2", (20, 100))
    assert hypothesis_of(stating("a - b @ 0.5")).sizes == (0.5,)
    assert hypothesis_of(stating("a - b")) == Hypothesis("a", "b", (), "upper <= margin")


@pytest.mark.parametrize(
    "text", ["multitask", "a - b - c", "a - a", "a -", " - b", "a - b @ ", "a - b @ x", "a - b @ 1e2", "a - b @ -1"]
)
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(ConfigError, match=r"config.report.contrast = .*: must be \"REGIME - REGIME\", or"):
        check_base(stating(text))


def test_regimes_must_exist_those_of_the_config_too():
    with pytest.raises(
        ConfigError, match=r'config.report.contrast = "multitusk - scratch": .*did you mean "multitask"'
    ):
        check_base(stating("multitusk - scratch"))
    check_base(stating("mine - scratch", regimes={"mine": (Phase(),)}))
    with pytest.raises(ConfigError, match=r"config.report.falsifier = 'never': must be"):
        check_base(stating("multitask - scratch", **{"report.falsifier": "never"}))


def test_a_sweep_must_have_what_it_is_about_and_may_state_its_own():
    regimes = sweep("regime", ("scratch", "multitask"))
    sizes = sweep("data.target_size", (20, 40))
    make_sweep("s", stating("multitask - scratch @ 20"), product(regimes, sizes))
    for contrast, absent in (
        ("finetune - scratch", "regime finetune"),
        ("multitask - scratch @ 30", "data.target_size 30"),
    ):
        with pytest.raises(ConfigError, match=f"sweep s has no {absent}: must be about what it has"):
            make_sweep("s", stating(contrast), product(regimes, sizes))
    own = product([{"report.contrast": "multitask - scratch", "report.margin": 0.01}], regimes, sizes)
    base, entries = settle(BASE, own)
    assert base["report.contrast"] == "multitask - scratch" and base["report.margin"] == 0.01
    assert entries == product(regimes, sizes)
    with pytest.raises(ConfigError, match=r"the sweep changes report.margin between trials: it is about one question"):
        settle(BASE, product(sweep("report.margin", (0.01, 0.02)), regimes))


CONFIG = """
from mtl.config import default
from mtl.sweep import product, sweep

def get_config():
    c = default()
    c.name = "stated"
    c.data.test_size, c.data.target_size = 100, 40
    c.model.options = {"hidden": (4,)}
    c.source.total_steps, c.target.total_steps, c.evaluations = 4, 4, 1
    return c

def sweep_main():
    return product(sweep("regime", ("scratch", "finetune")), sweep("seed", range(3)))
"""


@pytest.fixture
def launch(tmp_path):
    file = tmp_path / "stated.py"
    file.write_text(CONFIG)

    def launch(*changes):
        return main(["sweep", f"--config={file}", f"--workdir={tmp_path / 'work'}", "--jobs=0", *changes])

    return launch


def test_it_is_refused_with_exit_code_2_and_answered_first(launch, tmp_path, capsys):
    assert launch("--config.report.contrast=fineture - scratch") == 2
    assert 'did you mean "finetune"' in capsys.readouterr().err
    assert launch("--config.report.contrast=lp_ft - scratch") == 2
    assert "sweep main has no regime lp_ft" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
    assert launch("--config.report.contrast=finetune - scratch", "--config.report.falsifier=ties") == 0
    out = " ".join(capsys.readouterr().out.split())  # Lines are as wide as the terminal.
    assert "Stated beforehand: finetune differs by more than 2.0 points from scratch (refuted by: ties)." in out
    page = (tmp_path / "work" / "report.html").read_text()
    assert re.search(r'<p class="answer( long)?">Stated beforehand: finetune', page)
    # What is stated anew when results are there is told so, and stays so.
    for again in (("--config.report.falsifier=differs",), ("--config.report.falsifier=ties",)):
        assert launch("--config.report.contrast=finetune - scratch", *again) == 0
        assert "Stated when results were there: finetune differs by" in " ".join(capsys.readouterr().out.split())


def test_it_changes_no_trial(launch, tmp_path):
    flat = flatten(default())
    flat = override(flat, {"name": "s", "source.total_steps": 1, "target.total_steps": 1, "data.targets": ()})
    one, other = (
        make_sweep("s", override(flat, {"report.contrast": c}), product(sweep("regime", ("scratch", "multitask"))))
        for c in ("", "multitask - scratch")
    )
    assert [t.hash for t in one.trials] == [t.hash for t in other.trials]
    assert launch() == 0
    entry = Workdir(tmp_path / "work").study()["sweeps"]["main"]
    assert not entry["late"]


@pytest.mark.parametrize(
    "changes", [{"report.contrast": "a - b"}, {"report.contrast": "a", "report.falsifier": "ties"}]
)
def test_a_study_file_with_one_that_cannot_be_read_is_damaged(changes):
    entry = {"base": {"report.margin": 0.02, **changes}, "trials": [], "fingerprints": {}}
    with pytest.raises(DamagedError, match="holds no hypothesis that can be read"):
        check_study({"sweeps": {"s": entry}})
