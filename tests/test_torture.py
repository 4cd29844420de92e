"""The fault matrix in its short form."""

import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
def test_the_short_matrix_holds(tmp_path):
    done = subprocess.run(
        [ROOT / "scripts" / "torture", "--size=short", f"--json={tmp_path / 'figures.json'}"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    outcomes = json.loads((tmp_path / "figures.json").read_text())
    assert len(outcomes) >= 12 and all(o["runs"] and not o["broken"] for o in outcomes)
