"""Few images have a class for each pixel: do labels of whole images, and disparities, help to segment? Road scenes.

  mtl sweep --config=configs/scenes.py      with 10 and 40 segmented images: some minutes on two cores

Sources are what is in an image (four binary tasks) and the disparity of each pixel (a dense regression), on other
images than those that are segmented. One U-Net: tasks of images read its bottom, tasks of pixels its top. The metric is
the mean intersection over union, and its intervals are over images.
"""

from mtl.config import default
from mtl.sweep import product, sweep


def get_config():
    c = default()
    c.name = "scenes"
    c.data.name, c.data.options = "road_scenes", {"examples": 1200, "size": 32, "maps": True}
    c.data.source = ("stop_sign", "pedestrian", "car", "traffic_light", "disparity")
    c.data.target, c.metric = "scene", "iou"
    c.data.target_pool, c.data.test_size = 100, 200
    c.data.source_size, c.data.source_val_size = 800, 100
    c.model.name, c.model.options = "unet", {"channels": (8, 16, 32)}
    c.batch_size, c.lr, c.source_lr = 8, 3e-3, 3e-3
    c.source.total_steps, c.target.total_steps, c.evaluations = 250, 150, 5
    c.source_sampling, c.joint_sampling = "one_task", "one_task"  # A step is of one task: none of the decoder for cars.
    c.augment = ("flip",)
    c.save_model = False
    return c


def sweep_few():
    """With 10 and 40 segmented images, do the other tasks help?"""
    return product(
        sweep("regime", ("scratch", "finetune", "multitask", "multitask_finetune")),
        sweep("data.target_size", (10, 40)),
        sweep("seed", range(5)),
    )
