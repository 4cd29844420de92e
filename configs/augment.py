"""Does it help to change training images at random, with few labels? Fashion-MNIST's ten articles, a small CNN.

  mtl sweep --config=configs/augment.py

600 steps of 32 and 5 replicates, with 100 and with 500 labels: about a quarter of an hour of one core. Its table is not
kept; the verdict that it prints is of the code that ran it.

The data come from four files, see `mtl data list`. Each row of the table is a regime of one phase from random weights
that differs from the others in ``augment`` alone.
"""

from mtl.config import default
from mtl.regimes import Phase
from mtl.sweep import product, sweep

WAYS = {
    "plain": "none",
    "flip_crop": ("flip", ("crop", {"padding": 2})),
    "cutout": (("cutout", {"size": 8, "fill": 0.0}),),
    "randaugment": (("randaugment", {"fill": 0.0}),),
    "mixup": ("mixup",),
    "cutmix": ("cutmix",),
}


def get_config():
    """Return the base config."""
    c = default()
    c.name = "augment"
    c.data.name = "fashion_mnist"
    c.data.source, c.data.target = ("footwear",), "article"
    c.data.target_size, c.data.target_pool, c.data.test_size = 100, 2000, 2000
    c.data.source_size, c.data.source_val_size = 200, 50
    c.model.name = "cnn"
    c.source.total_steps, c.target.total_steps = 600, 600
    c.evaluations = 2
    c.save_model = False
    c.regimes = {name: (Phase(augment=way),) for name, way in WAYS.items()}
    c.report.baseline = "plain"
    c.report.question = "Does it help to change training images at random?"
    return c


def sweep_ways():
    """Does it help to change training images at random?"""
    return product(
        sweep("regime", tuple(WAYS)),
        sweep("data.target_size", (100, 500)),
        sweep("seed", range(5)),
        sweep("lr", (1e-3,)),
    )
