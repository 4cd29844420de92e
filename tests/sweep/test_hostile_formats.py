"""NPZ, safetensors (weights and shards) and JSON from strangers: nothing is executed, or believed beyond its size."""

import io
import json
import os
import pickle
import shutil
import struct
import warnings
import zipfile

import numpy as np
import pytest

from mtl import checkpoint
from mtl.checkpoint import CheckpointError, dump_tree, load_tree
from mtl.data import DataError
from mtl.data.readers.npz import npz_table
from mtl.host import files
from mtl.host.files import DamagedError, FileError, digest_of, parse, seal, unseal
from mtl.sweep import schema, shards
from mtl.sweep.snapshots import Interrupt, Snapshots
from mtl.sweep.store import FORMAT, StoreError, Workdir
from tests.sweep import by_hand
from tests.sweep.hostile import MIB, NPY, Bomb, bounded, npy, npz, small_study, tensor, weights

OBJECTS = io.BytesIO()
np.save(OBJECTS, np.array([Bomb()], object), allow_pickle=True)
ONE = npy(NPY % ("<f4", "(1,)"), b"abcd")


def stored(*members):
    """Return an NPZ file of members (name, content), which may be the same."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def patched(content, local, central, value):
    """Change bytes of each member's own header and of its entry in the directory, at offsets in them."""
    content = bytearray(content)
    for magic, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        at = content.find(magic)
        while at >= 0:
            content[at + offset : at + offset + len(value)] = value
            at = content.find(magic, at + 4)
    return bytes(content)


def overlapping():
    """Return a file with two entries in its directory for one and the same member."""
    content = stored(("outputs.npy", ONE), ("rows.npy", ONE))
    second = content.rfind(b"PK\x01\x02")
    return content[: second + 42] + struct.pack("<I", 0) + content[second + 46 :]


BAD_NPZ = {
    "empty": b"",
    "no zip": b"PK\x03\x04",
    "pickled": npz(outputs=pickle.dumps(Bomb())),
    "objects": npz(outputs=OBJECTS.getvalue()),
    "larger than its file": npz(outputs=npy(NPY % ("<f4", "(1000000000000,)"))),
    "many dimensions": npz(outputs=npy(NPY % ("<f4", "(9999999, 9999999, 9999999)"))),
    "negative": npz(outputs=npy(NPY % ("<f4", "(-1,)"))),
    "expression": npz(outputs=npy("__import__('os').system('touch executed')")),
    "bomb": npz(outputs=npy(NPY % ("<f4", "(25000000,)"), bytes(100_000_000))),
    "no such type": npz(outputs=npy(NPY % ("<f3", "(1,)"), b"abc")),
    "a type of many fields": npz(outputs=npy(NPY % ("[('a', '<f4'), ('b', '|O')]", "(1,)"), b"abcd")),
    "texts of 4 MB each": npz(outputs=npy(NPY % ("<U999999", "(1000,)"), b"abcd")),
    "texts of nothing": npz(outputs=npy(NPY % ("|S0", "(1000000000000,)"))),
    "90 dimensions": npz(outputs=npy(NPY % ("<f4", f"({'1, ' * 60})"), b"abcd")),
    "none of very many": npz(outputs=npy(NPY % ("<f4", "(0, 99999999999999999999)"))),
    "a number of 190 digits": npz(outputs=npy(NPY % ("<f4", f"({'9' * 190},)"))),
    "a header beyond its member": npz(outputs=b"\x93NUMPY\x01\x00\xff\xff{"),
    "a header of 4 GiB": npz(outputs=b"\x93NUMPY\x02\x00\xff\xff\xff\xff{"),
    "a version that is not": npz(outputs=b"\x93NUMPY\x09" + ONE[7:]),
    "more bytes than its shape": npz(outputs=ONE + b"more"),
    "one name twice": stored(("outputs.npy", ONE), ("outputs.npy", ONE)),
    "one name, spelled twice": stored(("outputs.npy", ONE), ("outputs", ONE)),
    "a name that leads out": stored(("../outputs.npy", ONE), ("/tmp/rows.npy", ONE), ("labels.npy/", b"")),
    "encrypted": patched(stored(("outputs.npy", ONE)), 6, 8, b"\x01\x00"),
    "packed in a way that is not": patched(stored(("outputs.npy", ONE)), 8, 10, b"\x63\x00"),
    "a size that is a lie": patched(npz(outputs=ONE), 22, 24, b"\xfe\xff\xff\xff"),
    "overlapping": overlapping(),
    "very many members": stored(*((str(i), b"") for i in range(10_001))),
    "bomb in another name": npz(other=bytes(100_000_000), outputs=npy(NPY % ("<f4", "(25000000,)"))),
}


