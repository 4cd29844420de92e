"""What tuples and dictionaries of a config hold: what cannot be is refused before anything is compiled."""

import math

import pytest

from mtl.config import ConfigError, check, default, flatten, override, resolve
from mtl.config.fields import KNOWN
from mtl.sweep.plan import load_table
from mtl.sweep.study import source_trials

BASE = override(KNOWN, {"source.total_steps": 1, "target.total_steps": 1})

WRONG = [
    ("data.source", [(1,), (("identity",),)], "must hold names of tasks"),
    ("init.fresh", [(1,), ("heads/.*", None)], "must hold patterns (texts)"),
    ("init.rename", [("a",), ("ab",), (("a", "b", "c"),), (("a", 1),), ({"a": "b"},)], "must hold pairs of texts"),
    ("tune.seeds", [("a",), (-1,), (2**32,), (0.0,), (True,)], "must hold integers from 0 to 4294967295"),
    ("tune.source_lr", [(True,)], "must hold finite numbers above 0"),
    ("report.notes", [(1,), ("a", None)], "must hold texts"),
]


def refusal(changes):
    with pytest.raises(ConfigError) as error:
        check(override(BASE, changes))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("field", "value", "right"), [(f, v, r) for f, values, r in WRONG for v in values])
def test_an_item_that_cannot_be_is_named(field, value, right):
    line = refusal({field: value})
    assert line.startswith(f"config.{field} holds {value[-1]!r}: ")
    assert right in line
    with pytest.raises(ConfigError, match=f"^config.{field} holds "):
        resolve(override(BASE, {field: value}), load_table("digits", {}))


def test_items_that_are_right_are_taken():
    check(override(BASE, {
        "init.fresh": ("heads/.*",), "init.rename": (("a", "b"), ["c", "d"]), "tune.seeds": (0, 2**32 - 1),
        "tune.source_lr": (1, 1e-3), "report.notes": ("a", ""), "loss.weights": {"even": 0, "identity": 2.5},
    }))  # fmt: skip


@pytest.mark.parametrize("section", ["regimes", "data.options", "model.options", "loss.weights", "task_options"])
def test_keys_are_texts(section):
    with pytest.raises(ConfigError, match=f"^config.{section} has the key 1: keys must be texts"):
        check(BASE | {section: {1: 2}})


@pytest.mark.parametrize("value", [{"deep": {1: 2}}, {"deep": ({"er": {1: 2}},)}])
def test_keys_are_texts_at_any_depth(value):
    assert "has the key 1: keys must be texts" in refusal({"model.options": value})


@pytest.mark.parametrize("value", ["a", None, True, -1e-9, math.nan, math.inf, (1,)])
def test_weights_of_losses_are_numbers(value):
    line = refusal({"loss.weights": {"even": value}})
    assert line == f"config.loss.weights.even = {value!r}: must be a finite number, at least 0"


def test_a_question_is_a_text():
    assert "config.report.question = 1: must be of type str" in refusal({"report.question": 1})


def test_regimes_are_read_however_they_are_set():
    with pytest.raises(ConfigError, match=r"^config\.regimes\.a: 1: must be a tuple of phases"):
        override(KNOWN, {"regimes": {"a": 1}})
    assert override(KNOWN, {"regimes": {"a": ({},)}}) == override(KNOWN, {"regimes.a": ({},)})


def test_tuning_without_replicates_is_refused():
    assert refusal({"tune.source_lr": (1e-3, 1e-2), "tune.seeds": ()}).startswith("config.tune.seeds = ()")
    check(override(BASE, {"tune.seeds": ()}))  # Nothing is tuned.
    base = override(flatten(default()), {"source.total_steps": 1, "target.total_steps": 1, "tune.source_lr": (1e-3,)})
    assert len(source_trials(override(base, {"tune.seeds": (3, 4)}), [{"seed": 0}])) == 2
