"""Functions that are compiled once: in a process, and by one of the processes that need them at the same time."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import jax
from jax.sharding import PartitionSpec

from mtl.train.placement import MAP, WHOLE, Placement

PyTree = Any

#: How programs are compiled, by backend. XLA takes half of a CPU's widest vectors if not asked for all (where a CPU has
#: only these, it takes them): 0.92 of the time of a small perceptron's step, 0.95 of a convolutional network's. For a
#: GPU it would choose kernels by what is fastest at the moment, and add by atomics, in any order: a program that is
#: compiled or run again would have other bits.
_OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {"xla_cpu_prefer_vector_width": 512},
    "gpu": {"xla_gpu_deterministic_ops": True},
}

#: Where processes with a common cache show which programs they are compiling; nothing if they have none.
turns: Path | None = None

#: How long a process waits for another that compiles the same program, and how often it looks. Who is stopped by a
#: debugger must not stop everybody else: after so long a program is compiled twice.
_WAIT_SECONDS, _LOOK_SECONDS = 120.0, 0.005


#: The part of the mappings of memory that Linux gives a process (65,530 as a rule) after which programs are forgotten.
_ROOM = 1 / 3


def options() -> dict[str, Any]:
    """Return how programs are compiled for the backend at hand; what the user's ``XLA_FLAGS`` say stands."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in _OPTIONS.get(jax.default_backend(), {}).items() if name not in flags}


class Compiled:
    """A function compiled once for each shape of its arguments, and asked how much memory it takes before it runs.

    Attributes:
      compilations: how many executables were made by all of these; guarded by a test.
    """

    compilations = 0
    _alive: ClassVar[weakref.WeakSet[Compiled]] = weakref.WeakSet()

    def __init__(
        self,
        fn: Callable[..., PyTree],
        placement: Placement = MAP,
        specs: tuple[PyTree, ...] = (),
        result: PyTree = WHOLE,
        donate: tuple[int, ...] = (),
    ) -> None:
        """Wrap a pure function of positional pytrees, spread over the placement's devices.

        Args:
          fn: the function.
          placement: how it runs.
          specs: how each argument lies on the mesh: ``LANES``, ``OWN`` or ``WHOLE``, or a tree of these.
          result: how the result does.
          donate: arguments whose memory the result may take.
        """
        options: dict[str, Any] = {}
        if placement.devices > 1:
            mesh = placement.mesh
            fn = jax.shard_map(fn, mesh=mesh, in_specs=specs, out_specs=result, check_vma=False)

            def named(specs: PyTree) -> PyTree:
                return jax.tree.map(
                    lambda s: jax.sharding.NamedSharding(mesh, s), specs, is_leaf=lambda s: isinstance(s, PartitionSpec)
                )

            options = {"in_shardings": named(specs), "out_shardings": named(result)}
        self._jit = jax.jit(fn, donate_argnums=donate, **options)
        self._made: dict[Any, Any] = {}
        Compiled._alive.add(self)

    def executable(self, *args: PyTree) -> Any:
        """Return the executable for arguments of these shapes (arrays, or shapes alone).

        Where another process compiles the same program it is waited for, and what it made is read from the cache.
        """
        key = _key(args)
        if key not in self._made:
            lowered = self._jit.lower(*args)
            name = hashlib.sha256(lowered.as_text().encode()).hexdigest()
            with _turn(name):
                self._made[key] = lowered.compile(options())
            Compiled.compilations += 1
        return self._made[key]

    def memory(self, *args: PyTree) -> int:
        """Return the bytes that a call with arguments of these shapes takes on a device."""
        found = self.executable(*args).memory_analysis()
        if found is None:
            return 0
        total = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
        return int(total - found.alias_size_in_bytes)

    def __call__(self, *args: PyTree) -> PyTree:
        """Call it."""
        return self.executable(*args)(*args)

    @staticmethod
    def make_room() -> bool:
        """Forget all that was compiled if there is much of it, and return whether: what is called is compiled again.

        On a CPU a program takes three mappings of memory, and a trial of a new architecture brings 90 programs with
        their shapes. Who asks Linux for one mapping too many ends by a segmentation fault, after 250 such trials.
        """
        mappings, most = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
        if not (most.exists() and mappings.read_bytes().count(b"\n") > _ROOM * int(most.read_text())):
            return False
        for function in Compiled._alive:
            function._made.clear()
        jax.clear_caches()
        gc.collect()
        return True


def _key(args: tuple[PyTree, ...]) -> Any:
    leaves, structure = jax.tree.flatten(args)
    return structure, tuple((a.shape, a.dtype) for a in leaves)


@contextlib.contextmanager
def _turn(program: str) -> Iterator[None]:
    """Hold the right to compile a program, which one process has at a time; without a common cache everybody has.

    Processes that run together as one (``jax.distributed``) compile in step, and must not wait for one another here.
    """
    descriptor = -1 if turns is None or jax.process_count() > 1 else _open(turns, program)
    end = time.monotonic() + _WAIT_SECONDS
    try:
        while descriptor >= 0 and not _locked(descriptor) and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _open(folder: Path, program: str) -> int:
    """Return a descriptor of the file that stands for a program; −1 if there can be none (a full disk, say)."""
    with contextlib.suppress(OSError):
        # At most 256 files, however many programs there will be: two that have one in common take turns, no more.
        return os.open(folder / program[:2], os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return -1


def _locked(descriptor: int) -> bool:
    """Lock a file and return whether it is; the system lets go of it when it is closed, or its process ends."""
    import fcntl  # Here: there is none on Windows, where there are no turns.

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # A file system without locks: nobody can tell, so everybody compiles.
        return True
    return True
