"""Do a source's low-level features help? MNIST, a small CNN cut at each depth (Yosinski et al. 2014, arXiv:1411.1792).

  MTL_DATA_DIR=data mtl sweep --config=configs/low_level.py

15 minutes of a third of a core. Two convolutions come from a source and stay frozen; what is above starts anew.
Sources: the digit's name, and names shuffled, which teach nothing but what images look like. Target: is a digit even.
With 100 labels the related source's convolutions gain 3.6 points over the shuffled one's, and 2.0 over scratch.
"""

import numpy as np

import mtl.data
from mtl.config import default
from mtl.regimes import Phase
from mtl.sweep import product, sweep
from mtl.tasks import Task

BLOCKS = ("block_0", "block_1", "dense")


@mtl.data.register("mnist_and_shuffled")
def mnist_and_shuffled(examples: int = 20000):
    """The first training images of MNIST, with the digits' names, whether they are even, and shuffled names."""
    table = mtl.data.load("mnist", examples=examples)
    labels = {task: table.labels[task] for task in ("digit", "even")}
    labels["shuffled"] = np.random.default_rng(0).permutation(labels["digit"])
    tasks = [table.task("digit"), table.task("even"), Task("shuffled", "multiclass", num_classes=10)]
    return mtl.data.make_table("mnist_and_shuffled", table.x, tasks, labels)


def cut(source, blocks, tuned=False):
    fresh = ("head", *(f"backbone/{block}/.*" for block in BLOCKS[blocks:]))
    first = Phase(tasks=(source,), lr="source_lr", budget="source")
    return (first, Phase(trainable="all" if tuned else f"last_{len(BLOCKS) - blocks}", fresh=fresh))


def untrained(blocks):
    frozen = Phase(trainable=f"last_{len(BLOCKS) - blocks}", budget="source+target", begin="random")
    return {"phases": (frozen,), "control": True}


def get_config():
    c = default()
    c.name, c.save_model = "low_level", False
    c.data.name, c.data.source, c.data.target = "mnist_and_shuffled", ("digit", "shuffled"), "even"
    c.data.target_pool, c.data.test_size, c.data.source_size, c.data.source_val_size = 1000, 2000, 4000, 500
    c.model.name, c.model.options = "cnn", {"channels": (8, 16), "features": 32}
    c.source.total_steps, c.target.total_steps, c.evaluations, c.source_lr = 200, 150, 8, 3e-3
    c.regimes = {"random_2": untrained(2)} | {f"{source}_2": cut(source, 2) for source in ("digit", "shuffled")}
    c.report.contrast, c.report.margin, c.report.falsifier = "digit_2 - shuffled_2", 0.01, "upper <= margin"
    return c


def sweep_cuts():
    """Do convolutions of a related source help, and is it what it was taught that helps?"""
    regimes = ("scratch", *get_config().regimes)
    sizes, rates = sweep("data.target_size", (100,)), sweep("lr", (1e-3, 3e-3))
    return product(sweep("regime", regimes), sizes, sweep("seed", range(20)), rates)
