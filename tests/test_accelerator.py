"""The checks of a device, on a CPU: what they see, and that all of them pass in their short form."""

import importlib
import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from mtl.cpu import replace

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'scripts'}")


@pytest.mark.parametrize(("case", "module"), [("mlp", "products"), ("cnn", "winograd"), ("small_vit", "rows")], ids=str)
def test_no_kernel_of_the_cpu_is_traced_elsewhere(case, module, monkeypatch):
    traced = importlib.import_module("accelerating.kernels").traced
    assert module in {name.partition(".")[0] for name in traced(case)}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert traced(case) == []
    monkeypatch.setattr(replace, "used", lambda: True)  # And it would be seen.
    assert traced(case)


def test_what_is_not_done_in_time_has_failed(tmp_path):
    accelerating = importlib.import_module("accelerating.__main__")
    setting = importlib.import_module("accelerating.checks").Setting("cpu", str(tmp_path), True)
    (row,) = accelerating._rows("kernels", setting, 0.1)
    assert accelerating._met(row) is False
    assert row.ours == "not done in 0 s"


def test_a_number_that_is_none_is_no_agreement():
    gap = importlib.import_module("accelerating.checks")._gap
    assert gap(np.array([1.0, math.nan]), np.array([1.0, math.nan])) == math.inf
    assert gap(np.array([200.0, 2.0]), np.array([199.0, 2.0])) == 1 / 199


def run(*arguments, devices=1):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.run(
        [ROOT / "scripts" / "accelerator", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHON": sys.executable},
    )


def test_what_there_is_no_time_for_is_said(tmp_path):
    done = run("--only=kernels,bits", "--minutes=0.2", f"--json={tmp_path / 'figures.json'}")
    assert done.returncode == 0, done.stderr
    assert "Left out, for want of time: kernels, bits." in done.stdout
    assert json.loads((tmp_path / "figures.json").read_text())["left_out"] == ["kernels", "bits"]
    assert run("--only=kernel").returncode == 2


@pytest.mark.slow
def test_the_short_form_passes(tmp_path):
    done = run("--quick", f"--json={tmp_path / 'figures.json'}", f"--markdown={tmp_path / 'table.md'}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "table.md").read_text() == done.stdout
    found = json.loads((tmp_path / "figures.json").read_text())
    assert list(found["checks"]) == ["kernels", "parity", "bits", "packs", "steps", "study"]
    assert all(rows and any(row["met"] is not False for row in rows) for rows in found["checks"].values())


@pytest.mark.slow
def test_lanes_and_batches_on_two_devices_come_to_the_same():
    done = run("--quick", "--only=packs", devices=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"small_vit: 4 lanes, vmap{axis} against map" in done.stdout for axis in ("", " trial:2", " data:2"))
