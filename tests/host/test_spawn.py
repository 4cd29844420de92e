"""How processes of ours begin and end."""

import os
import pathlib
import subprocess
import sys

import pytest

from mtl.cli import main
from mtl.host.spawn import started

ROOT = pathlib.Path(__file__).parents[2]
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | {"JAX_PLATFORMS": "cpu"}


def test_who_leaves_has_said_everything_and_done_what_was_registered():
    code = "import atexit; from mtl.host.spawn import leave; atexit.register(print, 'last'); print('first'); leave(3)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=BUFFERED, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "first\nlast\n", "")


def test_each_of_the_workers_has_a_number_and_none_outlives_the_context():
    with started(3) as hands:
        assert [hand.number for hand in hands] == [0, 1, 2]
        hands = list(hands)
    assert all(hand.process.returncode for hand in hands)


def test_without_a_place_for_temporary_files_one_sentence_says_so(monkeypatch, capsys):
    def refuse():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert main(["sweep", f"--config={ROOT / 'configs' / 'digits.py'}", "--jobs=1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mtl: no temporary file can be made (No usable temporary directory found")
    assert said.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no full device here")
def test_output_to_a_full_disk_is_one_sentence():
    words = [sys.executable, "-m", "mtl.cli", "sweep", f"--config={ROOT / 'configs' / 'digits.py'}", "--dry-run"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, cwd=ROOT, env=BUFFERED, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "mtl: what is printed cannot be written: No space left on device\n"
