"""Data sets of TFDS without TensorFlow: what was prepared is read bit for bit, what was not is refused, quickly."""

import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mtl import data
from mtl.data import DataError, road_scenes_table
from mtl.data.sets.road_scenes import TASKS

tfds = pytest.importorskip("tensorflow_datasets", reason='needs the extra: pip install "mtl[tfds]"')
pytest.importorskip("array_record", reason='needs the extra: pip install "mtl[tfds]"')

from tensorflow_datasets.core.data_sources import base  # noqa: E402

from mtl.data.tfds import prepare as preparing  # noqa: E402
from mtl.data.tfds import source as tfds_source  # noqa: E402
from mtl.data.tfds.prepare import prepare  # noqa: E402

OPTIONS = {"examples": 700, "size": 16, "missing": 0.3}
CONFIG = "examples_700-missing_0.3-size_16"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    prepare("road_scenes", str(folder), **OPTIONS)
    return folder


def load(folder, **options):
    return data.load("tfds:road_scenes", labels=TASKS, directory=str(folder), **options)


def same(a, b):
    assert a.x.tobytes() == b.x.tobytes()
    for task in TASKS:
        np.testing.assert_array_equal(a.mask[task], b.mask[task])
        np.testing.assert_array_equal(a.labels[task], b.labels[task])


def test_what_was_prepared_is_the_table_that_was_drawn(prepared):
    table, drawn = load(prepared), road_scenes_table(**OPTIONS)
    same(table, drawn)
    assert [(t.name, t.kind) for t in table.tasks] == [(t.name, t.kind) for t in drawn.tasks]
    assert "Drawn road scenes" in table.about
    assert load(prepared) is table
    first = load(prepared, examples=10)
    assert len(first) == 10 and np.array_equal(first.x, drawn.x[:10])


def test_tfds_itself_reads_what_was_prepared(prepared):
    source = tfds.builder_from_directory(prepared / "road_scenes" / CONFIG / "1.0.0").as_data_source(split="train")
    assert len(source) == 700
    image, drawn = source[3]["image"], road_scenes_table(**OPTIONS)
    np.testing.assert_array_equal(image, np.rint(drawn.x[3] * 255).astype(np.uint8))


def test_what_is_there_is_kept_and_appears_whole(prepared):
    info = prepared / "road_scenes" / CONFIG / "1.0.0" / "dataset_info.json"
    before = info.stat().st_mtime_ns
    assert prepare("road_scenes", str(prepared), **OPTIONS) == info.parent
    assert info.stat().st_mtime_ns == before


def test_nothing_is_downloaded_and_what_is_not_there_is_said_at_once(tmp_path):
    begin = time.monotonic()
    with pytest.raises(DataError, match=r'^data "tfds:mnist": is not prepared in .*, and nothing is downloaded: `mtl'):
        data.load("tfds:mnist", labels="label", directory=str(tmp_path))
    assert time.monotonic() - begin < 2
    for name in ("../mnist", "/etc", "mnist/../..", "", "mnist:1"):
        with pytest.raises(DataError, match="must be tfds:NAME"):
            data.load(f"tfds:{name}", labels="label", directory=str(tmp_path))


def test_several_configurations_must_be_told_apart(prepared, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(prepared, folder)
    prepare("road_scenes", str(folder), examples=5, size=16)
    with pytest.raises(DataError, match="say which: road_scenes/examples_5-size_16, road_scenes/examples_700"):
        load(folder)
    five = data.load("tfds:road_scenes/examples_5-size_16", labels="car", directory=str(folder))
    assert len(five) == 5 and five.name == "road_scenes_examples_5-size_16"
    assert len(data.load(f"tfds:road_scenes/{CONFIG}:1.0.0", labels="car", directory=str(folder))) == 700


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"labels": "care"}, 'labels: "care" is no column: did you mean "car"'),
        ({"labels": "car", "inputs": "picture"}, 'inputs: "picture" is no column'),
        ({"labels": "car", "split": "test"}, 'split "test": must be of train'),
        ({"labels": "car", "examples": -1}, "examples = -1: must be at least 0"),
        ({"labels": "car", "size": (3,)}, r"size = \(3,\): must be \(height, width\)"),
        ({"labels": "image", "inputs": "car"}, r"feature image of shape \(16, 16, 3\): must be a label"),
        ({"labels": "car", "max_bytes": 1000}, "must be at most 1,000 bytes"),
    ],
)
def test_what_cannot_be_is_refused(prepared, options, line):
    with pytest.raises(DataError, match=line):
        data.load("tfds:road_scenes", directory=str(prepared), **options)


