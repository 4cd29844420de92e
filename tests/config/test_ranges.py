"""Ranges: the last value that is right is taken, and the first that is wrong is refused in a sentence that says why."""

import itertools
import math
import re

import pytest

from mtl import data
from mtl.config import ConfigError, check, override, resolve
from mtl.config.declaration import FIELDS
from mtl.config.fields import KNOWN
from mtl.hypothesis import REGIONS

TINY = math.ulp(0.0)
HUGE = math.nextafter(math.inf, 0)
BELOW_ONE = math.nextafter(1, 0)
ABOVE_ONE = math.nextafter(1, 2)
NOT_FINITE = [math.nan, math.inf, -math.inf]
POSITIVE = ([TINY, 1.0, HUGE], [0.0, -0.0, -TINY, -HUGE, *NOT_FINITE], ["finite", "above 0"])
NOT_NEGATIVE = ([0.0, -0.0, TINY, HUGE], [-TINY, -HUGE, *NOT_FINITE], ["finite", "at least 0"])
SHARE = ([0.0, TINY, BELOW_ONE], [-TINY, 1.0, ABOVE_ONE, *NOT_FINITE], ["[0, 1)"])
SAMPLING = ["per_task", "rows", "uniform", "temperature", "one_task"]


def count(least):
    return [least, least + 1, 10**9], [least - 1, -1, -(10**9)], [f"at least {least}"]


def words(*right):
    return list(right), ["", "none_such", right[0].upper(), right[0] + " ", right[0][:-1]], [f'"{w}"' for w in right]


#: (values that are right, values that are wrong, what the sentence must say)
CASES = {
    "seed": ([0, 2**32 - 1], [-1, 2**32], ["0", "4294967295"]),
    "data.target_size": count(2),
    "data.target_pool": count(2),
    "data.val_fraction": ([TINY, 0.5, BELOW_ONE], [0.0, 1.0, -TINY, *NOT_FINITE], ["between 0 and 1"]),
    "data.split": words("random", "official"),
    "data.folds": count(0),
    "data.fold_repeats": count(1),
    "report.looks": count(1),
    "data.test_size": count(1),
    "data.source_size": count(1),
    "data.source_val_size": count(0),
    "data.hide": (["at_random"], ["none", "At_random", "at_random "], ["one_task_each", "positive_only", "or empty"]),
    "data.hide_rate": ([0.0, TINY, 1.0], [-TINY, ABOVE_ONE, *NOT_FINITE], ["[0, 1]"]),
    "data.hide_skew": ([-1.0, 0.0, 1.0], [-ABOVE_ONE, ABOVE_ONE, *NOT_FINITE], ["[-1, 1]"]),
    "data.label_noise_asymmetry": ([-1.0, 0.0, 1.0], [-ABOVE_ONE, ABOVE_ONE, *NOT_FINITE], ["[-1, 1]"]),
    "data.normalize": words("none", "standardize"),
    "lr": POSITIVE,
    "source_lr": POSITIVE,
    "batch_size": count(1),
    "accumulate": ([1, 2, 32], [0, -1, -32], ["at least 1"]),
    "model.dtype": words("float32", "bfloat16"),
    "source_sampling": words(*SAMPLING),
    "joint_sampling": words(*SAMPLING),
    "data.rows": words("shared", "disjoint"),
    "temperature": POSITIVE,
    "round_steps": ([0, 1, 4096], [-1, 4097], ["from 0 to 4096"]),
    "trunk_mode": words("eval", "train"),
    "select": words("last", "best"),
    "evaluations": count(1),
    "patience": count(0),
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.decay": words("all", "kernels"),
    "optimizer.warmup": ([0.0, TINY, 1.0], [-TINY, ABOVE_ONE, *NOT_FINITE], ["[0, 1]"]),
    "optimizer.clip": NOT_NEGATIVE,
    "optimizer.layer_decay": ([TINY, 1.0], [0.0, -TINY, ABOVE_ONE, *NOT_FINITE], ["(0, 1]"]),
    "optimizer.ema": SHARE,
    "ridge.penalties": (
        [(1.0,), (TINY, HUGE), (1, 2)],
        [(), (0.0,), (-1.0,), (1.0, math.nan), (math.inf,), ("a",)],
        ["finite", "above 0", "at least one"],
    ),
    "ridge.choose": words("leave_one_out", "validation"),
    "loss.denominator": words("examples", "labels", "tasks"),
    "report.margin": POSITIVE,
    "report.falsifier": words(*REGIONS),
}

UNITS = ("total_steps", "total_epochs", "total_examples")
DURATIONS = [f"{section}.{unit}" for section in ("source", "target") for unit in UNITS]
BASE = override(KNOWN, {"source.total_steps": 1, "target.total_steps": 1})


