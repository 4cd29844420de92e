"""What inputs cost: batches in memory, a set loaded, a stream that feeds training, and the memory that it takes.

Its own command, as it needs no PyTorch; about five minutes on two cores, and 100 MB of disk in DIR:

  PYTHONPATH=scripts .venv/bin/python -m benchmarks.streaming --data-dir DIR [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl import data
from mtl.config import flatten, override, resolve
from mtl.config.default import default
from mtl.data.sets.road_scenes import TASKS
from mtl.data.tfds.prepare import config_name, prepare
from mtl.sweep.plan import make_plan, split_of, table_of, val_rows_of
from mtl.tasks import Task
from mtl.train import loop
from mtl.train.dataset import make_data
from mtl.train.placement import MAP
from mtl.train.program import Frozen
from mtl.train.sampling import make_gather, make_sampler
from mtl.train.trial import make_hypers

#: The two sizes of the set at which memory is measured.
SIZES = (4_000, 16_000)


def roads(folder: str, examples: int, steps: int, stream: bool = True) -> Any:
    """Return the trial that trains a CNN on 64×64 JPEG images of road scenes."""
    options = {"examples": examples, "size": 64, "quality": 90}
    prepare("road_scenes", folder, **options)
    name = config_name({k: v for k, v in options.items() if k != "size"})
    changes = {
        "regime": "scratch",
        "data.name": f"tfds:road_scenes/{name}",
        "data.options": {"labels": TASKS, "directory": folder, "stream": stream},
        "data.source": ("stop_sign",),
        "data.target": "car",
        "data.target_size": examples - 600,
        "data.target_pool": examples - 600,
        "data.val_fraction": 0.2,  # More than a block of validation at either size.
        "data.test_size": 500,
        "data.source_size": 1,
        "data.source_val_size": 0,
        "model.name": "cnn",
        "batch_size": 128,
        "source.total_steps": 1,
        "target.total_steps": steps,
        "evaluations": 1,
    }
    flat = override(flatten(default()), changes)
    return resolve(flat, data.load(changes["data.name"], **changes["data.options"]))


def trained(trial: Any) -> Any:
    """Train a trial of one phase and return what it came to."""
    plan = make_plan([trial])
    stage = plan.nodes[plan.chains[trial.hash][0]].stage
    table, split = table_of(trial), split_of(trial)
    arrays = make_data(table, [split], [stage.program], val_rows_of(trial))
    weights = loop.initial_weights(stage.program.model, tuple(table.x.shape[1:]), [0], MAP)
    stream = table.x if isinstance(table.x, data.Streamed) else None
    (outcome,) = loop.run_phase([0], [stage], [0], weights, arrays, evaluations=1, placement=MAP, stream=stream)
    return outcome


def batches(rows: int = 70_000, batch: int = 256, steps: int = 2_000) -> dict[str, float]:
    """Return how many examples a second are drawn and gathered from 28×28 images in memory."""
    x = np.random.default_rng(0).random((rows, 28, 28, 1), np.float32)
    table = data.make_table(
        "random",
        x,
        [Task("even", "binary"), Task("odd", "binary")],
        {"even": np.arange(rows) % 2, "odd": 1 - np.arange(rows) % 2},
    )
    changes = {"data.source": ("odd",), "data.target": "even", "batch_size": batch, "regime": "scratch"}
    changes |= {"data.target_size": rows - 2_000, "data.target_pool": rows - 2_000, "data.source_size": 1}
    changes |= {"data.source_val_size": 0, "source.total_steps": 1, "target.total_steps": steps, "data.name": "random"}
    data.register("random")(lambda: table)
    trial = resolve(override(flatten(default()), changes), table)
    plan = make_plan([trial])
    stage = plan.nodes[plan.chains[trial.hash][0]].stage
    arrays = make_data(table, [split_of(trial)], [stage.program], val_rows_of(trial))
    hypers = jax.tree.map(lambda a: jnp.asarray(a[0]), make_hypers([0], [stage], [0]))

    @jax.jit
    def all_of(hypers: Any, arrays: Any) -> Any:
        own = arrays.of(hypers.split)
        sample, gather = make_sampler(stage.program, hypers, own), make_gather(stage.program, own, Frozen({}))

        def one(step: Any, held: Any) -> Any:
            found = gather(sample(step))  # Added up, or nothing would be gathered.
            return held[0] + found.x, held[1] + found.labels["even"][:, 0]

        return jax.lax.fori_loop(0, steps, one, (jnp.zeros((batch, 28, 28, 1)), jnp.zeros(batch)))

    jax.block_until_ready(all_of(hypers, arrays))
    begun = time.perf_counter()
    jax.block_until_ready(all_of(hypers, arrays))
    return {"examples_per_second": steps * batch / (time.perf_counter() - begun)}


def load(folder: str) -> dict[str, float]:
    """Return the seconds that 70,000 prepared images of 28×28 pixels take to load."""
    prepare("road_scenes", folder, examples=70_000, size=28)
    data.tfds_table("road_scenes/examples_70000-size_28", TASKS, directory=folder, examples=10)  # Imports.
    begun = time.perf_counter()
    table = data.tfds_table("road_scenes/examples_70000-size_28", TASKS, directory=folder)
    return {"seconds": time.perf_counter() - begun, "bytes": float(table.x.nbytes)}


def stalls(folder: str) -> dict[str, float]:
    """Return how long training waits for its inputs, as a share of its time."""
    outcome = trained(roads(folder, SIZES[1], 120))
    return {"share": outcome.waited / outcome.seconds, "seconds_a_step": outcome.seconds / 120}


def memory(folder: str, examples: int, stream: bool) -> dict[str, float]:
    """Return the most memory that this process has held, training on a set of that size."""
    trained(roads(folder, examples, 40, stream))
    return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0}


def main() -> int:
    """Measure all of it, each part in a process of its own."""
    parser = argparse.ArgumentParser(prog="benchmarks.streaming", description="What inputs cost.")
    parser.add_argument("--data-dir", required=True, help="where sets are prepared, and found again")
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.data_dir
    parts = {
        "batches in memory": batches,
        "70,000 images loaded": lambda: load(folder),
        "stream of JPEG, stalls": lambda: stalls(folder),
        **{f"stream of {n:,}": lambda n=n: memory(folder, n, True) for n in SIZES},
        **{f"memory of {n:,}": lambda n=n: memory(folder, n, False) for n in SIZES},
    }
    if arguments.part:
        print(json.dumps(parts[arguments.part]()))
        return 0
    found = {}
    for name in parts:
        command = [sys.executable, "-m", "benchmarks.streaming", f"--data-dir={folder}", f"--part={name}"]
        done = subprocess.run(command, env={**os.environ, "JAX_PLATFORMS": "cpu"}, stdout=subprocess.PIPE, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        if not arguments.json:
            print(name, *(f"{key} = {value:,.3g}" for key, value in found[name].items()), flush=True)
    if arguments.json:
        print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