def test_damaged_files_are_refused_in_one_sentence(prepared, tmp_path):
    where = pathlib.Path("road_scenes") / CONFIG / "1.0.0"
    for number, (name, damage) in enumerate(
        [
            ("dataset_info.json", lambda b: b[:20]),
            ("features.json", lambda b: b"[]" + b),
            ("road_scenes-train.array_record-00000-of-00001", lambda b: b[: len(b) // 2]),
            ("road_scenes-train.array_record-00000-of-00001", lambda b: b[:70000] + b"\xff" * 4096 + b[74096:]),
        ]
    ):
        folder = tmp_path / str(number)
        shutil.copytree(prepared, folder)
        file = folder / where / name
        file.write_bytes(damage(file.read_bytes()))
        with pytest.raises(DataError) as error:
            load(folder)
        assert "\n" not in str(error.value) and "prepare it again" in str(error.value)


def test_other_formats_and_features_of_others_are_refused(prepared, tmp_path):
    where = pathlib.Path("road_scenes") / CONFIG / "1.0.0"
    shutil.copytree(prepared, tmp_path / "a")
    info = tmp_path / "a" / where / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(DataError, match="is prepared as tfrecord, which needs TensorFlow"):
        load(tmp_path / "a")
    shutil.copytree(prepared, tmp_path / "b")
    features = tmp_path / "b" / where / "features.json"
    features.write_text(features.read_text().replace("tensorflow_datasets.core.features.scalar.Scalar", "os.system", 1))
    with pytest.raises(DataError, match=r"features.json names os.system: must be a feature of TFDS itself"):
        load(tmp_path / "b")


SCRIPT = """
import os, sys
from mtl.data.tfds import prepare
prepare._SHARD_BYTES = 256 * 16 * 16 * 3
print("begun", flush=True)
prepare.prepare("road_scenes", sys.argv[1], lambda done, total: print(done, flush=True), examples=4000, size=16)
"""


@pytest.mark.slow
def test_a_killed_run_is_gone_on_with(tmp_path, monkeypatch):
    child = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == "1024":
            break
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    place = tmp_path / "road_scenes" / "examples_4000-size_16"
    assert not (place / "1.0.0").exists()
    (partial,) = place.glob("incomplete-*")
    whole = {p: p.stat().st_mtime_ns for p in partial.glob("road_scenes*")}
    assert 4 <= len(whole) < 16
    with pytest.raises(DataError, match="is not prepared"):
        data.load("tfds:road_scenes", labels="car", directory=str(tmp_path))
    (place / "incomplete-other").mkdir()
    monkeypatch.setattr(preparing, "_SHARD_BYTES", 256 * 16 * 16 * 3)
    folder = prepare("road_scenes", str(tmp_path), examples=4000, size=16)
    assert all((folder / p.name).stat().st_mtime_ns == at for p, at in whole.items())
    assert {p.name for p in place.iterdir()} == {"1.0.0"}
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]
    same(load(tmp_path), road_scenes_table(examples=4000, size=16))


def test_prepare_refuses_what_cannot_be(tmp_path):
    for name, options, line in (
        ("mnist", {}, 'data "mnist": is not prepared by mtl'),
        ("road_scenes", {"sise": 3}, 'has no option "sise": did you mean "size"'),
        ("road_scenes", {"size": 3}, "size = 3: must be from 16 to 1024"),
        ("road_scenes", {"size": "x"}, "size = 'x': must be a whole number"),
        ("road_scenes", {"night": "x"}, "an option is no number"),
        ("road_scenes", {"missing": 1.0}, "missing = 1.0: must be in"),
        ("road_scenes", {"examples": 0}, "examples = 0: must be from 1"),
    ):
        with pytest.raises(DataError, match=line):
            prepare(name, str(tmp_path), **options)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        prepare("road_scenes", str(tmp_path / "file"), examples=2, size=16)


# --- features of official data sets, as TFDS mocks them ---


@pytest.fixture
def mocked(monkeypatch, tmp_path):
    """TFDS invents 20 examples of any data set, and its own builders are opened in place of prepared files."""

    def opened(name, directory):
        builder = tfds.builder(name, data_dir=tmp_path)
        arrays = builder.as_data_source  # It invents pixels; to leave pictures encoded it would need TensorFlow.
        builder.as_data_source = lambda split, decoders: arrays(split=split)
        return builder

    monkeypatch.setattr(tfds_source, "_open", opened)
    one_by_one = lambda source, rows: [source[row] for row in rows]  # noqa: E731 (the mock has no whole batches)
    monkeypatch.setattr(base.BaseDataSource, "__getitems__", one_by_one)
    with tfds.testing.mock_data(num_examples=20):
        yield


def raw(name, split="train"):
    return list(tfds.data_source(name, split=split, download=False))


def test_images_with_a_class(mocked, tmp_path):
    table = data.tfds_table("mnist", "label", split="train", directory=str(tmp_path))
    examples = raw("mnist")
    assert table.x.shape == (20, 28, 28, 1) and table.tasks[0].num_classes == 10
    np.testing.assert_array_equal(table.labels["label"], [e["label"] for e in examples])
    np.testing.assert_allclose(table.x, np.stack([e["image"] for e in examples]) / 255, atol=1e-7)
    assert table.part is None  # All that was read is for training.
    both = {"split": "test+train", "directory": str(tmp_path)}
    assert data.tfds_table("mnist", "label", **both).part.tolist() == [2] * 20 + [0] * 20
    assert data.tfds_table("mnist", "label", examples=30, **both).part.tolist() == [2] * 20 + [0] * 10
    streamed = data.tfds_table("mnist", "label", stream=True, **both)
    assert streamed.part.tolist() == [2] * 20 + [0] * 20
    assert streamed.sha256 == data.tfds_table("mnist", "label", **both).sha256


def test_nested_attributes_are_tasks(mocked):
    table = data.tfds_table("celeb_a", ["attributes.*:binary"], split="train", size=(32, 24))
    assert table.x.shape == (20, 32, 24, 3) and len(table.tasks) == 40
    expected = [e["attributes"]["Smiling"] for e in raw("celeb_a")]
    np.testing.assert_array_equal(table.labels["attributes.Smiling"], expected)


def test_two_class_labels_of_images_of_different_sizes(mocked):
    with pytest.raises(DataError, match=r"give size=\(height, width\)"):
        data.tfds_table("oxford_iiit_pet", ["label", "species"], split="train")
    table = data.tfds_table("oxford_iiit_pet", ["label", "species"], split="train+test", size=(16, 16))
    assert (table.tasks[0].kind, table.tasks[0].num_classes) == ("multiclass", 37)
    assert table.tasks[1].kind == "binary" and len(table) == 40
    assert table.part.tolist() == [0] * 20 + [2] * 20


def test_a_sequence_of_classes_is_a_task_a_class(mocked):
    table = data.tfds_table("voc/2007", "labels", split="train", size=(16, 16))
    examples = raw("voc/2007")
    assert len(table.tasks) == 20 and {t.kind for t in table.tasks} == {"binary"}
    for i, name in enumerate(tfds.builder("voc/2007").info.features["labels"].feature.names):
        np.testing.assert_array_equal(table.labels[f"labels.{name}"], [i in e["labels"] for e in examples])


def test_vectors_are_inputs_side_by_side_and_tasks_by_number(mocked):
    examples = raw("oxford_iiit_pet")
    boxes = np.stack([e["head_bbox"] for e in examples])
    table = data.tfds_table("oxford_iiit_pet", "species", ["head_bbox", "label"], split="train")
    np.testing.assert_array_equal(table.x, np.column_stack([boxes, [e["label"] for e in examples]]))
    table = data.tfds_table("oxford_iiit_pet", {"head_bbox": "regression"}, "label", split="train")
    assert [t.name for t in table.tasks] == [f"head_bbox_{j}" for j in range(4)] and table.x.shape == (20, 1)
    np.testing.assert_array_equal(table.labels["head_bbox_2"], boxes[:, 2])


def test_nothing_of_tensorflow_is_imported(prepared):
    code = (
        "import sys; from mtl import data; "
        f"data.load('tfds:road_scenes', labels='car', directory={str(prepared)!r}); "
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})


