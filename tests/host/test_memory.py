"""Memory that is kept: what that spares, that it is given back, and who does it."""

import json
import os
import statistics
import subprocess
import sys

import pytest

from mtl.commands import start
from mtl.host import memory

#: Calls a program whose working memory is 256 MiB or more, and says how many page faults each call met.
PROCESS = """
import ctypes, json, resource, sys
from pathlib import Path
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages are of 4 KiB, whatever the system gives to all.
import jax, jax.numpy as jnp
from mtl.host import memory
kept = "keep" in sys.argv and memory.keep()
f = jax.jit(lambda x: jnp.flip(jnp.exp(x @ x.T)) @ x)
x = jnp.ones((8192, 8))
faults = []
for _ in range(15):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(f(x))
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 if sys.platform == "linux" else 0

held = resident()
memory.give_back()
print(json.dumps({"kept": kept, "faults": faults, "held": held, "left": resident()}))
"""


def _process(*arguments):
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", PROCESS, *arguments], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_what_is_kept_meets_no_page_faults_and_is_given_back():
    kept, plain = _process("keep"), _process()
    if sys.platform != "linux":
        assert not kept["kept"]
        return
    assert kept["kept"] and not plain["kept"]
    # Now and then a call finds what is kept in pieces, all of them too small: the first ones, and who shares a machine.
    assert min(plain["faults"]) > 20 * statistics.median(kept["faults"]), (kept, plain)
    assert kept["held"] - kept["left"] > 200 << 20, kept


@pytest.mark.parametrize(("own", "platform", "keeps"), [(True, "cpu", 1), (False, "cpu", 0), (True, "cuda", 0)])
def test_only_a_process_of_ones_own_that_trains_on_a_cpu_keeps_it(own, platform, keeps, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", platform)
    monkeypatch.setenv("MTL_CACHE_DIR", "off")
    kept = []
    monkeypatch.setattr(memory, "keep", lambda: kept.append(True))
    start.in_this_process(own)
    assert len(kept) == keeps
