"""Pictures: one way from a file, or from stored pixels, to numbers in [0, 1], for every reader."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pathlib
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl.data.extras import needs
from mtl.data.paths import MAX_BYTES, read
from mtl.data.problems import DataError

# Formats whose decoders are part of Pillow; EPS, for one, would start another program.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")

#: The most pixels a picture may have before it is scaled.
MAX_PIXELS = 50_000_000

# What pixels are divided by, by the bytes of an unsigned number.
_WHITE = {1: 255, 2: 65_535}

# Pillow's modes whose values are known: those of more than 8 bits, and all.
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_KNOWN = (*_DEEP, "1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LA", "La", "PA", "RGBA", "RGBa")
_RIGHT = (
    "must be grey (1 to 16 bits, or floats in [0, 1]), or palette, RGB, CMYK or YCbCr of 8 bits a channel, with or "
    "without alpha"
)

# Tags of TIFF.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339

# What turns a picture upright, by the EXIF orientation: names of Pillow's transpositions.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def holds_pixels(array: np.ndarray) -> bool:
    """Return whether an array [N, …] holds pixels: unsigned numbers of one or two bytes, with three axes or more.

    The dtype decides, never the values: no other says what is white. Floats are taken as they are.

    >>> holds_pixels(np.zeros((5, 8, 8), np.uint8)), holds_pixels(np.zeros((5, 8), np.uint8))
    (True, False)
    """
    return array.dtype.kind == "u" and array.dtype.itemsize in _WHITE and array.ndim > 2


def unit(array: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return numbers as float32, those of pixels divided by 255 or 65,535.

    Args:
      array: [N, …] numbers.
      out: where to write them, float32 of the same shape; a new array if none.

    >>> unit(np.array([[[0, 65535]]], np.uint16))
    array([[[0., 1.]]], dtype=float32)
    """
    out = np.empty(array.shape, np.float32) if out is None else out
    return np.multiply(array, np.float32(1 / _WHITE[array.dtype.itemsize] if holds_pixels(array) else 1), out=out)


