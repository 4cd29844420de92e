"""Pictures against files written by hand, NumPy's arithmetic, and Pillow used plainly."""

import dataclasses
import io
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.data import DataError, Picture
from tests.data.pictures import RNG, png, samples, tiff

Image = pytest.importorskip("PIL.Image", reason='Pillow is not installed: pip install "mtl[images]"')
ImageOps = pytest.importorskip("PIL.ImageOps")

GROUND = np.array([0.2, 0.4, 0.8])  # 51, 102, 204
NAMED = "#3366cc"
LUMA = np.array([0.299, 0.587, 0.114])
EIGHT = Image.fromarray(np.zeros((6, 8, 3), np.uint8))
OTHER = Image.fromarray(np.full((6, 8, 3), 255, np.uint8))


def saved(image, form, **options):
    held = io.BytesIO()
    image.save(held, form, **options)
    return held.getvalue()


def colour(data, **options):
    return Picture(**({"ground": NAMED} | options)).read(data)


def grey(data, **options):
    return colour(data, channels=1, **options)[..., 0]


# --- bit depth ---


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("clear", [False, True])
def test_grey_png_of_every_depth_with_and_without_a_transparent_value(bits, clear):
    given = samples(bits)
    value = int(given[2, 3, 0])
    data = png(given, bits, 0, clear=value.to_bytes(2, "big") if clear else b"")
    expected = given / (2**bits - 1) * np.ones(3)
    if clear:
        expected[given[..., 0] == value] = GROUND
    np.testing.assert_allclose(colour(data), expected, atol=1e-6)
    np.testing.assert_allclose(grey(data), expected @ LUMA, atol=0.6 / 255 if clear else 1e-6)
    assert len(np.unique(grey(data))) == len(np.unique(given))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_sixteen_bits_in_tiff(order, white_is_zero):
    if order == ">" and white_is_zero:
        with pytest.raises(DataError, match="does not decode"):  # Pillow knows none
            grey(tiff(samples(16), 16, 0, order))
        return
    given = samples(16)
    expected = given[..., 0] / 65535
    expected = 1 - expected if white_is_zero else expected
    np.testing.assert_allclose(grey(tiff(given, 16, 0 if white_is_zero else 1, order)), expected, atol=1e-6)


def test_twelve_bits_in_tiff_and_any_maximum_in_ppm():
    given = samples(12)
    np.testing.assert_allclose(grey(tiff(given, 12, 1)), given[..., 0] / 4095, atol=1e-6)
    for most in (1, 3, 100, 255, 256, 1000, 4095, 65535):
        values = RNG.integers(0, most + 1, (6, 8))
        body = values.astype(np.uint8 if most < 256 else ">u2").tobytes()
        got = grey(b"P5 8 6 %d\n" % most + body)
        np.testing.assert_allclose(got, values / most, atol=0.51 / (255 if most < 256 else 65535))


@pytest.mark.parametrize("order", ["<", ">"])
def test_floats_in_the_unit_interval_are_taken_and_others_refused(order):
    given = RNG.random((6, 8, 1)).astype(np.float32)
    np.testing.assert_array_equal(grey(tiff(given, 32, 1, order, form=3)), given[..., 0])
    for wrong in (1.001, -0.001, 255, np.nan, np.inf):
        given[1, 1] = wrong
        with pytest.raises(DataError, match=r"^here: floats from .* to .*: must be in \[0, 1\]$"):
            Picture().read(tiff(given, 32, 1, order, form=3), "here")


