"""Regimes that a config file writes itself, as tuples of phases."""

import json

import pytest

from mtl.cli import main
from mtl.config import ConfigError, default, flatten, override, resolve
from mtl.data import load
from mtl.regimes import REGIMES, Phase, Regime, plain, read
from mtl.report.collect import collect
from mtl.sweep.store import Workdir

LP_FT = (
    {"tasks": "source", "lr": "source_lr", "budget": "source"},
    {"trainable": "head", "fresh": ("head",), "share": 0.5},
    {"share": 0.5},
)

CONFIG = """
from mtl.config import default
from mtl.regimes import Phase

def get_config():
    c = default()
    c.name = "own"
    c.model.options = {"hidden": (4,)}
    c.source.total_steps, c.target.total_steps, c.evaluations = 4, 4, 1
    c.regimes.top_only = (
        Phase(tasks="source", lr="source_lr", budget="source"),
        Phase(trainable="last_1", fresh=("head",)),
    )
    c.regimes.nothing_learned = {"phases": (Phase(total_steps=1),), "control": True}
    return c

def sweep_own():
    for regime in ("scratch", "top_only", "nothing_learned"):
        for seed in range(2):
            yield {"regime": regime, "seed": seed, "data.target_size": 20}
"""


def config_of(**regimes):
    c = default()
    c.regimes = regimes
    c.source.total_steps, c.target.total_steps = 4, 4
    return flatten(c)


def test_a_tuple_of_phases_is_the_registered_regime():
    table = load("digits")
    own = resolve(override(config_of(mine=LP_FT), {"regime": "mine"}), table)
    registered = resolve(override(config_of(), {"regime": "lp_ft"}), table)
    assert own.config["phases"] == registered.config["phases"]
    as_phases = resolve(override(config_of(mine=tuple(Phase(**p) for p in LP_FT)), {"regime": "mine"}), table)
    assert own.hash == as_phases.hash


def test_what_a_config_holds_survives_json():
    for value in (LP_FT, REGIMES["lp_ft"], {"phases": LP_FT, "control": True, "summary": "mine"}):
        kept = plain(value)
        assert plain(json.loads(json.dumps(kept))) == kept
        assert read(json.loads(json.dumps(kept))) == read(value)


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (({"trainabel": "head"},), ["phase 0", "trainabel", '"trainable"']),
        (({}, {"share": "half"}), ["phase 1", "share = 'half'", "a finite number"]),
        (({"total_steps": True},), ["total_steps = True", "a whole number"]),
        (({"fresh": (1,)},), ["fresh = (1,)", "a text"]),
        ((), ["at least one phase"]),
        ("scratch", ["must be a tuple of phases"]),
        ((7,), ["phase 0: 7"]),
        ({"phase": ()}, ["phase does not exist", '"phases"']),
        ({"phases": ({},), "control": 1}, ["control = 1", "True or False"]),
        (Regime(lambda blocks: (Phase(),) * blocks, "made"), ["register"]),
    ],
)
def test_what_is_no_regime_is_refused(value, parts):
    with pytest.raises(ConfigError) as refused:
        config_of(mine=value)
    assert str(refused.value).startswith("config.regimes.mine: ")
    assert all(part in str(refused.value) for part in parts), refused.value


def test_a_known_name_is_not_taken_twice_and_a_typo_finds_the_own_one():
    with pytest.raises(ConfigError, match=r"config\.regimes\.scratch: there is a regime of that name"):
        config_of(scratch=LP_FT)
    with pytest.raises(ConfigError, match='did you mean "my_regime"'):
        resolve(override(config_of(my_regime=LP_FT), {"regime": "my_regimes"}), load("digits"))


@pytest.mark.slow
def test_through_the_command_line(tmp_path, capsys):
    path = tmp_path / "own.py"
    path.write_text(CONFIG)
    work = tmp_path / "work"
    assert main(["sweep", f"--config={path}", f"--workdir={work}", "--jobs=0"]) == 0
    shown = capsys.readouterr().out
    assert "top_only" in shown and "nothing_learned°" in shown
    assert collect(Workdir(work), "own").controls == ("nothing_learned",)
    assert main(["sweep", f"--config={path}", f"--workdir={work}", "--jobs=0"]) == 0
    assert "6 re-used" in capsys.readouterr().err
