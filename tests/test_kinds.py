"""Kinds of tasks that a config file registers: what they can be, and from the command line to a table elsewhere."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import sklearn.metrics

import mtl
from mtl import data, losses, metrics, models, tasks
from mtl.cli import main
from mtl.sweep.store import Workdir
from mtl.tasks import Task, register

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "extensions" / "kind.py"


@pytest.fixture(autouse=True)
def forgotten():
    known = (losses.LOSSES, metrics.METRICS, tasks.KINDS, data.SOURCES, models.MODELS)
    before = [dict(names) for names in known]
    with jax.numpy_rank_promotion("allow"):  # As it is for users.
        yield
    for names, was in zip(known, before, strict=True):
        names.clear()
        names.update(was)


# --- what they can be ---


def test_a_kind_is_registered_twice_alike_and_never_otherwise():
    register("count", "numbers", metrics=["squared_error"], least=0)
    losses.register("poisson", "count")(lambda outputs, labels: outputs[:, 0] - labels)
    metrics.register("bias", ("count",))(lambda outputs, labels, mask, weights=None: 0.0)
    made = tasks.KINDS["count"]
    register("count", "numbers", metrics=["squared_error"], least=0)
    assert tasks.KINDS["count"] is made
    assert (made.losses, made.metrics) == (("poisson",), ("squared_error", "bias"))
    for other in ({"least": 1}, {"scaled": True}, {"outputs": 2}, {"metrics": ["r2"]}, {"dense": True}):
        with pytest.raises(ValueError, match='kind "count" is registered already, and is another'):
            register("count", "numbers", **{"metrics": ["squared_error"], "least": 0, **other})
    with pytest.raises(ValueError, match='kind "binary" is registered already, and is another'):
        register("binary", "ids", outputs=0, metrics=["accuracy"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": "number"}, 'kind "k": labels = "number": did you mean "numbers"?'),
        ({"outputs": 0}, 'kind "k": outputs = 0: must be at least 1, or 0 for one a class of ids'),
        ({"labels": "ids", "outputs": -1}, 'kind "k": outputs = -1'),
        ({"metrics": []}, 'kind "k": has no metric'),
    ],
)
def test_what_a_kind_cannot_be_is_one_sentence(given, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        register("k", **{"labels": "numbers", "metrics": ["squared_error"], **given})
    assert "k" not in tasks.KINDS


def test_a_kind_without_a_loss_makes_no_task():
    register("count", "numbers", metrics=["squared_error"])
    with pytest.raises(ValueError, match='task "t": kind "count" has no loss: register one for it'):
        Task("t", "count")
    with pytest.raises(ValueError, match='task "t": kind "cuont": did you mean "count"'):
        Task("t", "cuont")


def test_numbers_below_the_least_are_refused_at_the_door_and_not_in_noise():
    register("count", "numbers", metrics=["squared_error"], least=0)
    losses.register("poisson", "count")(lambda outputs, labels: outputs[:, 0] - labels)
    count = Task("visits", "count")
    with pytest.raises(ValueError, match=r"label -1 in row 2: must be at least 0, or NaN \(missing\)"):
        data.make_table("toy", np.eye(3), [count], {"visits": [0, 3, -1]})
    table = data.make_table("toy", np.eye(3), [count], {"visits": [0, 3, np.nan]})
    assert table.labels["visits"].dtype == np.float64
    from mtl.data.corrupt.noise import flip

    noisy = flip(count, np.arange(50.0), np.arange(50) % 5 > 0, rate=2.0, seed=0)
    assert noisy.min() >= 0
    np.testing.assert_array_equal(noisy[::5], np.arange(0.0, 50, 5))
    assert (noisy != np.arange(50)).sum() > 30


def test_a_column_of_a_registered_kind_is_read_as_its_labels_are(tmp_path):
    register("count", "numbers", metrics=["squared_error"], least=0)
    losses.register("poisson", "count")(lambda outputs, labels: outputs[:, 0] - labels)
    register("grade", "ids", outputs=2, metrics=["accuracy"])
    losses.register("steps", "grade")(lambda outputs, labels: outputs[:, 0] - labels)
    file = tmp_path / "own.csv"
    file.write_text("a,visits,mark\n0.5,3,good\n0.1,0,bad\n0.2,,fair\n0.3,12,good\n")
    table = data.load("csv", path=str(file), labels=("visits:count", "mark:grade"))
    assert [(t.kind, t.num_classes, t.outputs) for t in table.tasks] == [("count", 0, 1), ("grade", 3, 2)]
    np.testing.assert_array_equal(table.labels["visits"], [3, 0, 0, 12])
    assert table.classes["mark"] == ("bad", "fair", "good")


# --- end to end ---


def run(file, tmp_path, *more):
    assert main(["run", f"--config={file}", f"--workdir={tmp_path}", "--quiet", *more]) == 0
    workdir = Workdir(tmp_path)
    (digest,) = workdir.hashes()
    return workdir, digest


def elsewhere(*command):
    """A process that has executed no config."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=env, check=False)


