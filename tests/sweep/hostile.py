"""What hostile files are made of, and bounds on what reading them may take."""

import contextlib
import io
import json
import os
import signal
import struct
import tracemalloc
import zipfile

import pandas  # noqa: F401  # Before memory is counted.

MIB = 2**20


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


@contextlib.contextmanager
def within(seconds):
    """Fail if it takes longer: what waits for a pipe waits for ever."""

    def late(*_):
        raise AssertionError(f"still not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def weights(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def tensor(shape, end, begin=0, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
