"""Ids, and inputs of several leaves, the whole way: trained, packed, stopped and gone on from, loaded, predicted."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl
import mtl.data
from mtl.cli import main
from mtl.config import ConfigError, override, resolve
from mtl.data.scaling import described
from mtl.sweep.execute import execute
from mtl.sweep.plan import load_table, make_plan, scaled, scaling_of
from mtl.sweep.snapshots import Interrupt
from mtl.sweep.store import Workdir
from mtl.sweep.weights import brought
from mtl.tasks import Task
from mtl.train import stream
from mtl.train.loop import Stopped
from mtl.train.placement import MAP, VMAP
from tests.sweep.test_reloaded import BASE as RELOADED
from tests.sweep.test_reloaded import check, trained

N, IDS, LENGTH = 400, 40, 6
#: Ids above it are not told apart by float32.
FAR = 2**24


def leaves():
    """An image, numbers far from zero with some missing, and words; what is to be found takes all three."""
    rng = np.random.default_rng(5)
    z = rng.normal(size=(N, 3))
    image = rng.uniform(size=(N, 8, 8, 1)).astype(np.float32)
    image[:, :4] *= (z[:, 0] > 0)[:, None, None, None]
    numbers = np.column_stack([300 + z[:, 1], 1e9 + 1e3 * z[:, 2]])
    numbers[rng.random(N) < 0.1, 0] = np.nan
    words = rng.integers(1, IDS, (N, LENGTH))
    words[:, 0] = np.where(z[:, 2] > 0, 7, 8)
    score = z[:, 0] + z[:, 1] + (words[:, 0] == 7)
    return {"image": image, "numbers": numbers, "words": words}, score


TASKS = [Task("kind", "multiclass", num_classes=3), Task("good", "binary")]


@mtl.data.register("mixed_leaves")
def mixed_leaves():
    x, score = leaves()
    labels = {"kind": np.digitize(score, (0.0, 1.0)), "good": score > 0.5}
    return mtl.data.make_table(
        "mixed_leaves", x, TASKS, labels, missing_inputs={"numbers": "flag"}, vocabulary={"words": IDS}
    )


@mtl.data.register("words_alone")
def words_alone():
    x, score = leaves()
    labels = {"kind": np.digitize(score, (0.0, 1.0)), "good": x["words"][:, 0] == 7}
    return mtl.data.make_table("words_alone", x["words"], TASKS, labels, vocabulary=IDS)


@mtl.data.register("words_streamed")
def words_streamed():
    held = words_alone()
    x = mtl.data.Streamed(held.x.shape, lambda rows: held.x[rows], vocabulary=IDS)
    return mtl.data.make_table("words_alone", x, TASKS, held.labels)


@mtl.data.register("far_ids")
def far_ids():
    """Whether an id above 2²⁴ is odd: in float32 each is even."""
    x = FAR + np.random.default_rng(0).integers(0, 8, (N, 1))
    labels = {"kind": (x[:, 0] - FAR) % 3, "good": x[:, 0] % 2}
    return mtl.data.make_table("far_ids", x, TASKS, labels, vocabulary=FAR + 8)


@mtl.models.register("mixed_leaves")
class MixedLeaves(nn.Module):
    """Takes a dict, of which each leaf has its own dtype."""

    vocabulary: int

    @nn.compact
    def __call__(self, x, train):
        assert x["words"].dtype == jnp.int32 and x["image"].dtype == x["numbers"].dtype != jnp.int32
        words = nn.Embed(self.vocabulary, 4, name="embed")(x["words"]).mean(axis=1)
        image = nn.relu(nn.Conv(4, (3, 3), name="conv")(x["image"])).mean(axis=(1, 2))
        both = jnp.concatenate([words, image, x["numbers"]], axis=1)
        return nn.relu(nn.Dense(8, name="dense")(both))


@mtl.models.register("far_ids")
class FarIds(nn.Module):
    """One-hot codes of ids above 2²⁴."""

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(8, name="dense")((x == FAR + jnp.arange(8)[None]).astype(jnp.float32))


BASE = override(RELOADED, {"data.source": ("kind",), "data.target": "good", "lr": 0.02, "source_lr": 0.02})
MIXED = override(BASE, {"data.name": "mixed_leaves", "model.name": "mixed_leaves", "model.options": {}})
WORDS = override(
    BASE, {"data.name": "words_alone", "model.name": "embedding", "model.options": {"width": 4, "hidden": (8,)}}
)


def trial_of(base, **changes):
    base = override(base, {k.replace("__", "."): v for k, v in changes.items()})
    return resolve(base, load_table(base["data.name"], {}))


def weights_of(path, trial):
    return (Workdir(path).trial(trial.hash) / "model.safetensors").read_bytes()


@pytest.mark.parametrize("base", [MIXED, WORDS], ids=["leaves", "ids"])
@pytest.mark.parametrize("regime", ["multitask_finetune", "linear_probe"])
def test_a_saved_model_repeats_its_losses_on_raw_inputs(tmp_path, base, regime):
    trial = trial_of(base, regime=regime)
    ((model, result),) = trained(tmp_path, [trial])
    check(model, result, trial)
    assert model.inputs == described(load_table(base["data.name"], {}))
    assert result["inputs"]["scaled"] == (2 if base is MIXED else 0)
    assert model.trial.config["model"]["options"]["vocabulary"] == IDS


@pytest.mark.slow
@pytest.mark.parametrize("base", [MIXED, WORDS], ids=["leaves", "ids"])
def test_bfloat16_rounds_floats_and_no_ids(tmp_path, base):
    """The model itself asserts that its words are int32."""
    ((_, result),) = trained(tmp_path, [trial_of(base, regime="finetune", model__dtype="bfloat16")])
    assert result["status"] == "done"
    assert result["val_score"] < 0.69


def test_ids_that_float32_cannot_tell_apart(tmp_path):
    base = override(BASE, {"data.name": "far_ids", "model.name": "far_ids", "model.options": {}, "regime": "scratch"})
    trial = trial_of(base, lr=0.1)
    ((model, result),) = trained(tmp_path, [trial])
    assert result["test"]["good"]["accuracy"] == 1.0
    x = FAR + np.arange(8)[:, None]
    np.testing.assert_array_equal(model.predict(x) > 0.5, x[:, 0] % 2 == 1)


@pytest.mark.parametrize("base", [MIXED, WORDS], ids=["leaves", "ids"])
def test_the_same_bits_alone_in_a_pack_and_after_a_stop(tmp_path, base):
    trials = [trial_of(base, regime="finetune", seed=seed) for seed in (0, 1)]
    for path, some in (("alone", trials[:1]), ("pack", trials)):
        trained(tmp_path / path, some)
    assert weights_of(tmp_path / "alone", trials[0]) == weights_of(tmp_path / "pack", trials[0])

    interrupt, workdir = Interrupt(), Workdir(tmp_path / "stopped")
    workdir.open("reloaded")

    def stop(work, done, failed):
        interrupt.ask()

    with pytest.raises(Stopped):
        execute(make_plan(trials), workdir, placement=MAP, interrupt=interrupt, progress=stop)
    execute(make_plan(trials), workdir, placement=MAP)
    for trial in trials:
        assert weights_of(tmp_path / "stopped", trial) == weights_of(tmp_path / "pack", trial)


@pytest.mark.slow
def test_side_by_side_in_one_call(tmp_path):
    trials = [trial_of(MIXED, regime="finetune", seed=seed) for seed in (0, 1)]
    found = []
    for name, placement in (("map", MAP), ("vmap", VMAP)):
        workdir = Workdir(tmp_path / name)
        workdir.open("reloaded")
        execute(make_plan(trials), workdir, placement=placement)
        found.append([workdir.result(t.hash)["val_score"] for t in trials])
    np.testing.assert_allclose(*found, rtol=1e-3)


def test_streamed_ids_train_to_the_bits_of_those_in_memory(tmp_path, monkeypatch):
    pytest.importorskip("grain", reason='needs the extra: pip install "mtl[stream]"')
    monkeypatch.setattr(stream, "WINDOW_BYTES", 2**11)
    monkeypatch.setattr(stream, "_MOST_STEPS", 4)
    assert load_table("words_streamed", {}).sha256 == load_table("words_alone", {}).sha256
    found = []
    for name in ("words_alone", "words_streamed"):
        trial = trial_of(override(WORDS, {"data.name": name}), regime="multitask_finetune")
        ((model, result),) = trained(tmp_path / name, [trial])
        found.append((jax.tree.leaves(model.weights), result["test"]))
    np.testing.assert_array_equal(
        np.concatenate([a.ravel() for a in found[0][0]]), np.concatenate([a.ravel() for a in found[1][0]])
    )
    assert found[0][1] == found[1][1]


CONFIG = """
import flax.linen as nn
import jax.numpy as jnp

