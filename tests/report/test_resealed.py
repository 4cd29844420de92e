"""A study whose files were changed by somebody who knows of digests: a sentence or a table, and never a traceback."""

import contextlib
import io
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtl.cli import main
from mtl.sweep import schema
from tests.sweep.hostile import STUDY, content_of, file_of, parts, reseal, restored, small_study

EXAMPLES = int(os.environ.get("MTL_FUZZ", "25"))
READERS = [
    ["status", "--json"],
    ["status"],
    ["table"],
    ["table", "--format=json"],
    ["table", "--format=html"],
    ["report"],
]

NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(max_size=8) | st.sampled_from(["\ud800", "<script>", "[/b]", "../x", "scratch", "even"])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("resealed") / "work")


def nodes(value, path=()):
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from nodes(inner, (*path, key))


def put(content, path, value):
    node = content
    for key in path[:-1]:
        node = node[key]
    if value is None and isinstance(node, dict):
        del node[path[-1]]  # A key that is missing.
    else:
        node[path[-1]] = value


def read_all(work):
    """Run every reader and return what it said on standard error."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        codes = [main([words[0], str(work), *words[1:]]) for words in READERS]
    assert set(codes) <= {0, 2}
    return said.getvalue()


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_readers_say_what_is_wrong_in_a_sentence(victim, data):
    part = data.draw(st.sampled_from(parts(victim)))
    content = content_of(victim, part)
    put(content, data.draw(st.sampled_from([p for p in nodes(content) if p])), data.draw(VALUES))
    with restored(file_of(victim, part)):
        reseal(victim, part, content)
        assert "Traceback" not in read_all(victim)


def changed(victim, part, path, value):
    """Return what readers say of ``study.json`` or a result with one value changed."""
    content = content_of(victim, part)
    put(content, path, value)
    with restored(file_of(victim, part)):
        reseal(victim, part, content)
        return read_all(victim)


SWEEP = ("sweeps", "even")
STUDY_CASES = {
    "a seed that is a list": ((*SWEEP, "trials", 0, "changes", "seed"), [1]),
    "a margin that is a word": ((*SWEEP, "base", "report.margin"), "wide"),
    "a source that is a number": ((*SWEEP, "base", "data.source"), 5),
    "no denominator": ((*SWEEP, "base", "loss.denominator"), None),
    "an unknown sampling": ((*SWEEP, "base", "joint_sampling"), "as it comes"),
    "no size": ((*SWEEP, "base", "data.target_size"), None),
    "a negative size": ((*SWEEP, "base", "data.target_size"), -3),
    "warnings that are a number": ((*SWEEP, "warnings"), 3),
    "a tuning that is a list": ((*SWEEP, "tuning"), [1]),
    "images changed in a way there is not": ((*SWEEP, "trials", 0, "changes", "augment"), ["flop"]),
    "a fingerprint that is not there": ((*SWEEP, "trials", 0, "fingerprint"), "0" * 16),
    "no fingerprints": ((*SWEEP, "fingerprints"), {}),
    "a number beyond 63 bits": ((*SWEEP, "base", "seed"), 2**63),
    "half a character": ((*SWEEP, "base", "report.question"), "\ud800"),
}


@pytest.mark.parametrize(("path", "value"), STUDY_CASES.values(), ids=STUDY_CASES)
def test_study_json_of_another_shape_is_one_sentence(victim, path, value):
    lines = changed(victim, STUDY, path, value).splitlines()
    assert lines and all(line.startswith("mtl: ") for line in lines)


def test_without_the_schema_it_is_a_traceback(victim, monkeypatch):
    """The control."""
    monkeypatch.setattr(schema, "_must", lambda value, kind, where: None)
    with pytest.raises((TypeError, AttributeError)):
        changed(victim, STUDY, *STUDY_CASES["a source that is a number"])


RESULT_CASES = {
    "a status that is none": (("status",), "perhaps"),
    "a target that is no task": (("config", "data", "target"), "odd"),
    "a kind that is none": (("config", "tasks", 1, "kind"), "ternary"),
    "curves of several lengths": (("phases", 0, "train_loss"), {"even": [1.0, 2.0]}),
    "no cost": (("cost", "flops"), None),
    "a cost that is a word": (("cost", "flops"), "many"),
    "weights without a path": (("config", "init", "path"), 1),
    "a fingerprint without data": (("fingerprint", "data"), None),
    "a fingerprint that is a word": (("fingerprint", "code"), "new"),
    "versions that are numbers": (("versions", "jax"), 10),
    "no phases": (("config", "phases"), None),
    "images changed in a way there is not": (("config", "phases", 0, "augment"), [["crop", 3]]),
    "rates that are words": (("config", "data", "label_noise"), {"even": "much"}),
}


@pytest.mark.parametrize(("path", "value"), RESULT_CASES.values(), ids=RESULT_CASES)
def test_a_result_of_another_shape_counts_as_not_done(victim, path, value):
    said = changed(victim, parts(victim)[1], path, value)
    assert said.count("counts as not done") and all(line.startswith("mtl: ") for line in said.splitlines())
