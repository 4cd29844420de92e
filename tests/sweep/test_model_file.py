"""A model's file that is not what it should be is one sentence, to load as to begin from."""

import numpy as np
import pytest

import mtl
from mtl.checkpoint import CheckpointError, load_about, load_tree, save_tree
from mtl.config import ConfigError, default, flatten, override, resolve
from mtl.report.begun import begun_notes
from mtl.sweep.execute import execute
from mtl.sweep.model_file import read_model
from mtl.sweep.plan import load_table, make_plan
from mtl.sweep.store import Workdir
from mtl.train.placement import MAP

BASE = override(
    flatten(default()),
    {
        "name": "m",
        "source.total_steps": 2,
        "target.total_steps": 2,
        "evaluations": 1,
        "model.options": {"hidden": (4,)},
    },
)


def trial(**changes):
    return resolve(override(BASE, changes), load_table("digits", {}))


def trained(folder, t):
    workdir = Workdir(folder)
    workdir.open("m")
    execute(make_plan([t]), workdir, placement=MAP)
    return workdir


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    t = trial(regime="finetune", **{"data.normalize": "standardize"})
    return trained(tmp_path_factory.mktemp("good"), t).trial(t.hash) / "model.safetensors"


def other(tree, about, **changes):
    return {**tree, **changes}, about


#: name: (what is done to the tree and the facts, what is said)
WRONG = {
    "no facts on its inputs": (
        lambda t, a: (t, a | {"inputs": {}}),
        "holds no model of a trial: it has no inputs.shape",
    ),
    "facts of another type": (
        lambda t, a: (t, a | {"inputs": a["inputs"] | {"shape": "64"}}),
        "holds no model of a trial: it holds str at inputs.shape: must be list",
    ),
    "no config": (lambda t, a: (t, {k: v for k, v in a.items() if k != "config"}), "it has no config"),
    "a shared phase": (lambda t, a: (t, {"format": a["format"], "about": {}}), "holds no model of a trial"),
    "no parameters": (lambda t, a: ({"state": {"x": np.zeros(1)}}, a), "holds no model of a trial: it has no params"),
    "an older format": (lambda t, a: (t, a | {"format": 3}), "is of format 3, and this version of mtl reads 6"),
    "a scaling of other inputs": (
        lambda t, a: other(t, a, scaling={"shift": np.zeros(63), "scale": np.ones(63)}),
        r"holds no scaling of inputs of shape \(64,\)",
    ),
    "a scaling that is not finite": (
        lambda t, a: other(t, a, scaling={"shift": np.zeros(64), "scale": np.full(64, np.nan)}),
        "holds no scaling of inputs",
    ),
    "a shift without a scale": (
        lambda t, a: other(t, a, scaling={"shift": np.zeros(64)}),
        "holds no scaling of inputs",
    ),
    "units that are none": (
        lambda t, a: other(t, a, scaling={"units": {"even": np.zeros(3)}}),
        "holds no scaling of inputs",
    ),
}


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG)
def test_what_is_no_model_of_ours_is_one_sentence(tmp_path, good, change, said):
    file = tmp_path / "trials" / ("0" * 16) / "model.safetensors"
    file.parent.mkdir(parents=True)
    save_tree(file, *change(load_tree(good)[0], load_about(good)))
    with pytest.raises(CheckpointError, match=said) as error:
        mtl.load(file.parent)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=rf"^config\.init\.path = .*{said}"):
        make_plan([trial(regime="finetune", **{"init.path": str(file)})])


def test_what_is_written_is_read(good):
    found = read_model(good)
    tree = load_tree(good)[0]
    np.testing.assert_array_equal(found.scaling.shift, tree["scaling"]["shift"])
    assert found.inputs["shape"] == [64]
    assert found.config["regime"] == "finetune"


def test_a_file_of_others_is_taken_and_the_table_says_that_its_scaling_is_not_known(tmp_path, good):
    foreign = tmp_path / "foreign.safetensors"
    save_tree(foreign, load_tree(good)[0]["params"], {})
    assert read_model(foreign) is None
    for name, path, known in (("ours", good, True), ("theirs", foreign, False)):
        t = trial(regime="finetune", **{"init.path": str(path)})
        result = trained(tmp_path / name, t).result(t.hash)
        assert result["inputs"]["brought"] is known
        assert (
            any("does not say what its weights' inputs were scaled with" in n for n in begun_notes([result]))
            is not known
        )