@dataclasses.dataclass(frozen=True)
class Picture:
    """What is made of a picture; with the same values any other file is read in the same way.

    A picture is turned upright as its EXIF orientation says, laid on the ground where it is transparent, made grey or
    coloured, scaled to ``size`` (bilinear, without keeping the aspect), and divided by what its bit depth makes white.
    Eight bits a channel stay eight until the end, as Pillow does it; 16 bits and floats are scaled as float32.

    Args:
      size: (height, width); empty to leave it as it is.
      channels: 3 for colour, 1 for grey.
      ground: the colour behind transparent pixels, by a name or as ``#rrggbb``.

    Raises:
      DataError: for values that cannot be, and if Pillow is not installed.

    >>> Picture((4, 6), channels=2)
    Traceback (most recent call last):
    ...
    mtl.data.problems.DataError: channels = 2: must be 1 or 3
    """

    size: Sequence[int] = ()
    channels: int = 3
    ground: str = "white"

    def __post_init__(self) -> None:
        """Check every value."""
        needs("PIL", "images", "Images")
        from PIL import ImageColor

        sized = isinstance(self.size, list | tuple) and len(self.size) in (0, 2)
        if not sized or any(type(n) is not int or n < 1 for n in self.size):
            raise DataError(f"size = {self.size!r}: must be (height, width), at least 1 each")
        object.__setattr__(self, "size", tuple(self.size))  # A list, as JSON has it, is as good.
        if type(self.channels) is not int or self.channels not in (1, 3):
            raise DataError(f"channels = {self.channels!r}: must be 1 or 3")
        try:
            opaque = len(ImageColor.getrgb(self.ground)) == 3
        except (ValueError, AttributeError, TypeError):
            opaque = False
        if not opaque:
            raise DataError(f'ground = {self.ground!r}: must be a colour such as "white", "black" or "#80c0ff"')

    def read(
        self,
        source: pathlib.Path | bytes | np.ndarray,
        where: str = "image",
        max_bytes: int = MAX_BYTES,
        max_pixels: int = MAX_PIXELS,
    ) -> np.ndarray:
        """Return a picture as [height, width, channels] float32 in [0, 1].

        Args:
          source: a file, its bytes, or pixels [height, width, channels] of 8 bits, or of 16 if grey.
          where: what to call it in errors; a file goes by its name.
          max_bytes: the most a file may hold.
          max_pixels: the most pixels it may have before it is scaled.

        Raises:
          DataError: one sentence for what is no picture, cut short, too large, has several frames, or is of a kind
            whose values Pillow does not give, or does not give whole.

        >>> Picture((1, 1), channels=1).read(np.full((2, 3, 3), 255, np.uint8))
        array([[[1.]]], dtype=float32)
        """
        from PIL import Image

        if isinstance(source, pathlib.Path):
            where, source = f'image "{source.name}"', read(source, max_bytes=max_bytes)
        try:
            if isinstance(source, np.ndarray):
                opened = Image.fromarray(source[..., 0] if source.shape[2:] == (1,) else source)
            else:
                opened = Image.open(io.BytesIO(source), formats=FORMATS)
            with opened as image:
                _refuse(image, where, max_pixels)
                pixels = np.dstack([np.asarray(band) for band in self._made(image, where)])
        except DataError:
            raise
        except Image.UnidentifiedImageError:
            raise DataError(f"{where}: does not decode (must be one of {', '.join(FORMATS)})") from None
        except (
            *(OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError),
            *(struct.error, zlib.error, Image.DecompressionBombError),
        ) as error:
            raise DataError(f"{where}: does not decode ({error})") from None
        return unit(pixels[None])[0]

    def _made(self, image: Any, where: str) -> list[Any]:
        """Return what Pillow makes of a picture: one of L or RGB, or a band of F in [0, 1] for each channel."""
        from PIL import Image

        if image.format == "PNG" and image.mode == "L" and "transparency" in image.info:
            image.info["transparency"] *= 255 // (2 ** _bits(image) - 1)  # Pillow scales the pixels alone.
        image.load()  # TIFF files are turned upright here, and say no more that they were not.
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
        mode = "RGB" if self.channels == 3 else "L"
        if image.mode in _DEEP:
            bands = [Image.fromarray(band) for band in self._deep(image, where)]
        elif image.has_transparency_data:
            colour = image.convert("LA") if image.mode == "La" else image
            laid = Image.alpha_composite(Image.new("RGBA", image.size, self.ground), colour.convert("RGBA"))
            bands = [laid.convert("RGB").convert(mode)]
        else:
            bands = [image if image.mode == mode else image.convert(mode)]
        if turn:
            bands = [band.transpose(Image.Transpose[turn]) for band in bands]
        if self.size:
            height, width = self.size
            bands = [band.resize((width, height), Image.Resampling.BILINEAR) for band in bands]
        return bands * 3 if bands[0].mode == "F" and len(bands) < self.channels else bands

    def _deep(self, image: Any, where: str) -> np.ndarray:
        """Return [1, height, width] float32 in [0, 1] of a grey picture of more than 8 bits; [3, …] on a colour."""
        from PIL import Image

        tags, stored = getattr(image, "tag_v2", {}), np.asarray(image)
        if image.mode == "F":
            values = stored
            if not (values.min() >= 0 and values.max() <= 1):
                raise DataError(f"{where}: floats from {values.min():g} to {values.max():g}: must be in [0, 1]")
        else:
            bits = max(tags.get(_BITS, (16,)))  # 12 as well
            values = np.multiply(stored, np.float32(1 / (2**bits - 1)), dtype=np.float32)
        if tags.get(_PHOTOMETRIC) == 0:  # White is zero: Pillow turns this round for up to 8 bits only.
            values = 1 - values
        if (clear := image.info.get("transparency")) is None:
            return values[None]
        ground = np.asarray(Image.new("RGB" if self.channels == 3 else "L", (1, 1), self.ground)).reshape(-1, 1, 1)
        return np.where(stored == clear, np.float32(1 / 255) * ground, values)


def _refuse(image: Any, where: str, max_pixels: int) -> None:
    """Refuse, before it is decoded, a picture that is too large or not wholly known."""
    if image.width * image.height > max_pixels:
        raise DataError(f"{where}: {image.width} x {image.height} pixels: must be at most {max_pixels:,}")
    if image.format != "MPO":  # A camera's JPEG, with previews behind the picture.
        with contextlib.suppress(EOFError):  # Only the second is asked for: there may be very many to count.
            image.seek(1)
            raise DataError(f"{where}: several frames: must be one picture")
    signed = 2 in getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, (1,))
    # "I" may hold any 32 bits, and nothing says which is white; of PPM files Pillow makes 0 to 65,535.
    if signed or image.mode not in _KNOWN or (image.mode == "I" and image.format != "PPM"):
        kind = "signed numbers" if signed else f'Pillow\'s mode "{image.mode}"'
        raise DataError(f"{where}: {kind}: {_RIGHT}")
    if image.mode not in _DEEP and (bits := _bits(image)) > 8:
        raise DataError(f"{where}: {bits} bits a channel, of which Pillow keeps 8 in mode {image.mode}: {_RIGHT}")


def _bits(image: Any) -> int:
    """Return the bits a channel of a picture that is not decoded yet, where its format has other numbers than 8."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS, (1,)))
    if image.format == "PNG" and image.tile:  # such as "L;2" or "RGB;16B"
        return int(image.tile[0].args.partition(";")[2].rstrip("B") or 8)
    if image.format == "PPM" and isinstance(image.tile[0].args, tuple):  # ("RGB", the most that a channel may hold)
        return int(image.tile[0].args[1]).bit_length()
    return 8
