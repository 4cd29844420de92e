"""A saved model carries its preprocessing whole: on the raw rows it repeats the losses that its result records."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score

import mtl
import mtl.data
from mtl import regimes
from mtl.config import default, flatten, override, resolve
from mtl.inputs import each
from mtl.regimes import Regime
from mtl.sweep.execute import execute
from mtl.sweep.plan import load_table, make_plan, split_of
from mtl.sweep.store import Workdir
from mtl.tasks import Task
from mtl.train.placement import MAP

N = 400


@mtl.data.register("kelvin_and_euros")
def kelvin_and_euros(shift: float = 2e5, spread: float = 5e4):
    """Inputs far from zero, some missing, an indicator; a class, a binary task and a price."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=(N, 4))
    x = np.column_stack([300 + z[:, 0], 1e9 + 1e3 * z[:, 1], z[:, 2] > 0, 1e-6 * z[:, 3]])
    x[rng.random(N) < 0.15, 0] = np.nan
    tasks = [Task("kind", "multiclass", num_classes=3), Task("ill", "binary"), Task("price", "regression")]
    price = shift + spread * (z[:, 0] + z[:, 2] + 0.3 * rng.normal(size=N))
    labels = {"kind": np.digitize(z[:, 1], (-0.5, 0.5)), "ill": (z[:, 0] + z[:, 1] > 0) * 1.0, "price": price}
    labels["kind"][:60] = -1
    classes = {"kind": ("low", "mid", "high")}
    columns = ("t", "pressure", "flag", "dose")
    return mtl.data.make_table("kelvin", x, tasks, labels, "", None, classes, columns, missing_inputs="flag")


BASE = override(
    flatten(default()),
    {
        "name": "reloaded",
        "data.name": "kelvin_and_euros",
        "data.source": ("kind", "price"),
        "data.target": "ill",
        "data.target_size": 60,
        "data.target_pool": 100,
        "data.test_size": 80,
        "data.source_size": 150,
        "data.source_val_size": 50,
        "model.options": {"hidden": (8, 8)},
        "lr": 0.01,
        "source_lr": 0.01,
        "source.total_steps": 60,
        "target.total_steps": 60,
        "evaluations": 2,
        "batch_size": 16,
    },
)


def trained(path, trials):
    workdir = Workdir(path)
    workdir.open("reloaded")
    execute(make_plan(trials), workdir, placement=MAP)
    return [(mtl.load(workdir.trial(t.hash)), workdir.result(t.hash)) for t in trials]


def of_rows(table, rows):
    return each(lambda leaf: leaf[rows], table.x)


def losses(model, table, rows, task):
    """Return the mean plain loss of a task over rows whose label is there, by scikit-learn, in float64."""
    y, found = table.labels[task][rows], model.predict(of_rows(table, rows), task).astype(np.float64)
    kind = model.model.task(task).kind
    if kind == "regression":
        return mean_squared_error(y, found)
    if kind == "binary":
        return log_loss(y, found, labels=[0, 1])
    return log_loss(y, found / found.sum(axis=1, keepdims=True), labels=range(3))


def check(model, result, trial):
    table, split = load_table(trial.config["data"]["name"], trial.config["data"]["options"]), split_of(trial)
    phase = result["phases"][-1]
    for task, curve in phase["val_loss"].items():
        rows, kept = np.flatnonzero(split.val[task]), curve[phase["evaluated_at"].index(phase["best_at"])]
        np.testing.assert_allclose(losses(model, table, rows, task), kept, rtol=1e-6, atol=1e-6)
    if "test" in result:
        rows, test = np.flatnonzero(split.test[trial.target]), result["test"][trial.target]
        if model.model.task(trial.target).kind == "regression":
            y, found = table.labels[trial.target][rows], model.predict(of_rows(table, rows))
            assert test["r2"] == pytest.approx(r2_score(y, found), abs=1e-6)
            assert test["squared_error"] == pytest.approx(mean_squared_error(y, found), rel=2e-6)
        else:
            assert test["log_loss"] == pytest.approx(losses(model, table, rows, trial.target), rel=1e-6)


def truncated():
    """Each regime cut after each of its phases, by name: what a phase hands on is what a model's file would hold."""
    found = {}
    for name, regime in list(regimes.REGIMES.items()):
        if name not in NAMES:
            continue
        phases = regime.expand(2)
        for end in range(1, len(phases)):
            found[f"{name}_{end}"] = Regime(phases[:end], "cut short", scale_with=regime.scale_with)
    return found