def test_counts_are_predicted_by_the_link_in_their_own_unit(tmp_path):
    workdir, digest = run(FIXTURE, tmp_path)
    arrays, test = workdir.predictions(digest, "visits"), workdir.result(digest)["test"]["visits"]
    assert (arrays["outputs"] > 0).all()
    assert set(np.unique(arrays["labels"])) <= set(range(100))
    want = sklearn.metrics.mean_squared_error(arrays["labels"], arrays["outputs"][:, 0])
    assert test["squared_error"] == pytest.approx(want, rel=1e-5)
    assert arrays["scores"].mean() == pytest.approx(want, rel=1e-5)
    x = data.load("visits").x[arrays["rows"]]
    np.testing.assert_allclose(mtl.load(workdir.trial(digest)).predict(x), arrays["outputs"][:, 0], rtol=1e-5)
    # Elsewhere the kind is not known: a model says so, and a list of trials needs none of it.
    refused = elsewhere("-c", f"import mtl; mtl.load({str(workdir.trial(digest))!r})")
    assert (
        'task "visits" has the kind "count", which this process does not know: first execute what registers it (with '
        "mtl.tasks.register)" in refused.stderr
    )


GRADES = '''
import jax, jax.numpy as jnp, numpy as np
import mtl.data, mtl.losses
from mtl.sweep import product, sweep
from mtl.tasks import Task, register

register("grade", "ids", outputs=2, metrics=["accuracy", "log_loss"])


def classes(outputs):
    """log P of three classes from the logits of y > 0 and of y > 1 given y > 0 (continuation ratios)."""
    up, down = jax.nn.log_sigmoid(outputs), jax.nn.log_sigmoid(-outputs)
    return jnp.stack([down[:, 0], up[:, 0] + down[:, 1], up[:, 0] + up[:, 1]], axis=1)


@mtl.losses.register("ratios", "grade", link=classes)
def ratios(outputs, labels):
    return -jnp.take_along_axis(classes(outputs), labels[:, None], axis=1)[:, 0]


@mtl.data.register("marks")
def marks(rows: int = 600):
    x = np.random.default_rng(0).normal(size=(rows, 3))
    mark = np.where(np.arange(rows) % 7 == 0, -1, np.digitize(x[:, 0], (-0.5, 0.5)))
    tasks = [Task("right", "binary"), Task("mark", "grade", num_classes=3)]
    return mtl.data.make_table("marks", x, tasks, {"right": x[:, 1] > 0, "mark": mark}, classes={"mark": "abc"})


def get_config():
    from mtl.config import default

    c = default()
    c.name, c.source.total_steps, c.target.total_steps, c.evaluations = "marks", 8, 60, 2
    c.data.name, c.data.source, c.data.target, c.model.name = "marks", ("right",), "mark", "mlp"
    c.data.target_size, c.data.test_size, c.data.target_pool, c.data.source_size = 50, 80, 60, 100
    c.data.source_val_size, c.model.options, c.lr = 20, {"hidden": (8,)}, 0.05
    return c


def sweep_two():
    return product(sweep("regime", ("scratch", "multitask")), sweep("seed", range(3)))
'''


