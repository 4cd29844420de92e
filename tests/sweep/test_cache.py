"""A compilation cache that cannot be costs time and no result, and one sentence says so."""

import os
import pathlib
import shutil

import jax
import pytest

from mtl.sweep.cache import cache_folder, enable_cache, make_cache
from mtl.sweep.execute import execute
from mtl.sweep.fingerprint import code_of
from mtl.sweep.store import Workdir
from mtl.train import compiled
from tests.sweep.test_interrupts import plan_of

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("MTL_CACHE_DIR", raising=False)
    monkeypatch.setattr(compiled, "turns", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["MTL_CACHE_DIR", "XDG_CACHE_HOME", "HOME"])
def test_one_below_a_file_is_done_without(tmp_path, monkeypatch, variable):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, str(file / "home"))
    assert enable_cache() is None and compiled.turns is None
    said = make_cache()
    assert said.startswith(f"what is compiled is not kept: {file / 'home'}") and "Not a directory" in said
    assert "\n" not in said
    package = ROOT / "mtl"
    assert code_of(package, cache_folder()) == code_of(package, None)


def test_one_of_somebody_else_is_done_without(tmp_path, monkeypatch):
    """Root may do anything, so the system's refusal is played."""
    monkeypatch.setenv("MTL_CACHE_DIR", str(tmp_path / "theirs"))

    def refuse(path, mode):
        raise PermissionError(1, os.strerror(1), str(path))

    monkeypatch.setattr(pathlib.Path, "chmod", refuse)
    assert enable_cache() is None and "Operation not permitted" in make_cache()


def test_a_user_without_a_home_has_none(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "home", homeless)
    assert (cache_folder(), enable_cache(), make_cache()) == (None, None, "")


def test_one_that_can_be_is_made_and_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_CACHE_DIR", str(tmp_path / "a" / "b"))
    assert make_cache() == "" and enable_cache() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_hidden_copies_of_modules_are_no_part_of_the_code(tmp_path):
    shutil.copytree(ROOT / "mtl", tmp_path / "mtl", ignore=shutil.ignore_patterns("__pycache__"))
    before = code_of(tmp_path / "mtl", None)
    (tmp_path / "mtl" / "train" / "._step.py").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "mtl" / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "mtl" / "train" / ".ipynb_checkpoints" / "step-checkpoint.py").write_text("x = 1")
    assert code_of(tmp_path / "mtl", None) == before
    (tmp_path / "mtl" / "train" / "more.py").write_text("x = 1")
    assert code_of(tmp_path / "mtl", None) != before


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/maps").exists(), reason="mappings are counted on Linux")
@pytest.mark.parametrize("room", [0, 1])
def test_after_each_pack_programs_are_forgotten_if_there_is_no_room_for_many(tmp_path, monkeypatch, room):
    monkeypatch.setattr(compiled, "_ROOM", room)
    plan = plan_of({"regime": "scratch"}, {"regime": "ridge_probe"})
    execute(plan, Workdir(tmp_path))
    kept = any(function._made for function in compiled.Compiled._alive)
    assert kept is bool(room)
    assert all(Workdir(tmp_path).result(digest)["status"] == "done" for digest in plan.trials)
