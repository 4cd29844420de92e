"""Words of strangers are shown as words: no terminal, page or spreadsheet obeys them."""

import contextlib
import io
import os
import re

import pytest

from mtl.cli import main
from mtl.commands.display import Terminal, error_line
from mtl.host.escape import escape
from mtl.host.files import seal
from mtl.sweep import documents
from tests.sweep import by_hand
from tests.sweep.hostile import small_study
from tests.sweep.resealed import change

WORDS = {
    "clears the screen": "\x1b[2J\x1b[H",
    "renames the window": "\x1b]0;mine\x07",
    "writes to the clipboard": "\x1b]52;c;Zm9v\x07",
    "one byte for two": "\x9b2J",
    "overwrites the line": "good\rmtl: all is well",
    "turns the writing around": "\u202egpj.exe",
    "takes a letter back": "bad\x08\x08\x08good",
    "a line that is none": "a\u2028mtl: all is well",
    "a page's code": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "markup of the console": "[link=file:///etc/passwd]here[/link]",
    "a formula": "=HYPERLINK(A1)",
}
TABLES = [["table", f"--format={name}"] for name in ("console", "markdown", "latex", "csv", "json", "html")]
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")


def stranger(tmp_path, words):
    """Return a work directory in which a stranger wrote words wherever there are any."""
    work = small_study(tmp_path / "work")

    def study(content):
        content["study"] = content["created"] = words
        (entry,) = content["sweeps"].values()
        entry["warnings"] = [words]
        entry["base"] |= {"report.question": words, "report.notes": [words], "regime": words, "report.baseline": words}
        for fingerprint in entry["fingerprints"].values():
            fingerprint["data"] |= {"of": words}
        for trial in entry["trials"]:
            trial["changes"]["regime"] = words
        return content

    change(work / "study.json", study)
    first, second, *_ = sorted(by_hand.results(work))
    versions = {"jax": words}
    about = {"device": words, "machine": words, "cpu": words, "versions": versions}
    by_hand.change(work, first, lambda content: content | about)
    data = {"sha256": words, "of": words}
    by_hand.change(work, second, lambda content: content | {"fingerprint": content["fingerprint"] | {"data": data}})
    (work / "trials" / first / "failed.json").write_bytes(seal({"format": documents.FORMAT, "error": words}))
    return work


def told(work):
    """Return what all readers say together, and the page."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        for command in (["status"], ["report"], *TABLES):
            assert main([command[0], str(work), *command[1:]]) in (0, 2)
    page = work / "report.html"
    return out.getvalue(), page.read_text() if page.exists() else ""


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_what_is_said_of_a_strangers_study_is_obeyed_by_nothing(tmp_path, words):
    said, page = told(stranger(tmp_path, words))
    assert not OBEYED.search(said) and not OBEYED.search(page)
    assert "<script>alert" not in page and "<img src=x" not in page
    assert ",=HYPERLINK" not in said and (",'=HYPERLINK" in said) is (words == WORDS["a formula"])
    assert page


def test_without_looking_the_terminal_obeys(tmp_path, monkeypatch):
    """The control."""
    monkeypatch.setattr(documents, "_MAY_BE_OBEYED", re.compile(rb"(?!)"))
    assert OBEYED.search(told(stranger(tmp_path, WORDS["clears the screen"]))[0])


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_what_a_file_is_called_is_obeyed_by_nothing(tmp_path, capsys, words):
    name = words.replace("/", "")
    (tmp_path / name).write_text("x,y\n1,0\n")
    error_line(f"file {name}")
    Terminal().say(f"file {name}")
    assert main(["status", str(tmp_path / name)]) == 2
    assert not OBEYED.search(capsys.readouterr().err)
    assert os.listdir(tmp_path) == [name]


def test_words_in_scripts_of_any_kind_stay_as_they_are():
    for words in ("naïve 1 000 µ", "日本語", "می‌خواهم", "👩‍🔬", "a\tb\nc"):
        assert escape(words) == words
