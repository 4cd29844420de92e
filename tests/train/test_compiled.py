"""Of processes that need the same programs, one compiles each."""

import fcntl
import itertools
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl.train import compiled
from mtl.train.compiled import Compiled


@pytest.fixture
def turns(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "turns", tmp_path)
    return tmp_path


def held_by_another(folder, fn, *args):
    """Return a descriptor with the lock that a process has that compiles this program."""
    compiled_ = Compiled(fn)
    compiled_.executable(*args)
    (file,) = folder.iterdir()
    descriptor = os.open(file, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def test_a_program_in_anothers_hands_is_waited_for(turns):
    x, freed = jnp.arange(3.0), []
    descriptor = held_by_another(turns, jnp.sin, x)

    def let_go():
        freed.append(time.monotonic())
        os.close(descriptor)

    threading.Timer(0.3, let_go).start()
    np.testing.assert_array_equal(Compiled(jnp.sin)(x), jnp.sin(x))
    assert freed and time.monotonic() > freed[0]


def test_a_call_waits_for_who_compiles_its_program_but_not_for_ever(turns, monkeypatch):
    monkeypatch.setattr(compiled, "_WAIT_SECONDS", 0.3)
    x = jnp.arange(4.0)
    descriptor = held_by_another(turns, jnp.tanh, x)
    begun = time.monotonic()
    found = Compiled(jnp.tanh)(x)  # Whoever holds it may have been stopped by a debugger.
    assert 0.3 <= time.monotonic() - begun < 10
    np.testing.assert_array_equal(found, jnp.tanh(x))
    os.close(descriptor)


def test_shapes_alone_are_enough_and_arrays_find_what_they_made():
    fn, before = Compiled(lambda x, y: x @ y), Compiled.compilations
    shape = jax.ShapeDtypeStruct((3, 3), jnp.float32)
    fn.executable(shape, shape)
    np.testing.assert_allclose(fn(jnp.eye(3), np.ones((3, 3), np.float32)), np.ones((3, 3)))
    assert Compiled.compilations == before + 1


@pytest.mark.parametrize("broken", ["gone", "link", "full"])
def test_where_no_turns_can_be_taken_everybody_compiles(tmp_path, monkeypatch, broken):
    monkeypatch.setattr(compiled, "turns", tmp_path / "turns")
    if broken != "gone":
        (tmp_path / "turns").mkdir()
    if broken == "link":  # Never followed: it could lead to a file of somebody else's.
        (tmp_path / "victim").write_text("mine")
        for i in range(256):
            (tmp_path / "turns" / f"{i:02x}").symlink_to(tmp_path / "victim")
    if broken == "full":
        monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(37, "No locks available")))
    assert float(Compiled(jnp.exp)(jnp.float32(0))) == 1


PROGRAMS = 4
SCRIPT = """
import json, sys
import jax, jax.numpy as jnp
from mtl.sweep.cache import enable_cache
from mtl.train import compiled

enable_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
if sys.argv[1] == "alone":
    compiled.turns = None
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
calls = []
for i in range(int(sys.argv[2])):
    def fn(x, i=i):
        for k in range(3 + i):
            x = jnp.cumsum(jnp.sort(x) + k)
        return x
    calls.append((compiled.Compiled(fn), (jax.ShapeDtypeStruct((300,), jnp.float32),)))
print("ready", flush=True)
sys.stdin.readline()
for c, args in calls:
    c.executable(*args)
misses = sum(event.endswith("/cache_misses") for event in events)
print(json.dumps([misses, [float(c(jnp.arange(300.0)).sum()) for c, _ in calls]]))
"""


def misses_of_two(cache, how):
    words = [sys.executable, "-c", SCRIPT, how, str(PROGRAMS)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"MTL_CACHE_DIR": str(cache), "JAX_PLATFORMS": "cpu"}
    root = pathlib.Path(__file__).parents[2]
    both = [subprocess.Popen(words, **pipes, env=environment, cwd=root) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    (one, first), (other, second) = (json.loads(process.communicate()[0]) for process in both)
    assert first == second
    return one + other


def test_two_processes_compile_each_program_once_together(tmp_path):
    assert misses_of_two(tmp_path / "cache", "together") == PROGRAMS


@pytest.mark.slow
def test_without_turns_both_compile_the_same(tmp_path):
    """The control; a busy machine may hold one process up until the other has compiled everything."""
    assert any(misses_of_two(tmp_path / str(i), "alone") > PROGRAMS for i in range(3))


def test_who_has_no_room_for_many_programs_forgets_them_and_compiles_again(monkeypatch):
    twice = compiled.Compiled(lambda x: 2 * x)
    before = compiled.Compiled.compilations
    assert float(twice(jnp.float32(3))) == 6 and not compiled.Compiled.make_room()
    assert float(twice(jnp.float32(3))) == 6 and compiled.Compiled.compilations == before + 1
    monkeypatch.setattr(compiled, "_ROOM", 0)
    assert compiled.Compiled.make_room() and not twice._made
    assert float(twice(jnp.float32(3))) == 6 and compiled.Compiled.compilations == before + 2


#: Compiles 130 programs where there is room for some 50, and says how many mappings it has after each and may have.
MANY = """
import pathlib
import jax.numpy as jnp
from mtl.train import compiled
count = lambda: pathlib.Path("/proc/self/maps").read_bytes().count(b"\\n")
compiled.Compiled(lambda x: jnp.sin(x))(jnp.ones(1))
most = count() + 150
compiled._ROOM = most / int(pathlib.Path("/proc/sys/vm/max_map_count").read_text())
counts = []
for size in range(1, 131):
    compiled.Compiled(lambda x: jnp.sin(x) + 1)(jnp.ones(size))
    compiled.Compiled.make_room()
    counts.append(count())
print([most, counts])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads a process's mappings from /proc")
def test_no_number_of_programs_takes_more_mappings_than_there_are():
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, env=env, check=True)
    most, counts = json.loads(done.stdout)
    assert max(counts) < most + 10 and sum(b < a for a, b in itertools.pairwise(counts)) >= 2, (most, counts)


def test_a_gpu_gives_the_same_bits_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert not any("gpu" in name for name in compiled.options())
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiled.options() == {"xla_gpu_deterministic_ops": True}
    lowered = jax.jit(jnp.sin).lower(1.0)
    assert lowered.compile(compiled.options())(1.0) == jnp.sin(1.0)  # XLA knows it; it refuses what it does not know.
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=a --xla_gpu_deterministic_ops=false")
    assert compiled.options() == {}
