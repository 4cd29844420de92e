"""PNG and TIFF files written by hand, byte by byte, so that what a test expects does not come from Pillow."""

import struct
import zlib

import numpy as np

RNG = np.random.default_rng(0)


def samples(bits, channels=1):
    """Numbers [6, 8, channels] of so many bits, the least and the most among them."""
    found = RNG.integers(0, 2**bits, (6, 8, channels))
    found[0, :2, 0] = 0, 2**bits - 1
    return found


def png(samples, bits, colour, palette=b"", clear=b""):
    """A PNG file of samples [height, width, channels]; colour 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""
    height, width = samples.shape[:2]
    if bits == 16:
        rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    elif bits == 8:
        rows = samples.astype(np.uint8).reshape(height, -1)
    else:
        digits = (samples.reshape(height, -1, 1) >> np.arange(bits)[::-1] & 1).astype(np.uint8)
        rows = np.packbits(digits.reshape(height, -1), axis=1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
        + (chunk(b"PLTE", palette) if palette else b"")
        + (chunk(b"tRNS", clear) if clear else b"")
        + chunk(b"IDAT", zlib.compress(body))
        + chunk(b"IEND", b"")
    )


def tiff(samples, bits, photometric, order="<", form=1, orientation=1, extra=()):
    """A TIFF file of samples [height, width, channels] in one strip; form 1 unsigned, 2 signed, 3 float."""
    height, width, channels = samples.shape
    if bits == 12:  # two values in three bytes
        pairs = samples.reshape(height, -1, 2).astype(np.uint32)
        whole = pairs[..., 0] << 12 | pairs[..., 1]
        body = np.stack([whole >> 16, whole >> 8 & 255, whole & 255], axis=-1).astype(np.uint8).tobytes()
    else:
        body = samples.astype(f"{order}{ {1: 'u', 2: 'i', 3: 'f'}[form] }{bits // 8}").tobytes()
    short, long = 3, 4
    tags = [
        (256, long, [width]), (257, long, [height]), (258, short, [bits] * channels), (259, short, [1]),
        (262, short, [photometric]), (273, long, [0]), (274, short, [orientation]), (277, short, [channels]),
        (278, long, [height]), (279, long, [len(body)]), (338, short, list(extra)), (339, short, [form] * channels),
    ]  # fmt: skip
    tags = [tag for tag in tags if tag[2]]
    begin = 8 + 2 + 12 * len(tags) + 4
    beyond = b""
    entries = b""
    ends = begin + sum(2 * len(v) for _, kind, v in tags if kind == short and len(v) > 2)
    for number, kind, values in tags:
        values = [ends] if number == 273 else values
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == short else 'I'}", *values)
        if len(packed) > 4:
            packed, beyond = struct.pack(f"{order}I", begin + len(beyond)), beyond + packed
        entries += struct.pack(f"{order}HHI", number, kind, len(values)) + packed.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return head + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0) + beyond + body