@pytest.mark.slow
def test_an_ordinal_kind_has_fewer_outputs_than_classes_and_tables_need_no_config(tmp_path, capsys):
    file, work = tmp_path / "marks.py", tmp_path / "work"
    file.write_text(GRADES)
    assert main(["sweep", f"--config={file}", f"--workdir={work}", "--jobs=0"]) == 0
    shown = capsys.readouterr().out
    assert "multitask" in shown and "scratch" in shown
    assert main(["table", "--full", str(work)]) == 0 and "accuracy" in capsys.readouterr().out
    workdir = Workdir(work)
    for digest in workdir.hashes():
        arrays, result = workdir.predictions(digest, "mark"), workdir.result(digest)
        assert arrays["outputs"].shape == (80, 3)
        p = scipy.special.softmax(arrays["outputs"].astype(float), axis=1)
        np.testing.assert_allclose(np.exp(arrays["outputs"]).sum(axis=1), 1, rtol=1e-5)
        test = result["test"]["mark"]
        assert test["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(arrays["labels"], p.argmax(axis=1)))
        assert test["log_loss"] == pytest.approx(sklearn.metrics.log_loss(arrays["labels"], p), rel=1e-4)
    trained = mtl.load(workdir.trial(digest))
    assert trained.model.task("mark").outputs == 2
    assert trained.weights.params["heads"]["mark"]["kernel"].shape == (8, 2)
    x = data.load("marks").x
    np.testing.assert_allclose(trained.predict(x[arrays["rows"]]), p, rtol=1e-4, atol=1e-6)
    assert trained.predict(x[:0]).shape == (0, 3)
    # Where the config is not at hand: the same table, the page, the trials and the predictions.
    table = elsewhere("-m", "mtl.cli", "table", str(work))
    assert table.returncode == 0, table.stderr
    assert table.stdout.strip() in shown
    page = elsewhere("-m", "mtl.cli", "report", str(work))
    assert page.returncode == 0, page.stderr
    script = f"import mtl; print(len(mtl.results({str(work)!r})), len(mtl.results({str(work)!r}, 'predictions')))"
    frames = elsewhere("-c", script)
    assert frames.stdout.split() == ["6", str(6 * 80)], frames.stderr


def test_a_metric_of_a_kind_that_does_not_exist_is_refused_before_anything_is_trained(tmp_path, capsys):
    file = tmp_path / "kind.py"
    text = FIXTURE.read_text().replace('["squared_error"]', '["squared_eror"]')
    for name in ("count", "poisson", "visits"):
        text = text.replace(f'"{name}"', f'"{name}_with_a_typo"')
    file.write_text(text)
    assert main(["run", f"--config={file}", f"--workdir={tmp_path / 'work'}", "--quiet"]) == 2
    shown = capsys.readouterr().err
    assert 'kind "count_with_a_typo": metric "squared_eror" does not exist: did you mean "squared_error"?' in shown
    assert not (tmp_path / "work").exists()


def test_a_loss_of_another_shape_is_refused_before_anything_is_trained(tmp_path, capsys):
    file = tmp_path / "kind.py"
    text = FIXTURE.read_text().replace("labels * outputs[:, 0]", "labels[:, None] * outputs")
    # Names of its own: in one process a name is always the same thing.
    for name in ("count", "poisson", "visits"):
        text = text.replace(f'"{name}"', f'"other_{name}"')
    file.write_text(text)
    assert main(["run", f"--config={file}", f"--workdir={tmp_path / 'work'}", "--quiet"]) == 2
    assert 'loss "other_poisson": gives (2, 2): must be (2,), a number a label' in capsys.readouterr().err


def test_a_link_must_give_a_number_a_class():
    register("grade", "ids", outputs=2, metrics=["accuracy"])
    losses.register("bare", "grade")(lambda outputs, labels: outputs[:, 0] - labels)
    losses.register("narrow", "grade", link=lambda outputs: outputs[:, 0])(
        lambda outputs, labels: outputs[:, 0] - labels
    )
    message = r'task "m": loss "bare" and its link give metrics \(2, 2\): must be \(2, 3\)'
    with pytest.raises(ValueError, match=message):
        models.build("mlp", {}, (Task("m", "grade", num_classes=3),))
    models.build("mlp", {}, (Task("m", "grade", num_classes=2),))
    with pytest.raises(ValueError, match='loss "narrow"'):
        models.build("mlp", {}, (Task("m", "grade", num_classes=3, loss="narrow"),))


def test_a_kind_of_positions_with_a_loss_of_its_own():
    """Counts at each pixel: the loss is given positions as labels, and nothing is scaled."""
    register("counts", "numbers", metrics=["pixel_squared_error"], least=0, dense=True)
    losses.register("poisson_of_pixels", "counts", link=jnp.exp)(
        lambda outputs, labels: jnp.exp(outputs[:, 0]) - labels * outputs[:, 0]
    )
    task = Task("n", "counts", shape=(2, 2))
    table = data.make_table("toy", np.eye(3), [task], {"n": np.arange(12.0).reshape(3, 2, 2)})
    assert table.positions["n"].all()
    with pytest.raises(ValueError, match=r"label -1\.0 in row 0, position \(0, 0\): must be at least 0"):
        data.make_table("toy", np.eye(3), [task], {"n": np.arange(12.0).reshape(3, 2, 2) - 1})
    found = losses.values(
        task, jnp.zeros((3, 2, 2, 1)), jnp.asarray(table.labels["n"], jnp.float32), jnp.ones((3, 2, 2), bool)
    )
    np.testing.assert_allclose(found, 1.0)
    assert losses.linked(task, jnp.zeros((3, 2, 2, 1))).tolist() == np.ones((3, 2, 2, 1)).tolist()
    assert [loss is losses.LOSSES["poisson_of_pixels"] for loss in losses.registered([task])] == [True]
