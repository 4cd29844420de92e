"""Work directories and weights from strangers: nothing is executed, followed out, or believed beyond its size."""

import contextlib
import io
import json
import os
import pathlib
import pickle
import re
import shutil
import struct
import tracemalloc
import zipfile

import numpy as np
import pandas  # noqa: F401  # Before memory is counted.
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mtl
from mtl import checkpoint, files
from mtl.checkpoint import CheckpointError, load_tree
from mtl.cli import main
from mtl.files import DamagedError, FileError, parse, seal, unseal
from mtl.sweep import arrays, documents
from mtl.sweep.frames import counts
from mtl.sweep.snapshots import Interrupt, Snapshots
from mtl.sweep.store import StoreError, Workdir
from tests.sweep.resealed import change
from tests.sweep.test_integrity import FIXTURES, whole  # noqa: F401

MIB = 2**20
EXAMPLES = int(os.environ.get("MTL_FUZZ", "25"))  # `scripts/torture` takes more.


@contextlib.contextmanager
def bounded(size, slack=20 * MIB):
    """Fail if more memory is taken for a file than twice its size, and a little."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2 * size + slack, peak


class Bomb:
    """What pickle would execute."""

    def __reduce__(self):
        return (os.system, ("touch executed",))


def npz(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(header, body=b""):
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


NPY = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }"
OBJECTS = io.BytesIO()
np.save(OBJECTS, np.array([Bomb()], object), allow_pickle=True)
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
    "bomb in another name": npz(other=bytes(100_000_000), outputs=npy(NPY % ("<f4", "(25000000,)"))),
}


@pytest.mark.parametrize("content", BAD_NPZ.values(), ids=BAD_NPZ)
def test_arrays_are_bounded_and_never_unpickled(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    with bounded(len(content)), pytest.raises(DamagedError):
        arrays.load(content, "x.npz")
    assert not list(tmp_path.iterdir())


def weights(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def tensor(shape, end, begin=0, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


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
}


@pytest.mark.parametrize("content", BAD_JSON.values(), ids=BAD_JSON)
def test_json_is_bounded_in_size_and_depth(content):
    with bounded(len(content)), pytest.raises(DamagedError):
        unseal(content)


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


# --- names and links ---

NAMES = ["..", "../x", "/etc", "a/b", "", ".", "a\0b", "a" * 300, "a b", "ü", "a\n", "~", "$(x)", "-" * 101]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_could_lead_out_is_refused(tmp_path, name):
    workdir = Workdir(tmp_path)
    for use in (workdir.trial, workdir.prefix, workdir.result, workdir.failure, workdir.arrays):
        with pytest.raises(StoreError):
            use(name)
    with pytest.raises(StoreError):
        workdir.width(name, "map")


@pytest.mark.parametrize("name", NAMES)
def test_names_in_study_json_are_refused_by_every_command(whole, tmp_path, capsys, name):  # noqa: F811
    work = pathlib.Path(shutil.copytree(whole[0], tmp_path / "work"))
    before = sorted(tmp_path.rglob("*"))

    def rename(study):
        study["sweeps"][name] = study["sweeps"].pop("even")
        return study

    change(work / "study.json", rename)
    for command in ("status", "table", "plot", "report"):
        assert main([command, str(work)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_without_the_rule_a_table_is_written_outside(whole, tmp_path, monkeypatch):  # noqa: F811
    """The control."""
    work = pathlib.Path(shutil.copytree(whole[0], tmp_path / "work"))

    def rename(study):
        study["sweeps"]["../../stolen"] = study["sweeps"].pop("even")
        return study

    change(work / "study.json", rename)
    monkeypatch.setattr(documents, "IDENTIFIER", re.compile(r"(?s).*"))
    monkeypatch.setattr("mtl.sweep.store.IDENTIFIER", re.compile(r"(?s).*"))
    monkeypatch.setattr("mtl.sweep.store.inside", lambda root, *parts: root.joinpath(*parts))
    assert main(["plot", str(work)]) == 0
    assert list(tmp_path.glob("stolen-*.png"))


LINKS = [
    "study.json",
    "trials",
    "trials/HASH",
    "trials/HASH/result.json",
    "trials/HASH/arrays.npz",
    "lease",
    "prefixes",
]
LINKS += ["snapshots", "packs", "figures", "tables", "published.json", "report.html"]


@pytest.mark.parametrize("link", LINKS)
def test_a_link_that_leads_out_is_not_followed(whole, tmp_path, capsys, link):  # noqa: F811
    work = pathlib.Path(shutil.copytree(whole[0], tmp_path / "work"))
    digest = next(m.trial.hash for m in whole[1].sweep.members if m.changes["regime"] == "finetune")
    place, outside = work / link.replace("HASH", digest), tmp_path / "outside"
    if place.exists():
        place.rename(outside)
    elif place.suffix:
        outside.write_text("mine")
    else:
        outside.mkdir()
    place.symlink_to(outside)
    before = {p: (p.read_bytes() if p.is_file() else None) for p in [outside, *outside.rglob("*")]}
    if not link.startswith(("trials", "study.json")):
        shutil.rmtree(work / "trials" / digest)
        if link != "prefixes":
            shutil.rmtree(work / "prefixes")
    if link == "packs":  # Used where packs run side by side.
        with pytest.raises(StoreError, match="link"):
            Workdir(work).width("a", "vmap")
    main(["sweep", f"--config={FIXTURES / 'small.py'}", f"--workdir={work}", "--jobs=0"])
    for command in ("status", "table", "plot", "report"):
        main([command, str(work)])
    told = capsys.readouterr().err
    assert "leads out" in told or link == "packs", told
    assert {p: (p.read_bytes() if p.is_file() else None) for p in [outside, *outside.rglob("*")]} == before


def test_a_link_planted_under_a_name_that_is_written_is_replaced_and_not_written_through(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    target = tmp_path / "file"
    target.symlink_to(outside)
    number = next(files._number)
    (tmp_path / f".file.{os.getpid()}.{number + 1}.tmp").symlink_to(outside)
    files.write_atomically(target, b"ours")
    assert outside.read_text() == "mine"
    assert target.read_bytes() == b"ours" and not target.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "outside"]


# --- fuzzing ---

EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=40)), min_size=1, max_size=4)


def edited(content, edits):
    for where, cut, put in edits:
        at = int(where * len(content))
        content = content[:at] + put + content[at + cut :]
    return content


FIXTURE = FIXTURES / "format_1"  # Without digests, so that what is damaged gets as far as it can.


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    return pathlib.Path(shutil.copytree(FIXTURE, tmp_path_factory.mktemp("fuzz") / "work"))


TARGETS = sorted(str(p.relative_to(FIXTURE)) for p in FIXTURE.rglob("*") if p.is_file())


@pytest.mark.slow
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS, target=st.sampled_from(TARGETS))
def test_whatever_is_damaged_at_random_is_an_error_of_ours_or_none(victim, edits, target):
    file = victim / target
    good = file.read_bytes()
    try:
        file.write_bytes(edited(good, edits))
        with bounded(len(good)):
            look_at_everything(victim)
    finally:
        file.write_bytes(good)


def look_at_everything(path):
    """Read all that is in a work directory, as the commands do."""
    with contextlib.suppress(StoreError):
        counts(Workdir(path))
        for what in ("trials", "curves", "predictions"):
            mtl.results(path, what)
    for trial in sorted((path / "trials").iterdir()):
        with contextlib.suppress(StoreError):
            Workdir(path).arrays(trial.name)
        with contextlib.suppress(CheckpointError):
            load_tree(trial / "model.safetensors")
    for phase in (path / "prefixes").iterdir():
        with contextlib.suppress(CheckpointError):
            load_tree(phase)
    for pack in (path / "packs").iterdir():
        Workdir(path).width(pack.stem, "vmap")
    for snapshot in (path / "snapshots").iterdir():
        with contextlib.suppress(CheckpointError):
            load_tree(snapshot)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def nodes(value, path=()):
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from nodes(inner, (*path, key))


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(["study.json", *(t for t in TARGETS if t.endswith("result.json"))]))
def test_a_value_of_another_kind_is_an_error_of_ours_or_none(victim, data, name):
    """By somebody who knows of digests: what is of the right format need not be of the right shape."""
    file = victim / name
    good = file.read_bytes()
    content = json.loads(good)
    path = data.draw(st.sampled_from([p for p in nodes(content) if p]))
    node = content
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = data.draw(VALUES)
    try:
        content.pop("sha256", None)
        with contextlib.suppress(ValueError, UnicodeEncodeError):
            file.write_bytes(seal(content))
        look_at_everything(victim)
    finally:
        file.write_bytes(good)


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