NAMES = (
    *("scratch", "random_probe", "linear_probe", "ridge_probe", "finetune", "lp_ft", "gradual", "multitask"),
    *("multitask_finetune", "multitask_examples", "scratch_own_scale", "source"),
)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["auto", "none"])
def test_every_regime_and_phase_repeats_its_losses(way, tmp_path):
    own = {name: regimes.plain(regime) for name, regime in truncated().items()}
    base = override(BASE, {"regimes": own, "data.normalize": way})
    if way == "none":  # A column that float32 cannot hold apart is refused.
        base = override(base, {"data.name": "kelvin_in_range"})
    table = load_table(base["data.name"], {})
    trials = [resolve(override(base, {"regime": name}), table) for name in (*NAMES, *own)]
    for (model, result), trial in zip(trained(tmp_path, trials), trials, strict=True):
        assert result["status"] == "done", trial.config["regime"]
        check(model, result, trial)


@mtl.data.register("kelvin_in_range")
def kelvin_in_range():
    of = kelvin_and_euros()
    x = np.where(np.arange(of.x.shape[1]) == 1, (of.x - 1e9) / 1e3, of.x)[:, :4]
    labels = {t: np.where(m, of.labels[t], -1 if t == "kind" else np.nan) for t, m in of.mask.items()}
    return mtl.data.make_table("in range", x, of.tasks, labels, missing_inputs="flag")


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["scratch", "multitask", "ridge_probe"])
def test_r2_does_not_change_with_the_unit_of_the_labels(regime, tmp_path):
    """y → a · y + b, for units that float32 could not hold."""
    units = [(0.0, 1.0), (2e5, 5e4), (0.0, 1e-4), (-1e9, 1.0)]
    trials = []
    for shift, spread in units:
        changes = {"data.options": {"shift": shift, "spread": spread}, "data.source": ("kind", "ill")}
        base = override(BASE, changes | {"data.target": "price", "regime": regime})
        trials.append(resolve(base, load_table("kelvin_and_euros", {"shift": shift, "spread": spread})))
    found = trained(tmp_path, trials)
    r2 = [result["test"]["price"]["r2"] for _, result in found]
    np.testing.assert_allclose(r2, r2[0], atol=2e-3)
    assert r2[0] > 0.1
    for (model, result), trial, (_, spread) in zip(found, trials, units, strict=True):
        check(model, result, trial)
        ratio = result["test"]["price"]["squared_error"] / found[0][1]["test"]["price"]["squared_error"]
        assert ratio == pytest.approx(spread**2, rel=0.02)


@pytest.mark.slow
def test_a_binary_task_does_not_suffer_beside_a_price(tmp_path):
    trials = []
    for shift, spread in ((0.0, 1.0), (2e5, 5e4)):
        options = {"shift": shift, "spread": spread}
        base = override(BASE, {"data.options": options, "data.source": ("price",), "regime": "multitask"})
        trials.append(resolve(base, load_table("kelvin_and_euros", options)))
    one, two = (result["test"]["ill"] for _, result in trained(tmp_path, trials))
    assert one["log_loss"] == pytest.approx(two["log_loss"], abs=2e-3)
    assert one["accuracy"] == pytest.approx(two["accuracy"], abs=0.02)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    table = load_table("kelvin_and_euros", {})
    trial = resolve(override(BASE, {"regime": "scratch", "target.total_steps": 5}), table)
    return trained(tmp_path_factory.mktemp("model"), [trial])[0][0]


def test_a_model_knows_its_columns_and_classes(model):
    assert model.classes == {"kind": ("low", "mid", "high")}
    assert model.inputs["columns"] == ["t", "pressure", "flag", "dose", "t is missing"]
    assert accuracy_score([0, 1], model.predict(kelvin_and_euros().x[:2]) > 2) >= 0  # Rows with gaps are predicted.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x[0], r"x: shape \(5,\): must be \(n, 5\), as in training: one input is x\[None\]"),
        (lambda x: x[:, :4], r"x: shape \(3, 4\): must be \(n, 5\)"),
        (lambda x: x.astype(str), r"x: dtype <U\d+: must be numbers"),
        (lambda x: np.where(np.arange(5) == 1, np.nan, x), r'x: nan in row 0, input "pressure": must be finite'),
        (lambda x: np.where(np.arange(5) == 0, np.inf, x), r'x: inf in row 0, input "t": must be finite'),
    ],
)
def test_inputs_unlike_those_of_the_training_are_refused(model, change, said):
    with pytest.raises(ValueError, match=said):
        model.predict(change(kelvin_and_euros().x[:3]))


