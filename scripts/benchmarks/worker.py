"""A worker process: one side of a comparison, idle until it is told over a pipe to run a round."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time


def main() -> None:
    """Build the side, warm it up, say what it is; then answer each line with the seconds that a unit took."""
    order = json.loads(sys.stdin.readline())
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, order["cores"])  # Before XLA and OpenMP count the cores they may use.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Whatever libraries print is no answer.
    if order["module"].startswith(("pytorch", "peak")) and not order["module"].endswith("xla"):
        import torch

        torch.set_num_threads(len(order["cores"]))
    side = getattr(importlib.import_module(f"benchmarks.{order['module']}"), order["function"])(**order["options"])
    units, took = 1, 0.0
    side.run(1)
    while True:  # A round is as many units as take about as long as asked for.
        begin = time.perf_counter()
        side.run(units)
        took = time.perf_counter() - begin
        if took > 0.25 * order["seconds"]:
            break
        units *= 2
    units = max(1, round(units * order["seconds"] / took))
    print(json.dumps({**side.about, "units": units}), file=answers)
    for _ in sys.stdin:
        begin = time.perf_counter()
        side.run(units)
        print(json.dumps((time.perf_counter() - begin) / units), file=answers)


if __name__ == "__main__":
    main()
