"""Fields by path: a typo is never taken and its sentence names what was meant; types are kept; texts are read back."""

import copy
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.config import ConfigError, check, default, flatten, load, override, parse
from mtl.config.default import FREE
from mtl.config.fields import KNOWN

#: Sections of options, which take anything; the regimes that a config writes are read (see test_regimes_of_a_config).
OPTIONS = [section for section in FREE if section != "regimes"]
REGIME = {"mine": {"phases": [{"trainable": "head"}], "summary": "", "control": False}}

LETTERS = string.ascii_lowercase + "_"
SECTIONS = sorted({path.rsplit(".", 1)[0] for path in KNOWN if "." in path})

#: A value of each type; a float may be given as an integer and a tuple as a list, and nothing else mixes.
VALUES = {str: "a", bool: True, int: 7, float: 0.5, tuple: (), list: [], dict: {"a": 1}, type(None): None}
ALSO = {float: {int}, tuple: {list}}


def typos(path):
    """Return every path that is one deletion, insertion, substitution or swap away in its last part, in order."""
    head, dot, word = path.rpartition(".")
    found = {word[:i] + word[i + 1 :] for i in range(len(word))}
    found |= {word[:i] + a + word[i:] for i in range(len(word) + 1) for a in LETTERS}
    found |= {word[:i] + a + word[i + 1 :] for i in range(len(word)) for a in LETTERS}
    found |= {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)}
    every = {head + dot + w for w in found if w}
    return sorted(every - KNOWN.keys() - set(SECTIONS))


