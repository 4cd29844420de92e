"""Of several processes that run together one dies: the others say so and end, and one process goes on."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from mtl.host import witness
from mtl.train import processes
from tests.sweep.test_interrupts import command, free_port

SILENT = """
import os, sys
import mtl.commands.start
mtl.commands.start._witness.dismiss()
os.dup2(sys.stderr.fileno(), 2)
mtl.commands.start._witness = None
"""
OFTEN = "import mtl.sweep.snapshots\nmtl.sweep.snapshots.EVERY_SECONDS = 0.5\n"


def pair(folder, steps, before=OFTEN):
    port = free_port()
    where = [f"--coordinator=127.0.0.1:{port}", "--processes=2"]
    return [
        command(folder, "run", f"--workdir={folder / 'work'}", steps, *where, f"--process={i}", before=before)
        for i in range(2)
    ]


def until_it_keeps(folder, processes, seconds=120):
    end = time.monotonic() + seconds
    while not list((folder / "work" / "snapshots").glob("*.safetensors")):
        codes = [process.poll() for process in processes]
        if time.monotonic() > end or any(code is not None for code in codes):
            for process in processes:
                process.kill()
            said = [process.communicate()[1][-2000:] for process in processes]
            pytest.fail(f"no snapshot; exit codes {codes}; they said {said}")
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_of_two_dies_the_other_says_so_and_ends_and_one_process_goes_on(tmp_path, victim):
    """Process 0 is JAX's coordinator and the one that writes; process 1 is neither."""
    steps = "--config.target.total_steps=50000"
    both = pair(tmp_path, steps)
    until_it_keeps(tmp_path, both)
    both[victim].kill()
    begun = time.monotonic()
    _, err = both[1 - victim].communicate(timeout=100)
    assert time.monotonic() - begun < 60
    assert both[1 - victim].returncode not in (0, None)
    assert err.count("mtl: ") == 1 and err.endswith(f"mtl: {witness.LOST}\n"), err
    assert "Traceback" not in err and "@ " not in err
    both[victim].communicate()
    assert list((tmp_path / "work" / "snapshots").glob("*.safetensors"))
    alone = command(tmp_path, "run", f"--workdir={tmp_path / 'work'}", steps)
    out, err = alone.communicate(timeout=300)
    assert alone.returncode == 0, err
    assert json.loads(out)["status"] == "done"


@pytest.mark.slow
def test_when_one_of_two_fails_the_other_does_not_wait_for_it(tmp_path):
    """An error in one process alone, such as a full disk where results are written."""
    fails = OFTEN + "import os\nif os.environ.get('MTL_FAILS'):\n    mtl.sweep.snapshots.save_tree = lambda *_: 1 / 0\n"
    os.environ["MTL_FAILS"] = "1"  # Process 0 alone writes.
    try:
        both = pair(tmp_path, "--config.target.total_steps=400000", fails)
    finally:
        del os.environ["MTL_FAILS"]
    said = [process.communicate(timeout=100)[1] for process in both]
    assert [process.returncode for process in both] == [1, 1], said
    assert "ZeroDivisionError" in said[0] and said[1].endswith(f"mtl: {witness.LOST}\n"), said


@pytest.mark.slow
def test_without_a_witness_jax_ends_the_other_with_a_stack_trace(tmp_path):
    """The control."""
    both = pair(tmp_path, "--config.target.total_steps=400000", OFTEN + SILENT)
    until_it_keeps(tmp_path, both)
    both[0].kill()
    _, err = both[1].communicate(timeout=100)
    both[0].communicate()
    assert both[1].returncode != 0 and witness.LOST not in err
    assert "stack trace" in err


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ValueError("UNKNOWN: Gloo all-reduce failed: [pair.cc:547] Connection closed by peer"), True),
        (RuntimeError("INTERNAL: NCCL operation failed: remote process exited"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), False),
        (ValueError("config.init.path: there is no connection"), False),
        (OSError("UNAVAILABLE: socket"), False),
    ],
)
def test_which_errors_say_that_another_process_is_gone(monkeypatch, error, lost):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    assert processes.is_lost(error) is lost
    monkeypatch.setattr("jax.process_count", lambda: 1)
    assert not processes.is_lost(error)


DIES = """
import os, sys
from mtl.host.witness import Witness
witness = Witness()
print("Python says this")
print("and this", file=sys.stderr)
os.write(2, sys.argv[1].encode())
if sys.argv[2]:
    witness.dismiss(sys.argv[2])
os.abort()
"""
JAX_SAYS = (
    "E1124 coordination_service_agent.cc:289] Polled an error from coordination service\n"
    "F1124 client.h:80] Terminating process because the JAX distributed service detected fatal errors.\n"
    "*** Check failure stack trace: ***\n    @     0x7f8d11840634  absl\n"
)


@pytest.mark.parametrize(
    ("noise", "word", "told"),
    [
        (JAX_SAYS, "", f"mtl: {witness.LOST}\n"),
        (JAX_SAYS, "lost", f"mtl: {witness.LOST}\n"),
        (JAX_SAYS, "ended", ""),
        ("Segmentation fault in a library\n", "", "Segmentation fault in a library\n"),
        ("a warning\n", "ended", ""),
    ],
    ids=["aborted", "lost", "well", "crash", "noise"],
)
def test_the_witness_says_why_a_process_ended(noise, word, told):
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", DIES, noise, word], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stderr == "and this\n" + told