def test_deep_pictures_are_scaled_without_loss():
    given = (samples(16) // 64 + 300).astype(np.uint16)  # few of the values: 8 bits would leave five
    data = png(given, 16, 0)
    expected = np.asarray(Image.fromarray((given[..., 0] / 65535).astype(np.float32)).resize((5, 4), 2))
    np.testing.assert_allclose(grey(data, size=(4, 5)), expected, atol=1e-6)
    np.testing.assert_allclose(grey(png(np.full((6, 8, 1), 12345), 16, 0), size=(4, 5)), 12345 / 65535, atol=1e-7)
    assert colour(data, size=(4, 5)).shape == (4, 5, 3)


# --- colours ---


@pytest.mark.parametrize("clear", [b"", b"\xff\x00\x80", b"\xff\xff\x00"])
@pytest.mark.parametrize("bits", [2, 8])
def test_palettes(bits, clear):
    given = RNG.integers(0, 4, (6, 8, 1))
    palette = RNG.integers(0, 256, (4, 3), np.uint8)
    alpha = np.concatenate([np.frombuffer(clear, np.uint8), np.full(4, 255)])[:4, None] / 255
    entries = palette / 255 * alpha + GROUND * (1 - alpha)
    data = png(given, bits, 3, palette.tobytes(), clear)
    np.testing.assert_allclose(colour(data), entries[given[..., 0]], atol=0.6 / 255)
    np.testing.assert_allclose(grey(data), entries[given[..., 0]] @ LUMA, atol=1.2 / 255)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), channels=st.sampled_from([2, 4]), rgb=st.tuples(*[st.integers(0, 255)] * 3))
def test_alpha_is_laid_on_the_ground(seed, channels, rgb):
    given = np.random.default_rng(seed).integers(0, 256, (6, 8, channels))
    alpha = given[..., -1:] / 255
    expected = given[..., :-1] / 255 * alpha + np.array(rgb) / 255 * (1 - alpha)
    data = png(given, 8, 4 if channels == 2 else 6)
    ground = "#{:02x}{:02x}{:02x}".format(*rgb)
    np.testing.assert_allclose(colour(data, ground=ground), expected * np.ones(3), atol=0.6 / 255)
    np.testing.assert_allclose(grey(data, ground=ground), expected * np.ones(3) @ LUMA, atol=1.2 / 255)


def test_a_glyph_is_seen_and_hidden_colours_are_not():
    glyph = np.zeros((8, 8, 4), np.uint8)
    glyph[2:6, 2:6, 3] = 255
    alpha = glyph[..., 3:] / 255
    np.testing.assert_array_equal(Picture().read(png(glyph, 8, 6)), 1 - alpha * np.ones(3))
    glyph[..., :3] = np.where(alpha > 0, 0, RNG.integers(0, 256, (8, 8, 3)))  # What nobody sees.
    small = Picture((4, 4)).read(png(glyph, 8, 6))
    plain = Image.fromarray((255 * (1 - alpha[..., 0])).astype(np.uint8)).resize((4, 4), 2)
    np.testing.assert_allclose(small, np.asarray(plain)[..., None] / 255 * np.ones(3), atol=1e-6)
    other = np.asarray(Image.fromarray(glyph[..., :3]).resize((4, 4), 2)) / 255  # The control: scaled with them.
    assert np.abs(other - small).max() > 0.2


def test_a_transparent_colour():
    given = samples(8, 3)
    data = png(given, 8, 2, clear=given[1, 1].astype(">u2").tobytes())
    expected = np.where((given == given[1, 1]).all(axis=-1, keepdims=True), GROUND, given / 255)
    np.testing.assert_allclose(colour(data), expected, atol=1e-6)


def test_premultiplied_alpha_and_spare_channels_in_tiff():
    given = samples(8, 4)
    alpha = given[..., 3:] / 255
    premultiplied = np.concatenate([np.rint(given[..., :3] * alpha), given[..., 3:]], axis=-1)
    expected = given[..., :3] / 255 * alpha + GROUND * (1 - alpha)
    np.testing.assert_allclose(colour(tiff(premultiplied, 8, 2, extra=(1,))), expected, atol=3 / 255)
    np.testing.assert_allclose(colour(tiff(given, 8, 2, extra=(2,))), expected, atol=0.6 / 255)
    np.testing.assert_allclose(colour(tiff(given, 8, 2, extra=(0,))), given[..., :3] / 255, atol=1e-6)
    two = np.concatenate([np.rint(given[..., :1] * alpha), given[..., 3:]], axis=-1)
    expected = (given[..., :1] / 255 * alpha + GROUND * (1 - alpha)) @ LUMA
    assert np.abs(grey(tiff(two, 8, 1, extra=(1,))) - expected).max() < 3 / 255


