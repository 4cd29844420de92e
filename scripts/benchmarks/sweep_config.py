"""The sweep that is timed: 256 trials of ten binary tasks with missing labels, 500 steps each.

mtl sweep --config=scripts/benchmarks/sweep_config.py
"""

import numpy as np

import mtl.data
from benchmarks.cases import CASES, inputs, labels
from mtl.config import default
from mtl.sweep import product, sweep
from mtl.tasks import Task

CASE = CASES["mlp"]
TRIALS, STEPS = 256, 500


@mtl.data.register("bench_sweep")
def table():
    """Ten binary tasks of which 30 % of the labels are missing; the last one is the target."""
    y = labels(CASE, CASE.rows)
    # The target's pool and test rows are drawn among its labels.
    tasks = [Task(f"task_{i}", "binary") for i in range(CASE.binary)]
    columns = {t.name: np.ascontiguousarray(y[:, i]) for i, t in enumerate(tasks)}
    return mtl.data.make_table("bench_sweep", inputs(CASE, CASE.rows), tasks, columns)


def get_config():
    """Return the config."""
    c = default()
    c.name = "bench"
    c.data.name = "bench_sweep"
    c.data.source, c.data.target = tuple(f"task_{i}" for i in range(CASE.binary - 1)), f"task_{CASE.binary - 1}"
    c.data.target_size, c.data.target_pool, c.data.test_size = 500, 500, 512
    c.data.source_size, c.data.source_val_size = 2000, 200
    c.model.options = CASE.options
    c.batch_size = CASE.batch
    c.joint_sampling = "rows"  # One batch of rows that show all the labels they have.
    c.regime = "multitask"
    c.source.total_steps = c.target.total_steps = STEPS // 2
    return c


def sweep_rates():
    """Which rate is best?"""
    return product(sweep("seed", range(TRIALS // 4)), sweep("lr", (3e-4, 1e-3, 3e-3, 1e-2)))
