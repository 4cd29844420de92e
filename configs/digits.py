"""Transfer or train jointly? Digits of scikit-learn, with attributes of the digit as tasks.

mtl sweep --config=configs/digits.py --sweep=even_from_identity
"""

from mtl.config import default
from mtl.sweep import product, sweep

REGIMES = (
    "scratch",
    "random_probe",
    "linear_probe",
    "finetune",
    "lp_ft",
    "gradual",
    "multitask",
    "multitask_finetune",
    "scratch_matched",
)
SIZES = (10, 20, 50, 100, 200, 500)
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
REPLICATES = range(20)


def get_config():
    c = default()
    c.name = "digits"
    c.model.options = {"hidden": (32, 32)}
    c.source.total_steps = 600
    c.target.total_steps = 300
    c.tune.source_lr = RATES
    return c


def sweep_even_from_identity():
    """The digit's name as source, its parity as target."""
    return product(
        sweep("regime", REGIMES),
        sweep("data.target_size", SIZES),
        sweep("seed", REPLICATES),
        sweep("lr", RATES),
    )
