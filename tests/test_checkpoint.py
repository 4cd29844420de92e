"""Weights on disk: what is written is read back bit for bit, a trial begins from it, and damage is one sentence."""

import json
import os
import struct

import flax.linen as nn
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtl import models, regimes
from mtl import params as paths
from mtl.checkpoint import CheckpointError, load_params, load_tree, save_tree, sha256_of
from mtl.cli import main
from mtl.config import ConfigError, default, flatten, override, resolve
from mtl.host.files import write_atomically
from mtl.regimes import Phase, Regime
from mtl.sweep.execute import execute
from mtl.sweep.plan import load_table, make_plan
from mtl.sweep.store import Workdir
from tests.sweep.test_failures import trials

SHAPES = {
    "backbone/dense_0/bias": (4,),
    "backbone/dense_0/kernel": (64, 4),
    "backbone/dense_1/bias": (3,),
    "backbone/dense_1/kernel": (4, 3),
    "heads/even/bias": (1,),
    "heads/even/kernel": (3, 1),
    "heads/identity/bias": (10,),
    "heads/identity/kernel": (3, 10),
}


def weights(seed=0):
    """Return every parameter of the small model by path, drawn anew; with a zero, a −0 and a subnormal number."""
    rng = np.random.default_rng(seed)
    flat = {path: rng.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}
    flat["backbone/dense_0/kernel"][:3, 0] = 0.0, -0.0, 1e-40
    return flat


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def save_orbax(path, tree):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
        checkpointer.wait_until_finished()


# --- files ---


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, np.uint8, np.bool_])
def test_a_tree_is_read_back_bit_for_bit_by_us_and_by_safetensors(tmp_path, dtype):
    rng = np.random.default_rng(0)
    flat = {"a/b/c": rng.normal(size=(3, 4)), "a/d": rng.normal(size=5), "e": rng.normal(size=(2, 0))}
    flat = {k: v.astype(dtype) for k, v in flat.items()}
    flat["a/s"] = np.asarray(1, dtype)  # A scalar stays one.
    flat["a/t"] = np.asfortranarray(flat["a/b/c"]).T[::2]  # Neither C-contiguous nor whole.
    save_tree(tmp_path / "t.safetensors", paths.unflatten(flat), {"n": 1, "of": ["a", None]})
    tree, about = load_tree(tmp_path / "t.safetensors")
    theirs = safetensors.numpy.load_file(tmp_path / "t.safetensors")
    assert about == {"n": 1, "of": ["a", None]}
    assert paths.flatten(tree).keys() == theirs.keys() == flat.keys()
    for path, value in flat.items():
        assert same_bits(paths.flatten(tree)[path], value)
        assert same_bits(theirs[path], value)


def test_a_file_that_is_written_again_is_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "file"
    for content in (b"one", b"", b"three" * 1000):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert os.listdir(path.parent) == ["file"]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    file = tmp_path_factory.mktemp("good") / "model.safetensors"
    save_tree(file, paths.unflatten(weights()), {})
    return file.read_bytes()


