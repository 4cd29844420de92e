"""How related must a source be for transfer to pay? Generated tasks, where the relatedness rho is known.

  mtl sweep --config=configs/latent.py               rho = 1: under 2 minutes cold on two cores
  mtl sweep --config=configs/latent.py --sweep=all   rho = 1, 0.5 and 0: see experiments/latent/README.md

One population of tasks: --config.data.options.seed=1 --workdir=runs/latent-1 draws another.
"""

from mtl.config import default
from mtl.sweep import product, sweep

CONTENDERS = ("linear_probe", "finetune", "lp_ft", "multitask", "multitask_finetune")
REGIMES = ("scratch", "random_probe", *CONTENDERS, "scratch_own_scale")
SOURCES = tuple(f"source_{k}" for k in range(8))
SIZES = (20, 50, 100, 200)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
REPLICATES = range(20)


def get_config():
    c = default()
    c.name = "latent"
    c.data.name = "latent"
    c.data.options = {"source_tasks": len(SOURCES), "examples": 4000, "seed": 0}
    c.data.source = SOURCES
    c.data.target = "target"
    c.data.target_pool = 250
    c.data.test_size = 1000
    c.data.source_size = 1100
    c.data.source_val_size = 100
    c.model.options = {"hidden": (32,)}
    c.source.total_steps = 720
    c.target.total_steps = 360
    c.evaluations = 10
    c.save_model = False
    c.tune.source_lr = RATES
    c.report.notes = (
        "Generated data: rho is the cosine of all principal angles between what the sources see and what the target "
        "sees. One draw of the population; conclusions hold for it.",
    )
    return c


def grid(rho):
    """Every regime, target size and replicate with every rate, for one relatedness."""
    return product(
        [{"data.options.rho": rho}],
        sweep("regime", REGIMES),
        sweep("data.target_size", SIZES),
        sweep("seed", REPLICATES),
        sweep("lr", RATES),
    )


def sweep_rho_1():
    """The sources see the target's subspace (rho = 1): what does transfer gain?"""
    return grid(1.0)


def sweep_rho_half():
    """The sources see half of it (rho = 0.5): does transfer still pay?"""
    return grid(0.5)


def sweep_rho_0():
    """The sources know nothing of the target (rho = 0): does transfer do harm?"""
    return grid(0.0)
