"""No settings of matplotlib's that lie about are obeyed, or even read from the current directory."""

import os
import pathlib
import subprocess
import sys

import matplotlib
import pytest

from mtl.data import digits_table
from mtl.data.label_picture import label_picture
from mtl.report.calibration import calibration_figure
from mtl.report.curves import curves_figure
from mtl.report.figures import gain_figure, metric_figure, save
from mtl.report.forest import forest_figure
from tests.report.example import example

ROOT = pathlib.Path(__file__).parents[1]
DRAWN = (metric_figure, gain_figure)
SETTINGS = {
    "text.usetex": True,
    "text.latex.preamble": r"\input{/etc/passwd}",
    "lines.linewidth": 30.0,
    "font.family": ["monospace"],
    "axes.grid": True,
    "savefig.dpi": 20.0,
    "savefig.bbox": "tight",
    "axes.unicode_minus": False,
    "figure.autolayout": True,
    "xtick.labelsize": 40.0,
    "svg.fonttype": "none",
    "image.cmap": "gray",
}


def drawn(folder):
    folder.mkdir()
    for number, draw in enumerate(DRAWN):
        save(draw(example()), folder / f"figure{number}")
    label_picture(digits_table(), folder / "labels.png")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_figures_are_the_same_whatever_settings_are_in_force(tmp_path, monkeypatch):
    expected = drawn(tmp_path / "plain")
    assert len(expected) == 2 * len(DRAWN) + 1
    for name, value in SETTINGS.items():
        monkeypatch.setitem(matplotlib.rcParams, name, value)
    before = dict(matplotlib.rcParams)
    assert drawn(tmp_path / "set") == expected
    assert dict(matplotlib.rcParams) == before  # And those of whoever calls are left as they are.


def test_every_function_that_draws_has_its_own_settings():
    for draw in (*DRAWN, calibration_figure, curves_figure, forest_figure, label_picture):
        assert hasattr(draw, "__wrapped__"), draw


PROGRAM = """
import os, sys
from mtl.canvas import own_settings
from mtl.data import digits_table
from mtl.data.label_picture import label_picture
here = os.getcwd()
label_picture(digits_table(), sys.argv[1])
assert os.getcwd() == here
"""


@pytest.mark.parametrize("kind", ["settings", "a pipe", "no text", "no settings"])
def test_a_file_of_settings_in_the_current_directory_is_not_read(tmp_path, kind):
    """A pipe would be waited for; and ``latex``, which a stranger's preamble would be given to, is never run."""
    here, programs = tmp_path / "here", tmp_path / "programs"
    here.mkdir()
    programs.mkdir()
    for name in ("latex", "dvipng", "kpsewhich"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
        (programs / name).chmod(0o755)
    rc = here / "matplotlibrc"
    if kind == "a pipe":
        os.mkfifo(rc)
    else:
        rc.write_bytes({"settings": b"text.usetex: True\n", "no text": b"\xff\xfe", "no settings": b"what?\n"}[kind])
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, "picture.png"], cwd=here, capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{programs}:{os.environ['PATH']}", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "ran").exists()
    label_picture(digits_table(), tmp_path / "expected.png")
    assert (here / "picture.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_a_home_that_cannot_be_written_costs_no_figure_and_no_word(tmp_path):
    home = tmp_path / "home"
    home.touch()
    (tmp_path / "rc").write_text("what?: 1\n")
    kept = {name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, "picture.png"], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env=kept | {"PYTHONPATH": str(ROOT), "HOME": str(home), "MATPLOTLIBRC": "rc", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "picture.png").stat().st_size


def test_control_matplotlib_by_itself_reads_it(tmp_path):
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 30\n")
    done = subprocess.run(
        [sys.executable, "-c", "import matplotlib; print(matplotlib.rcParams['lines.linewidth'])"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "30.0\n"
