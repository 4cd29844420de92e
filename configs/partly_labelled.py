"""Partly labelled data: leave missing labels out of the sum, take them for zeros, or drop the rows? Yeast, 14 tasks.

  MTL_DATA_DIR=data mtl sweep --config=configs/partly_labelled.py --sweep=all

14 minutes of a third of a core. With nine tenths missing the mask gains 2.5 points of AUROC over zeros, and 0.42 nats.

Columns are the share of training labels that are missing, at random. Validation and test labels are all there. With
14 tasks, half of the labels missing leave no row that is complete: rows can be dropped at 0.1 alone.
"""

import numpy as np

import mtl.data
from mtl.config import default
from mtl.data.sets.yeast import LABELS
from mtl.regimes import Phase
from mtl.sweep import chain, product, sweep
from mtl.tasks import Task

TEST, VALIDATION = 700, 400


@mtl.data.register("yeast_in_part")
def yeast_in_part(way: str = "mask", rate: float = 0.5, path: str = ""):
    """Yeast with a share of training labels missing; ``row``, which every row has, lets n count them all."""
    table, rng = mtl.data.load("yeast", path=path), np.random.default_rng(0)
    part = rng.permutation(np.repeat([2, 1, 0], (TEST, VALIDATION, len(table) - TEST - VALIDATION)))
    gone = (rng.random((len(table), len(LABELS))) < rate) & (part == 0)[:, None]
    gone |= gone.any(axis=1, keepdims=True) & (way == "drop")
    labels = np.stack([table.labels[t] for t in LABELS], axis=1).astype(float)
    labels[gone] = 0.0 if way == "zero_fill" else np.nan
    known = dict(zip(LABELS, labels.T, strict=True)) | {"row": np.arange(len(table)) % 2}
    return mtl.data.make_table("yeast_in_part", table.x, [Task(t, "binary") for t in known], known, part=part)


def get_config():
    c = default()
    c.name, c.metric, c.regime, c.save_model = "partly_labelled", "auroc", "joint", False
    c.regimes = {"joint": (Phase(tasks=LABELS, sampling="rows"),)}
    c.data.name, c.data.options, c.data.split = "yeast_in_part", {"path": "yeast.csv.gz"}, "official"
    c.data.targets, c.data.source = LABELS, ("row",)
    c.data.target_pool, c.data.target_size, c.data.test_size = 1600, 1000, 0
    c.model.options = {"hidden": (64,)}
    c.source.total_steps, c.target.total_steps = 1, 400  # No regime here has a source phase.
    c.report.columns, c.report.margin, c.report.falsifier = "data.options.rate", 0.02, "upper <= margin"
    return c


def grid(*parts):
    return product(*parts, sweep("seed", range(20)), sweep("lr", (3e-4, 1e-3, 3e-3)))


def sweep_ways():
    """With a share of the labels missing, is it best to leave them out of the sum?"""
    said = {"rows": "data.options.way", "baseline": "way=mask", "contrast": "way=mask - way=zero_fill"}
    about, rates = [{f"report.{k}": v for k, v in said.items()}], sweep("data.options.rate", (0.1, 0.5, 0.9, 0.99))
    there = grid(about, sweep("data.options.way", ("mask", "zero_fill")), rates)
    return chain(there, grid(about, [{"data.options.way": "drop", "data.options.rate": 0.1}]))


def sweep_log_loss():
    """The same by log loss, which is told apart from ranking: zeros at random scale every probability down."""
    said = {"rows": "data.options.way", "baseline": "way=mask", "contrast": "way=mask - way=zero_fill"}
    about = [{f"report.{k}": v for k, v in said.items()} | {"metric": "log_loss"}]
    return grid(about, sweep("data.options.way", ("mask", "zero_fill")), sweep("data.options.rate", (0.5, 0.9)))


def sweep_denominators():
    """Control: does it matter by what the sum over present labels is divided?"""
    said = {"rows": "loss.denominator", "baseline": "denominator=examples", "falsifier": "upper <= -margin"}
    about = [
        {f"report.{k}": v for k, v in said.items()} | {"report.contrast": "denominator=examples - denominator=tasks"}
    ]
    rates = sweep("data.options.rate", (0.5, 0.9, 0.99))
    return grid(about, sweep("loss.denominator", ("examples", "labels", "tasks")), rates)
