"""Analyses that are kept: the same tables to the byte as those that are made anew, whatever becomes of the cache."""

import contextlib
import dataclasses
import io

import numpy as np
import pytest

from mtl.checkpoint import CheckpointError
from mtl.cli import main
from mtl.report import kept, publish
from mtl.report.targets import analyse_targets
from tests.report.example import example
from tests.report.studies import crossed, scores_of
from tests.sweep import by_hand
from tests.sweep.hostile import small_study

FORMATS = ("console", "json", "latex", "markdown", "csv", "html")


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A work directory, the cache's folder, and what has been analysed anew."""
    monkeypatch.setenv("MTL_CACHE_DIR", str(tmp_path / "cache"))
    analysed, analyse = [], publish._analyse
    monkeypatch.setattr(publish, "_analyse", lambda *of: analysed.append(of[1]) or analyse(*of))
    return small_study(tmp_path / "work"), tmp_path / "cache" / "analyses", analysed


def said(work):
    """All tables of a study, and what is said beside them."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        assert [main(["table", str(work), f"--format={form}"]) for form in FORMATS] == [0] * len(FORMATS)
    return out.getvalue()


def test_tables_are_the_same_to_the_byte_kept_made_anew_and_after_damage(study, monkeypatch):
    work, folder, analysed = study
    first = said(work)
    assert "scratch" in first and analysed == ["even"]  # Of six commands one.
    assert said(work) == first and analysed == ["even"]
    (file,) = folder.iterdir()
    good = file.read_bytes()
    for bad in (b"", good[:-1] + bytes([good[-1] ^ 1]), good[: len(good) // 2]):
        file.write_bytes(bad)
        before = len(analysed)
        assert said(work) == first and len(analysed) == before + 1
        assert file.read_bytes() == good  # It is made anew.
    monkeypatch.setenv("MTL_CACHE_DIR", "off")
    before = len(analysed)
    assert said(work) == first and len(analysed) == before + len(FORMATS)


def test_what_changed_is_analysed_anew(study, monkeypatch):
    work, _, analysed = study
    first, digest = said(work), min(by_hand.results(work))
    shard, number = by_hand.shard_of(work, digest), len(analysed)
    good = shard.read_bytes()
    by_hand.change(work, digest, predictions=lambda own: {t: a | {"scores": 1 - a["scores"]} for t, a in own.items()})
    assert said(work) != first and len(analysed) == (number := number + 1)
    shard.write_bytes(good)
    assert said(work) == first and len(analysed) == number
    monkeypatch.setattr(kept, "version", lambda: "another")
    assert said(work) == first and len(analysed) == number + 1


def test_damage_is_told_each_time(study):
    work, folder, _ = study
    said(work)
    shard = by_hand.shard_of(work, min(by_hand.results(work)))
    others = [s for s in by_hand.shards(work) if s != shard]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    before = {file.name for file in folder.iterdir()}
    for _ in range(2):
        out = io.StringIO()
        with contextlib.redirect_stderr(out):
            assert main(["table", str(work)]) == (0 if others else 2)
        assert "its sha256 is not the one it was written with" in out.getvalue() or not others
    assert {file.name for file in folder.iterdir()} == before


def test_only_the_newest_are_kept(study, monkeypatch):
    _, folder, _ = study
    monkeypatch.setattr(kept, "_MOST", 2)
    for state in "abc":
        kept.remember(state, "even", (1.0,))
    assert len(list(folder.iterdir())) == 2 and kept.recall("c", "even") == (1.0,)


def same(one, two):
    """Whether two values are of the same types and hold the same, NaN for NaN."""
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return type(one) is type(two) and all(same(getattr(one, name), getattr(two, name)) for name in names)
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and np.array_equal(one, two, equal_nan=True)
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[k], two[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    return one == two or (one != one and two != two)


def test_analyses_of_one_target_and_of_several_come_back_whole(study):
    values = crossed(np.array([[0.7, 0.8], [0.75, 0.8]]), replicates=3, examples=20)
    several = analyse_targets(
        [
            scores_of(values + i / 50, ("scratch", "finetune"), task=task, rows=np.arange(20))
            for i, task in enumerate("ab")
        ],
        {"scratch": 2, "finetune": 2},
    )
    for value in (example(), several):
        kept.remember("state", "even", value)
        back = kept.recall("state", "even")
        assert type(back) is type(value) and same(value, back)
    assert not same(example(), dataclasses.replace(example(), warnings=()))
    assert back.scores.sizes == several.scores.sizes
    with pytest.raises(TypeError, match="a set cannot be kept"):
        kept.remember("state", "even", {1})


@pytest.mark.parametrize("kind", ["os:system", "mtl.host.files:read", "mtl.report.kept:nothing", "subprocess:Popen"])
def test_a_file_makes_nothing_but_what_analyses_are_made_of(kind):
    with pytest.raises(CheckpointError, match="is not what an analysis is made of"):
        kept._decoded([kind, {"command": "true"}], {})


def test_a_page_is_left_as_it_is_until_it_or_what_it_is_made_from_changes(study, monkeypatch, capsys):
    work, _, _ = study
    written, page = [], publish.publish_page
    monkeypatch.setattr(publish, "publish_page", lambda *of: written.append(of) or page(*of))
    (work / "report.html").unlink(missing_ok=True)

    def report():
        assert main(["report", str(work)]) == 0
        assert capsys.readouterr().out.strip() == str(work / "report.html")
        return len(written), (work / "report.html").read_text()

    _, first = report()
    assert report() == (1, first) and "scratch" in first
    (work / "report.html").write_text(first + " ")
    assert report() == (2, first)
    (work / "report.html").unlink()
    assert report() == (3, first)
    by_hand.change(work, min(by_hand.results(work)), lambda found: found | {"cpu": "another"})
    assert report()[0] == 4 and report()[0] == 4
    (work / "published.json").write_text("{")
    assert report()[0] == 5
