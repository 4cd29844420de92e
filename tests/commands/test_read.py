"""Reading a finished study takes neither JAX nor what rests on it, which take longer to import than a study to read."""

import subprocess
import sys

import pytest

from tests.sweep.hostile import small_study

#: Refuses what readers have no use for, runs their commands, and reads the data frame.
READ = """
import sys
refused = set(sys.argv[2:])
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in refused:
            raise ImportError(f"{name} is imported")
sys.meta_path.insert(0, Refuse())
import mtl.cli
codes = [mtl.cli.main([command, sys.argv[1]]) for command in ("status", "table", "report")]
mtl.results(sys.argv[1])
sys.exit(max(codes))
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("read") / "work")


def test_readers_import_nothing_that_trains(work):
    heavy = ["jax", "flax", "optax", "sklearn", "ml_collections", "mtl.train", "mtl.models", "mtl.data"]
    done = subprocess.run([sys.executable, "-c", READ, str(work), *heavy], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, "-c", READ, str(work), "numpy"], capture_output=True, text=True)
    assert done.returncode and "numpy is imported" in done.stderr  # The control.
