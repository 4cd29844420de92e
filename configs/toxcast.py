"""All tasks of one table: ToxCast's 617 assays of molecules, one joint network for all against one network for each.

  MTL_DATA_DIR=data mtl sweep --config=configs/toxcast.py --jobs=0    5 minutes of processor time, 4.1 GiB

What many targets cost: 618 trials are two training programs. One epoch decides nothing: after these 43 updates the mean
AUROC over assays is .632 for the joint network and .669 for single ones; raise target.total_epochs to compare them.
"""

from mtl.config import default
from mtl.sweep import sweep


def get_config():
    c = default()
    c.name = "toxcast"
    c.data.name, c.data.source, c.data.targets = "toxcast", (), ("all",)
    c.data.options = {"min_labels": 0, "min_positives": 0}
    c.data.target_size, c.data.target_pool, c.data.test_size = 6892, 6892, 1723
    c.model.options = {"hidden": (128,)}
    c.batch_size, c.target.total_epochs, c.evaluations = 128, 1.0, 1
    c.metric, c.save_model = "auroc", False
    return c


def sweep_toxcast():
    """Does one network for all of ToxCast's assays predict them better than one for each?"""
    return sweep("regime", ("scratch", "multitask"))
