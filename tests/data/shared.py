"""Where files lie that are too large for the repository, or not ours to give away."""

import os
import pathlib

import pytest


def folder_with(*files: str) -> str:
    """The folder that holds all of these files; the test is skipped, with a reason, where there is none."""
    beside = pathlib.Path(__file__).parents[3] / "shared" / "data"
    for folder in (os.environ.get("MTL_DATA_DIR", ""), str(beside)):
        if folder and all(pathlib.Path(folder, file).is_file() for file in files):
            return folder
    pytest.skip(f"{', '.join(files)}: not in $MTL_DATA_DIR nor in shared/data beside the repository")