def described(folder, features, examples):
    """Write what TFDS says of a data set beside its one file."""
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name="made", split="train", filetype_suffix="array_record"
    )
    split = tfds.core.SplitInfo(name="train", shard_lengths=[examples], num_bytes=1, filename_template=template)
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=[split], version="1.0.0", filename_template=template,
        check_data=False, description="made",
    )  # fmt: skip


def written(root, features, examples):
    """Write a data set "made" as TFDS would."""
    from array_record.python import array_record_module

    folder = root / "made" / "1.0.0"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    writer = array_record_module.ArrayRecordWriter(str(folder / "made-train.array_record-00000-of-00001"), "")
    for example in examples:
        writer.write(features.serialize_example(example))
    writer.close()
    described(folder, features, len(examples))
    return folder


def test_records_read_as_they_are_give_what_tfds_decodes(tmp_path):
    f = tfds.features
    features = f.FeaturesDict(
        {
            "image": f.Tensor(shape=(3, 2, 1), dtype=np.uint8, encoding="bytes"),
            "plain": f.Tensor(shape=(3, 2, 1), dtype=np.uint8),
            "packed": f.Tensor(shape=(3, 2, 1), dtype=np.uint8, encoding="zlib"),
            "kind": f.ClassLabel(names=["a", "b", "c"]),
            "flag": f.Scalar(dtype=np.bool_),
            "dose": f.Scalar(dtype=np.float32),
        }
    )
    rng, examples = np.random.default_rng(0), []
    for i in range(12):
        image = rng.integers(0, 256, (3, 2, 1)).astype(np.uint8)
        dose = np.float32(np.nan if i % 4 == 0 else i)
        example = {"image": image, "plain": image, "packed": image, "kind": i % 4 - 1, "flag": i % 3 == 0, "dose": dose}
        examples.append(example)
    folder = written(tmp_path, features, examples)
    decoded = list(tfds.builder_from_directory(folder).as_data_source(split="train"))
    expected = np.stack([e["image"] for e in decoded]).astype(np.float32) * np.float32(1 / 255)
    for inputs in ("image", "plain", "packed"):
        table = data.tfds_table("made", ["kind", "flag", "dose:regression"], inputs, directory=str(tmp_path))
        np.testing.assert_array_equal(table.x, expected)
        assert table.reading == {"divided_by": 255}
        np.testing.assert_array_equal(table.labels["flag"], [e["flag"] for e in decoded])
        np.testing.assert_array_equal(table.mask["kind"], [e["kind"] >= 0 for e in decoded])
        np.testing.assert_array_equal(table.labels["kind"], [max(0, e["kind"]) for e in decoded])
        dose = np.array([e["dose"] for e in decoded])
        np.testing.assert_array_equal(table.mask["dose"], ~np.isnan(dose))
        np.testing.assert_array_equal(table.labels["dose"], np.nan_to_num(dose))


