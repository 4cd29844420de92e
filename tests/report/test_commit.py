"""The commit that a page names is that of mtl's own checkout, whatever the environment says."""

import os
import pathlib
import shutil
import subprocess

import pytest

import mtl
from mtl.report.publish import git_commit

ROOT = pathlib.Path(mtl.__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not ((ROOT / ".git").exists() and shutil.which("git")), reason="no checkout, or no git, here"
)


def test_it_is_not_that_of_a_repository_that_the_environment_names(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    expected = git_commit()
    assert expected
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert git_commit() == expected


def test_no_program_that_its_settings_name_is_run(tmp_path, monkeypatch):
    """The settings are the user's, by ``GIT_CONFIG_*``, and the checkout's own, which the first option overrules."""
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    checkout = tmp_path / "checkout"
    (checkout / "mtl").mkdir(parents=True)
    (checkout / "mtl" / "__init__.py").touch()
    git = ["git", "-C", str(checkout), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", "init", "-q", str(checkout)], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    subprocess.run([*git, "config", "core.fsmonitor", str(hook)], check=True)
    monkeypatch.setattr(mtl, "__file__", str(checkout / "mtl" / "__init__.py"))
    assert len(git_commit()) == 12
    assert not (tmp_path / "ran").exists()
    subprocess.run([*git, "status"], check=True, capture_output=True)
    assert (tmp_path / "ran").exists()  # The control.


def test_without_git_there_is_none(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert git_commit() == ""
