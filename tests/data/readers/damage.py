"""Damage to files, and what is said of it."""

from collections.abc import Callable

from hypothesis import strategies as st

from mtl.data import DataError


@st.composite
def damaged(draw: st.DrawFn, original: bytes) -> bytes:
    """Some bytes of a file changed, and perhaps its end cut off."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    keep = draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))
    return bytes(data[:keep])


def refusal(call: Callable[[], object]) -> str | None:
    """What a DataError says, or None if there was none; any other exception is the test's failure."""
    try:
        call()
    except DataError as error:
        return str(error)
    return None
