"""Where a step of ours goes: ``PYTHONPATH=scripts:. python -m benchmarks.profile vit`` (or another case), on one core.

Prints the operations of the compiled step by kind and shape, with the least time that each took in some steps, summed
over its places in the step. Operations of a loop within the step are listed, and the loop itself too. The first line
says how much of a step all of them are together.
"""

from __future__ import annotations

import collections
import glob
import os
import re
import sys
import tempfile
import time
from pathlib import Path

STEPS = 3


def main(case: str, lines: int = 30) -> None:
    """Profile a case."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XLA_FLAGS"] = f"--xla_dump_to={folder}/hlo --xla_dump_hlo_as_text"
        import jax

        from benchmarks import engine

        side = engine.make(case)
        side.run(STEPS)
        begun = time.process_time()
        side.run(STEPS)
        step = (time.process_time() - begun) / STEPS
        with jax.profiler.trace(f"{folder}/trace"):
            side.run(STEPS)
        trace = jax.profiler.ProfileData.from_file(glob.glob(f"{folder}/trace/**/*.xplane.pb", recursive=True)[0])
        took = collections.defaultdict(list)
        for plane in trace.planes:
            for line in plane.lines:
                for event in line.events:
                    took[event.name].append(event.duration_ns / 1e3)
        # The step is the program most of whose operations were seen.
        programs = [Path(f).read_text() for f in glob.glob(f"{folder}/hlo/*cpu_after_optimizations.txt")]
    shapes = max(
        (dict(re.findall(r"%?([\w.\-]+) = ([\w(]+\[[\d,]*\])", text)) for text in programs),
        key=lambda found: sum(sum(took.get(name, ())) for name in found),
    )
    all_of_them = sum(sum(took[n]) for n in shapes.keys() & took.keys() if not n.startswith("while")) / STEPS / 1e6
    print(f"{step:.3f} s of processor time a step; operations other than loops, in the mean: {all_of_them:.3f} s")
    kinds: dict[tuple[str, str], list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for name in shapes.keys() & took.keys():
        times = len(took[name]) / STEPS
        kind = kinds[re.sub(r"[.\d]+$", "", name), shapes[name]]
        kind[0] += times
        kind[1] += times * min(took[name])
    for (name, shape), (times, microseconds) in sorted(kinds.items(), key=lambda item: -item[1][1])[:lines]:
        print(f"{microseconds:9.0f} µs {times:6.0f} × {name} {shape}")


if __name__ == "__main__":
    main(sys.argv[1])
