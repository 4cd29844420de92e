"""Functions that are compiled once: in a process, and by one of the processes that need them at the same time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import PartitionSpec

from mtl.train.executor import MAP, WHOLE, Executor

PyTree = Any

#: How programs are compiled. XLA takes half of a CPU's widest vectors if not asked for all (where a CPU has only these,
#: it takes them): 0.92 of the time of a small perceptron's step, 0.95 of a convolutional network's.
_OPTIONS: dict[str, dict[str, Any]] = {"cpu": {"xla_cpu_prefer_vector_width": 512}}

#: Where processes with a common cache show which programs they are compiling; nothing if they have none.
turns: Path | None = None

#: How long a process waits for another that compiles the same program, and how often it looks. Who is stopped by a
#: debugger must not stop everybody else: after so long a program is compiled twice.
_WAIT_SECONDS, _LOOK_SECONDS = 120.0, 0.005


class Compiled:
    """A function compiled once for each shape of its arguments, and asked how much memory it takes before it runs.

    Attributes:
      compilations: how many executables were made by all of these; guarded by a test.
    """

    compilations = 0

    def __init__(
        self,
        fn: Callable[..., PyTree],
        executor: Executor = MAP,
        lies: tuple[PyTree, ...] = (),
        result: PyTree = WHOLE,
        donate: tuple[int, ...] = (),
    ) -> None:
        """Wrap a pure function of positional pytrees, spread over the executor's devices.

        Args:
          fn: the function.
          executor: how it runs.
          lies: how each argument lies on the mesh: ``LANES``, ``OWN`` or ``WHOLE``, or a tree of these.
          result: how the result does.
          donate: arguments whose memory the result may take.
        """
        options: dict[str, Any] = {}
        if executor.devices > 1:
            mesh = executor.mesh
            fn = jax.shard_map(fn, mesh=mesh, in_specs=lies, out_specs=result, check_vma=False)

            def named(specs: PyTree) -> PyTree:
                return jax.tree.map(
                    lambda s: jax.sharding.NamedSharding(mesh, s), specs, is_leaf=lambda s: isinstance(s, PartitionSpec)
                )

            options = {"in_shardings": named(lies), "out_shardings": named(result)}
        self._jit = jax.jit(fn, donate_argnums=donate, **options)
        self._lowered: dict[Any, Any] = {}
        self._made: dict[Any, Any] = {}

    def executable(self, *args: PyTree) -> Any:
        """Return the executable for arguments of these shapes (arrays, or shapes alone)."""
        end = time.monotonic() + _WAIT_SECONDS
        while not self.attempt(*args, always=time.monotonic() > end):
            time.sleep(_LOOK_SECONDS)
        return self._made[_key(args)]

    def attempt(self, *args: PyTree, always: bool = False) -> bool:
        """Compile for arguments of these shapes unless another process is doing so; return whether it is compiled.

        Args:
          args: arrays, or shapes alone.
          always: compile even if another process is doing so.
        """
        key = _key(args)
        if key in self._made:
            return True
        if key not in self._lowered:
            lowered = self._jit.lower(*args)
            self._lowered[key] = lowered, hashlib.sha256(lowered.as_text().encode()).hexdigest()
        lowered, name = self._lowered[key]
        with _turn(name) as ours:
            if not (ours or always):
                return False
            self._made[key] = lowered.compile(_OPTIONS.get(jax.default_backend()))
        del self._lowered[key]
        Compiled.compilations += 1
        return True

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


#: A function and the arguments (arrays, or shapes alone) that it will be called with.
Call = tuple[Compiled, tuple[PyTree, ...]]


def compile_together(calls: Sequence[Call], meanwhile: Callable[[], object]) -> None:
    """Compile what will be called, beside other processes that need the same: each program is compiled by one of them.

    Whoever finds a program in another's hands goes on to the next one, and reads it from their common cache in the end.

    Args:
      calls: what will be called, in the order to begin with; processes that begin at different ends meet the least.
      meanwhile: other work, done before others are waited for.
    """
    left = [(compiled, args) for compiled, args in calls if not compiled.attempt(*args)]
    meanwhile()
    for compiled, args in left:
        compiled.executable(*args)


def _key(args: tuple[PyTree, ...]) -> Any:
    leaves, structure = jax.tree.flatten(args)
    return structure, tuple((a.shape, a.dtype) for a in leaves)


@contextlib.contextmanager
def _turn(program: str) -> Iterator[bool]:
    """Hold the right to compile a program, if no other process has it; without a common cache everybody has.

    Processes that run together as one (``jax.distributed``) compile in step, and must not wait for one another here.
    """
    descriptor = -1 if turns is None or jax.process_count() > 1 else _open(turns, program)
    try:
        yield descriptor < 0 or _locked(descriptor)
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