def test_no_row_is_no_prediction(model):
    assert model.predict(kelvin_and_euros().x[:0]).shape == (0,)


def test_pixels_are_refused_out_of_range(tmp_path):
    changes = {"data.name": "digits", "data.source": ("identity",), "data.target": "even", "regime": "scratch"}
    changes |= {"source.total_steps": 1, "target.total_steps": 59}  # Surer predictions leave fewer digits.
    trial = resolve(override(BASE, changes), load_table("digits", {}))
    ((model, result),) = trained(tmp_path, [trial])
    check(model, result, trial)
    x = load_table("digits", {}).x[:3]
    with pytest.raises(ValueError, match=r"x: uint8 from 0 to 16: must be pixels in \[0, 1\]"):
        model.predict((x * 16).astype(np.uint8))
    with pytest.raises(ValueError, match=r"x: shape \(3, 8, 8\): must be \(n, 64\)"):
        model.predict(x.reshape(3, 8, 8))


def test_ids_of_tokens_are_not_scaled_nor_rounded(tmp_path):
    """An embedding takes whole numbers; what would change them is refused."""
    import flax.linen as nn

    class Embedding(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.Embed(600, 8, name="embed")(x.astype(np.int32)).mean(axis=1)

    mtl.models.register("ids")(Embedding)

    @mtl.data.register("ids")
    def ids():
        x = np.random.default_rng(0).integers(0, 600, (N, 6))
        tasks = [Task("a", "binary"), Task("b", "binary")]
        return mtl.data.make_table("ids", x, tasks, {"a": x[:, 0] % 2, "b": x[:, 0] > 300})

    base = override(BASE, {"data.name": "ids", "data.source": ("a",), "data.target": "b", "regime": "scratch"})
    base = override(base, {"model.name": "ids", "model.options": {}})
    for changes, said in (
        ({}, r'config\.data\.normalize = "auto": model "ids" takes its inputs as whole numbers.*must be "none"'),
        (
            {"data.normalize": "none", "model.dtype": "bfloat16"},
            r'config\.model\.dtype = "bfloat16".*must be "float32"',
        ),
    ):
        with pytest.raises(ValueError, match=said):
            make_plan([resolve(override(base, changes), load_table("ids", {}))])
    trial = resolve(override(base, {"data.normalize": "none"}), load_table("ids", {}))
    ((model, result),) = trained(tmp_path, [trial])
    check(model, result, trial)


def source_and(path, then, **changes):
    """Train a source model, and a trial that begins from it; return (its model, result, the trial, the source)."""
    table = load_table("kelvin_and_euros", {})
    first = resolve(override(BASE, {"regime": "source", **changes}), table)
    ((source, _),) = trained(path / "source", [first])
    weights = Workdir(path / "source").trial(first.hash) / "model.safetensors"
    trial = resolve(override(BASE, {"init.path": str(weights), **then}), load_table(then["data.name"], {}))
    ((model, result),) = trained(path / "then", [trial])
    return model, result, trial, source


OWN = {"probe_it": ({"trainable": "head", "fresh": ("head",), "begin": "init"},)}


@mtl.data.register("warmer")
def warmer():
    """The same columns, of another population: one that would be scaled otherwise."""
    of = kelvin_and_euros()
    labels = {t: np.where(m, of.labels[t], -1 if t == "kind" else np.nan) for t, m in of.mask.items()}
    x = of.x[:, :4] * np.array([1.0, 1.0, 1.0, 1.0]) + np.array([5.0, 2e3, 0.0, 1e-5])
    return mtl.data.make_table(
        "warmer", x, of.tasks, labels, "", None, of.classes, of.columns[:4], missing_inputs="flag"
    )


@pytest.mark.slow
def test_weights_bring_their_scaling_for_all_phases_after(tmp_path):
    then = {"data.name": "warmer", "regimes": OWN, "regime": "probe_it"}
    model, result, trial, source = source_and(tmp_path, then)
    np.testing.assert_array_equal(model.shift, source.shift)
    np.testing.assert_array_equal(model.scale, source.scale)
    check(model, result, trial)
    # The frozen trunk and its head of the source say what they said.
    x = kelvin_and_euros().x[:20]
    np.testing.assert_allclose(model.predict(x, "kind"), source.predict(x, "kind"), atol=1e-6)


def test_a_regression_head_that_is_loaded_speaks_the_same(tmp_path):
    """Its labels' unit is that of the new training rows, and its predictions stay what they were."""
    then = {"data.name": "warmer", "regimes": OWN, "regime": "probe_it", "seed": 3}
    model, _, _, source = source_and(tmp_path, then)
    x = kelvin_and_euros().x[:20]
    assert model.scaling.units["price"] != source.scaling.units["price"]
    np.testing.assert_allclose(model.predict(x, "price"), source.predict(x, "price"), rtol=1e-5)


def test_weights_from_unscaled_inputs_stay_on_unscaled_inputs(tmp_path):
    changes = {"data.name": "kelvin_in_range", "data.normalize": "none"}
    then = {"data.name": "kelvin_in_range", "regimes": OWN, "regime": "probe_it"}
    first = resolve(override(BASE, {"regime": "source", **changes}), load_table("kelvin_in_range", {}))
    trained(tmp_path / "source", [first])
    weights = Workdir(tmp_path / "source").trial(first.hash) / "model.safetensors"
    trial = resolve(override(BASE, {"init.path": str(weights), **then}), load_table("kelvin_in_range", {}))
    ((model, result),) = trained(tmp_path / "then", [trial])
    np.testing.assert_array_equal(model.shift, np.zeros(5))
    np.testing.assert_array_equal(model.scale, np.ones(5))
    check(model, result, trial)


@mtl.data.register("renamed")
def renamed():
    of = kelvin_and_euros()
    labels = {t: np.where(m, of.labels[t], -1 if t == "kind" else np.nan) for t, m in of.mask.items()}
    columns = ("pressure", "t", "flag", "dose")
    return mtl.data.make_table(
        "renamed", of.x[:, :4], of.tasks, labels, "", None, of.classes, columns, missing_inputs="flag"
    )


def test_weights_of_other_columns_are_refused(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"weights were trained on other columns \(t, pressure, .*\) than those of renamed \(pressure, t,",
    ):
        source_and(tmp_path, {"data.name": "renamed", "regimes": OWN, "regime": "probe_it"})


@mtl.data.register("pets")
def pets(names: tuple[str, ...] = ("cat", "dog")):
    x = np.random.default_rng(0).normal(size=(N, 3))
    a, b = (x[:, 0] > 0) * 1.0, (x[:, 1] > 0) * 1.0
    y = b if names[0] == "cat" else 1 - b
    tasks = [Task("a", "binary"), Task("pet", "binary")]
    return mtl.data.make_table("pets", x, tasks, {"a": a, "pet": y}, classes={"pet": names})


def test_a_head_of_other_classes_is_refused(tmp_path):
    """The same file's rows, of which the classes come in another order."""
    pet = {"data.name": "pets", "data.source": ("a",), "data.target": "pet", "regime": "scratch"}
    first = resolve(override(BASE, pet), pets())
    trained(tmp_path / "first", [first])
    weights = str(Workdir(tmp_path / "first").trial(first.hash) / "model.safetensors")
    go_on = {"regimes": {"go_on": ({"begin": "init"},)}, "regime": "go_on", "init.path": weights}
    swapped = {"data.options": {"names": ("dog", "cat")}}
    make_plan([resolve(override(BASE, pet | go_on), pets())])
    with pytest.raises(ValueError, match=r'its head "pet" is of the classes cat, dog and pets has dog, cat: must be'):
        make_plan([resolve(override(BASE, pet | go_on | swapped), pets())])
    fresh = {"init.fresh": ("heads/pet/.*",)}
    make_plan([resolve(override(BASE, pet | go_on | swapped | fresh), pets())])


@pytest.mark.slow
def test_weights_from_pictures_are_taken_up_where_they_are_read_alike(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setenv("MTL_DATA_DIR", str(tmp_path))
    rng = np.random.default_rng(0)
    rows = ["file,a,b"]
    for i in range(120):
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{i % 2},{i // 2 % 2}")
    (tmp_path / "l.csv").write_text("\n".join(rows))
    options = {"path": "l.csv", "labels": ("a:binary", "b:binary"), "size": (4, 4)}
    changes = {"data.name": "images", "data.options": options, "data.source": ("a",), "data.target": "b"}
    sizes = {"target_size": 20, "target_pool": 30, "test_size": 20, "source_size": 40, "source_val_size": 10}
    cnn = {"model.name": "cnn", "model.options": {"channels": (2,), "features": 4}, "target.total_steps": 2}
    base = override(BASE, changes | {f"data.{k}": v for k, v in sizes.items()} | cnn)
    first = resolve(override(base, {"regime": "scratch"}), load_table("images", options))
    trained(tmp_path / "first", [first])
    begin = {
        "init.path": str(Workdir(tmp_path / "first").trial(first.hash) / "model.safetensors"),
        "regime": "finetune",
    }
    make_plan([resolve(override(base, begin), load_table("images", options))])
    grey = options | {"ground": "black"}
    with pytest.raises(ValueError, match=r"weights were trained on other reading .*white.* than those of l .*black"):
        make_plan([resolve(override(base, begin | {"data.options": grey}), load_table("images", grey))])


def test_columns_of_a_frame_are_taken_by_name(model):
    import pandas as pd

    x = kelvin_and_euros().x[:5]
    frame = pd.DataFrame(x, columns=model.inputs["columns"])
    np.testing.assert_array_equal(model.predict(frame[frame.columns[::-1]]), model.predict(x))
    with pytest.raises(ValueError, match='x: has no column "dose": must have t, pressure'):
        model.predict(frame.drop(columns="dose"))


@mtl.data.register("euros")
def euros(name: str = "t", kind: str = "regression", size: float = 1.0, most: float = 1.0):
    rng = np.random.default_rng(0)
    x = np.clip(rng.uniform(size=(N, 2, 2, 1)), 0, 1) * most
    y = 1e5 * (x[:, 0, 0, 0] / most + 0.1 * rng.normal(size=N)) + 3e5
    labels = y if kind == "regression" else (y > 3.5e5) * 1.0
    tasks = [Task("a", "binary"), Task(name, kind)]
    return mtl.data.make_table("euros", x, tasks, {"a": (x[:, 1, 1, 0] > most / 2) * 1.0, name: labels})


EUROS = {
    "data.name": "euros",
    "data.source": ("a",),
    "model.options": {"hidden": (8,)},
    "regimes": {"keep": ({"begin": "init", "tasks": "source", "total_steps": 1, "lr": 1e-9}, {"total_steps": 1})},
}


def begun(tmp_path, **then):
    """Train a head of a price, and resolve a trial that begins from it."""
    options = {"data.options": {}, "data.target": "t", "regime": "scratch"}
    first = resolve(override(BASE, EUROS | options), load_table("euros", {}))
    trained(tmp_path / "first", [first])
    path = str(Workdir(tmp_path / "first").trial(first.hash) / "model.safetensors")
    changes = EUROS | {"data.target": "t", "regime": "keep", "init.path": path} | then
    return resolve(override(BASE, changes), load_table("euros", changes.get("data.options", {}))), path


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ({"data.options": {"kind": "binary"}}, r'its head "t" is of a regression task, and "t" of euros is binary'),
        ({"data.options": {"most": 255.0}}, r"weights were trained on other ranges \(pixels in \[0, 1\]\) than"),
    ],
)
def test_what_a_loaded_head_and_its_inputs_mean_must_fit(tmp_path, then, said):
    trial, _ = begun(tmp_path, **then)
    with pytest.raises(ValueError, match=said):
        make_plan([trial])


def test_a_source_phase_with_a_loaded_head_of_a_price_is_not_shared_between_sizes(tmp_path):
    """The head is turned to the unit of each trial's own labels before its first phase."""
    few, path = begun(tmp_path, **{"data.target_size": 20})
    more = resolve(
        override(BASE, EUROS | {"data.target": "t", "regime": "keep", "init.path": path, "data.target_size": 60}),
        load_table("euros", {}),
    )
    plan = make_plan([few, more])
    assert plan.chains[few.hash][0] != plan.chains[more.hash][0]


@pytest.mark.slow
def test_a_renamed_head_of_a_price_speaks_the_same(tmp_path):
    rename = ((r"heads/t/(.*)", r"heads/u/\1"),)
    then = {"data.options": {"name": "u"}, "data.target": "u", "init.rename": rename, "seed": 5}
    trial, path = begun(tmp_path, **then)
    ((model, _),) = trained(tmp_path / "then", [trial])
    source = mtl.load(str(Workdir(tmp_path / "first").path / "trials" / path.split("/")[-2]))
    x = euros().x[:20]
    # Its own step moves it a little; the unit of another draw of labels would move it by much more.
    gap = np.abs(model.predict(x, "u") - source.predict(x, "t"))
    assert gap.max() < 0.1 * np.ptp(source.predict(x, "t"))
    assert model.scaling.units["u"] != source.scaling.units["t"]
