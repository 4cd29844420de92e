"""Options: what a type or a range does not allow is refused in one sentence, whatever takes them."""

import functools
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl import data, models, regimes
from mtl.config import ConfigError, override, resolve
from mtl.config.fields import KNOWN
from mtl.options import checked
from mtl.ranges import Range
from mtl.sweep.plan import load_table
from mtl.tasks import Task

NUMBERS = st.integers(-100, 100) | st.floats(width=32)


def refused(function, **options):
    with pytest.raises(ValueError) as error:
        checked(function, options, "model.options.", "model mine")
    assert "\n" not in str(error.value)
    return str(error.value)


def taken(function, **options):
    return checked(function, options, "model.options.", "model mine")


# --- ranges ---


@given(st.floats(-9, 9), st.floats(-9, 9), st.booleans(), st.booleans(), NUMBERS)
def test_a_range_holds_what_python_compares(low, high, open_low, open_high, value):
    above = value > low if open_low else value >= low
    below = value < high if open_high else value <= high
    assert Range(low, high, open_low, open_high).holds(value) == (above and below)


# --- types ---


def typed(
    flag: bool = False,
    count: Annotated[int, Range(1)] = 1,
    share: Annotated[float, Range(0, 1, open_high=True)] = 0.0,
    text: str = "a",
    word: Literal["a", "b"] = "a",
    widths: tuple[Annotated[int, Range(1)], ...] = (8, 8),
    pair: tuple[int, int] = (1, 1),
    names: Sequence[str] | str = (),
    maybe: int | None = None,
    table: Mapping[str, float] = {},
    anything=None,
):
    """Every kind of parameter."""


