import dataclasses
import html.parser
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest

from mtl.report.curves import Curve, curves_figure
from mtl.report.decision import decide
from mtl.report.formats import Table, TableCell
from mtl.report.index import index
from mtl.report.page import page, trial_data
from mtl.report.supplement import Supplement
from tests.report.example import NASTY, REGIMES, SIZES, example, example_trials

PROVENANCE = {
    "git commit": "3f2a9c1e",
    "versions": {"jax": "0.10.0", "numpy": np.__version__},
    "hardware": {"devices": ["cpu:0", "cpu:1"], "memory": np.int64(8)},
    "wall seconds": 101.5,
    "note": "</td></script><img src=x onerror=alert(1)>",
}
DETAILS = ("All the rest is said here.",)
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Checks that tags are balanced; keeps ids, attributes, text and the contents of scripts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.attributes, self.words, self.scripts = [], [], [], [], {}
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("id", tag)))

    def handle_startendtag(self, tag, attrs):  # in SVG
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open and self.open[-1][0] in ("script", "style"):
            key = self.open[-1][1]
            self.scripts[key] = self.scripts.get(key, "") + data
        else:
            self.words.append(data)


def make(analyses, trials=None, configs=None, **changes):
    trials = example_trials(40) if trials is None else trials
    if configs is None:
        configs = {"base": {"model": {"width": 32}}} | {t["hash"]: {"target.n": t["n"]} for t in trials}
    keys = {
        "title": "T",
        "provenance": PROVENANCE,
        "command": "mtl sweep configs/digits.py && mtl report work",
    }
    analyses = [dataclasses.replace(a, decisions=decide(a), details=DETAILS) if a.cells else a for a in analyses]
    return page(analyses, trials=trials, configs=configs, **(keys | changes))


@pytest.fixture(scope="module")
def text():
    names = dict(zip(REGIMES, NASTY, strict=False))
    return make([example(), example(names, sweep="</script><b>")], title="A < B & <script>alert(1)</script>")


@pytest.fixture(scope="module")
def read(text):
    return Page(text)


def test_balanced_unique_ids_and_no_tag_from_a_name(text, read):
    assert len(read.ids) == len(set(read.ids))
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "A < B & <script>alert(1)</script>" in read.text
    assert text.count("<script") == 2
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]


def test_nothing_is_loaded(text, read):
    assert not re.search(r"https?://|@import|//cdn|<iframe|<object|<embed", text)
    for tag, name, value in read.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            assert value == "data:," or (value[0] == "#" and value[1:] in read.ids), (tag, name, value)
    for inside in re.findall(r"url\(([^)]*)\)", text):
        assert inside.startswith("#")
        assert inside[1:] in read.ids
    policy = [value for tag, name, value in read.attributes if name == "content" and "default-src" in value]
    assert policy
    assert "default-src 'none'" in policy[0]


def test_order_and_contents(read):
    analysis = example()
    words = read.text
    places, at = [], 0
    folded = ["Results", "All that is claimed", "Paired gains", "Cost", "Where curves cross", "How it was done"]
    for part in (analysis.scores.question, *analysis.verdict, "what to do", "What weakens it", *folded, "Trials"):
        at = words.index(part, at)
        places.append(at)
    assert len(places) == len(set(places))
    for sentence in (*analysis.verdict, *analysis.warnings, *analysis.scores.notes):
        assert sentence in words
    for regime in REGIMES:
        assert regime in words
        for size in SIZES:
            cell = analysis.cells[regime][size]
            if cell.replicates:
                assert f"{100 * cell.mean:.1f}" in words
    for fact in (
        "3f2a9c1e",
        np.__version__,
        "cpu:1",
        "101.5",
        "mtl sweep configs/digits.py && mtl report work",
    ):
        assert fact in words
    assert "61 to 188" in words


def test_trials_and_configs_are_all_there_exactly():
    trials = example_trials(500)
    read = Page(make([], trials=trials))
    data = json.loads(read.scripts["trial-data"], parse_constant=pytest.fail)
    keys = [column["key"] for column in data["columns"]]
    assert len(data["rows"]) == len(trials)
    for row, trial in zip(data["rows"], trials, strict=True):
        for key, value in zip(keys, row, strict=True):
            expected = trial[key]
            assert value == (None if isinstance(expected, float) and math.isnan(expected) else expected)
    assert data["configs"] == {trial["hash"]: {"target.n": trial["n"]} for trial in trials}
    assert '"width": 32' in read.text  # the base config stands in the page


def test_json_cannot_leave_its_element():
    evil = "</script><!--<script>\u2028"
    text = make(
        [],
        trials=[{"regime": evil, "hash": "h", "loss": float("inf")}],
        configs={"h": {evil: evil}, evil: {}},
    )
    assert text.count("</script") == 2
    assert "<!--" not in text
    data = json.loads(Page(text).scripts["trial-data"])
    assert data["rows"] == [[evil, "h", "Infinity"]]
    assert data["configs"]["h"] == {evil: evil}


def test_rows_with_other_keys_and_numpy_values():
    data = trial_data([{"n": np.int64(10), "own": np.float32(0.5)}, {"own": [1, 2], "test": float("-inf")}], {})
    assert [column["key"] for column in data["columns"]] == ["n", "test", "own"]
    assert data["rows"] == [[10, None, 0.5], [None, "-Infinity", "[1, 2]"]]