@pytest.mark.parametrize("content", BAD_NPZ.values(), ids=BAD_NPZ)
def test_arrays_are_bounded_and_never_unpickled(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MTL_DATA_DIR", raising=False)
    (tmp_path / "x.npz").write_bytes(content)
    with bounded(len(content)), pytest.raises(DataError) as error:
        npz_table("x.npz", "labels", "outputs", max_bytes=len(content))
    assert "x.npz" in str(error.value) and len(str(error.value)) < 500
    assert os.listdir(tmp_path) == ["x.npz"]


BAD_WEIGHTS = {
    "longest header": weights(b"{}", length=2**64 - 1),
    "header longer than allowed": weights(b"{" + b" " * (17 * MIB) + b"}"),
    "nested": weights(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "nested facts": weights({"__metadata__": {"mtl": "[" * 100_000}}),
    "many values": weights(b'{"a":[' + b"{}," * 4_000_001 + b"{}]}"),
    "huge shape": weights({"a": tensor([2**62, 2**62], 4)}, b"abcd"),
    "offsets beyond": weights({"a": tensor([2**30], 2**32)}, b"abcd"),
    "overlap": weights({"a": tensor([1], 4), "b": tensor([1], 4)}, b"abcd"),
    "backwards": weights({"a": tensor([1], 0, 4)}, b"abcd"),
    "negative": weights({"a": tensor([-1], 4)}, b"abcd"),
    "a hole": weights({"a": tensor([1], 8, 4)}, b"abcdefgh"),
    "bytes that are nobody's": weights({"a": tensor([1], 4)}, b"abcdefgh"),
    "a name of very many parts": weights({"a/" * 1_000_000 + "a": tensor([1], 4)}, b"abcd"),
    "a name that goes through an array": weights({"a": tensor([1], 4), "a/b": tensor([1], 8, 4)}, b"abcdefgh"),
    "a type that is not": weights({"a": tensor([1], 4, dtype="O")}, b"abcd"),
    "a type that NumPy lacks": weights({"a": tensor([8], 4, dtype="F4")}, b"abcd"),
    "100 dimensions": weights({"a": tensor([1] * 100, 4)}, b"abcd"),
    "none of very many": weights({"a": tensor([0, 2**62, 4], 0)}),
    "half a row": weights({"a": tensor([1.5], 4)}, b"abcd"),
    "facts in a list": weights({"__metadata__": [1], "a": tensor([1], 4)}, b"abcd"),
    "a name in no UTF-8": weights(b'{"\xff":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"abcd"),
    "half a character": weights(b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"abcd"),
    "a header that is a list": weights(b"[]"),
    "a number of 5,000 digits": weights(b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}'),
    "facts are no text": weights({"__metadata__": {"mtl": 5}, "a": tensor([1], 4)}, b"abcd"),
    "a pickle": pickle.dumps(Bomb()),
    "format 2 without its digest": weights({"__metadata__": {"mtl": '{"format": 2}'}, "a": tensor([1], 4)}, b"abcd"),
}


@pytest.mark.parametrize("content", BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_weights_are_bounded_before_they_are_parsed(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    with bounded(len(content)), pytest.raises(CheckpointError) as error:
        load_tree(file)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_without_its_bound_a_long_header_is_parsed(tmp_path, monkeypatch):
    """The control."""
    file = tmp_path / "w.safetensors"
    file.write_bytes(BAD_WEIGHTS["header longer than allowed"])
    monkeypatch.setattr(checkpoint, "MAX_HEADER_BYTES", 2**40)
    assert load_tree(file) == ({}, {})


def bytes_of(text):
    return np.frombuffer(text if isinstance(text, bytes) else json.dumps(text).encode(), np.uint8)


#: Trees of shards whose digest is right.
BAD_SHARDS = {
    "nothing": {},
    "no results": {"predictions": {"a": {"even": {"rows": np.zeros(1)}}}},
    "a tree for the results": {"results": {"a": bytes_of({})}},
    "numbers for the results": {"results": np.zeros(9)},
    "results that are no JSON": {"results": bytes_of(b"{")},
    "results of no bytes": {"results": bytes_of(b"")},
    "a pickle for the results": {"results": bytes_of(pickle.dumps(Bomb()))},
    "a list of results": {"results": bytes_of([])},
    "nested": {"results": bytes_of(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")},
    "many values": {"results": bytes_of(b'{"a":[' + b"{}," * 4_000_001 + b"{}]}")},
    "a number of 5,000 digits": {"results": bytes_of(b'{"a": ' + b"9" * 5000 + b"}")},
    "an array for the predictions": {"results": bytes_of({}), "predictions": np.zeros(1)},
}
SHARDS = BAD_WEIGHTS | {f"sealed: {k}": dump_tree(tree, {"format": FORMAT}) for k, tree in BAD_SHARDS.items()}


@pytest.mark.parametrize("content", SHARDS.values(), ids=SHARDS)
def test_shards_are_bounded_and_never_unpickled(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    shard = tmp_path / "results" / "00000001-x.safetensors"
    shard.parent.mkdir()
    shard.write_bytes(content)
    workdir = Workdir(tmp_path)
    with bounded(len(content)):
        assert workdir.hashes() == []
    (told,) = workdir.damaged.values()
    assert str(shard) in told and told.endswith(": the trials in it count as not done")
    assert "\n" not in told and len(told) < 500
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [shard]


def test_without_looking_at_the_results_it_is_a_traceback(tmp_path, monkeypatch):
    """The control."""
    shard = tmp_path / "x.safetensors"
    shard.write_bytes(dump_tree({"results": bytes_of({"a": 5})}, {"format": FORMAT}))
    assert set(shards.load(shard).damaged) == {"a"}
    monkeypatch.setattr(schema, "_must", lambda value, kind, where: None)
    with pytest.raises(TypeError):
        shards.load(shard)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("formats") / "work")


N = 40  # Examples that the study is tested on.
BAD_PREDICTIONS = {
    "of no task": lambda own: {},
    "of another task": lambda own: {"odd": own["even"]},
    "an array for a task": lambda own: {"even": np.zeros(N)},
    "no labels": lambda own: {"even": {k: v for k, v in own["even"].items() if k != "labels"}},
    "arrays of another name": lambda own: {"even": own["even"] | {"more": np.zeros(N)}},
    "a tree for an array": lambda own: {"even": own["even"] | {"rows": {"x": np.zeros(N)}}},
    "labels that are yes or no": lambda own: {"even": own["even"] | {"labels": np.zeros(N, bool)}},
    "outputs of no columns": lambda own: {"even": own["even"] | {"outputs": np.zeros((N, 0))}},
    "outputs in a row": lambda own: {"even": own["even"] | {"outputs": np.zeros(N)}},
    "outputs in a cube": lambda own: {"even": own["even"] | {"outputs": np.zeros((N, 1, 1))}},
    "one number for all outputs": lambda own: {"even": own["even"] | {"outputs": np.zeros(())}},
    "fewer rows": lambda own: {"even": own["even"] | {"rows": np.zeros(N - 1, np.int32)}},
    "no scores": lambda own: {"even": {k: v for k, v in own["even"].items() if k != "scores"}},
    "fewer scores": lambda own: {"even": own["even"] | {"scores": np.zeros(N - 1)}},
    "labels in columns": lambda own: {"even": own["even"] | {"labels": np.zeros((N, 1))}},
    "groups that are no numbers of groups": lambda own: {"even": own["even"] | {"groups": np.zeros(N)}},
    "fewer groups": lambda own: {"even": own["even"] | {"groups": np.zeros(N - 1, np.int32)}},
    "of one more task, of another shape": lambda own: own | {"odd": {"outputs": np.zeros(N)}},
}


@pytest.mark.parametrize("change", BAD_PREDICTIONS.values(), ids=BAD_PREDICTIONS)
def test_predictions_of_another_shape_count_as_not_done_and_the_others_are_read(study, tmp_path, change):
    work = shutil.copytree(study, tmp_path / "work")
    digest, *others = sorted(by_hand.results(work))
    by_hand.change(work, digest, predictions=change)
    workdir = Workdir(work)
    assert workdir.hashes() == others and not workdir.complete(digest)
    (told,) = workdir.damaged.values()
    assert told.startswith(f"{by_hand.shard_of(work, digest)} holds no ") and len(told) < 500
    assert told.endswith(f": trial {digest} counts as not done")
    with pytest.raises(StoreError, match="holds no result of"):
        workdir.predictions(digest, "even")
    assert all(workdir.predictions(other, "even")["outputs"].shape == (N, 1) for other in others)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_result_with_a_number_that_is_not_finite_is_not_believed(study, tmp_path, number):
    """JSON has none: no file of ours holds one."""
    work = shutil.copytree(study, tmp_path / "work")
    digest = min(by_hand.results(work))
    by_hand.change(work, digest, lambda found: found | {"val_score": number})
    workdir = Workdir(work)
    assert digest not in workdir.hashes() and workdir.damaged


def test_a_task_whose_name_is_shown_otherwise_is_done(study, tmp_path):
    work, name = shutil.copytree(study, tmp_path / "work"), "even\u200bnumbers"
    digest = min(by_hand.results(work))
    rename = json.loads(json.dumps(by_hand.results(work)[digest]).replace('"even"', json.dumps(name)))
    by_hand.change(work, digest, lambda found: rename, lambda own: {name: own["even"]})
    workdir = Workdir(work)
    assert digest in workdir.hashes() and not workdir.damaged
    (task,) = workdir.result(digest)["test"]
    assert workdir.predictions(digest, task)["outputs"].shape == (N, 1)


def test_without_a_change_all_are_read(study):
    """The control."""
    workdir = Workdir(study)
    assert len(workdir.hashes()) == 4 and not workdir.damaged


BAD_JSON = {
    "nothing": b"",
    "nested": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested a little": b'{"a":' * 70 + b"1" + b"}" * 70,
    "a list": b"[]",
    "not finite": b'{"a": 1e999, "sha256": ""}',
    "a number of many digits": b'{"a": ' + b"9" * 100_000 + b"}",
    "not UTF-8": b'{"a": "\xff"}',
    "half a surrogate": b'{"a": "\\ud800", "sha256": ""}',
    "many values": b'{"a":[' + b"[]," * 4_000_001 + b"1]}",
    "not a number": b'{"a": NaN, "sha256": ""}',
    "less than all": b'{"a": -Infinity, "sha256": ""}',
    "64 bits": b'{"a": 9223372036854775808}',
    "a million digits": b'{"a": ' + b"9" * 1_000_000 + b"}",
    "two objects": seal({"a": 1}) * 2,
    "a key twice, the digest of the first": f'{{"a":1,"sha256":"{digest_of({"a": 1})}","a":2}}'.encode(),
    "a digest that is a list": b'{"a": 1, "sha256": ["' + b"0" * 64 + b'"]}',
    "UTF-16": seal({"a": 1}).decode().encode("utf-16"),
    "a raw escape": b'{"a": "\x1b[2J"}',
    "a text that does not end": b'{"a": "' + b"x" * 1_000_000,
}


@pytest.mark.parametrize("content", BAD_JSON.values(), ids=BAD_JSON)
def test_json_is_bounded_in_size_and_depth(content):
    with bounded(len(content)), pytest.raises(DamagedError):
        unseal(content)


@pytest.mark.slow
def test_without_its_bound_many_values_take_much_memory(monkeypatch):
    """The control."""
    monkeypatch.setattr(files, "MAX_JSON_VALUES", 10**9)
    content = b'{"a":[' + b"[]," * 60_000 + b"1]}"
    with pytest.raises(AssertionError), bounded(len(content), slack=2 * MIB):
        parse(content)


def test_a_file_of_more_bytes_than_are_read_is_refused(tmp_path):
    (tmp_path / "study.json").touch()
    os.truncate(tmp_path / "study.json", 10 * 2**30)  # Sparse: ten GiB of nothing.
    with bounded(0), pytest.raises(FileError, match="at most"):
        Workdir(tmp_path).study()


def test_snapshots_of_strangers_are_said_or_ignored(tmp_path):
    folder = tmp_path / "snapshots"
    folder.mkdir()
    for i, content in enumerate(BAD_WEIGHTS.values()):
        (folder / f"{i}.safetensors").write_bytes(content)
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    (folder / "link.safetensors").symlink_to(outside)
    told = []
    assert not Snapshots(folder, Interrupt(), told.append)._where
    assert len(told) >= len(BAD_WEIGHTS) - 2
    assert outside.read_bytes() == b"mine"
