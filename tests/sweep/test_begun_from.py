"""A trial's hash knows only the path of what it begins from; its fingerprint holds the sha256, which must hold."""

import numpy as np
import pytest
import safetensors.numpy

from mtl.checkpoint import sha256_of
from mtl.config import ConfigError, default, flatten, override, resolve
from mtl.sweep import product, sweep
from mtl.sweep.execute import execute
from mtl.sweep.launch import Silent, launch
from mtl.sweep.plan import load_table, make_plan
from mtl.sweep.store import Workdir
from mtl.sweep.study import missing
from mtl.sweep.weights import check_weights

SHAPES = {
    "backbone/dense_0/bias": (4,), "backbone/dense_0/kernel": (64, 4),
    "heads/even/bias": (1,), "heads/even/kernel": (4, 1),
    "heads/identity/bias": (10,), "heads/identity/kernel": (4, 10),
}  # fmt: skip
BASE = override(
    flatten(default()),
    {
        "name": "begun",
        "regime": "finetune",
        "model.options": {"hidden": (4,)},
        "source.total_steps": 2,
        "target.total_steps": 2,
        "evaluations": 1,
        "data.target_size": 20,
    },
)


@pytest.fixture
def file(tmp_path):
    write(tmp_path / "a.safetensors", 0.0)
    return tmp_path / "a.safetensors"


def write(file, value, names=tuple(SHAPES)):
    safetensors.numpy.save_file({k: np.full(SHAPES[k], value, np.float32) for k in names}, file)


def trial(path, **changes):
    return resolve(override(BASE, {"init.path": str(path), **changes}), load_table("digits", {}))


def test_results_hold_the_sha256_of_the_weights(file, tmp_path):
    workdir = Workdir(tmp_path / "work")
    begun, none = trial(file), trial("")
    execute(make_plan([begun, none]), workdir)
    assert workdir.result(begun.hash)["fingerprint"]["init"] == {"sha256": sha256_of(file), "of": str(file)}
    assert "init" not in workdir.result(none.hash)["fingerprint"]
    assert missing([begun, none], workdir) == []


def test_other_weights_at_the_same_path_are_noticed_and_the_same_ones_are_not(file, tmp_path):
    (t,), workdir = (trial(file),), Workdir(tmp_path / "work")
    execute(make_plan([t]), workdir)
    write(file, 1.0)
    again = Workdir(workdir.path)
    assert missing([t], again) == [t]
    assert again.news("so") == [f"1 trial is stale: the weights changed ({file}); so"]
    write(file, 0.0)
    assert missing([t], Workdir(workdir.path)) == []


def test_within_a_process_a_file_is_read_again_if_it_was_written_again(file, tmp_path):
    t = trial(file)
    first = make_plan([t]).chains[t.hash]
    write(file, 1.0)
    second = make_plan([t]).chains[t.hash]
    assert first != second
    write(file, 1.0, names=list(SHAPES)[1:])
    with pytest.raises(ConfigError, match="missing backbone/dense_0/bias"):
        make_plan([t])
    write(file, 0.0)
    assert make_plan([t]).chains[t.hash] == first


def test_of_a_trials_directory_only_the_model_counts(tmp_path):
    workdir = Workdir(tmp_path / "work")
    source = trial("", regime="source")
    execute(make_plan([source]), workdir)
    t = trial(workdir.trial(source.hash))
    execute(make_plan([t]), workdir)
    (workdir.trial(source.hash) / "notes.txt").write_text("seen")
    assert missing([t], Workdir(workdir.path)) == []
    model = workdir.trial(source.hash) / "model.safetensors"
    assert workdir.result(t.hash)["fingerprint"]["init"]["sha256"] == sha256_of(model)


def test_weights_that_change_under_a_run_stop_it(file):
    t = trial(file)
    planned = make_plan([t]).fingerprints[t.hash]
    check_weights(t, planned)
    write(file, 1.0)
    with pytest.raises(ConfigError, match="were changed while trials began from them"):
        check_weights(t, planned)


@pytest.mark.slow
def test_a_sweep_from_other_weights_is_run_again(file, tmp_path):
    base = override(BASE, {"init.path": str(file)})
    entries = product(sweep("seed", range(2)), sweep("regime", ("finetune", "multitask")))
    workdir = Workdir(tmp_path / "work")

    def run():
        return launch(base, {"some": entries}, Workdir(workdir.path), jobs=0, config_file=None, display=Silent())[0]

    summary = run()
    assert (summary.ran, run().reused) == (4, 4)
    before = {m.trial.hash: workdir.result(m.trial.hash)["val_score"] for m in summary.sweep.members}
    write(file, 1.0)
    assert (run().ran, run().reused) == (4, 4)
    after = Workdir(workdir.path)
    for digest, loss in before.items():
        assert after.result(digest)["fingerprint"]["init"]["sha256"] == sha256_of(file)
        assert after.result(digest)["val_score"] != loss


def test_a_replacement_that_refers_to_no_group_is_refused(file):
    with pytest.raises(ConfigError, match=r"^config\.init\.rename: invalid group reference"):
        make_plan([trial(file, **{"init.rename": ((r"heads/(.*)", r"heads/\2"),)})])