def test_thousands_of_rows_stay_data():
    trials = example_trials(3000)
    text = make([], trials=trials, configs={})
    assert text.count("<tr") < 200
    assert len(text) < 800_000


def test_figures_are_inline_readable_on_dark_and_named(text, read):
    assert text.count("<svg") == text.count("</svg>") == 4
    labels = [value for tag, name, value in read.attributes if tag == "svg" and name == "aria-label"]
    assert len(labels) == 4
    first = decide(example())[0]
    gain, metric = labels[:2]
    assert f"at n = 10 {first.do} +{100 * first.gain:.1f} points" in gain  # They say the decision.
    assert gain.count("at n = ") == len(SIZES)
    best = max(cells[500.0].mean for cells in example().cells.values() if cells[500.0].best)
    assert f"{100 * best:.1f}" in metric and "scratch" in metric
    svg = text[text.index("<svg") : text.index("</svg>")]
    assert "currentColor" in svg
    assert "#1c1e21" not in svg
    assert "#ffffff" not in svg
    assert "multitask_finetune" in svg  # text stays text


def test_empty_and_extra():
    read = Page(page([], title="t", provenance={}, trials=[], configs={}, command=""))
    assert "No trials were given." in read.text
    scores = dataclasses.replace(example().scores, regimes=("scratch",))
    bare = dataclasses.replace(example(), scores=scores, verdict=(), warnings=(), crossovers=(), cells={})
    curves = curves_figure({"n = 10": {"a": Curve([1, 2], [[1.0, 2.0]], [[1.0, 2.0]])}}, title="t", told="loss")
    extra = dataclasses.replace(bare, extra={"curves <x>": curves, "family": 48, "draws_left_out": 0})
    read = Page(make([extra]))
    assert "curves <x>" in read.text
    assert "What weakens it" not in read.text
    assert "The work directory does not say what the data are" in read.text
    for internal in ("family", "draws_left_out", "48"):
        assert internal not in read.text


def test_the_decision_comes_before_figures_and_all_else_is_folded_but_results(text):
    body = text[text.index('<section id="s0">') : text.index('<section id="s1">')]
    assert body.index("table-decision") < body.index("<svg") < body.index("<details open>")
    assert body.count("<details open>") == 1
    after = body[body.index("<details open>") :]
    for name in ("table-gain", "table-cost", "All the rest is said here."):
        assert name not in body[: body.index("<details open>")] and name in after


def test_warnings_on_the_data_are_in_the_box_and_not_twice():
    analysis = example()
    notes = ("Warning: 3 of 10 test inputs are copies.", "Labels are hidden.")
    analysis = dataclasses.replace(analysis, scores=dataclasses.replace(analysis.scores, data_notes=notes))
    table = Table("data", "digits: labels", ("task", "balance"), ((TableCell("even"), TableCell("9 odd")),), (), ())
    beside = Supplement("digits: 10 rows.", table, (analysis.warnings[0], "2 rows repeat."), {"scratch": "target only"})
    text = make([analysis], beside={analysis.scores.sweep: beside}, made="Trained on a day.")
    box = text[text.index('class="warnings"') : text.index("<figure>")]
    for sentence in ("3 of 10 test inputs are copies.", analysis.warnings[0], "2 rows repeat.", "digits: 10 rows."):
        assert box.count(sentence) == 1
    read = Page(text)
    for word in ("9 odd", "target only", "Trained on a day."):
        assert word in read.text


def test_an_index_of_sweeps_shows_what_to_do_and_by_how_much(read):
    analysis = dataclasses.replace(example(), decisions=decide(example()))
    (entry,) = index([analysis])
    assert [d["at"] for d in entry["decisions"]] == ["n = 10", "n = 100", "n = 500"]
    first = analysis.decisions[0]
    cell = analysis.cells[first.do][10.0]
    assert entry["decisions"][0] == {
        "at": "n = 10",
        "do": first.do,
        "gain": f"+{100 * cell.gain:.1f}",
        "interval": f"[{100 * cell.gain_low:.1f}, {100 * cell.gain_high:.1f}]",
        "sign": "▲",
        "shown": "shown",
        "claim": "gain",
    }
    head = read.text[: read.text.index(f"{analysis.scores.study} / {analysis.scores.sweep}")]
    for word in (first.do, entry["decisions"][0]["interval"], "replicates", "20"):
        assert word in head
    anchors = {value for tag, name, value in read.attributes if (tag, name) == ("a", "href")}
    assert anchors == {"#s0", "#s1"}


def test_same_bytes(text):
    names = dict(zip(REGIMES, NASTY, strict=False))
    again = make([example(), example(names, sweep="</script><b>")], title="A < B & <script>alert(1)</script>")
    assert again == text


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
def test_script_parses(read, tmp_path):
    script = next(value for key, value in read.scripts.items() if key == "script")
    (tmp_path / "page.js").write_text(script, encoding="utf-8")
    done = subprocess.run(["node", "--check", "page.js"], cwd=tmp_path, capture_output=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
