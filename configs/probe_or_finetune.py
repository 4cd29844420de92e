"""With few labels, train the new layer alone; with plenty, everything? MNIST, four pairs of tasks.

  MTL_DATA_DIR=data mtl sweep --config=configs/probe_or_finetune.py --sweep=all

20 minutes of a third of a core. The notes' claim is stated below as a contrast: with 10 and 50 labels a linear probe
gains more than a point over fine-tuning. It holds from the digit's name to `even` (+3.1 with 50 labels), and is
refuted the other way round (−9.2). Where the two cross is among what is claimed in full (`mtl table --full`).
"""

from mtl.config import default
from mtl.sweep import product, sweep

REGIMES = ("scratch", "random_probe", "linear_probe", "finetune", "lp_ft")
SIZES = (10, 50, 500, 5000)
RATES = (1e-3, 4e-3)


def get_config():
    c = default()
    c.name, c.save_model = "probe_or_finetune", False
    c.data.name, c.data.split, c.data.test_size = "mnist", "official", 2000
    c.data.target_pool, c.data.source_size, c.data.source_val_size = 5000, 5000, 500
    c.model.options = {"hidden": (64, 32)}
    c.source.total_steps, c.target.total_steps = 600, 400
    c.tune.source_lr, c.tune.seeds = RATES, (0, 1, 2)
    c.report.contrast, c.report.margin = "linear_probe - finetune @ 10, 50", 0.01
    c.report.falsifier = "upper <= margin"
    return c


def grid(target, source):
    about = [{"data.target": target, "data.source": (source,)}]
    seeds, rates = sweep("seed", range(20)), sweep("lr", RATES)
    return product(about, sweep("regime", REGIMES), sweep("data.target_size", SIZES), seeds, rates)


def sweep_even_from_digit():
    """Is a digit even? The source knows its name."""
    return grid("even", "digit")


def sweep_five_from_digit():
    """Is a digit at least five? The source knows its name."""
    return grid("at_least_five", "digit")


def sweep_digit_from_even():
    """Which digit is it? The source knows whether it is even."""
    return grid("digit", "even")


def sweep_even_from_five():
    """Is a digit even? The source knows whether it is at least five."""
    return grid("even", "at_least_five")
