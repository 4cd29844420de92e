"""Does transfer pay because the source has a lot more data? MNIST: is a digit even, with its name as source.

  MTL_DATA_DIR=data mtl sweep --config=configs/source_size.py --sweep=all

9 minutes of a third of a core; +6.5 points with 100 labels. Rows are the source's number of images, and the regime is
the same: what a row gains over the first is what more source data are worth. The control has the same images with
shuffled names. `gain` has the usual rows, from scratch too.
"""

from mtl.config import default
from mtl.sweep import product, sweep

RATES, SIZES = (1e-3, 4e-3), (25, 100, 400, 1600)


def get_config():
    c = default()
    c.name, c.save_model = "source_size", False
    c.data.name, c.data.split, c.data.test_size = "mnist", "official", 2000
    c.data.source, c.data.target = ("digit",), "even"
    c.data.target_pool, c.data.source_size, c.data.source_val_size = 1600, 5000, 10
    c.model.options = {"hidden": (64, 32)}
    c.regime, c.source_lr = "multitask", 3e-3
    c.source.total_steps, c.target.total_steps = 400, 200
    c.report.margin, c.report.falsifier = 0.01, "upper <= margin"
    return c


def grid(*parts):
    return product(*parts, sweep("data.target_size", SIZES), sweep("seed", range(20)), sweep("lr", RATES))


def by_source(**data):
    names = {"rows": "data.source_size", "baseline": "source_size=50"}
    names["contrast"] = "source_size=5000 - source_size=50"
    about = [{f"report.{k}": v for k, v in names.items()} | {f"data.{k}": v for k, v in data.items()}]
    return grid(about, sweep("data.source_size", (50, 5000)))


def sweep_multitask():
    """Trained jointly, what do 5,000 source images gain over 50?"""
    return by_source()


def sweep_shuffled():
    """Control: what do 5,000 source images with shuffled names gain over 50?"""
    return by_source(shuffle_source_labels=True)


def sweep_gain():
    """With 5,000 source images, what do transfer and joint training gain over scratch?"""
    about = [{"report.contrast": "multitask - scratch"}]
    return grid(about, sweep("regime", ("scratch", "finetune", "multitask")))
