"""One run in several processes, one a host: starting together, and agreeing on what was seen or asked for."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

#: A process that was not heard of for so long is gone, for the others: JAX's own 100 s is long to wait for nobody.
HEARTBEAT_SECONDS = 30

#: What the errors of a collective name when another process is gone, and no other error does.
_GONE = re.compile(r"(?is)^[A-Z_]+: .*(gloo|nccl|connection|socket|peer|heartbeat|coordination|barrier)")


class StartError(ValueError):
    """Processes that could not start together: one sentence."""


def start(
    coordinator: str = "",
    processes: int = 0,
    process: int = -1,
    seconds: int = 300,
    on_late: Callable[[], object] = lambda: None,
) -> None:
    """Join the other processes of a run; call it before anything else of JAX.

    Without arguments, what launchers tell is read (Slurm, Open MPI, mpi4py, Kubernetes, Cloud TPU).

    Args:
      coordinator: ``HOST:PORT`` of process 0.
      processes: how many there are.
      process: which one this is, from 0.
      seconds: how long to wait for the others.
      on_late: called before the process ends because they did not come.

    Raises:
      StartError: if nothing tells who they are. If they do not all start in time, the process ends with a sentence
        and exit code 2.
    """
    given = {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
    arguments: dict[str, Any] = given if coordinator else {}
    if "cpu" in os.environ.get("JAX_PLATFORMS", ""):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX's own service takes SIGTERM for itself: this run agrees on when to stop between its chunks.
    jax.config.update("jax_enable_preemption_service", False)
    what = f"--coordinator={coordinator} --processes={processes} --process={process}" if coordinator else "--hosts"

    def give_up() -> None:
        print(f"mtl: {what}: not all processes had started within {seconds} s (--start-timeout)", file=sys.stderr)
        on_late()
        os._exit(2)

    # JAX's own time-out ends the process with a stack trace; nothing is lost yet, so this one comes first.
    watch = threading.Timer(seconds, give_up)
    watch.daemon = True
    watch.start()
    try:
        jax.distributed.initialize(
            initialization_timeout=seconds + 60, heartbeat_timeout_seconds=HEARTBEAT_SECONDS, **arguments
        )
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StartError(f"{what}: the processes cannot start together: {first}") from None
    finally:
        watch.cancel()


def is_lost(error: BaseException) -> bool:
    """Return whether an error says that another process of the run is gone."""
    # Of JAX's own type where a program runs, but a ValueError where one is being dispatched.
    told = isinstance(error, (RuntimeError, ValueError)) and bool(_GONE.match(str(error)))
    return told and jax.process_count() > 1


def is_lead() -> bool:
    """Return whether this process is the one that writes."""
    return jax.process_index() == 0


def agree(value: Any) -> Any:
    """Return what process 0 says, a JSON value, in every process; with one process, the value itself."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    text = json.dumps(value).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    buffer = np.zeros(length, np.uint8)
    if is_lead():
        buffer[:] = np.frombuffer(text, np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes())


def any_of_us(flag: bool) -> bool:
    """Return whether any process says so, in every process."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(np.asarray(multihost_utils.process_allgather(np.int32(flag))).any())