import mtl
from mtl.config import default


@mtl.models.register("three")
class Three(nn.Module):
    vocabulary: int

    @nn.compact
    def __call__(self, x, train):
        words = nn.Embed(self.vocabulary, 4, name="embed")(x["words"]).mean(axis=1)
        image = nn.Dense(4, name="image")(x["image"].reshape(len(words), -1))
        return nn.relu(jnp.concatenate([words, image, x["numbers"]], axis=1))


def get_config():
    c = default()
    c.name, c.model.name = "three", "three"
    c.data.name = "npz"
    c.data.options = {"path": %r, "labels": ("kind", "good:binary"), "vocabulary": ("words:40",)}
    c.data.source, c.data.target, c.data.target_size = ("kind",), "good", 60
    c.data.target_pool, c.data.test_size, c.data.source_size, c.data.source_val_size = 100, 80, 150, 50
    c.source.total_steps, c.target.total_steps, c.evaluations = 20, 20, 2
    c.augment = ("flip",)
    return c
"""


def test_from_a_file_by_the_command_line(tmp_path, capsys, monkeypatch):
    x, score = leaves()
    x["numbers"] = np.nan_to_num(x["numbers"], nan=300.0)
    labels = {"kind": np.digitize(score, (0.0, 1.0)), "good": (score > 0.5).astype(int)}
    np.savez(tmp_path / "three.npz", **{f"x/{leaf}": a for leaf, a in x.items()}, **labels)
    config = tmp_path / "three.py"
    config.write_text(CONFIG % str(tmp_path / "three.npz"))
    work = tmp_path / "work"
    assert main(["run", f"--config={config}", f"--workdir={work}", "--config.regime=multitask"]) == 0
    assert main(["data", "describe", f"--config={config}", f"--out={tmp_path / 'pictures'}"]) == 0
    said = capsys.readouterr().out
    assert "inputs {image: (8, 8, 1), numbers: (2,), words: (6,) of ids below 40}" in said
    assert (tmp_path / "pictures" / "images.png").is_file()
    (digest,) = Workdir(work).hashes()
    model = mtl.load(work / "trials" / digest)
    new = {leaf: a[:3] for leaf, a in x.items()}
    assert model.predict(new).shape == (3,)
    for wrong, sentence in (
        (x["image"][:3], "x: a ndarray: must be a dict of image, numbers, words, as in training"),
        ({"image": x["image"]}, "x: a dict of image: must be a dict of image, numbers, words"),
        (new | {"words": new["words"] + 40}, r'x\["words"\]: id \d+ in row 0: must be from 0 to 39'),
        (new | {"words": new["words"] * 0.5}, r'x\["words"\]: dtype float64: must be whole numbers'),
        (new | {"words": x["words"][:2]}, "x: leaves of 3, 3, 2 rows: must be as many of each"),
        (new | {"image": new["image"] * 2}, r'x\["image"\]: float32 from 0 to \S+: must be pixels in \[0, 1\]'),
    ):
        with pytest.raises(ValueError, match=sentence):
            model.predict(wrong)


IDS_ALONE = """
from mtl.config import default


