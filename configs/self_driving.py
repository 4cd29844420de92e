"""A stop sign, a pedestrian, a car, a traffic light: one network for all four, or one for each? Drawn road scenes.

  mtl sweep --config=configs/self_driving.py --sweep=all

37 minutes of a third of a core. The notes' own example: one network for four tasks is better than four networks, and
costs a quarter. Here it is 2.1 points worse with 500 pictures. Objects share paint with probability 0.5. The second
and third sweep look for why; in the last each picture has the label of one task alone.
"""

from mtl.config import default
from mtl.sweep import product, sweep


def get_config():
    c = default()
    c.name, c.metric, c.save_model = "self_driving", "average_precision", False
    c.data.name, c.data.targets, c.data.source = "road_scenes", ("all",), ()
    c.data.options = {"examples": 2500, "size": 16, "difficulty": 0.4, "relatedness": 0.5}
    c.data.target_pool, c.data.test_size = 1000, 1000
    c.model.name, c.model.options = "cnn", {"channels": (8, 16), "features": 32}
    c.target.total_steps, c.evaluations = 300, 10
    c.report.contrast, c.report.margin, c.report.falsifier = "multitask - scratch", 0.02, "upper <= 0"
    return c


def grid(sizes, **data):
    about = [{f"data.{k}": v for k, v in data.items()}]
    seeds, rates = sweep("seed", range(20)), sweep("lr", (2e-3, 6e-3))
    return product(about, sweep("regime", ("scratch", "multitask")), sweep("data.target_size", sizes), seeds, rates)


def sweep_all_labelled():
    """With four labels a picture, is one network better than four?"""
    return grid((50, 500))


def sweep_longer():
    """Control: one network with four times the updates, as many as the four have together. Is it better than these?"""
    seeds, rates = sweep("seed", range(20)), sweep("lr", (2e-3, 6e-3))
    about = [{"report.contrast": "multitask@4 - scratch"}]
    return product(
        about, sweep("regime", ("scratch", "multitask@4")), sweep("data.target_size", (50, 500)), seeds, rates
    )


def sweep_larger():
    """Control: is one network better with a layer of 128, as many parameters as the four have together?"""
    names = {"rows": "model.options.features", "baseline": "features=32", "contrast": "features=128 - features=32"}
    about = [{f"report.{k}": v for k, v in names.items()} | {"regime": "multitask"}]
    widths, sizes = sweep("model.options.features", (32, 128)), sweep("data.target_size", (50, 500))
    return product(about, widths, sizes, sweep("seed", range(20)), sweep("lr", (2e-3, 6e-3)))


def sweep_one_label():
    """With one label a picture, is one network better than four?"""
    return grid((500,), hide="one_task_each", hide_rate=1.0)