def refusal(call, *arguments):
    with pytest.raises(ConfigError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- names ---


@pytest.mark.slow
def test_of_all_typos_at_least_95_percent_are_told_what_was_meant():
    told = [
        f'did you mean "{path}"?' in refusal(override, KNOWN, {typo: KNOWN[path]})
        for path in KNOWN
        for typo in typos(path)[::7]
    ]
    assert len(told) > 3000
    assert sum(told) >= 0.95 * len(told)


@settings(deadline=None)
@given(st.data())
def test_a_typo_is_never_accepted_wherever_it_is(data):
    path = data.draw(st.sampled_from(sorted(KNOWN)))
    typo = data.draw(st.sampled_from(typos(path)))
    assert f"config.{typo} does not exist" in refusal(override, KNOWN, {typo: KNOWN[path]})
    assert f"config.{typo} does not exist" in refusal(check, KNOWN | {typo: KNOWN[path]})
    assert refusal(override, KNOWN, {typo: parse(typo, "1", KNOWN)})


@pytest.mark.parametrize("path", list(KNOWN))
def test_a_typo_in_a_config_file_is_one_sentence_with_its_line_and_what_was_meant(path, tmp_path):
    found = [typo for typo in typos(path) if typo.rsplit(".", 1)[-1].isidentifier()]
    told = []
    for typo in (found[0], found[len(found) // 2], found[-1]):
        file = tmp_path / "bad.py"
        file.write_text(
            "from mtl.config import default\n\ndef get_config():\n    c = default()\n"
            f"    c.{typo} = {KNOWN[path]!r}\n    return c\n"
        )
        line = refusal(load, str(file))
        assert f"{file}, line 5: config.{typo} does not exist; " in line
        told.append(f'did you mean "{path}"?' in line)
    assert sum(told) >= (1 if len(path) < 5 else 3)


def test_a_typo_in_a_section_is_told_the_field():
    for section in SECTIONS:
        path = next(p for p in KNOWN if p.startswith(f"{section}."))
        wrong = path.replace(section, section[:-1] + "x", 1)
        assert f'did you mean "{path}"?' in refusal(override, KNOWN, {wrong: KNOWN[path]})


def test_a_section_is_no_field_and_its_fields_are_named():
    for section in SECTIONS:
        fields = [path for path in KNOWN if path.startswith(f"{section}.")]
        for value in (1, parse(section, "1", KNOWN)):
            line = refusal(override, KNOWN, {section: value})
            named = ", ".join(fields) if len(fields) <= 20 else f"{', '.join(fields[:16])}, and {len(fields) - 16} more"
            assert line == f"config.{section} is a section; its fields: {named}"


def test_a_field_without_its_section_is_told_the_whole_path():
    assert 'did you mean "data.target_size"?' in refusal(override, KNOWN, {"target_size": 20})
    assert 'did you mean "optimizer.warmup"?' in refusal(override, KNOWN, {"warmup": 0.5})


def test_a_field_that_is_missing_is_named():
    for path in KNOWN:
        assert f"config.{path} is missing" in refusal(check, {k: v for k, v in KNOWN.items() if k != path})


# --- types ---


@pytest.mark.parametrize("path", list(KNOWN))
def test_a_value_of_another_type_is_refused_and_one_of_its_own_is_taken(path):
    own = type(KNOWN[path])
    for kind, value in (VALUES | ({dict: REGIME} if path == "regimes" else {})).items():
        if kind is own or kind in ALSO.get(own, ()):
            taken = override(KNOWN, {path: value})[path]
            assert type(taken) is own
            assert taken == (tuple(value) if kind is list else value)
        else:
            for line in (refusal(override, KNOWN, {path: value}), refusal(check, KNOWN | {path: value})):
                assert f"config.{path} = {value!r}" in line
                assert f"must be of type {own.__name__}" in line


def test_sections_of_tasks_take_any_name_and_others_new_keys_at_any_depth():
    for section in ("data.hide_rates", "data.label_noise", "data.imbalance", "loss.weights"):
        assert override(KNOWN, {f"{section}.a.b": 1, f"{section}.c": 2})[section] == {"a.b": 1, "c": 2}
    new = override(KNOWN, {"task_options.a.b.pos_weight": 1.0, "task_options.c": {"pos_weight": 2.0}})
    assert new["task_options"] == {"a.b": {"pos_weight": 1.0}, "c": {"pos_weight": 2.0}}
    for section in ("data.options", "model.options"):
        new = override(KNOWN, {f"{section}.mine": 1, f"{section}.deep.er": (2,)})
        assert new[section] == {"mine": 1, "deep": {"er": (2,)}}
        assert override(new, {f"{section}.deep.other": 3})[section]["deep"] == {"er": (2,), "other": 3}
        assert {k: v for k, v in new.items() if k != section} == {k: v for k, v in KNOWN.items() if k != section}


def test_overriding_leaves_what_was_given_as_it_was():
    flat = override(KNOWN, {"model.options.deep.er": 1})
    before = repr(flat)
    override(flat, {"lr": 1.0, "model.options.deep.er": 2, "model.options.new": 3})
    assert repr(flat) == before
    assert flatten(default()) == KNOWN


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.text(), st.floats(0, 1)))
def test_a_config_file_gives_weights_to_tasks_of_any_name(weights):
    for fill in (lambda c: c.update(weights), lambda c: [c.__setitem__(*item) for item in weights.items()]):
        config = default()
        fill(config.loss.weights)
        assert flatten(config)["loss.weights"] == weights
    config = default()
    config.loss.weights = weights
    config.task_options = {name: {"pos_weight": w} for name, w in weights.items()}
    for same in (
        config,
        copy.deepcopy(config),
        config.copy_and_resolve_references(),
    ):
        assert flatten(same)["loss.weights"] == weights
        assert flatten(same)["task_options"] == {name: {"pos_weight": w} for name, w in weights.items()}
        with pytest.raises(AttributeError, match="locked"):
            same.loss.wieghts = 1


# --- texts ---

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = NUMBERS | st.text() | st.booleans()
STRATEGIES = {
    str: st.text(),
    bool: st.booleans(),
    int: st.integers(),
    float: st.floats(allow_nan=False),
    tuple: st.lists(PLAIN | st.tuples(st.text(), st.text())).map(tuple),
    dict: st.dictionaries(st.text(), PLAIN | st.lists(NUMBERS).map(tuple) | st.dictionaries(st.text(), NUMBERS)),
}


@pytest.mark.parametrize("path", list(KNOWN))
def test_the_text_of_the_default_is_read_back_as_the_default(path):
    read = parse(path, str(KNOWN[path]), KNOWN)
    assert read == KNOWN[path]
    assert type(read) is type(KNOWN[path])
    assert override(KNOWN, {path: read}) == KNOWN


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_the_text_of_any_value_is_read_back_as_the_value(data):
    path = data.draw(st.sampled_from(sorted(KNOWN.keys() - {"regimes"})))
    value = data.draw(STRATEGIES[type(KNOWN[path])])
    read = parse(path, str(value), KNOWN)
    assert read == value
    assert override(KNOWN, {path: read})[path] == value


@given(st.lists(st.from_regex("[a-z][a-z0-9_]*", fullmatch=True), max_size=4))
def test_words_with_commas_are_a_tuple(words):
    assert parse("data.source", ",".join(words), KNOWN) == tuple(words)
    assert parse("data.source", ", ".join(words), KNOWN) == tuple(words)


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        (r"(heads|backbone/dense_0)/.*", None),
        (r"backbone/(a|b)", None),
        (r"backbone/dense_[0-9]{1,2}/.*", None),
        (r"(a|b)/(c|d)", None),
        (r"a\(,b", ("a\\(", "b")),
        (r"[(]x,y", ("[(]x", "y")),
        (r"(heads/.*)", ("heads/.*",)),
        (r"(heads/.*, (a|b)/.*)", ("heads/.*", "(a|b)/.*")),
        (r"[heads/.*, backbone/.*]", ("heads/.*", "backbone/.*")),
        (r"(a|b)/x,(c|d)/x", ("(a|b)/x", "(c|d)/x")),
        (r"a{1,2}, b,", ("a{1,2}", "b")),
        (r"'a'", ("a",)),
        (r"('a,b', 'c')", ("a,b", "c")),
    ],
)
def test_patterns_come_through_the_command_line(text, patterns):
    assert parse("init.fresh", text, KNOWN) == (patterns or (text,))


