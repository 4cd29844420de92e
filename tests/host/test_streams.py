"""Standard streams that are closed, broken, full or of few letters: what was printed to them costs nothing else."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.sweep.by_hand import results

ROOT = pathlib.Path(__file__).parents[2]
#: Prints more than a pipe holds on both streams, then writes a file, opens nothing into a standard number, and ends.
PROGRAM = """
import os, sys
from mtl.host.streams import lost, prepare
prepare()
with open(sys.argv[1], "w") as file:
    assert file.fileno() > 2, file.fileno()
    for _ in range(3000):
        print("≈ † ▲ é " * 10)
        print("≈ † ▲ é " * 10, file=sys.stderr)
    os.system("echo from a child; echo from a child >&2")
    file.write("all of it\\n" + lost())
"""


def run(tmp_path, redirection, program=PROGRAM, **environment):
    """Return (exit code, standard error, what the file holds) of a program under a shell's redirection."""
    (tmp_path / "program.py").write_text(program)
    words = f"{sys.executable} {tmp_path}/program.py {tmp_path}/file {redirection}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", words], cwd=ROOT, capture_output=True, check=False, timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip
    return done.returncode, done.stderr.decode(), (tmp_path / "file").read_text()


@pytest.mark.parametrize(
    "redirection",
    ["| true", "| head -1", "2>&1 | true", ">&-", "2>&-", "<&- >&- 2>&-", "<&-", "2>&1 | head -1 >&2", "2>/dev/full"],
)
@pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}, {"PYTHONIOENCODING": "ascii"}], ids=str)
def test_what_is_printed_costs_nothing_else(tmp_path, redirection, environment):
    code, said, written = run(tmp_path, redirection, **environment)
    assert (code, written) == (0, "all of it\n")
    assert "Error" not in said


def test_a_full_disk_under_what_is_printed_is_told_in_the_end(tmp_path):
    code, _, written = run(tmp_path, ">/dev/full")
    assert (code, written) == (0, "all of it\nwhat is printed cannot be written: No space left on device")


@pytest.mark.parametrize("coding", ["ascii", "latin-1", "ascii:strict"])
def test_what_an_encoding_lacks_is_spelled_out(tmp_path, coding):
    program = "from mtl.host.streams import prepare\nimport sys\nprepare()\nprint('≈ †')\nopen(sys.argv[1], 'w')"
    code, said, _ = run(tmp_path, ">&2", program, PYTHONIOENCODING=coding)
    assert (code, said) == (0, "\\u2248 \\u2020\n")


def test_a_pipe_that_does_not_wait_is_waited_for(tmp_path):
    program = (
        "import os, sys\nfrom mtl.host.streams import prepare\nprepare()\nos.set_blocking(1, False)\n"
        "for i in range(20000): print(i)\nsys.stdout.flush()\nopen(sys.argv[1], 'w').write('all')"
    )
    code, said, written = run(tmp_path, "| (sleep 0.5; tail -1 >&2)", program)
    assert (code, said, written) == (0, "19999\n", "all")


#: The same program without ``prepare`` fails where the tests above hold: they would find that.
BARE = PROGRAM.replace("prepare()\n", "lost = str\n", 1)


@pytest.mark.parametrize(
    ("redirection", "environment"),
    [("| true", {}), (">&-", {}), ("2>&1 | true", {}), ("", {"PYTHONIOENCODING": "ascii"})],
)
def test_control_without_them_it_does(tmp_path, redirection, environment):
    assert run(tmp_path, redirection, BARE, **environment)[0] != 0


STUDY = """
from mtl.config import default
from mtl.sweep import product, sweep

def get_config():
    c = default()
    c.name = "≈ small"
    c.model.options = {"hidden": (4,)}
    c.source.total_steps = c.target.total_steps = 4
    c.evaluations = 2
    return c

def sweep_even():
    '''Is it even ≈ †?'''
    return product(
        sweep("regime", ("scratch", "finetune")), sweep("data.target_size", (20,)), sweep("seed", range(2)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirection", "environment", "code"),
    [
        ("", {}, 0),
        ("2>&1 | true", {}, 0),
        (">&- 2>&-", {}, 0),
        ("<&- >&- 2>&- --jobs=0", {}, 0),
        ("", {"PYTHONIOENCODING": "ascii"}, 0),
        (">/dev/full", {}, 1),
        (">/dev/full 2>/dev/full", {}, 1),
        ("| head -1", {"MTL_CACHE_DIR": "/dev/null/cache", "HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null"}, 0),
    ],
    ids=str,
)
def test_a_sweep_writes_everything_whatever_becomes_of_what_it_prints(tmp_path, redirection, environment, code):
    (tmp_path / "small.py").write_text(STUDY)
    words = f"{sys.executable} -P -m mtl.cli sweep --config=small.py --workdir=work {redirection}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", words], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | environment,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("mtl: ")]) == (redirection == ">/dev/full")
    work = tmp_path / "work"
    assert len(results(work)) == 4
    there = [len(list(work.glob(p))) for p in ("figures/*.svg", "tables/*", "report.html")]
    assert there == [3, 16, 1]
    if environment.get("MTL_CACHE_DIR"):
        assert done.stderr.count("what is compiled is not kept") == 1
