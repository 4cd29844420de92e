"""What the command line prints and writes of a study, read back by other programs' readers."""

import csv
import html.parser
import io
import json
import re
import shutil
import struct
import xml.etree.ElementTree
import zlib

import pandas as pd
import pytest

import mtl
from mtl.cli import main
from mtl.commands.read import print_study
from mtl.config import flatten, load
from mtl.sweep import sweeps_of
from mtl.sweep.launch import Silent, launch
from mtl.sweep.store import StoreError, Workdir
from tests.sweep.by_hand import forget, results

CONFIG = """
from mtl.config import default
from mtl.sweep import product, sweep

def get_config():
    c = default()
    c.name = "50%_of_it"
    c.model.options = {"hidden": (4,)}
    c.source.total_steps = 6
    c.target.total_steps = 4
    c.evaluations = 2
    return c

def sweep_even():
    '''Is it even?'''
    return product(
        sweep("regime", ("scratch", "linear_probe", "random_probe")), sweep("data.target_size", (20, 50)),
        sweep("seed", range(3)), sweep("lr", (1e-3, 1e-2)),
    )

def sweep_few():
    '''Is it even, with few labels?'''  # Its trials are also the other's: they are not trained again.
    return product(
        sweep("regime", ("scratch", "linear_probe")), sweep("data.target_size", (20,)), sweep("seed", range(3)),
        sweep("lr", (1e-3, 1e-2)),
    )
"""
REGIMES = {"even": ["scratch", "linear_probe", "random_probe"], "few": ["scratch", "linear_probe"]}
TRIALS = {"even": 36, "few": 12}
#: Data rows of one table of each kind and sweep, as records.
ROWS = {
    ("decision", "even"): 2, ("decision", "few"): 1,
    ("result", "even"): 6, ("gain", "even"): 4, ("cost", "even"): 3,
    ("result", "few"): 2, ("gain", "few"): 1, ("cost", "few"): 2,
}  # fmt: skip
KINDS = ("decision", "result", "gain", "cost")


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    (folder / "small.py").write_text(CONFIG)
    config, module = load(str(folder / "small.py"))
    workdir = Workdir(folder / "work")
    sweeps = {name: expand() for name, expand in sweeps_of(module).items()}
    launch(flatten(config), sweeps, workdir, jobs=0, config_file=None, display=Silent())
    return workdir.path


