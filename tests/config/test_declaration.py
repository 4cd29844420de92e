"""The declaration of the config: every field has a type, a meaning and a range or a reason for none, and is read."""

import ast
import dataclasses
import math
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mtl
from mtl.config import ConfigError, check, default, flatten, override
from mtl.config.declaration import FIELDS, SECTIONS
from mtl.config.fields import KNOWN
from mtl.config.resolve import _SECTIONS
from mtl.data import Asked
from mtl.options import fits, meanings
from mtl.ranges import Range

#: Fields whose type has no range, and why.
ANY = {
    "name": "any text is a name",
    "data.target": "a task of the data, held against them in resolve",
    "init.path": "a path, looked at when it is read",
    "report.rows": "any field, held against them in check",
    "report.columns": "any field, held against them in check",
    "report.contrast": "read where regimes are known, see tests/test_hypothesis.py",
    "report.question": "any text is a question",
}
#: Dictionaries of what has a name, or of tasks: who reads them checks them.
READ_ELSEWHERE = {path for path, field in FIELDS.items() if field.hint == dict[str, Any]}

DURATIONS = [path for path in FIELDS if path.rpartition(".")[2] in SECTIONS["source"]._fields]
BASE = override(KNOWN, {"source.total_steps": 1, "target.total_steps": 1})


def limits(hint):
    return getattr(hint, "__metadata__", ())


def bare(hint):
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def is_ranged(hint):
    """Return whether a type has a range: a number's, words, a registry of names, or one of what it holds."""
    inside = [h for h in typing.get_args(bare(hint)) if h not in (str, Any, ...)]
    named = any(isinstance(limit, Range | Mapping | tuple) for limit in limits(hint))
    return named or bare(hint) is bool or typing.get_origin(bare(hint)) is Literal or any(map(is_ranged, inside))


@pytest.mark.parametrize("path", FIELDS)
def test_a_field_has_a_meaning_a_type_and_a_range_or_a_reason_for_none(path):
    hint, value, meaning = FIELDS[path]
    assert len(meaning) > 4
    kind = typing.get_origin(bare(hint)) or bare(hint)
    assert type(value) is (type(typing.get_args(bare(hint))[0]) if kind is Literal else kind)
    assert fits(hint, value)  # A default is right.
    holds_texts = kind is tuple and any(isinstance(limit, str) for limit in limits(hint))
    assert is_ranged(hint) or path in ANY or path in READ_ELSEWHERE or holds_texts
    assert not (path in ANY and is_ranged(hint))


def test_docstrings_tell_of_the_fields_that_there_are():
    for name, section in SECTIONS.items():
        own = [f for f in section._fields if name or f not in SECTIONS]
        assert list(meanings(section)) == own


def test_the_default_is_what_is_declared():
    assert flatten(default()) == KNOWN == {path: field.default for path, field in FIELDS.items()}
    assert {type(value) for value in KNOWN.values()} == {str, int, float, bool, tuple, dict}


# --- ranges ---


def bound(hint):
    """Return the bounds of a number's type, as hypothesis takes them."""
    (found,) = [limit for limit in limits(hint) if isinstance(limit, Range)] or [Range()]
    low, high = (None if math.isinf(n) else n for n in (found.low, found.high))
    return found, low, high


def inside(hint):
    """Return a strategy of values that a type allows."""
    kind, args = typing.get_origin(bare(hint)) or bare(hint), typing.get_args(bare(hint))
    if kind is Literal:
        return st.sampled_from(args)
    if kind is tuple and args[-1] is ...:
        least = bound(hint)[1] or 0
        return st.lists(inside(args[0]), min_size=least, max_size=4).map(tuple)
    if kind is tuple:
        return st.tuples(*map(inside, args))
    if kind is dict:
        return st.dictionaries(st.sampled_from(["heads/.*", "even", "a.b"]), inside(args[1]))
    found, low, high = bound(hint)
    if kind is float:
        return st.floats(
            low, high, exclude_min=found.open_low, exclude_max=found.open_high, allow_nan=False, allow_infinity=False
        )
    return {int: st.integers(low, high if high is not None else 10**9), bool: st.booleans(), str: st.text()}[kind]


def outside(hint):
    """Return a strategy of values of a type that its range does not allow."""
    kind, args = typing.get_origin(bare(hint)) or bare(hint), typing.get_args(bare(hint))
    if kind is Literal:
        return st.text().filter(lambda text: text not in args)
    if kind is tuple:
        wrong = outside(args[0]).map(lambda item: (item,))
        return wrong | st.just(()) if bound(hint)[1] else wrong
    if kind is dict:
        return st.dictionaries(st.just("even"), outside(args[1]), min_size=1)
    found, _, _ = bound(hint)
    numbers = st.integers() if kind is int else st.floats()
    return numbers.filter(lambda number: not (math.isfinite(number) and found.holds(number)))


#: Fields whose range is declared as numbers or words.
RANGED = [path for path, field in FIELDS.items() if re.search(r"Range\(|Literal\[", repr(field.hint))]


def beside(path, value):
    """Return what other fields must be for a value that is right."""
    section = path.partition(".")[0]
    if path in DURATIONS:
        others = {p: 0 for p in DURATIONS if p.startswith(section)}
        return others | ({} if value else {f"{section}.{'total_steps' if path[-5:] != 'steps' else 'total_epochs'}": 1})
    return {
        "accumulate": {"batch_size": value},
        "data.source_size": {"data.source": ()},
        "data.split": {"data.options": {"groups": "scaffold"}},
        "data.test_size": {"data.split": "official"},
        "tune.source_lr": {"tune.seeds": (0,)},
    }.get(path, {})


@given(st.data())
def test_values_inside_a_declared_range_are_taken(data):
    path = data.draw(st.sampled_from(RANGED))
    value = data.draw(inside(FIELDS[path].hint))
    check(override(BASE, beside(path, value) | {path: value}))


@given(st.data())
def test_values_outside_of_it_are_refused_with_the_field_the_value_and_what_is_right(data):
    path = data.draw(st.sampled_from(RANGED))
    value = data.draw(outside(FIELDS[path].hint))
    with pytest.raises(ConfigError) as error:
        check(override(BASE, {path: value}))
    line = str(error.value)
    shown = repr(value)
    if isinstance(value, dict) or f"config.{path} holds" in line:
        shown = repr(next(iter(value.values())) if isinstance(value, dict) else value[0])
    assert line.startswith(f"config.{path}")
    said, _, right = line.rpartition(": must ")
    assert shown in said and len(right) > 4


# --- who reads them ---


def words_of_the_code():
    """Return (the texts, the names of parameters) in mtl's code, but for docstrings and the declaration."""
    texts, names = set(), set()
    root = Path(mtl.__file__).parent
    for path in root.rglob("*.py"):
        if path == root / "config" / "declaration.py":
            continue
        tree = ast.parse(path.read_text())
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                texts.add(node.value)
            elif isinstance(node, ast.arg):
                names.add(node.arg)
    return texts, names


def test_every_field_is_read():
    texts, names = words_of_the_code()
    names |= {field.name for field in dataclasses.fields(Asked)}
    through_the_trial = {path: last for fields in _SECTIONS.values() for path, last in fields}
    for path in FIELDS.keys() - set(DURATIONS):  # Those ``duration`` reads by their units.
        last = through_the_trial.get(path)
        assert path in texts or (last is not None and (last in texts or last in names)), f"nothing reads {path}"