def test_inks():
    given = samples(8, 4)
    expected = (1 - given[..., :3] / 255) * (1 - given[..., 3:] / 255)
    np.testing.assert_allclose(colour(tiff(given, 8, 5)), expected, atol=1.5 / 255)
    np.testing.assert_allclose(grey(tiff(given, 8, 5)), expected @ LUMA, atol=2 / 255)
    smooth = np.zeros((16, 16, 3), np.uint8)
    smooth[:, 8:] = 255
    inverted = saved(Image.fromarray(smooth).convert("CMYK"), "JPEG", quality=100)  # as Adobe writes them
    np.testing.assert_allclose(colour(inverted), smooth / 255, atol=3 / 255)


def test_opaque_pictures_of_eight_bits_are_as_pillow_makes_them():
    image = Image.fromarray(samples(8, 3).astype(np.uint8))
    for form in ("PNG", "BMP", "PPM", "TIFF", "JPEG", "WEBP", "GIF"):
        data = saved(image, form)
        for channels, mode in ((3, "RGB"), (1, "L")):
            plain = Image.open(io.BytesIO(data)).convert(mode)
            expected = np.asarray(plain.resize((5, 4), Image.Resampling.BILINEAR)).reshape(4, 5, channels)
            got = Picture((4, 5), channels).read(data)
            np.testing.assert_array_equal(np.rint(got * 255), expected)
            np.testing.assert_allclose(got, expected / 255, rtol=1e-6)


# --- upright ---

# Where a viewer's row and column lie in what is stored, as the EXIF standard says of "the 0th row and column".
SEEN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("orientation", SEEN)
def test_every_orientation_of_every_format(orientation):
    given = samples(8, 3)
    image, exif = Image.fromarray(given.astype(np.uint8)), Image.Exif()
    exif[0x0112] = orientation
    for form, options in (
        ("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True}),
    ):  # fmt: skip
        data = saved(image, form, exif=exif, **options)
        np.testing.assert_allclose(colour(data), SEEN[orientation](given) / 255, atol=1e-6)
    data = saved(image, "JPEG", exif=exif, quality=100, subsampling=0)
    np.testing.assert_allclose(
        colour(data), SEEN[orientation](np.asarray(Image.open(io.BytesIO(data)))) / 255, atol=1e-6
    )
    for order in "<>":
        deep = tiff(samples(16), 16, 1, order, orientation=orientation)
        assert grey(deep).shape == ((8, 6) if orientation > 4 else (6, 8))
        np.testing.assert_allclose(
            grey(tiff(257 * given[..., :1], 16, 1, order, orientation=orientation)),
            SEEN[orientation](given[..., 0]) / 255,
            atol=1e-6,
        )
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).resize((5, 4), 2)  # turned first, then scaled
    np.testing.assert_allclose(Picture((4, 5)).read(data), np.asarray(shown) / 255, atol=1e-6)


def test_an_orientation_that_is_none_is_left():
    exif = Image.Exif()
    for wrong in (0, 9, 65535):
        exif[0x0112] = wrong
        assert colour(saved(Image.fromarray(samples(8, 3).astype(np.uint8)), "JPEG", exif=exif)).shape == (6, 8, 3)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), form=st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]))
@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_is_a_picture_or_a_sentence(data, form):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "what it is"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    whole = bytearray(saved(EIGHT, form, exif=exif))
    start = max(whole.find(b"MM\0"), whole.find(b"II*"), 0)
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(start, min(start + 120, len(whole) - 1)))] = data.draw(st.integers(0, 255))
    try:
        assert Picture().read(bytes(whole), "here").dtype == np.float32
    except DataError as error:
        assert str(error).startswith("here: ") and "\n" not in str(error)  # noqa: PT017