#: (what is right and what becomes of it, what is wrong)
CASES = {
    "flag": ([(True, True), (False, False)], ["maybe", "true", 1, 0, None, 1.0, ()]),
    "count": ([(1, 1), (np.int64(3), 3)], [0, -1, 1.0, True, "1", None, (1,), math.nan]),
    "share": ([(0, 0.0), (0.5, 0.5), (np.float32(0.5), 0.5)], [1.0, 1, -0.1, True, "0.5", math.nan, math.inf, None]),
    "text": ([("", ""), ("a:b", "a:b")], [1, True, None, ("a",)]),
    "word": ([("a", "a"), ("b", "b")], ["c", "A", 1, None, True]),
    "widths": ([((), ()), ([3], (3,)), ((1, 2), (1, 2))], [8, "8", (0,), (1, -1), (1.0,), (True,), ((1,),), None]),
    "pair": ([((1, 2), (1, 2)), ([0, -1], (0, -1))], [32, (1,), (1, 2, 3), (1.5, 2), "ab"]),
    "names": ([("a", "a"), (["a", "b"], ("a", "b"))], [2, (1,), None, True]),
    "maybe": ([(None, None), (3, 3)], ["3", 1.5, True, (3,)]),
    "table": ([({"a": 1}, {"a": 1.0}), ({}, {})], [{"a": "x"}, {1: 1.0}, ("a",), 3, {"a": math.nan}]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_value_is_of_its_parameters_type(name):
    good, bad = CASES[name]
    for value, right in good:
        found = taken(typed, **{name: value})[name]
        assert found == right and type(found) is type(right)
    for value in bad:
        assert refused(typed, **{name: value}).startswith(f"model.options.{name} = {value!r}: must be ")


def test_what_is_not_annotated_is_like_its_default():
    def plain(rows=100, noise=0.1, shuffled=False, names=(), other=None, kind="a"):
        """A user's own function."""

    assert taken(plain, rows=0.5, noise=1, names=["a"], other={"b": 1}, kind="b") == {
        "rows": 0.5, "noise": 1.0, "names": ("a",), "other": {"b": 1}, "kind": "b",
    }  # fmt: skip
    for option, value in (("rows", "many"), ("rows", True), ("noise", math.nan), ("shuffled", "maybe"), ("names", 8)):
        assert f"model.options.{option} = " in refused(plain, **{option: value})


def test_names_are_those_of_the_function():
    assert 'model mine has no option "cuont": did you mean "count"?' in refused(typed, cuont=1)
    assert refused(lambda needed: needed).startswith("model.options.needed is missing")
    assert refused(lambda: None, a=1).endswith("it takes none")
    assert taken(lambda **rest: rest, a=[1]) == {"a": (1,)}
    with pytest.raises(ValueError, match=r'^data "mine": count = 0: must be a whole number, at least 1$'):
        checked(typed, {"count": 0}, "", 'data "mine"')


def test_annotations_that_cannot_be_read_refuse_nothing():
    def odd(a: "NotImported" = 1, b: "int" = 2, c: np.ndarray | None = None):
        """Of a config file that imports types for its checker alone."""

    assert taken(odd, a=3, c=3) == {"a": 3, "c": 3}
    assert "model.options.b = 'x'" in refused(odd, b="x")


# --- models ---

COUNT, DROPOUT = [0, -1, 1.5, True, "8", None], [1.0, 2.0, 10, -0.5, math.nan, "maybe", True]
WORDS, TRUTH = ["batchnorm", "", 1, None], ["maybe", 1, None]
WIDTHS = [8, "8", (0,), (8, -8), (8.0,), (True,)]

#: What each option of each backbone cannot be.
WRONG = {
    "mlp": {"hidden": WIDTHS, "dropout": DROPOUT},
    "cnn": {"channels": WIDTHS, "features": COUNT, "norm": WORDS, "remat": TRUTH},
    "resnet": {"depth": [50, 18.0, "18"], "width": COUNT, "stem": WORDS, "norm": [*WORDS, "none"], "remat": TRUTH},
    "vit": {
        "patch": COUNT, "width": COUNT, "depth": COUNT, "heads": COUNT, "mlp_ratio": [0, -1.0, math.inf, "4", True],
        "pool": WORDS, "dropout": DROPOUT, "gelu": WORDS, "remat": TRUTH,
    },
    "efficientnet_lite": {
        "stages": [3, (3,), ((3, 1, 1, 16),), ((3, 1, 1, 0, 1),), ((3, 0, 1, 8, 1),)], "stem": COUNT,
        "stem_stride": COUNT, "features": COUNT, "norm": [*WORDS, "none"], "remat": TRUTH,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(WRONG))
def test_every_option_of_every_backbone_has_a_range(name):
    known = set(inspect.signature(models.MODELS[name]).parameters) - {"parent", "name"}
    assert known == set(WRONG[name])
    for option, values in WRONG[name].items():
        for value in values:
            with pytest.raises(ValueError, match=rf"^model\.options\.{option} = ") as error:
                models.build(name, {option: value}, (Task("t", "binary"),))
            assert "must be" in str(error.value) and "\n" not in str(error.value)


def trial_of(**changes):
    base = override(KNOWN, {"source.total_steps": 1, "target.total_steps": 1, "regime": "scratch"})
    flat = override(base, {k.replace("__", "."): v for k, v in changes.items()})
    return resolve(flat, load_table(flat["data.name"], flat["data.options"]))


def test_a_config_is_told_the_field():
    for options, line in (
        ({"dropout": 2.0}, "config.model.options.dropout = 2.0: must be a number in [0, 1)"),
        ({"hidden": 8}, "config.model.options.hidden = 8: must be a tuple, each of it a whole number, at least 1"),
        ({"hiden": (8,)}, 'config.model.options.hiden: model mlp has no option "hiden": did you mean "hidden"?'),
    ):
        with pytest.raises(ConfigError) as error:
            trial_of(model__options=options)
        assert str(error.value).startswith(line)
    with pytest.raises(ConfigError, match=r"^config\.data\.options\.images = 'maybe': must be True or False$"):
        trial_of(data__options={"images": "maybe"})


def test_one_spelling_of_an_option_is_one_trial():
    hashes = {
        trial_of(model__options=o).hash for o in ({"dropout": 0, "hidden": [8]}, {"dropout": 0.0, "hidden": (8,)})
    }
    assert len(hashes) == 1


def test_options_of_a_task_are_typed():
    for option, value in (("pos_weight", "2"), ("pos_weight", True), ("focal_gamma", math.nan), ("kind", "binary")):
        with pytest.raises(ConfigError, match=rf"^config\.task_options\.even\.{option}"):
            trial_of(task_options={"even": {option: value}})


# --- data sets ---

#: What cannot be, by the type of an option's default.
OTHERS = {bool: ["maybe", 1, None], int: ["3", True, 2.5, None], float: ["x", True, math.nan], str: [3, True, None]}


@pytest.mark.parametrize("name", sorted(n for n, f in data.SOURCES.items() if f.__module__.startswith("mtl.data.")))
def test_every_option_of_every_data_set_has_a_type(name):
    for option, p in inspect.signature(data.SOURCES[name]).parameters.items():
        values = OTHERS.get(type(p.default), [object()])
        for value in values if "|" not in str(p.annotation) and "Labels" not in str(p.annotation) else [object(), 2.5]:
            with pytest.raises(ValueError, match=rf'^data "{name}": {option} = '):
                checked(data.SOURCES[name], {option: value}, "", f'data "{name}"')


# --- names that are registered ---

_FILE = """
def plain(rows=3): return rows
def made(k): return lambda: k
class Net: pass
one, two = lambda: 1, lambda: 2
closed, other = made(1), made(2)
part, narrow = functools.partial(plain, rows=1), functools.partial(plain, rows=2)
by_default, by_another = [lambda rows=k: rows for k in (1, 2)]
"""


def _executed(code=_FILE):
    """Return what a file defines that is executed."""
    space = {"functools": functools, "__name__": "mtl_config_mine"}
    exec(compile(code, "mine.py", "exec"), space)  # noqa: S102
    return space


def _register(what):
    """Return a function that registers something, and forgets it again in the end."""
    if what == "data":
        return data.register("twice"), data.registry.SOURCES
    if what == "model":
        return models.register("twice"), models.MODELS
    return (lambda phases: regimes.register("twice", regimes.Regime(phases, "twice"))), regimes.REGIMES


@pytest.mark.parametrize("what", ["data", "model", "regime"])
def test_two_functions_of_one_file_are_refused_under_one_name_and_a_file_may_run_twice(what):
    first, again = _executed(), _executed(_FILE.replace("return rows", "return 2 * rows"))
    register, known = _register(what)
    for name in ("plain", "one", "closed", "part", "by_default", *(("Net",) if what != "regime" else ())):
        try:
            register(first[name])
            register(first[name])
            register(again[name])
        finally:
            known.pop("twice")
    for name, another in (("one", "two"), ("closed", "other"), ("part", "narrow"), ("by_default", "by_another")):
        register(first[name])
        try:
            with pytest.raises(ValueError, match=r'"twice" is (already registered|registered already)'):
                register(first[another])
        finally:
            known.pop("twice")
