"""Pictures and pixels are the same numbers whichever way they come in: a folder, TFDS, an array."""

import dataclasses
import io
import json

import numpy as np
import pytest

from mtl.data import DataError, Picture, arrays_table, images_table, make_table, npz_table
from mtl.tasks import Task
from tests.data.pictures import RNG, png, samples, tiff

pytest.importorskip("PIL.Image", reason='Pillow is not installed: pip install "mtl[images]"')

NAMED = "#3366cc"

KINDS = {
    "deep.png": png(samples(16), 16, 0),
    "deep.tif": tiff(samples(16), 16, 1, ">"),
    "float.tif": tiff(samples(16) / 65535, 32, 1, form=3),
    "alpha.png": png(samples(8, 4), 8, 6),
    "grey_alpha.png": png(samples(8, 2), 8, 4),
    "palette.png": png(RNG.integers(0, 4, (6, 8, 1)), 2, 3, bytes(range(100, 112)), b"\0\x80"),
    "bit.png": png(samples(1), 1, 0),
    "plain.png": png(samples(8, 3), 8, 2),
    "inks.tif": tiff(samples(8, 4), 8, 5),
    "turned.tif": tiff(samples(8, 3), 8, 2, orientation=6),
}


def test_a_folder_of_every_kind(tmp_path):
    for name, data in KINDS.items():
        (tmp_path / name).write_bytes(data)
    lines = [f"{name},{i % 2}" for i, name in enumerate(KINDS)]
    (tmp_path / "t.csv").write_text("\n".join(["file,y", *lines]))
    for channels in (1, 3):
        table = images_table("t.csv", "y", (4, 5), channels=channels, ground=NAMED, directory=str(tmp_path))
        expected = [Picture((4, 5), channels, NAMED).read(data) for data in KINDS.values()]
        np.testing.assert_array_equal(table.x, np.stack(expected))
        kept = json.loads(json.dumps(table.reading))["picture"]  # as a model keeps it
        np.testing.assert_array_equal(Picture(**kept).read(KINDS["deep.png"]), table.x[0])
    (tmp_path / "t.csv").write_text("\n".join(["file,y", *lines, "wide.png,0"]))
    (tmp_path / "wide.png").write_bytes(png(samples(16, 3), 16, 2))
    with pytest.raises(DataError, match=r'^file "t.csv", line 12, column "file": image "wide.png": 16 bits a channel'):
        images_table("t.csv", "y", (4, 5), directory=str(tmp_path))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tfds_reads_pictures_as_a_folder_does(tmp_path, nested, channels):
    tfds = pytest.importorskip("tensorflow_datasets", reason='needs the extra: pip install "mtl[tfds]"')
    pytest.importorskip("array_record", reason='needs the extra: pip install "mtl[tfds]"')
    from mtl.data import tfds_table
    from tests.data.tfds.test_source import written

    f = tfds.features
    dtype = np.uint16 if channels == 1 else np.uint8
    image = f.Image(shape=(None, None, channels), dtype=dtype, encoding_format="png")
    features = f.FeaturesDict(
        {"inner": {"image": image}, "kind": f.ClassLabel(names=["a", "b"])}
        if nested
        else {"image": image, "kind": f.ClassLabel(names=["a", "b"])}
    )
    held = [{"image": io.BytesIO(data)} for data in KINDS.values()]
    written(tmp_path, features, [({"inner": e} if nested else e) | {"kind": i % 2} for i, e in enumerate(held)])
    name = "inner.image" if nested else "image"
    options = {"size": (4, 5), "ground": NAMED, "directory": str(tmp_path)}
    table = tfds_table("made", "kind", name, **options)
    picture = Picture((4, 5), 1 if channels == 1 else 3, NAMED)
    np.testing.assert_array_equal(table.x, np.stack([picture.read(data) for data in KINDS.values()]))
    streamed = tfds_table("made", "kind", name, stream=True, **options)
    assert streamed.sha256 == table.sha256
    assert streamed.reading == table.reading == {"picture": dataclasses.asdict(picture)}
    written(tmp_path, features, [({"inner": e} if nested else e) | {"kind": 0} for e in [{"image": io.BytesIO(b"no")}]])
    with pytest.raises(DataError, match=rf'^data "tfds:made", example 0, {name}: does not decode \(must be one of PNG'):
        tfds_table("made", "kind", name, **options)


def test_tfds_refuses_several_pictures_an_example(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason='needs the extra: pip install "mtl[tfds]"')
    pytest.importorskip("array_record", reason='needs the extra: pip install "mtl[tfds]"')
    from mtl.data import tfds_table
    from tests.data.tfds.test_source import written

    f = tfds.features
    features = f.FeaturesDict({"frames": f.Sequence(f.Image(shape=(6, 8, 3))), "kind": f.ClassLabel(names=["a", "b"])})
    frames = [io.BytesIO(KINDS["plain.png"]), io.BytesIO(KINDS["plain.png"])]
    written(tmp_path, features, [{"frames": frames, "kind": 0}, {"frames": frames, "kind": 1}])
    with pytest.raises(DataError, match="feature frames is several pictures an example: inputs must be one"):
        tfds_table("made", "kind", "frames", directory=str(tmp_path))


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2"])
def test_pixels_in_arrays_are_scaled_by_their_dtype(tmp_path, dtype):
    bits = 8 * np.dtype(dtype).itemsize
    x, y = np.stack([samples(bits) for _ in range(4)]).astype(dtype), [0, 1, 1, 0]
    np.savez(tmp_path / "a.npz", x=x, y=y)
    table = npz_table("a.npz", "y", directory=str(tmp_path))
    np.testing.assert_allclose(table.x, x / (2**bits - 1), rtol=1e-6)
    assert table.reading == {"divided_by": 2**bits - 1}
    np.testing.assert_array_equal(arrays_table(x, {"y": y}).x, table.x)
    np.testing.assert_array_equal(make_table("own", x, [Task("y", "binary")], {"y": y}).x, table.x)
    np.testing.assert_array_equal(arrays_table(x[..., 0], {"y": y}).x, table.x[..., 0])
    np.testing.assert_array_equal(
        table.x[0], Picture(channels=1).read(png(x[0], bits, 0))
    )  # as the file that holds them
    np.testing.assert_array_equal(arrays_table(x.reshape(4, -1), {"y": y}).x, x.reshape(4, -1))  # measured columns


def test_arrays_of_other_numbers_are_taken_as_they_are_or_refused():
    y = [0, 1, 1, 0]
    codes = np.eye(8)[RNG.integers(0, 8, (4, 6))]  # one-hot, [4, 6, 8]
    for dtype in (bool, np.float32, np.float64, np.int64):
        np.testing.assert_array_equal(arrays_table(codes.astype(dtype), {"y": y}).x, codes)
    with pytest.raises(DataError, match=r"x: uint8 \(4, 6, 8\) of 0 and 1 alone, .* must be booleans or floats"):
        arrays_table(codes.astype(np.uint8), {"y": y})
    assert not arrays_table(np.zeros((4, 6, 8), np.uint8), {"y": y}).x.any()
    x = np.stack([samples(8) for _ in range(4)])
    with pytest.raises(DataError, match=r"x: int64 \(4, 6, 8, 1\) up to 255, .* must be uint8 or uint16"):
        arrays_table(x, {"y": y})
    np.testing.assert_array_equal(arrays_table(x.astype(np.float32), {"y": y}).x, x)
