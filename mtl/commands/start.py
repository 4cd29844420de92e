"""Options of the command line that say on what a run runs: devices, and other processes that run with it."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mtl.host import machine, memory
from mtl.host.spawn import default_jobs
from mtl.host.witness import Witness

if TYPE_CHECKING:
    from mtl.train.placement import Placement

#: Of processes that all end with the same error, each is given so long to say it before the first is missed.
SECONDS_FOR_OTHERS = 3.0

_witness: Witness | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command's parser."""
    group = parser.add_argument_group("devices and hosts")
    group.add_argument(
        "--mesh",
        metavar="trial:N,data:M",
        help="spread a pack's trials over N devices and each batch over M (default: trials over all accelerators)",
    )
    group.add_argument(
        "--hosts",
        action="store_true",
        help="one run in several processes that Slurm, MPI, Kubernetes or a TPU pod started; they share --workdir",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", default="", help="of process 0, if no launcher tells")
    group.add_argument("--processes", type=int, metavar="N", default=0, help="with --coordinator: how many")
    group.add_argument("--process", type=int, metavar="I", default=-1, help="with --coordinator: which one, from 0")
    group.add_argument(
        "--start-timeout", type=int, metavar="SECONDS", default=300, help="wait so long for the others (default: 300)"
    )


def takes_devices(arguments: argparse.Namespace) -> bool:
    """Return whether the options say on what a run runs, so that this process runs it by itself."""
    given = (arguments.hosts, arguments.coordinator, arguments.mesh, arguments.processes, arguments.process >= 0)
    return any(given)


def begin(arguments: argparse.Namespace) -> Placement | None:
    """Start what the options ask for and return how packs run; nothing if the default is to decide.

    Raises:
      StartError: if other processes do not start.
      PlacementError: for a mesh that cannot be.
    """
    several = arguments.hosts or arguments.coordinator
    if not takes_devices(arguments):
        return None  # Before JAX is imported: worker processes bring their own.
    from mtl.train import placement, processes

    if several or arguments.processes or arguments.process >= 0:
        c, n, i = arguments.coordinator, arguments.processes, arguments.process
        if not arguments.hosts and not (c and n >= 1 and 0 <= i < n):
            raise processes.StartError(
                f"--coordinator={c} --processes={n} --process={i}: must all be given, with 0 ≤ process < processes"
            )
        global _witness
        _witness = Witness()
        processes.start(c, n, i, arguments.start_timeout, _witness.dismiss)
    import jax

    if arguments.mesh and not several and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        # A CPU is one device unless asked to be more: as many as it has cores, if the mesh wants them.
        with contextlib.suppress(RuntimeError):  # A process that has used JAX before has the devices that it has.
            jax.config.update("jax_num_cpu_devices", machine.cores())
    if arguments.mesh:
        return placement.parse(arguments.mesh, jax.default_backend(), jax.device_count())
    # Processes that train together share every trial: each batch goes over all of their devices.
    return placement.Placement("map" if jax.default_backend() == "cpu" else "vmap", data=jax.device_count())


def in_this_process(own: bool) -> None:
    """Prepare to train in this process, by itself and on one device.

    Args:
      own: whether the process was started for this, and is not somebody's who calls ``main``.
    """
    from mtl.sweep.cache import enable_cache

    enable_cache()
    if own and default_jobs():  # An accelerator has memory of its own.
        memory.keep()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Of several processes that run together, let none wait for one that ends with an exception.

    Each waits for the others: this one in JAX's exit, those in their next exchange. So it says what there is to say and
    ends at once. With one process, nothing is done.
    """
    try:
        yield
    except BaseException as error:
        if _witness is None:
            raise
        from mtl.train.processes import is_lost

        if is_lost(error):
            _witness.dismiss("lost")
            os._exit(1)
        traceback.print_exc()
        end_alone(1)
    finally:
        if _witness is not None:
            _witness.dismiss()


def end_alone(code: int) -> int:
    """Return an exit code; of several processes, end with it: see ``together``."""
    if _witness is not None:
        from mtl.train.processes import is_lead

        _witness.dismiss()
        sys.stdout.flush()
        # The first one last: JAX takes the others with it.
        time.sleep(SECONDS_FOR_OTHERS + 2.0 * is_lead())
        os._exit(code)
    return code