def test_measured_numbers_are_not_rounded_on_their_way_in(tmp_path):
    f, rng = tfds.features, np.random.default_rng(0)  # Whole numbers: TFDS stores floats as float32.
    kinds = f.ClassLabel(names=["a", "b"])
    features = f.FeaturesDict(
        {"time": f.Scalar(dtype=np.int64), "place": f.Tensor(shape=(2,), dtype=np.int64), "kind": kinds}
    )
    time, place = 1_700_000_000 + np.arange(8), 10**9 + rng.integers(0, 100, (8, 2))
    examples = [{"time": t, "place": p, "kind": t % 2} for t, p in zip(time, place, strict=True)]
    written(tmp_path, features, examples)
    for inputs, expected in ((["time", "place"], np.column_stack([place, time])), ("time", time[:, None])):
        np.testing.assert_array_equal(data.tfds_table("made", "kind", inputs, directory=str(tmp_path)).x, expected)
        with pytest.raises(DataError, match=r"float32 changes inputs of .*: must be read without stream"):
            data.tfds_table("made", "kind", inputs, directory=str(tmp_path), stream=True)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%Pages: 1
%%EndComments
0 0 8 8 rectfill
showpage
%%EOF
"""


def test_an_image_that_tfds_opens_itself_starts_no_other_program(tmp_path, monkeypatch):
    """Pillow renders EPS by starting Ghostscript, here a script that leaves a trace."""
    from PIL import EpsImagePlugin, Image

    trace = tmp_path / "started"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {trace}\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # As it is before anything was opened.
    with pytest.raises(OSError), Image.open(io.BytesIO(EPS)) as image:
        image.load()
    assert trace.exists()  # The control.
    trace.unlink()
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    f = tfds.features
    kinds = f.ClassLabel(names=["a", "b"])
    features = f.FeaturesDict({"inner": {"image": f.Image(shape=(8, 8, 3))}, "kind": kinds})  # Nested: TFDS reads it.
    written(tmp_path, features, [{"inner": {"image": io.BytesIO(EPS)}, "kind": i % 2} for i in range(4)])
    with pytest.raises(DataError):
        data.tfds_table("made", "kind", "inner.image", directory=str(tmp_path))
    assert not trace.exists()


def test_two_labels_of_one_name_are_refused():
    features = {"a": tfds.features.Tensor(shape=(2,), dtype=np.float32), "a_1": tfds.features.Scalar(np.float32)}
    cells = {"a": [np.zeros(2), np.ones(2)], "a_1": [0.0, 1.0]}
    found, kinds, _ = tfds_source._columns(features, cells, {"a": ""}, "here")
    assert list(found) == list(kinds) == ["a_0", "a_1"]
    with pytest.raises(DataError, match='two labels are called "a_1"'):
        tfds_source._columns(features, cells, {"a": "", "a_1": ""}, "here")
