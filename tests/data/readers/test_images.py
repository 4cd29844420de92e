"""Images in a folder with a table of labels, against Pillow's own pixels."""

import io
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtl.data import DataError, images_table, load
from tests.data.readers.damage import damaged, refusal

Image = pytest.importorskip("PIL.Image", reason='Pillow is not installed: pip install "mtl[images]"')

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 8, 6, 3), np.uint8)
TABLE = "file,stop,who\n0.png,1,a\nsub/1.png,,a\n2.jpg,0,b\n3.gif,1,b\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_DATA_DIR", str(tmp_path))
    (tmp_path / "sub").mkdir()
    for name, pixels in zip(("0.png", "sub/1.png", "2.jpg", "3.gif"), PIXELS, strict=True):
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text(TABLE)
    return tmp_path


def table(**options):
    return images_table(**({"path": "labels.csv", "labels": "stop", "size": (8, 6), "groups": "who"} | options))


def test_the_whole_way(folder):
    t = table()
    assert t.x.shape == (4, 8, 6, 3)
    np.testing.assert_array_equal(np.round(t.x[:2] * 255), PIXELS[:2])
    np.testing.assert_array_equal(np.round(t.x[2] * 255), np.asarray(Image.open(folder / "2.jpg")))
    np.testing.assert_array_equal(t.mask["stop"], [True, False, True, True])
    np.testing.assert_array_equal(t.groups, [0, 0, 1, 1])
    assert load("images", path="labels.csv", labels=["stop"], size=(4, 4), channels=1).x.shape == (4, 4, 4, 1)
    (folder / "parts.csv").write_text(TABLE.replace("who", "fold").replace(",a", ",train").replace(",b", ",test"))
    assert table(path="parts.csv", groups="", part="fold").part.tolist() == [0, 0, 2, 2]
    grey = table(channels=1).x[0, ..., 0]
    np.testing.assert_allclose(grey, PIXELS[0] @ [0.299, 0.587, 0.114] / 255, atol=1 / 255)


def test_images_that_do_not_decode(folder):
    data = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(data[:-60])
    (folder / "3.gif").write_bytes(b"no image")
    (folder / "2.jpg").unlink()
    with pytest.raises(DataError) as error:
        table()
    assert [s.split(":")[0] for s in str(error.value).splitlines()] == [
        f'file "labels.csv", line {n}, column "file"' for n in (2, 4, 5)
    ]
    assert 'image "3.gif": does not decode' in str(error.value)
    (folder / "labels.csv").write_text(TABLE + "sub/1.png,0,c\n")
    with pytest.warns(UserWarning, match="3 of 5 images skipped"):
        t = table(bad_images="skip")
    assert len(t) == 2
    assert "3 of 5 images skipped (the first, line 2" in t.about
    np.testing.assert_array_equal(t.mask["stop"], [False, True])
    (folder / "sub/1.png").unlink()
    with pytest.raises(DataError, match="none of 5 images could be read"):
        table(bad_images="skip")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": (8, 0)}, "size = (8, 0): must be (height, width)"),
        ({"channels": 4}, "channels = 4: must be 1 or 3"),
        ({"bad_images": "drop"}, 'bad_images = "drop": must be "error" or "skip"'),
        ({"max_bytes": 300}, "images (4, 8, 6, 3) in float32: must be at most max_bytes = 300"),
        ({"max_pixels": 47}, 'image "0.png": 6 x 8 pixels: must be at most 47'),
        ({"file_column": "path"}, 'inputs: "path" is no column'),
        (
            {"labels": "stop:multiclass", "classes": [("stop", "0", "2")]},
            'line 2, column "stop": label 1: must be one of',
        ),
    ],
)
def test_what_is_refused(folder, options, sentence):
    with pytest.raises(DataError, match=re.escape(sentence)):
        table(**options)


def test_images_outside_the_folder_are_refused_under_either_policy(folder):
    Image.fromarray(PIXELS[0]).save(folder / "secret.png")
    (folder / "sub/labels.csv").write_text("file,stop\n../secret.png,1\n1.png,0\n")
    for policy in ("error", "skip"):
        with pytest.raises(DataError, match=r'line 2, column "file": file "../secret.png": leaves the data directory'):
            images_table("sub/labels.csv", "stop", (8, 6), bad_images=policy)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), form=st.sampled_from(["PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM"]))
def test_a_damaged_image_is_a_data_error_or_an_image(folder, data, form):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(buffer, form)
    (folder / "0.png").write_bytes(data.draw(damaged(buffer.getvalue())))
    said = refusal(table)
    assert said is None or "line 2" in said