@pytest.fixture
def mtl_prints(capsys):
    """Run a command that must succeed without a word on standard error; return what it printed."""

    def run(*arguments):
        assert main([str(a) for a in arguments]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return run


class Document(html.parser.HTMLParser):
    """Balanced tags, attributes, and the cells of each table."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.tables, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


# --- status ---


def test_status_counts_trials(study, mtl_prints, tmp_path):
    found = json.loads(mtl_prints("status", study, "--json"))
    assert found["study"] == "50%_of_it"
    assert list(found["sweeps"]) == ["even", "few"]
    for name, counts in found["sweeps"].items():
        assert {k: counts[k] for k in ("trials", "done", "diverged", "failed", "missing")} == {
            "trials": TRIALS[name], "done": TRIALS[name], "diverged": 0, "failed": 0, "missing": 0
        }  # fmt: skip
        assert counts["reasons"] == {}
    # Each of 3 sources once, 6 steps, and 12 probes on them of 4; without a source, 24 phases of all 10 steps.
    assert found["sweeps"]["even"]["steps"] == 3 * 6 + 12 * 4 + 24 * 10
    assert found["sweeps"]["even"]["steps_unshared"] == 36 * 10
    assert found["sweeps"]["even"]["phases"] == 3 + 36
    assert found["sweeps"]["few"]["steps"] == 3 * 6 + 6 * 4 + 6 * 10
    text = mtl_prints("status", study)
    assert f"study 50%_of_it in {study}" in text
    assert "even: 36 done of 36 trials" in text
    assert "306 steps in 39 distinct phases (360 without sharing)" in text

    holed = tmp_path / "work"
    shutil.copytree(study, holed)
    for digest in mtl.results(study, sweep="even")["hash"][:5]:
        forget(holed, digest)
    assert "even: 31 done, 5 missing of 36 trials" in mtl_prints("status", holed)
    counts = json.loads(mtl_prints("status", holed, "--json"))["sweeps"]["even"]
    assert (counts["done"], counts["missing"]) == (31, 5)


def test_status_does_not_change_anything(study, mtl_prints):
    before = {p: p.stat().st_mtime_ns for p in study.rglob("*")}
    mtl_prints("status", study)
    mtl_prints("status", study, "--json")
    mtl_prints("table", study)
    assert {p: p.stat().st_mtime_ns for p in study.rglob("*")} == before


# --- tables ---


def means(study):
    """Return the mean accuracy of each regime and size of the sweep even, from the data frame alone."""
    frame = mtl.results(study, sweep="even")
    best = frame.loc[frame.groupby(["regime", "data.target_size", "seed"])["val_score"].idxmin()]
    return best.groupby(["regime", "data.target_size"])["test_accuracy"].mean()


@pytest.mark.parametrize("name", list(TRIALS))
@pytest.mark.parametrize("kind", KINDS)
def test_json(study, mtl_prints, kind, name):
    text = mtl_prints("table", study, "--format=json", f"--kind={kind}", f"--sweep={name}")
    (found,) = json.loads(text, parse_constant=pytest.fail)
    assert (found["name"], found["sweep"]) == (kind, name)
    assert len(found["records"]) == ROWS[kind, name]
    assert {len(row) for row in found["rows"]} == {len(found["header"])}
    if (kind, name) == ("result", "even"):
        expected = means(study)
        for record in found["records"]:
            assert record["mean"] == pytest.approx(expected[record["regime"], record["n"]])
            assert record["low"] <= record["mean"] <= record["high"]


@pytest.mark.parametrize("name", list(TRIALS))
@pytest.mark.parametrize("kind", KINDS)
def test_csv(study, mtl_prints, kind, name):
    text = mtl_prints("table", study, "--format=csv", f"--kind={kind}", f"--sweep={name}")
    frame = pd.read_csv(io.StringIO(text))
    assert len(frame) == ROWS[kind, name]
    if kind == "decision":
        assert set(frame["regime"]) <= set(REGIMES[name]) and frame["p"].isna().equals(frame["gain"].isna())
    else:
        assert set(frame["regime"]) == set(REGIMES[name]) - ({"scratch"} if kind == "gain" else set())
    lines = [line for line in csv.reader(io.StringIO(text)) if line]
    assert {len(line) for line in lines} == {len(lines[0])}
    if (kind, name) == ("result", "even"):
        pd.testing.assert_series_equal(
            frame.set_index(["regime", "n"])["mean"].sort_index(), means(study), check_names=False
        )
    if kind == "cost":
        cost = frame.set_index("regime")
        assert cost.loc["scratch", ["examples", "source_examples"]].tolist() == [10 * 32, 0]
        assert cost.loc["linear_probe", ["examples", "source_examples"]].tolist() == [10 * 32, 6 * 32]


@pytest.mark.slow
def test_several_tables_are_one_json_document(study, mtl_prints):
    found = json.loads(mtl_prints("table", study, "--format=json"), parse_constant=pytest.fail)
    assert [(table["sweep"], table["name"]) for table in found] == [(s, k) for s in TRIALS for k in KINDS]
    for table in found:
        assert len(table["records"]) == ROWS[table["name"], table["sweep"]]
        (alone,) = json.loads(
            mtl_prints("table", study, "--format=json", f"--sweep={table['sweep']}", f"--kind={table['name']}")
        )
        assert alone == table


def test_several_tables_are_one_csv_table(study, mtl_prints):
    text = mtl_prints("table", study, "--format=csv")
    lines = list(csv.reader(io.StringIO(text)))
    assert lines[0][:4] == ["table", "study", "sweep", "metric"]
    assert {len(line) for line in lines} == {len(lines[0])}
    whole = pd.read_csv(io.StringIO(text))
    assert whole.groupby(["table", "sweep"]).size().to_dict() == ROWS
    # The lines of one kind are what it gives alone, but for columns that only the others have.
    for kind in KINDS:
        alone = pd.read_csv(io.StringIO(mtl_prints("table", study, "--format=csv", f"--kind={kind}")))
        part = whole[whole["table"] == kind].reset_index(drop=True)
        assert part.drop(columns=alone.columns).isna().all(axis=None)
        pd.testing.assert_frame_equal(part[alone.columns], alone, check_dtype=False)
        assert pd.to_numeric(alone["n"] if kind != "cost" else alone["flops"]).notna().all()


@pytest.mark.parametrize("kind", [*KINDS, "all"])
def test_markdown(study, mtl_prints, kind):
    text = mtl_prints("table", study, "--format=markdown", f"--kind={kind}")
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(blocks) == len(TRIALS) * (len(KINDS) if kind == "all" else 1)
    for block in blocks:
        lines = block.splitlines()
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(cells) == 1
        assert re.fullmatch(r"\|:--\|(:?--:?\|)+", lines[1])
        if lines[0].startswith("| n | do |"):
            continue
        names = [re.split(r"[ °|]+", line)[1] for line in lines[2:]]
        assert names in REGIMES.values() or ["scratch", *names] in REGIMES.values()


@pytest.mark.parametrize("kind", [*KINDS, "all"])
def test_latex(study, mtl_prints, kind):
    text = mtl_prints("table", study, "--format=latex", f"--kind={kind}")
    assert text.count(r"\begin{table}") == len(TRIALS) * (len(KINDS) if kind == "all" else 1)
    depth = []
    for word, environment in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if word == "begin":
            depth.append(environment)
        else:
            assert depth.pop() == environment
    assert not depth
    assert r"50\%\_of\_it" in text
    assert not re.search(r"(?<!\\)[%#]", text)
    assert not re.search(r"(?<!\\)_", text)
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    for body in re.findall(r"\\toprule(.*?)\\bottomrule", text, re.DOTALL):
        rows = [row for row in body.replace(r"\midrule", "").split("\\\\\n") if row.strip()]
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1


@pytest.mark.parametrize("kind", [*KINDS, "all"])
def test_html(study, mtl_prints, kind):
    found = Document(mtl_prints("table", study, "--format=html", f"--kind={kind}"))
    assert len(found.tables) == len(TRIALS) * (len(KINDS) if kind == "all" else 1)
    for rows in found.tables:
        assert len({len(row) for row in rows}) == 1
    if kind == "decision":
        return
    first = [row[0].rstrip("°") for row in found.tables[kind == "all"][1:]]
    assert first == [r for r in REGIMES["even"] if (kind, r) != ("gain", "scratch")]


@pytest.mark.parametrize("width", [60, 100, 160])
def test_console(study, mtl_prints, width):
    text = mtl_prints("table", study, f"--width={width}", "--sweep=even", "--kind=result")
    assert max(map(len, text.splitlines())) <= width
    for name in REGIMES["even"]:
        assert name in text
    for mean in means(study):
        assert f"{100 * mean:.1f}" in text
    assert "\x1b" not in text


def test_the_console_shows_all_tables_and_the_verdict_in_full_and_the_decision_by_default(study, mtl_prints):
    text = " ".join(mtl_prints("table", study, "--full").split())
    for part in ("by target labels n", "paired gain over scratch", "cost of one trial", "warning: Only 3 replicates"):
        assert text.count(part) == len(TRIALS), part
    short = " ".join(mtl_prints("table", study).split())
    assert short.count("What to do") == len(TRIALS) and "cost of one trial" not in short
    assert f"mtl table --full {study}" in short


def test_every_format_shows_the_same_numbers(study, mtl_prints):
    shown = [f"{100 * mean:.1f}" for mean in means(study)]
    for name in ("console", "markdown", "latex", "html", "json"):
        text = mtl_prints("table", study, f"--format={name}", "--kind=result", "--sweep=even")
        assert all(number in text for number in shown), name


def test_a_format_or_a_sweep_that_is_not_there_is_refused(study, capsys):
    for arguments, expected in (
        (["--format=exel"], "exel"),
        (["--kind=results"], "results"),
        (["--sweep=evn"], 'did you mean "even"?'),
        (["--width=wide"], "wide"),
    ):
        assert main(["table", str(study), *arguments]) == 2
        line = capsys.readouterr().err
        assert expected in line
        assert line.startswith("mtl: ") and line.count("\n") == 1


# --- what printing costs ---


class Unwritable(io.StringIO):
    """A stream that takes nothing."""

    def write(self, text):
        raise OSError("unwritable")


@pytest.mark.slow
def test_what_is_written_is_there_before_anything_is_printed(study, tmp_path, monkeypatch):
    for name, call in (
        ("sweep", lambda work: print_study(Workdir(work), list(TRIALS))),
        ("plot", lambda work: main(["plot", str(work)])),
        ("report", lambda work: main(["report", str(work)])),
    ):
        work = tmp_path / name
        shutil.copytree(study, work)
        with monkeypatch.context() as patched:
            patched.setattr("sys.stdout", Unwritable())
            with pytest.raises(OSError, match="unwritable"):
                call(work)
        figures, tables = len(list(work.glob("figures/*.png"))), len(list(work.glob("tables/*")))
        page = (work / "report.html").is_file()
        assert (figures, tables, page) == {
            "sweep": (6, 2 * len(KINDS) * 4, True), "plot": (6, 0, False), "report": (0, 0, True)
        }[name]  # fmt: skip


# --- what others leave in a work directory ---

STRANGERS = (
    *(".DS_Store", "._study.json", "._x.safetensors", ".nfs0000a1", ".notes.tmp", ".~lock.a.tmp", "Thumbs.db"),
    *("desktop.ini", "slurm-1.out", "slurm-1_2.err", "job.sh.o4711", "nohup.out", "core.1234", "lost+found", ".git"),
)


def leave_strangers(folder):
    """Put what systems leave into a folder and those in it, and return {path: what it holds}."""
    for place in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        for name in STRANGERS:
            if name in ("lost+found", ".git"):
                (place / name).mkdir()
                (place / name / "config").write_bytes(b"\xff of nobody")
            else:
                (place / name).write_bytes(b"\xff of nobody")
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.read_bytes() == b"\xff of nobody"}


@pytest.mark.slow
def test_what_systems_leave_in_a_work_directory_is_left_alone(study, tmp_path, mtl_prints):
    work = tmp_path / "work"
    shutil.copytree(study, work)
    mtl_prints("report", work)
    mtl_prints("plot", work)
    for name in ("snapshots", "packs", "logs"):
        (work / name).mkdir(exist_ok=True)
    commands = (["status", work, "--json"], ["table", work, "--format=json"], ["plot", work], ["report", work])
    before = [mtl_prints(*command) for command in commands]
    strangers = leave_strangers(work)
    assert len(strangers) > 40 * len(STRANGERS)
    assert [mtl_prints(*command) for command in commands] == before
    config, module = load(str(study.parent / "small.py"))
    base = flatten(config)
    gone = mtl.results(work, sweep="few")["hash"][0]
    numbers = results(work)[gone]["test"]
    forget(work, gone)
    entries = {name: expand() for name, expand in sweeps_of(module).items()}
    assert sum(s.ran for s in launch(base, entries, Workdir(work), jobs=0, config_file=None, display=Silent())) == 1
    assert results(work)[gone]["test"] == numbers
    assert {path: path.read_bytes() for path in strangers} == strangers


def test_a_study_begins_among_what_systems_leave_and_not_among_other_files(tmp_path):
    leave_strangers(tmp_path)
    Workdir(tmp_path).open("mine")
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StoreError, match=r"holds other files \(thesis\.tex\)"):
        Workdir(tmp_path).open("mine")


# --- figures and the page ---


def size_of_png(content):
    """Return (width, height) of a PNG, every chunk's checksum and the amount of image data checked."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, []
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack(">I", content[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        chunks.append((kind, body))
        at += 12 + length
    assert chunks[0][0] == b"IHDR" and chunks[-1][0] == b"IEND"
    width, height, depth, colour = struct.unpack(">IIBB", chunks[0][1][:10])
    pixels = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    assert len(pixels) == height * (1 + width * {2: 3, 6: 4}[colour] * depth // 8)
    assert len(set(pixels[:: len(pixels) // 5000])) > 3  # Something is drawn.
    return width, height


def test_plot(study, mtl_prints, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(study, work)
    printed = [line for line in mtl_prints("plot", work).splitlines() if line]
    assert sorted(p.rsplit("/", 1)[-1] for p in printed) == sorted(
        f"{sweep}-{kind}.png" for sweep in TRIALS for kind in ("curves", "gain", "metric")
    )
    files = sorted((work / "figures").iterdir())
    assert len(files) == 12
    for png in files[0::2]:
        assert png.suffix == ".png"
        width, height = size_of_png(png.read_bytes())
        assert 400 <= width <= 4000
        assert 300 <= height <= 4000
    for svg in files[1::2]:
        root = xml.etree.ElementTree.parse(svg).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 5
    few = mtl_prints("plot", work, "--sweep=few").split()
    assert [p.rsplit("/", 1)[-1] for p in few] == ["few-metric.png", "few-gain.png", "few-curves.png"]


def test_report_is_one_page_that_loads_nothing(study, mtl_prints, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(study, work)
    printed = mtl_prints("report", work).strip()
    assert printed == str(work / "report.html")
    text = (work / "report.html").read_text()
    page = Document(text)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"):
            assert value.startswith(("#", "data:")), (tag, name, value)
    assert not {"iframe", "object", "embed", "base"} & set(page.tags)
    assert not re.search(r"https?://(?!www\.w3\.org)|@import|url\((?!#|[\"']?data:)", text)
    for names in REGIMES.values():
        for name in names:
            assert name in text
    frame = mtl.results(study)
    assert len(frame) == sum(TRIALS.values())
    assert all(digest in text for digest in frame["hash"])
    assert "50%_of_it" in text
    assert page.tags.count("svg") >= 2 * 3
    assert [p.name for p in work.rglob("*.html")] == ["report.html"]


def test_of_nothing_there_is_nothing_to_show(tmp_path, capsys):
    for command in ("status", "table", "plot", "report"):
        assert main([command, str(tmp_path / "none")]) == 2
        assert "does not exist" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
