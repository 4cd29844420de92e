"""JAX as the tests want it: two CPU devices, no silent rank promotion."""

import os
import sys

import hypothesis

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

from mtl.sweep.cache import enable_cache
from mtl.train.compiled import Compiled

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")

#: Scripts that make golden files; they need PyTorch, which the tests do not.
collect_ignore_glob = ["golden/make_*.py", "fixtures/*"]

# The machines are shared: how long an example takes says nothing.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")


#: Files that take minutes: they begin first, so that none is alone at the end while the other workers wait.
LONGEST = ("test_reproduce", "test_torture", "test_calibration", "test_accelerator", "test_over_tasks", "test_streamed")


def pytest_collection_modifyitems(items):
    """Let the files that take longest begin first."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """With ``MTL_NO_SKIPS`` set, as in CI, a test of real data that is skipped has failed: something is missing."""
    report = yield
    if report.skipped and os.environ.get("MTL_NO_SKIPS") and "tests/data" in item.path.as_posix():
        report.outcome, report.longrepr = "failed", f"skipped, and MTL_NO_SKIPS is set: {report.longrepr[-1]}"
    return report


@pytest.fixture(autouse=True)
def _forgets_modules_of_its_own(tmp_path_factory):
    """Forget what a test imported from a directory of its own: another test may call a module the same."""
    before, own = set(sys.modules), str(tmp_path_factory.getbasetemp())
    yield
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(own):
            del sys.modules[name]


@pytest.fixture
def optimised():
    """Compile as users do, also where XLA is asked to optimise little, as by ``scripts/test``: rounding differs."""
    asked = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", asked)


@pytest.fixture(autouse=True, scope="module")
def _programs():
    """Keep all that is compiled, single operations too, for other tests, workers and runs, as users keep programs.

    A process forgets what was compiled once there is much of it: none but that of all tests keeps so many programs.
    """
    enable_cache()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    Compiled.make_room()