def get_config():
    c = default()
    c.name, c.model.name, c.model.options = "ids", "embedding", {"width": 4, "hidden": (4,)}
    c.data.name = "npz"
    c.data.options = {"path": %r, "labels": ("kind", "good:binary"), "vocabulary": 40}
    c.data.source, c.data.target, c.data.target_size = ("kind",), "good", 60
    c.data.target_pool, c.data.test_size, c.data.source_size, c.data.source_val_size = 100, 80, 150, 50
    c.source.total_steps, c.target.total_steps, c.evaluations = 20, 20, 2
    return c
"""


def test_a_file_of_ids_by_the_command_line(tmp_path, capsys):
    x = leaves()[0]["words"]
    np.savez(tmp_path / "ids.npz", x=x, kind=np.arange(N) % 3, good=(x[:, 0] == 7).astype(int))
    config, work = tmp_path / "ids.py", tmp_path / "work"
    config.write_text(IDS_ALONE % str(tmp_path / "ids.npz"))
    assert main(["run", f"--config={config}", f"--workdir={work}", "--config.regime=linear_probe", "--quiet"]) == 0
    assert main(["data", "describe", f"--config={config}", f"--out={tmp_path / 'pictures'}"]) == 0
    assert "inputs (6,) of ids below 40" in capsys.readouterr().out
    (digest,) = Workdir(work).hashes()
    assert Workdir(work).result(digest)["config"]["model"]["options"]["vocabulary"] == IDS
    assert mtl.load(work / "trials" / digest).predict(x[:3]).shape == (3,)


def test_a_vocabulary_is_the_data_s_unless_a_config_says_a_larger_one():
    assert trial_of(WORDS).config["model"]["options"]["vocabulary"] == IDS
    larger = trial_of(override(WORDS, {"model.options": {"vocabulary": 100}}))
    assert larger.config["model"]["options"]["vocabulary"] == 100
    with pytest.raises(ConfigError, match=r"config\.model\.options\.vocabulary = 39: must be at least 40, the ids of"):
        trial_of(override(WORDS, {"model.options": {"vocabulary": 39}}))
    digits = override(BASE, {"data.name": "digits", "data.source": ("identity",), "data.target": "even"})
    digits = override(digits, {"model.name": "embedding", "model.options": {}})
    with pytest.raises(ConfigError, match=r"vocabulary is missing: it has no default"):
        resolve(digits, load_table("digits", {}))
    with pytest.raises(ConfigError, match="inputs are no texts: must be"):
        resolve(override(digits, {"model.options": {"vocabulary": 9}}), load_table("digits", {}))


def test_what_does_not_concern_ids_is_refused_or_leaves_them(tmp_path):
    for augment, sentence in (
        (("mixup",), "augment: mixup mixes whole inputs, and those of mixed_leaves are not images alone"),
        (("cutmix",), "augment: cutmix mixes whole inputs"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            make_plan([trial_of(MIXED, augment=augment)])
    with pytest.raises(ConfigError, match=r"augment: inputs of words_alone are of shape \(6,\): must be images"):
        make_plan([trial_of(WORDS, augment=("flip",))])
    trial = trial_of(WORDS, data__normalize="standardize")
    assert not scaled(trial)
    assert scaling_of(trial).shift is None


def test_weights_go_from_one_table_of_leaves_to_another_that_is_alike(tmp_path):
    source = trial_of(MIXED, regime="source")
    trained(tmp_path / "source", [source])
    path = str(Workdir(tmp_path / "source").trial(source.hash) / "model.safetensors")
    then = trial_of(MIXED, regime="finetune", init__path=path)
    ((model, result),) = trained(tmp_path / "then", [then])
    assert result["inputs"]["brought"] is True
    for leaf, shift in scaling_of(source).shift.items():
        np.testing.assert_array_equal(model.shift[leaf], shift)
    with pytest.raises(ConfigError, match="its weights were trained on other columns"):
        brought(trial_of(WORDS, regime="finetune", init__path=path), load_table("words_alone", {}))