def refusal(changes):
    with pytest.raises(ConfigError) as error:
        check(override(BASE, changes))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_range_has_a_case():
    ranged = {path for path, field in FIELDS.items() if re.search(r"Range\(|Literal\[", repr(field.hint))}
    held = {"tune.source_lr", "tune.seeds", "loss.weights", "optimizer.rates"}  # What they hold has a range.
    assert sorted(ranged - {*DURATIONS} - held) == sorted(CASES)
    for good, bad, right in CASES.values():
        assert good and bad and right
    for field, (_, bad, _) in CASES.items():
        if isinstance(KNOWN[field], float):
            assert any(map(math.isnan, bad)) and math.inf in bad
        if isinstance(KNOWN[field], (int, float)):
            assert min(bad) < 0


def test_every_number_of_the_config_has_a_range():
    numbers = {k for k, v in KNOWN.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    assert numbers <= {*CASES, *DURATIONS}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, (good, _, _) in CASES.items() for v in good])
def test_the_last_values_that_are_right_are_taken(field, value):
    check(override(BASE, {field: value}))


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, (_, bad, _) in CASES.items() for v in bad])
def test_the_first_values_that_are_wrong_are_refused(field, value):
    line = refusal({field: value})
    assert line.startswith(f"config.{field} = {value!r}: must be ")
    for part in CASES[field][2]:
        assert part in line


def test_ranges_hold_for_every_trial_of_a_sweep():
    table = data.load("digits")
    for field, (_, bad, _) in CASES.items():
        with pytest.raises(ConfigError, match=f"^config.{field} = "):
            resolve(override(BASE, {field: bad[0]}), table)


def test_a_head_can_begin_in_two_ways():
    table = data.load("digits")
    for way in ("zeros", "lecun_normal"):
        resolve(override(BASE, {"model.head_init": way}), table)
    with pytest.raises(ConfigError, match=r'^config.model.head_init = "zero": did you mean "zeros"\?'):
        resolve(override(BASE, {"model.head_init": "zero"}), table)


# --- durations ---


@pytest.mark.parametrize("section", ["source", "target"])
def test_exactly_one_unit_of_a_duration_is_set(section):
    names = [f"{section}.{unit}" for unit in UNITS]
    nothing = dict.fromkeys(names, 0)
    for name in names:
        check(override(BASE, nothing | {name: 1}))
    for some in [*itertools.combinations(names, 2), names]:
        line = refusal(nothing | dict.fromkeys(some, 3))
        assert all((f"{name} = 3" in line) == (name in some) for name in names)
        assert "set exactly one of total_steps, total_epochs, total_examples" in line
    line = refusal(nothing)
    assert line.startswith(f"config.{section}: nothing set: set exactly one of ")


@pytest.mark.parametrize("name", DURATIONS)
def test_a_duration_is_finite_and_not_negative(name):
    section, _, unit = name.partition(".")
    nothing = dict.fromkeys((f"{section}.{u}" for u in UNITS), 0)
    small = TINY if unit == "total_epochs" else 1
    check(override(BASE, nothing | {name: small}))
    for value in [-small, *(NOT_FINITE if unit == "total_epochs" else [])]:
        for others in (nothing, {}):
            line = refusal(others | {name: value})
            assert line.startswith(f"config.{name} = {value}: must be a finite number, at least 0")


# --- what depends on two fields ---


def test_micro_batches_divide_the_batch():
    for parts in (1, 2, 8):
        check(override(BASE, {"batch_size": 8, "accumulate": parts}))
    for parts in (3, 5, 16):
        line = refusal({"batch_size": 8, "accumulate": parts})
        assert line.startswith(f"config.accumulate = {parts}: must divide batch_size = 8")


@pytest.mark.parametrize("multiple", [-1.0, *NOT_FINITE, "1", None, True])
def test_multiples_of_the_rate_are_numbers(multiple):
    check(override(BASE, {"optimizer.rates": {"backbone/.*": 0, "heads/.*": 1e6}}))
    line = refusal({"optimizer.rates": {"heads/.*": multiple}})
    assert line == f"config.optimizer.rates['heads/.*'] = {multiple!r}: must be a finite number, at least 0"


def test_patterns_of_rates_are_regular_expressions():
    assert "config.optimizer.rates: 'heads/(' is no regular expression" in refusal(
        {"optimizer.rates": {"heads/(": 1.0}}
    )


@pytest.mark.parametrize("value", [0.0, -1e-3, *NOT_FINITE, "1e-3", None])
def test_candidates_of_the_sources_rate_are_rates(value):
    check(override(BASE, {"tune.source_lr": (TINY, 1, HUGE)}))
    line = refusal({"tune.source_lr": (1e-3, value)})
    assert line.startswith(f"config.tune.source_lr holds {value!r}: must hold finite numbers above 0")
