"""Does the plain sum of losses suffice? MultiMNIST: two digits in one image, two tasks, one network.

  MTL_DATA_DIR=data mtl sweep --config=configs/plain_sum.py --sweep=all

17 minutes of a third of a core; the sum is 0.3 points over uncertainty weighting with 5,000 images. The sum against
uncertainty weighting (Kendall et al. 2018, arXiv:1705.07115), and against networks of their own.
"""

from mtl.config import default
from mtl.sweep import product, sweep


def get_config():
    c = default()
    c.name, c.regime, c.save_model = "plain_sum", "multitask", False
    c.data.name, c.data.options = "multi_mnist", {"examples": 7000}
    c.data.targets, c.data.source = ("left", "right"), ()
    c.data.split, c.data.target_pool, c.data.test_size = "official", 6000, 1000
    c.model.options = {"hidden": (128, 64)}
    c.target.total_steps = 600
    c.report.margin, c.report.falsifier = 0.01, "upper <= -margin"
    return c


def grid(about, rows):
    sizes, rates = sweep("data.target_size", (500, 5000)), sweep("lr", (1e-3, 4e-3))
    return product([{f"report.{k}": v for k, v in about.items()}], rows, sizes, sweep("seed", range(20)), rates)


def sweep_balancers():
    """Is the plain sum worse than uncertainty weighting?"""
    about = {"rows": "balancer.name", "baseline": "name=equal", "contrast": "name=equal - name=uncertainty"}
    return grid(about, sweep("balancer.name", ("equal", "uncertainty")))


def sweep_single():
    """Is one network with the plain sum worse than two networks?"""
    return grid({"contrast": "multitask - scratch"}, sweep("regime", ("scratch", "multitask")))
