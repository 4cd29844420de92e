"""Blocks of images: how many, and never where they would change what is computed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl import data
from mtl.config import default, flatten, override, resolve
from mtl.tasks import Task
from mtl.train.microbatching import CACHE_BYTES, microbatches
from mtl.train.trial import stages_of

SHAPE = (8, 8, 3)


def counted(name, options, batch=64, train=True, shape=SHAPE, accumulate=1):
    tasks = [Task("source", "binary"), Task("target", "binary")]
    changes = {
        "data.source": ("source",), "data.target": "target", "data.target_size": 100, "data.target_pool": 100,
        "data.test_size": 50, "data.source_size": 150, "data.source_val_size": 50, "regime": "scratch",
        "model.name": name, "model.options": options, "batch_size": batch, "accumulate": accumulate,
        "source.total_steps": 4, "target.total_steps": 4,
    }  # fmt: skip
    labels = dict.fromkeys(("source", "target"), np.arange(2.0))
    trial = resolve(override(flatten(default()), changes), data.make_table("t", np.zeros((2, *shape)), tasks, labels))
    program = stages_of(trial, shape)[-1].program
    if not train:
        program = dataclasses.replace(program, trainable=tuple(p for p in program.trainable if p.startswith("heads/")))
    weights, state = jax.eval_shape(lambda: program.model.init(jax.random.key(0), jnp.zeros((1, *shape))))
    assert program.train is train
    return microbatches(program, weights["backbone"], state, shape)


def test_blocks_hold_what_fits_the_cache():
    few = {"channels": (4, 4), "features": 8, "norm": "none"}
    assert counted("cnn", few) == 1
    several = counted("cnn", {**few, "channels": (16, 16)}, shape=(32, 32, 3))
    largest = 64 * 32 * 32 * 3 * 9 * 4  # The patches of the first layer.
    assert largest / several <= CACHE_BYTES < 2 * largest / several
    assert counted("cnn", {**few, "channels": (16, 16)}, shape=(32, 32, 3), accumulate=2) == several // 2


def test_many_parameters_make_blocks_larger_but_do_not_forbid_them():
    small = counted("vit", {"depth": 2, "width": 64, "heads": 2, "patch": 2}, shape=(32, 32, 3))
    large = counted("vit", {"depth": 2, "width": 256, "heads": 2, "patch": 8}, shape=(32, 32, 3))
    assert small > large >= 1


@pytest.mark.parametrize(("train", "several"), [(True, False), (False, True)])
def test_batch_statistics_are_those_of_the_batch(train, several):
    found = counted("resnet", {"width": 16}, train=train, shape=(32, 32, 3))
    assert (found > 1) == several


def test_other_inputs_are_not_cut():
    assert counted("mlp", {"hidden": (4096,)}, shape=(64,)) == 1
