"""A worker process: reads jobs from standard input, a JSON line each, and says how far it is in the same way."""

from __future__ import annotations

import json
import os
import signal
import sys


def main() -> int:
    """Run jobs until there are no more, in this process, pinned to a core."""
    setup = json.loads(sys.stdin.buffer.readline())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent hears it too, and ends its workers.
    if setup["core"] is not None:
        os.sched_setaffinity(0, {setup["core"]})  # Before XLA counts the cores it may use.
    # Only events go to the parent: whatever a user's code prints goes to the log.
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    from mtl.config import load
    from mtl.sweep.cache import enable_cache
    from mtl.sweep.execute import execute
    from mtl.sweep.plan import make_plan
    from mtl.sweep.store import Workdir, trial_of
    from mtl.sweep.workers import without_loading

    def tell(*event: float) -> None:
        print(json.dumps(event), file=events, flush=True)

    enable_cache()
    if setup["config_file"]:
        load(setup["config_file"])
    for line in sys.stdin.buffer:
        job = json.loads(line)
        plan, workdir = make_plan([trial_of(c) for c in job["trials"]]), Workdir(job["workdir"])
        execute(plan, workdir, reverse=job["reverse"], progress=without_loading(plan, workdir, tell))
        print(json.dumps("end"), file=events, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
