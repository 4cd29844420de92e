"""Dense tasks from the command line to the table: road scenes with maps, and a model of pixels."""

import pathlib
import signal

import jax
import numpy as np
import pytest
import sklearn.metrics

import mtl
from mtl import data, models
from mtl.cli import main
from mtl.config import Trial, override, resolve
from mtl.sweep import evaluate
from mtl.sweep.execute import execute
from mtl.sweep.plan import load_table, make_plan, split_of
from mtl.sweep.snapshots import Interrupt
from mtl.sweep.store import Workdir
from mtl.train import loop
from mtl.train.loop import Stopped
from tests.train import dense

SIZE = 16

CONFIG = f"""
import flax.linen as nn
import mtl.models
from mtl.sweep import product, sweep
from mtl.tasks import Task


@mtl.models.register("pixels_of_a_sweep")
class Pixels(nn.Module):
    tasks: tuple[Task, ...]

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.relu(nn.Dense(8, name="first")(x))
        return {{t.name: x if t.shape else x.mean(axis=(1, 2)) for t in self.tasks}}


def get_config():
    from mtl.config import default

    c = default()
    c.name, c.model.name = "maps", "pixels_of_a_sweep"
    c.data.name, c.data.options = "road_scenes", {{"examples": 120, "size": {SIZE}, "maps": True}}
    c.data.source, c.data.target = ("car", "disparity"), "scene"
    c.data.target_size, c.data.test_size, c.data.target_pool = 20, 30, 30
    c.data.source_size, c.data.source_val_size, c.batch_size, c.lr = 40, 10, 4, 0.01
    c.source.total_steps, c.target.total_steps, c.evaluations = 12, 12, 2
    return c


def sweep_two():
    return product(sweep("regime", ("scratch", "multitask")), sweep("seed", range(3)))
"""


@pytest.fixture(autouse=True)
def forgotten():
    known = dict(models.MODELS)
    with jax.numpy_rank_promotion("allow"):
        yield
    models.MODELS.clear()
    models.MODELS.update(known)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "maps.py"
    file.write_text(CONFIG)
    return file


def run(config, workdir, *more):
    assert main(["run", f"--config={config}", f"--workdir={workdir}", "--quiet", *more]) == 0
    found = Workdir(pathlib.Path(workdir))
    return found, found.hashes()[0]


def table():
    return data.load("road_scenes", examples=120, size=SIZE, maps=True)


def test_a_segmentation_is_tested_as_scikit_learn_does_and_kept_whole(config, tmp_path):
    workdir, digest = run(config, tmp_path, "--config.regime=multitask_finetune")
    arrays, result = workdir.predictions(digest, "scene"), workdir.result(digest)
    of = table()
    assert arrays["outputs"].shape == (30, SIZE, SIZE, 6)
    np.testing.assert_array_equal(arrays["labels"], of.labels["scene"][arrays["rows"]])
    y, guess = arrays["labels"].ravel(), arrays["outputs"].argmax(axis=-1).ravel()
    want = sklearn.metrics.jaccard_score(y, guess, average="macro", labels=np.union1d(y, guess))
    assert result["test"]["scene"]["iou"] == pytest.approx(want, rel=1e-5)
    assert result["test"]["scene"]["pixel_accuracy"] == pytest.approx((y == guess).mean(), rel=1e-5)
    assert arrays["scores"].shape == (30,)
    assert arrays["scores"].mean() == pytest.approx(want, rel=1e-4)
    trained = mtl.load(workdir.trial(digest))
    x = of.x[arrays["rows"]]
    p = trained.predict(x)
    assert p.shape == (30, SIZE, SIZE, 6)
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(p.argmax(axis=-1).ravel(), guess)
    assert trained.predict(x[:2], "disparity").shape == (2, SIZE, SIZE)
    assert trained.predict(x[:2], "car").shape == (2,)
    assert trained.predict(x[:0]).shape == (0, SIZE, SIZE, 6)