def unreadable(path):
    with pytest.raises(CheckpointError) as error:
        load_params(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_cut_anywhere_is_refused(good, tmp_path):
    file = tmp_path / "cut.safetensors"
    for length in [*range(0, 700, 23), *range(700, len(good), 211), len(good) - 1]:
        file.write_bytes(good[:length])
        assert "is not a readable safetensors file" in unreadable(file)
    file.write_bytes(good + b"\0")
    unreadable(file)


@settings(deadline=None, max_examples=50)
@given(content=st.binary(max_size=200))
@example(content=b"{}")  # A file of no arrays at all.
@example(content=b'{"__metadata__":{}}')
def test_garbage_is_refused(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "garbage.safetensors"
    # A header of the right length, so that more than the length is read.
    for whole in (content, struct.pack("<Q", len(content)) + content, b"PK\x03\x04" + content, b"\x80\x04" + content):
        file.write_bytes(whole)
        unreadable(file)


def raw(header, body):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"\0" * 4),
        ({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8),
        ({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8),
        ({"w": {"dtype": "X32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
        (
            {
                "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "w/x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
            },
            b"\0" * 8,
        ),
        ({"w": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}, b"\0"),
        *(
            ({"__metadata__": {"mtl": facts}, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4)
            for facts in ("[]", "1", "null", '"a"')
        ),
        (
            {"__metadata__": {"mtl": "{"}, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
            b"\0" * 4,
        ),
    ],
    ids=["short", "long", "gap", "dtype", "path through a leaf", "float8", "list", "number", "null", "text", "facts"],
)
def test_a_header_that_lies_is_refused(tmp_path, header, body):
    file = tmp_path / "lies.safetensors"
    file.write_bytes(raw(header, body))
    unreadable(file)


def test_a_type_that_numpy_does_not_have_is_named(tmp_path):
    (tmp_path / "f8.safetensors").write_bytes(
        raw({"w": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}, b"\0")
    )
    assert "w is of type F8_E4M3, which NumPy does not have" in unreadable(tmp_path / "f8.safetensors")


def test_of_a_checkpoint_managers_directory_the_checkpoint_is_named(tmp_path):
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        for step in (9, 10):
            manager.save(step, args=ocp.args.StandardSave(paths.unflatten(weights())))
        manager.wait_until_finished()
    last = tmp_path / "run" / "10" / "default"
    assert f"is a directory of Orbax checkpoints: name one, as {last}" in unreadable(tmp_path / "run")
    assert f"is a directory of Orbax checkpoints: name one, as {last}" in unreadable(tmp_path / "run" / "10")
    assert same_bits(paths.flatten(load_params(last))["heads/even/kernel"], weights()["heads/even/kernel"])


def test_what_is_not_there_is_refused(tmp_path):
    assert "there is no file" in unreadable(tmp_path / "none.safetensors")
    (tmp_path / "empty").mkdir()
    assert "is no Orbax checkpoint" in unreadable(tmp_path / "empty")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("hello")
    assert "is no Orbax checkpoint" in unreadable(tmp_path / "other")
    with pytest.raises(CheckpointError, match="there is no file or directory"):
        sha256_of(tmp_path / "none")


def test_a_damaged_orbax_checkpoint_is_refused(tmp_path):
    save_orbax(tmp_path / "orbax", paths.unflatten(weights()))
    for file in [p for p in (tmp_path / "orbax").rglob("*") if p.is_file()]:
        content = file.read_bytes()
        if len(content) > 200:
            file.write_bytes(content[:100])
    unreadable(tmp_path / "orbax")


# --- what can be loaded ---


def forms(folder):
    """Write the same parameters in every form that can be loaded; return the paths."""
    flat, tree = weights(), paths.unflatten(weights())
    safetensors.numpy.save_file(flat, folder / "theirs.safetensors")
    ours = {"params": tree, "state": {"batch_stats": {"mean": np.ones(3, np.float32)}}}
    save_tree(folder / "ours.safetensors", ours, {})
    (folder / "trial").mkdir()
    save_tree(folder / "trial" / "model.safetensors", ours, {})
    save_orbax(folder / "orbax", tree)
    save_orbax(folder / "orbax_ours", ours | {"step": np.int32(7)})
    return [folder / n for n in ("theirs.safetensors", "ours.safetensors", "trial", "orbax", "orbax_ours")]


def test_every_form_holds_the_same_parameters(tmp_path):
    for path in forms(tmp_path):
        found = paths.flatten(load_params(path))
        assert found.keys() == SHAPES.keys()
        assert all(isinstance(v, np.ndarray) and same_bits(v, weights()[k]) for k, v in found.items()), path


def test_sha256_changes_with_any_byte_and_any_name(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"1")
    (tmp_path / "d" / "b").write_bytes(b"2")
    seen = {sha256_of(tmp_path / "d"), sha256_of(tmp_path / "d" / "a")}
    (tmp_path / "d" / "a").write_bytes(b"3")
    seen |= {sha256_of(tmp_path / "d"), sha256_of(tmp_path / "d" / "a")}
    (tmp_path / "d" / "b").rename(tmp_path / "d" / "c")
    assert len(seen | {sha256_of(tmp_path / "d")}) == 5
    (tmp_path / "d" / "c").rename(tmp_path / "d" / "b")
    assert sha256_of(tmp_path / "d") in seen


def test_sha256_is_of_a_checkpoint_and_not_of_what_systems_leave_in_it(tmp_path):
    """Zarr keeps what its numbers are in a hidden file, which counts."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.0").write_bytes(b"1")
    (tmp_path / "a" / ".zarray").write_bytes(b"{}")
    before = sha256_of(tmp_path)
    (tmp_path / "lost+found").mkdir()
    for name in (".DS_Store", "a/._0.0", "a/Thumbs.db", "lost+found/1"):
        (tmp_path / name).write_bytes(b"of nobody")
    assert sha256_of(tmp_path) == before
    (tmp_path / "a" / ".zarray").write_bytes(b"{ }")
    assert sha256_of(tmp_path) != before


# --- trials that begin from them ---

MOVES = "heads/even/bias"  # The one parameter that moves.


@pytest.fixture(autouse=True)
def regime(monkeypatch):
    monkeypatch.setitem(regimes.REGIMES, "one_bias", Regime((Phase(trainable=MOVES),), "for a test"))
    monkeypatch.setitem(regimes.REGIMES, "fresh_head", Regime((Phase(trainable=MOVES, fresh=("head",)),), "for a test"))


def trial(**changes):
    base = override(
        flatten(default()),
        {
            "model.options": {"hidden": (4, 3)},
            "model.head_init": "lecun_normal",
            "source.total_steps": 2,
            "target.total_steps": 3,
            "evaluations": 1,
            "data.target_size": 20,
            "regime": "one_bias",
        },
    )
    changes = {k.replace("__", "."): v for k, v in changes.items()}
    return resolve(override(base, changes), load_table("digits", {}))


def trained(tmp_path, *trials):
    """Run trials and return the parameters of each, by path, as safetensors reads them."""
    workdir = Workdir(tmp_path / "work")
    execute(make_plan(trials), workdir)
    assert [workdir.failure(t.hash) for t in trials] == [None] * len(trials)
    files = [safetensors.numpy.load_file(workdir.trial(t.hash) / "model.safetensors") for t in trials]
    return [{k.removeprefix("params/"): v for k, v in f.items() if k.startswith("params/")} for f in files]


def test_parameters_arrive_bit_for_bit_from_every_form(tmp_path):
    trials = [trial(init__path=str(path)) for path in forms(tmp_path)]
    found = trained(tmp_path, *trials)
    for flat in found:
        assert flat.keys() == SHAPES.keys()
        for path, value in weights().items():
            assert same_bits(flat[path], value) == (path != MOVES), path
        assert same_bits(flat[MOVES], found[0][MOVES])


def test_what_starts_fresh_and_what_is_renamed(tmp_path):
    flat = weights()
    renamed = {k.replace("backbone/dense_", "encoder/layer").replace("kernel", "w"): v for k, v in flat.items()}
    safetensors.numpy.save_file(renamed, tmp_path / "other.safetensors")
    safetensors.numpy.save_file(flat, tmp_path / "same.safetensors")
    rename = ((r"encoder/layer(\d)/(.*)", r"backbone/dense_\1/\2"), (r"(.*)/w", r"\1/kernel"))
    begun, kept, fresh, none = trained(
        tmp_path,
        trial(init__path=str(tmp_path / "other.safetensors"), init__rename=rename),
        trial(init__path=str(tmp_path / "same.safetensors"), init__fresh=("heads/even/.*", ".*/dense_0/kernel")),
        trial(init__path=str(tmp_path / "same.safetensors"), regime="fresh_head"),
        trial(),
    )
    anew = {"heads/even/bias", "heads/even/kernel", "backbone/dense_0/kernel"}
    for path, value in flat.items():
        if path != MOVES:
            assert same_bits(begun[path], value)
            assert same_bits(kept[path], none[path] if path in anew else value)
            assert same_bits(fresh[path], none[path] if path.startswith("heads/even/") else value)
    assert not same_bits(none["heads/even/kernel"], flat["heads/even/kernel"])


def test_everything_that_does_not_fit_comes_in_one_error_before_anything_is_run(tmp_path):
    flat = weights()
    del flat["heads/even/bias"], flat["backbone/dense_1/kernel"]
    flat["heads/identity/kernel"] = np.zeros((3, 5), np.float32)
    flat["backbone/dense_0/bias"] = np.zeros(9, np.float32)
    flat["backbone/dense_1/bias"] = flat["backbone/dense_1/bias"].astype(np.float16)
    flat["backbone/dense_9/kernel"] = flat["decoder/w"] = np.zeros(2, np.float32)
    expected = [
        "missing backbone/dense_1/kernel, heads/even/bias",
        "extra backbone/dense_9/kernel, decoder/w",
        "shape of heads/identity/kernel: loaded (3, 5), wanted (3, 10)",
        "shape of backbone/dense_0/bias: loaded (9,), wanted (4,)",
        "dtype of backbone/dense_1/bias: loaded float16, wanted float32",
    ]
    safetensors.numpy.save_file(flat, tmp_path / "wrong.safetensors")
    save_orbax(tmp_path / "wrong", paths.unflatten(flat))
    for path in (tmp_path / "wrong.safetensors", tmp_path / "wrong"):
        with pytest.raises(ConfigError) as error:
            make_plan([trial(init__path=str(path))])
        for part in [f"config.init: {path}", *expected]:
            assert part in str(error.value)
        assert "\n" not in str(error.value)
    # What is wrong in parts that start fresh does not matter, and what no part needs can be named there too.
    make_plan([trial(init__path=str(path), init__fresh=("heads/.*", "(backbone|decoder)/.*"))])
    with pytest.raises(ConfigError, match=r'fresh pattern "decoder/\.\*" matches nothing$'):
        make_plan([trial(init__path=str(path), init__fresh=("heads/.*", "backbone/.*", "decoder/.*"))])


class Scaled(nn.Module):
    """A dense layer times a scalar parameter."""

    @nn.compact
    def __call__(self, x, train):
        scale = self.param("scale", nn.initializers.ones, ())
        return nn.relu(nn.Dense(4, name="dense")(x.reshape(x.shape[0], -1))) * scale


@pytest.mark.slow
def test_a_model_with_a_scalar_goes_on_from_a_source_phase_on_disk(tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "scaled", Scaled)
    begun, probed = (
        trial(regime=regime, model__name="scaled", model__options={}) for regime in ("finetune", "linear_probe")
    )
    trained(tmp_path, begun)
    (found,) = trained(tmp_path, probed)
    assert found["backbone/scale"].shape == ()


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x04\x95"])
def test_through_the_command_line_a_bad_file_is_one_sentence(tmp_path, capsys, content):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(content)
    (tmp_path / "c.py").write_text(
        "from mtl.config import default\ndef get_config():\n    c = default()\n    c.name = 'c'\n"
        "    c.source.total_steps = c.target.total_steps = 2\n    return c\n"
    )
    work = tmp_path / "work"
    code = main(["run", f"--config={tmp_path / 'c.py'}", f"--workdir={work}", f"--config.init.path={bad}"])
    line = capsys.readouterr().err
    assert code == 2
    assert line.startswith("mtl: config.init.path = ") and line.count("\n") == 1
    assert str(bad) in line
    assert not work.exists()


CNN = {
    "model.name": "cnn",
    "data.options": {"images": True},
    "model.options": {"channels": (4,), "features": 8, "norm": "batch"},
}
PROBE = {"regime": "probe", "regimes": {"probe": ({"trainable": "head", "fresh": ("head",), "begin": "init"},)}}


@pytest.mark.slow
def test_the_batch_statistics_of_a_checkpoint_are_loaded_with_its_parameters(tmp_path):
    (source,) = trials(CNN | {"regime": "source"})
    workdir = Workdir(tmp_path / "work")
    execute(make_plan([source]), workdir)
    (probe,) = trials(CNN | PROBE | {"init.path": str(workdir.trial(source.hash))})
    execute(make_plan([probe]), workdir)
    before, after = (safetensors.numpy.load_file(workdir.trial(t.hash) / "model.safetensors") for t in (source, probe))
    assert any(path.startswith("state/") for path in before)
    for path, value in before.items():
        if path.startswith(("params/backbone/", "state/")):
            np.testing.assert_array_equal(after[path], value, err_msg=path)


def test_a_trunk_without_its_batch_statistics_is_refused(tmp_path):
    (source,) = trials(CNN | {"regime": "source"})
    workdir = Workdir(tmp_path / "work")
    execute(make_plan([source]), workdir)
    whole = safetensors.numpy.load_file(workdir.trial(source.hash) / "model.safetensors")
    bare, other = tmp_path / "bare.safetensors", tmp_path / "other.safetensors"
    safetensors.numpy.save_file({k: v for k, v in whole.items() if k.startswith("params/")}, bare)
    safetensors.numpy.save_file({k: v[:1] if k.startswith("state/") else v for k, v in whole.items()}, other)
    for file, message in ((bare, "holds no batch statistics"), (other, "shape of batch_stats/")):
        (t,) = trials(CNN | PROBE | {"init.path": str(file)})
        with pytest.raises(ConfigError, match=message):
            make_plan([t])
