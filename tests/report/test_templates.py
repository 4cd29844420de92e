"""What a template is not given is an error, and what it is given is text: no name of a stranger becomes an element."""

import dataclasses
import html.parser
import json
import subprocess
import sys
from unittest import mock

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.report.curves import Curve, curves_figure
from mtl.report.data_words import data_sentence, data_table, data_warnings
from mtl.report.decision import decide
from mtl.report.formats import Table, TableCell, to_html
from mtl.report.page import page
from mtl.report.render import environment, render
from mtl.report.supplement import Supplement
from mtl.report.svg import inline_svg
from tests.report.example import example, example_trials

MARK = "<b>&\"'"
MARKS = st.text("<>&\"'/!-={}%# ab\n", max_size=12).map(MARK.__add__)


class Elements(html.parser.HTMLParser):
    """The elements that a browser sees, with the names of their attributes, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.comments, self.text, self.data, self.inside = [], [], "", "", {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.inside = dict(attrs)
        self.elements.append((tag, tuple(name for name, _ in attrs)))

    def handle_comment(self, data):
        self.comments.append(data)

    def handle_data(self, data):
        if self.inside.get("id") == "trial-data" and not self.data:
            self.data = data
        else:
            self.text += data


def marked(value, mark):
    """The same value with the mark before every string in it, names of fields apart."""
    if isinstance(value, str):
        return mark + value
    if isinstance(value, dict):
        return {marked(key, mark): marked(item, mark) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(marked(item, mark) for item in value)
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value) if field.name != "claim"]  # A word of ours.
        return dataclasses.replace(value, **{name: marked(getattr(value, name), mark) for name in fields})
    return value


def strings(value):
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return set().union(*map(strings, value)) if isinstance(value, (list, tuple)) else set()


def beside(mark):
    """What stands beside an analysis, of data whose strings have the mark before them."""
    task = {"labels": 9, "missing": 0.1, "what": f"{mark}4 positive", "name": f"{mark}even", "kind": f"{mark}binary"}
    facts = {name: f"{mark}{name}" for name in ("name", "about", "inputs")} | {"tasks": [task]}
    facts |= {"examples": 10, "complete": 9, "groups": 0, "duplicates": {"rows": 2, "sets": 1, "conflicts": {"a": 1}}}
    targets, sources = [f"{mark}even"], [f"{mark}identity"]
    return Supplement(
        data=data_sentence(facts, targets, sources),
        data_table=data_table(facts, targets, sources),
        data_warnings=data_warnings(facts),
        regimes={f"{mark}scratch": f"{mark}target only"},
    )


def said(mark=""):
    """All that a page is made of, each string of a config, a data set or a task with the mark before it."""
    study = dataclasses.replace(example(), details=("All that is claimed.",), decisions=decide(example()))
    study = dataclasses.replace(study, scores=dataclasses.replace(study.scores, data_notes=("Labels are hidden.",)))
    trials = [{key: marked(value, mark) for key, value in trial.items()} for trial in example_trials(9)]
    return {
        "analyses": [marked(study, mark), marked(example(sweep="odd"), mark)],
        "beside": {f"{mark}even_from_identity": beside(mark)},
        "made": marked("Trained on a day.", mark),
        "title": marked("digits", mark),
        "provenance": marked({"machine": "mine", "versions": {"jax": ["0.10", None]}}, mark),
        "trials": trials,
        "configs": marked({"base": {"model": {"name": "mlp"}}}, mark) | {t["hash"]: {"data": mark} for t in trials},
        "command": marked("mtl report work", mark),
    }


def page_without_figures(mark=""):
    words = said(mark)
    with mock.patch("mtl.report.page.figures"), mock.patch("mtl.report.page.inline_svg", return_value=""):
        return page(words.pop("analyses"), **words)


@pytest.fixture(scope="module")
def expected():
    return Elements(page_without_figures())


@given(MARKS)
@settings(max_examples=25, deadline=None)
def test_strings_from_outside_are_text(expected, mark):
    found, words = Elements(page_without_figures(mark)), said(mark)
    assert found.elements == expected.elements
    assert not found.comments
    for analysis in words.pop("analyses"):
        scores = analysis.scores
        seen = (scores.study, scores.sweep, scores.question, scores.metric, scores.baseline, scores.regimes)
        for word in strings([*seen, scores.notes, scores.data_notes, analysis.verdict, analysis.warnings]):
            assert word in found.text
        for word in strings([analysis.details]):
            assert word in found.text
    data = json.loads(found.data)
    assert strings(data["rows"]) == strings([list(trial.values()) for trial in words["trials"]])
    assert data["configs"] == {trial["hash"]: {"data": mark} for trial in words["trials"]}
    (other,) = words["beside"].values()
    for word in strings([other.data, list(other.data_warnings), other.regimes, words["made"]]):
        assert word in found.text
    for word in strings([words["title"], words["command"], words["provenance"], f"{mark}base"]):
        assert word in found.text
    assert json.dumps({f"{mark}model": {f"{mark}name": f"{mark}mlp"}}, indent=2) in found.text


@given(MARKS)
@settings(deadline=None)
def test_a_tables_words_are_text(words):
    def elements(word):
        cell = TableCell(text=word, detail=word, note=word, mark=word, bold=True, kind=word)
        return Elements(to_html(Table(word, word, (word, word), ((cell, cell),), (word,), ()))).elements

    assert elements(words) == elements("a")


@pytest.mark.parametrize("word", [MARK, "</svg><script>", '"><b onclick="x', "<!--", "]]>", "{{ 7 * 7 }}"])
def test_a_figures_words_are_text(word):
    def drawn(word):
        curves = {word: Curve([1, 2], [[1.0, 2.0]], [[1.0, 2.0]])}
        return Elements(str(inline_svg(curves_figure({word: curves}, title=word, told=word), "f", word)))

    found = drawn(word)
    assert found.elements == drawn("word").elements
    assert not found.comments
    assert found.text.count(word) == 4  # Title, what the lines are, panel and legend.


def test_words_are_no_templates():
    assert "{{ 7 * 7 }}{% raw %}" in page_without_figures("{{ 7 * 7 }}{% raw %}")


@pytest.mark.parametrize(
    "template", ["{{ name }}", "{% if name %}{% endif %}", "{{ table.name }}", "{% for x in name %}{% endfor %}"]
)
def test_a_value_that_is_not_there_is_an_error(template):
    with pytest.raises(jinja2.UndefinedError):
        environment().from_string(template).render(table={})


def test_pages_take_every_value_that_they_are_given():
    words = said()
    with mock.patch("mtl.report.page.render", return_value="") as rendered:
        page(words.pop("analyses"), **words)
    values = rendered.call_args.kwargs
    assert render("page.html", **values)
    for name in values:
        with pytest.raises(jinja2.UndefinedError):
            render("page.html", **{key: value for key, value in values.items() if key != name})
    for name in values["sections"][0]:
        section = {key: value for key, value in values["sections"][0].items() if key != name}
        with pytest.raises(jinja2.UndefinedError):
            render("page.html", **values | {"sections": [section]})


def test_styles_and_scripts_are_written_as_they_are():
    text = page_without_figures()
    for name in ("page.css", "page.js"):
        source, _, _ = environment().loader.get_source(environment(), name)
        assert source in text


def test_jinja_is_imported_only_where_html_is_written():
    rooms = "mtl.cli, mtl.commands.read, mtl.report.publish, mtl.report.show"
    check = f"import sys, {rooms}; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False, timeout=60).returncode == 0
