"""A dict of one leaf trains to the bits of the array that it holds; leaves beside images are not changed with them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl.models
from mtl.config import override, resolve
from mtl.config.augmentation import check_images, parse
from mtl.data import Asked, make_table, transfer_split
from mtl.data.scaling import fit
from mtl.inputs import Structure
from mtl.models.cnn import CNN
from mtl.models.embedding import Embedding
from mtl.models.mlp import MLP
from mtl.tasks import Task
from mtl.train import loop
from mtl.train.augment import change, draw
from mtl.train.dataset import make_data
from mtl.train.flops import flops_per_step
from mtl.train.microbatching import microbatches
from mtl.train.placement import MAP
from mtl.train.predict import predict
from mtl.train.program import Indices
from mtl.train.trial import stages_of
from tests.train.build import BASE

N = 240
KINDS = {
    "numbers": (MLP, {"hidden": (6, 5)}, lambda rng: 300 + rng.normal(size=(N, 8))),
    "gaps": (MLP, {"hidden": (6, 5)}, lambda rng: np.where(rng.random((N, 8)) < 0.1, np.nan, rng.normal(size=(N, 8)))),
    "image": (CNN, {"channels": (4, 4)}, lambda rng: rng.integers(0, 256, (N, 16, 16, 1)).astype(np.uint8)),
    "ids": (Embedding, {"vocabulary": 20, "width": 4}, lambda rng: rng.integers(0, 20, (N, 6))),
}


class Held(nn.Module):
    """A backbone under a dict's leaf; its parameters have the names that they have without it."""

    inner: nn.Module

    def setup(self):
        nn.share_scope(self, self.inner)

    def __call__(self, x, train):
        return self.inner(x["only"], train)


for _name, (_kind, _options, _) in KINDS.items():
    mtl.models.register(f"plain_{_name}")(lambda _kind=_kind, _options=_options: _kind(**_options))
    mtl.models.register(f"held_{_name}")(lambda _kind=_kind, _options=_options: Held(_kind(**_options)))


def table_of(kind, x):
    tasks = [Task("kind", "multiclass", num_classes=3), Task("goal", "binary")]
    labels = {"kind": np.arange(N) % 3, "goal": np.arange(N) % 2}
    held = isinstance(x, dict)
    options = {"ids": {"vocabulary": 20}, "gaps": {"missing_inputs": "flag"}}.get(kind, {})
    return make_table("toy", x, tasks, labels, **{k: {"only": v} if held else v for k, v in options.items()})


def trained(kind, table, **changes):
    base = {"data.source": ("kind",), "regime": "multitask_finetune", "data.normalize": "auto", "clip": 0.0}
    name = f"{'held' if isinstance(table.x, dict) else 'plain'}_{kind}"
    base = {**base, "model.name": name, "model.options": {}, "source.total_steps": 6, "target.total_steps": 6} | changes
    base.pop("clip")
    trial = resolve(override(BASE, base), table)
    split = transfer_split(table, Asked.of({**trial.config["data"], "seed": trial.seed}))
    scaling = fit(table, split, "auto")
    stages = stages_of(trial, table.shape, scaling.shift is not None)
    weights, curves = loop.initial_weights(stages[0].program.model, table.shape, [0], MAP), []
    for stage in stages:
        data = make_data(table, [split], [stage.program], 30, [scaling])
        (out,) = loop.run_phase([0], [stage], [0], weights, data, evaluations=2, placement=MAP)
        weights = [out.weights]
        curves.append(out.val_loss)
        flops = flops_per_step(stage.program, table.shape)
    x = scaling.inputs(table.x, table.vocabulary)
    return weights[0], curves, predict(stage.program.model, ["goal"], weights, x)["goal"], flops


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_dict_of_one_leaf_trains_to_the_bits_of_the_array(kind, seed):
    x = KINDS[kind][2](np.random.default_rng(seed))
    augment = {"augment": ("flip", "mixup")} if kind == "image" and seed else {}
    plain, held = (trained(kind, table_of(kind, given), **augment) for given in (x, {"only": x}))
    for a, b in zip(*(jax.tree.leaves_with_path(found) for found in (plain, held)), strict=True):
        assert a[0] == b[0]
        np.testing.assert_array_equal(a[1], b[1])


def test_blocks_in_the_cache_are_cut_alike():
    """On a CPU a batch of images is cut by their shape, under a name too."""
    shape = (28, 28, 1)
    x = np.zeros((N, *shape), np.float32)
    cuts = []
    for of, name in ((table_of("image", x), "plain_image"), (table_of("image", {"only": x}), "held_image")):
        changes = {"data.source": ("kind",), "model.name": name, "model.options": {}, "batch_size": 128}
        stage = stages_of(resolve(override(BASE, changes), of), of.shape)[-1]
        weights = loop.initial_weights(stage.program.model, of.shape, [0], MAP)[0]
        cuts.append(microbatches(stage.program, weights.params["backbone"], weights.state, of.shape))
    assert cuts[0] == cuts[1] > 1
    words = Structure((("", (28, 28, 1), 9),))
    assert words != shape


def test_the_image_alone_is_changed():
    rng = np.random.default_rng(0)
    x = {"image": rng.uniform(size=(5, 8, 8, 3)).astype(np.float32), "words": rng.integers(0, 9, (5, 4), np.int32)}
    spec = parse((("flip", {"probability": 1.0}),))
    held = jax.tree.map(jnp.asarray, x)
    drawn = draw(spec, jax.random.key(0), Indices(jnp.arange(5), jnp.zeros((5, 0), bool)))
    found, _ = change(spec, drawn, lambda rows: (jax.tree.map(lambda a: a[rows], held), {}))
    np.testing.assert_array_equal(found["image"], x["image"][:, :, ::-1])
    np.testing.assert_array_equal(found["words"], x["words"])
    check_images(spec, x, "toy")
    for wrong in ({"a": x["image"], "b": x["image"]}, {"words": x["words"]}, {"ids": np.zeros((2, 3, 3, 1), np.int32)}):
        with pytest.raises(ValueError, match=r"must be images \(height, width, channels\), one of them"):
            check_images(spec, wrong, "toy")
    with pytest.raises(ValueError, match="augment: mixup mixes whole inputs, and those of toy are not images alone"):
        check_images(parse(("mixup",)), x, "toy")
    check_images(parse(("mixup",)), {"image": x["image"]}, "toy")