@settings(deadline=None)
@given(st.text(alphabet="()[]{},\\ab ", max_size=20))
def test_no_text_of_brackets_breaks_the_reading_of_words(text):
    words = parse("init.fresh", text, KNOWN)
    assert isinstance(words, tuple)


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("data.shuffle_source_labels", "TRUE", True),
        ("data.shuffle_source_labels", "0", False),
        ("tune.source_lr", "1e-3", (1e-3,)),
        ("tune.source_lr", "1e-3,1e-2", (1e-3, 1e-2)),
        ("tune.seeds", "[1, 2]", (1, 2)),
        ("lr", "1", 1.0),
        ("name", "1", "1"),
        ("name", "", ""),
        ("regimes", str(REGIME), REGIME),
        ("model.options.hidden", "32,32", (32, 32)),
        ("model.options.norm", "batch", "batch"),
    ],
)
def test_texts_as_people_write_them(path, text, value):
    flat = override(KNOWN, {path: parse(path, text, KNOWN)})
    section = next((s for s in OPTIONS if path.startswith(f"{s}.")), None)
    taken = flat[section][path.removeprefix(f"{section}.")] if section else flat[path]
    assert taken == value
    assert type(taken) is type(value)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("lr", "fast"),
        ("lr", ""),
        ("lr", "1e-3x"),
        ("lr", "'1'"),
        ("lr", "1,2"),
        ("lr", "__import__('os').getcwd()"),
        ("lr", "{[]: 1}"),
        ("lr", "{{}}"),
        ("lr", "(" * 300 + ")" * 300),
        ("lr", "-" * 10_000 + "1"),
        ("data.options", "{[]: 1}"),
        ("batch_size", "1.5"),
        ("batch_size", "1e3"),
        ("batch_size", "True"),
        ("data.shuffle_source_labels", "yes"),
        ("data.shuffle_source_labels", "2"),
        ("data.options", "a"),
        ("data.options", "{'a': 1, 2}"),
        ("data.options", "(1, 2)"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused(path, text):
    line = refusal(lambda: override(KNOWN, {path: parse(path, text, KNOWN)}))
    assert f"config.{path} = " in line
    assert "must be" in line
