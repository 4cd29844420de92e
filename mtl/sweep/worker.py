"""A worker process: reads jobs from standard input, a JSON line each, and says how far it is in the same way."""

from __future__ import annotations

import json
import os
import signal
import sys

from mtl.host.spawn import collect_seldom
from mtl.host.streams import prepare


def main() -> int:
    """Run jobs until there are no more, in this process; ``mtl.host.spawn`` starts it."""
    collect_seldom()
    prepare()
    # All this before the first line comes: whoever started this process is still planning.
    from mtl.config import ConfigError, Trial, load
    from mtl.host import memory
    from mtl.host.files import FileError
    from mtl.sweep.cache import enable_cache
    from mtl.sweep.execute import execute
    from mtl.sweep.fingerprint import changed
    from mtl.sweep.plan import make_plan
    from mtl.sweep.snapshots import Interrupt
    from mtl.sweep.sources import sources_of
    from mtl.sweep.store import StoreError, Workdir
    from mtl.train.loop import Stopped

    enable_cache()
    memory.keep()
    # JAX itself starts after the config file, which may say how.
    line = sys.stdin.buffer.readline()
    if not line:  # Nobody had work for it.
        return 0
    setup = json.loads(line)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent hears it too, and ends its workers.
    log = os.open(setup["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 2)
    os.close(log)
    # Only events go to the parent: whatever a user's code prints goes to the log.
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    interrupt = Interrupt()
    # Never at once, however often: a scheduler tells the whole group, and then the parent tells its workers.
    signal.signal(signal.SIGTERM, lambda number, frame: interrupt.ask())

    def tell(event: object) -> None:
        try:
            print(json.dumps(event), file=events, flush=True)
        except BrokenPipeError:  # The parent is gone: keep what there is and end.
            interrupt.ask()

    try:
        if setup["config_file"]:
            load(setup["config_file"])
        sources = sources_of(setup["config_file"])
        for line in sys.stdin.buffer:
            job = json.loads(line)
            plan = make_plan([Trial(c) for c in job["trials"]], sources)
            for planned, now in zip(job["fingerprints"], plan.fingerprints.values(), strict=True):
                if why := changed(planned, now):
                    raise StoreError(
                        f"{why} while the sweep ran: what was done before is kept; run the same command again, and "
                        "leave it as it is until it is done"
                    )
            execute(
                plan,
                Workdir(job["workdir"]),
                reverse=job["reverse"],
                interrupt=interrupt,
                progress=lambda *event: tell(event),
                say=tell,
            )
            tell("end")
    except Stopped:
        return 128 + interrupt.number
    except (ConfigError, FileError, StoreError) as error:  # A full disk, say: no other worker would fare better.
        tell({"error": str(error)})
        return 2
    return 0