def test_a_dense_regression_is_tested_in_the_unit_of_its_labels(config, tmp_path):
    more = ("--config.data.source=('car',)", "--config.data.target=disparity", "--config.regime=scratch")
    workdir, digest = run(config, tmp_path, *more)
    arrays, test = workdir.predictions(digest, "disparity"), workdir.result(digest)["test"]["disparity"]
    of = table()
    there = of.positions["disparity"][arrays["rows"]]
    assert 0 < there.mean() < 1, "the sky has no disparity"
    np.testing.assert_array_equal(~np.isnan(arrays["labels"]), there)
    np.testing.assert_array_equal(arrays["labels"][there], of.labels["disparity"][arrays["rows"]][there])
    want = sklearn.metrics.mean_squared_error(arrays["labels"][there], arrays["outputs"][..., 0][there])
    assert test == {"pixel_squared_error": pytest.approx(want, rel=1e-4)}
    assert arrays["scores"].mean() == pytest.approx(want, rel=1e-4)
    found = mtl.load(workdir.trial(digest)).predict(of.x[arrays["rows"]])
    np.testing.assert_allclose(found, arrays["outputs"][..., 0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_table_has_intervals_over_images_and_frames_a_score_of_each(config, tmp_path, capsys):
    assert main(["sweep", f"--config={config}", f"--workdir={tmp_path}", "--jobs=0"]) == 0
    shown = capsys.readouterr().out
    assert main(["table", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() in shown
    assert main(["table", "--full", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "IoU (%) by target labels n" in shown
    assert "over 3 replicates and the test examples" in shown
    frame = mtl.results(tmp_path, "predictions")
    assert len(frame) == 6 * 30
    assert {"task", "row", "score"} <= set(frame.columns)
    trials = mtl.results(tmp_path)
    means = frame.groupby("hash")["score"].mean()
    for row in trials.itertuples():
        assert means[row.hash] == pytest.approx(row.test_iou, rel=1e-4)
    assert main(["report", str(tmp_path)]) == 0


def test_data_are_described(config, capsys, tmp_path):
    assert main(["data", "describe", f"--config={config}", f"--out={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    counts = np.bincount(table().labels["scene"].ravel(), minlength=6)
    assert f"road {100 * counts[1] / counts.sum():.1f} %" in shown
    assert "dense_regression" in shown
    assert {file.name for file in tmp_path.iterdir()} == {"labels.png", "images.png"}


@pytest.mark.slow
def test_interrupted_at_every_boundary_it_comes_to_the_same_bits(tmp_path, monkeypatch):
    """The signal comes before each boundary in turn, each time in a run of its own that then goes on."""
    models.register("pixels_of_a_test")(dense.Pixels)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    options = {"examples": 120, "size": SIZE, "maps": True}
    changes = {"data.name": "road_scenes", "data.options": options, "data.source": ("car", "disparity")}
    flat = override(dense.BASE, {**changes, "regime": "multitask_finetune", "batch_size": 2})

    def execute_to(path, stop):
        workdir, plan = Workdir(path), make_plan([resolve(flat, load_table("road_scenes", options))])
        (digest,), stops = plan.trials, 0
        while workdir.result(digest) is None:
            interrupt = Interrupt()

            def progress(work, done, failed, interrupt=interrupt):
                interrupt.number = signal.SIGTERM if stop else 0

            try:
                execute(plan, workdir, interrupt=interrupt, progress=progress)
            except Stopped:
                stops += 1
        return stops, [
            (workdir.trial(digest) / "model.safetensors").read_bytes(),
            workdir.predictions(digest, "scene")["outputs"].tobytes(),
            workdir.result(digest)["phases"][0]["val_loss"],
        ]  # fmt: skip

    stops, found = execute_to(tmp_path / "cut", stop=True)
    assert stops >= 3
    assert found == execute_to(tmp_path / "whole", stop=False)[1]


def test_as_many_trials_are_tested_at_once_as_have_room_for_their_maps(tmp_path, monkeypatch):
    models.register("pixels_of_a_test")(dense.Pixels)
    options = {"examples": 120, "size": SIZE, "maps": True}
    changes = {"data.name": "road_scenes", "data.options": options, "data.source": (), "regime": "scratch"}
    trials = [
        resolve(override(dense.BASE, {**changes, "seed": seed}), load_table("road_scenes", options)) for seed in (0, 1)
    ]
    at_once, found = [], []

    def predict(model, name, weights, *more, **options):
        at_once.append(len(weights))
        return real(model, name, weights, *more, **options)

    real = evaluate.predict
    monkeypatch.setattr(evaluate, "predict", predict)
    for room in (evaluate._BYTES_OF_MAPS, 1):
        monkeypatch.setattr(evaluate, "_BYTES_OF_MAPS", room)
        workdir = Workdir(tmp_path / str(room))
        execute(make_plan(trials), workdir)
        found.append([workdir.predictions(trial.hash, "scene")["outputs"].tobytes() for trial in trials])
    assert at_once == [2, 1, 1]
    assert found[0] == found[1]


# --- labels hidden or wrong ---


def test_labels_of_maps_are_hidden_by_whole_images(config, tmp_path):
    workdir, digest = run(
        config, tmp_path, "--config.data.hide=at_random", "--config.data.hide_rates={'disparity': 0.5}"
    )
    data_of = workdir.result(digest)["config"]["data"]
    assert data_of["hide"] == "at_random"
    split = split_of(Trial(workdir.result(digest)["config"]))
    whole = split_of(Trial({**workdir.result(digest)["config"], "data": {**data_of, "hide_rates": {"car": 0.5}}}))
    shown, every = split.train["disparity"], whole.train["disparity"]
    assert 0.3 * every.sum() < shown.sum() < 0.7 * every.sum()
    assert not (shown & ~every).any()
    np.testing.assert_array_equal(split.train["scene"], whole.train["scene"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("hide=by_rank", "hide_rates={'disparity': 0.2}"), "disparity is dense_regression: must be binary or multicl"),
        (
            ("hide=by_class", "hide_rates={'scene': (0.1, 0.1, 0.1, 0.1, 0.1, 0.1)}"),
            "scene is segmentation: must be binary or multiclass",
        ),
        (("hide=positive_only", "hide_rates={'scene': 0.2}"), "scene is segmentation: must be binary"),
        (("label_noise={'scene': 0.2}",), "scene is segmentation: must be binary or multiclass or regression"),
        (("imbalance={'scene': 0.2}",), "scene is segmentation: must be binary"),
    ],
)
def test_what_is_not_for_maps_is_refused_in_one_sentence(config, tmp_path, capsys, more, message):
    values = [f"--config.data.{field}" for field in more]
    assert main(["run", f"--config={config}", f"--workdir={tmp_path / 'w'}", "--quiet", *values]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.strip().splitlines()) == 1