# --- what is refused ---


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (png(samples(16, 3), 16, 2), "16 bits a channel, of which Pillow keeps 8 in mode RGB: must be grey"),
        (png(samples(16, 2), 16, 4), "16 bits a channel, of which Pillow keeps 8 in mode RGBA"),
        (png(samples(16, 4), 16, 6), "16 bits a channel, of which Pillow keeps 8 in mode RGBA"),
        (tiff(samples(16, 3), 16, 2), "16 bits a channel"),
        (tiff(samples(16, 3), 16, 2, ">"), "16 bits a channel"),
        (tiff(samples(16, 4), 16, 5), "16 bits a channel"),
        (b"P6 2 1 1023\n" + bytes(12), "10 bits a channel"),
        (b"P3 2 1 65535\n" + b"0 " * 6, "16 bits a channel"),
        (tiff(samples(8, 3), 8, 8), 'Pillow\'s mode "LAB": must be grey'),
        (tiff(samples(16), 32, 1), 'Pillow\'s mode "I": must be grey'),
        (tiff(samples(16), 32, 1, form=2), "signed numbers: must be grey"),
        (tiff(samples(8), 16, 1, form=2), "signed numbers: must be grey"),
        (tiff(samples(7), 8, 1, form=2), "signed numbers: must be grey"),
        (saved(EIGHT, "GIF", save_all=True, append_images=[OTHER]), "several frames: must be one picture"),
        (saved(EIGHT, "TIFF", save_all=True, append_images=[OTHER]), "several frames: must be one picture"),
        (saved(EIGHT, "WEBP", save_all=True, append_images=[OTHER]), "several frames: must be one picture"),
        (saved(EIGHT, "PNG", save_all=True, append_images=[OTHER]), "several frames: must be one picture"),
        (b"no picture", "does not decode (must be one of PNG,"),
        (png(samples(8, 3), 8, 2)[:-40], "does not decode ("),
    ],
)  # fmt: skip
def test_what_is_not_wholly_known_is_refused_in_one_sentence(data, sentence):
    with pytest.raises(DataError, match=f"^here: {re.escape(sentence)}") as error:
        Picture().read(data, "here")
    assert "\n" not in str(error.value)


def test_of_a_cameras_file_with_previews_the_picture_is_read():
    data = saved(EIGHT, "MPO", save_all=True, append_images=[OTHER])
    assert Image.open(io.BytesIO(data)).n_frames == 2
    np.testing.assert_array_equal(colour(data), 0)


MODES = ("1", "L", "P", "RGB", "RGBA", "RGBX", "RGBa", "LA", "La", "PA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16",
         "I;16B", "I;16L", "F")  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_whatever_pillow_writes_is_read_or_refused(mode):
    """White in any mode and format is white, or one sentence."""
    white = {"CMYK": 0, "YCbCr": (255, 128, 128), "I": 65535, "F": 1.0, "LAB": (255, 128, 128), "HSV": (0, 0, 255)}
    bands = len(Image.new(mode, (1, 1)).getbands())
    value = white.get(mode, 65535 if mode.startswith("I;16") else (255,) * bands if bands > 1 else 255)
    image = Image.new(mode, (8, 6), value)
    if "P" in mode:
        image.putpalette([255] * 768)
    seen = 0
    for form in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF"):
        try:
            data = saved(image, form)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # Pillow writes no such file.
        if mode in ("I", "F") and Image.open(io.BytesIO(data)).mode not in ("I", "I;16", "F"):
            continue  # Clipped by Pillow when it was written.
        seen += 1
        for channels in (1, 3):
            try:
                np.testing.assert_allclose(Picture((4, 5), channels, "black").read(data), 1, atol=1.5 / 255)
            except DataError as error:
                assert mode in ("LAB", "I") and "must be grey" in str(error)  # noqa: PT017
    assert seen or mode in ("HSV", "La", "RGBa", "I;16L")


def test_options_that_cannot_be():
    for options, sentence in (
        ({"size": (8,)}, "size = (8,): must be (height, width)"),
        ({"size": (8, -1)}, "size = (8, -1): must be (height, width)"),
        ({"channels": 4}, "channels = 4: must be 1 or 3"),
        ({"ground": "whiter"}, "ground = 'whiter': must be a colour"),
        ({"ground": "#ffffff00"}, "ground = '#ffffff00': must be a colour"),
    ):
        with pytest.raises(DataError, match=re.escape(sentence)):
            Picture(**options)


def test_it_goes_through_json():
    picture = Picture((4, 6), 1, "black")
    assert Picture(**json.loads(json.dumps(dataclasses.asdict(picture)))) == picture
