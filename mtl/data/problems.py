"""What is wrong with data from outside: collected, so that one error says all of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mtl.host.escape import escape

#: Sentences that an error lists; the rest is a count.
LISTED = 20
#: Characters of a sentence that are shown: a cell may be a megabyte long.
LONGEST = 1000


class DataError(ValueError):
    """Data from outside cannot be used: one sentence for each problem, with file, line and column.

    Args:
      sentences: the first problems.
      count: how many there are; the number of sentences if not given.

    >>> raise DataError(['file "a.csv", line 3: 2 cells: must be 4'])
    Traceback (most recent call last):
    ...
    mtl.data.problems.DataError: file "a.csv", line 3: 2 cells: must be 4
    """

    def __init__(self, sentences: list[str] | str, count: int = 0) -> None:
        """Join the sentences, one a line."""
        self.sentences = [escape(s) for s in ([sentences] if isinstance(sentences, str) else sentences)]
        self.count = max(count, len(self.sentences))
        first = self.sentences[:LISTED]
        more = self.count - len(first)
        super().__init__("\n".join([*first, *([f"… and {more:,} more problems"] if more else [])]))

    def __reduce__(self) -> tuple[type[DataError], tuple[list[str], int]]:
        """Return how to pickle it: an exception's own way would call it with the message."""
        return type(self), (self.sentences, self.count)


class Problems:
    """A collector of sentences that raises them together.

    >>> problems = Problems()
    >>> problems.add("one"), problems.add("two")
    (None, None)
    >>> problems.stop()
    Traceback (most recent call last):
    ...
    mtl.data.problems.DataError: one
    two
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.sentences: list[str] = []
        self.count = 0

    def add(self, sentence: str) -> None:
        """Note a problem; past ``LISTED`` of them only their number is kept."""
        self.count += 1
        if len(self.sentences) < LISTED:
            line = escape(sentence[: LONGEST + 1]).replace("\n", "\\n")
            self.sentences.append(line if len(line) <= LONGEST else f"{line[:LONGEST]}…")

    def more(self, count: int) -> None:
        """Count problems that need no sentence of their own."""
        self.count += count

    @property
    def full(self) -> bool:
        """Whether further sentences would only be counted."""
        return len(self.sentences) >= LISTED

    def stop(self, where: str = "") -> None:
        """Raise a ``DataError`` if there are problems, each sentence beginning with ``where``."""
        if self.count:
            raise DataError([f"{where}, {s}" if where else s for s in self.sentences], self.count)


@contextlib.contextmanager
def located(where: str) -> Iterator[None]:
    """Have the sentences of a ``DataError`` begin with ``where``, unless they name a file already.

    >>> with located('file "a.csv"'):
    ...     raise DataError("line 3: empty")
    Traceback (most recent call last):
    ...
    mtl.data.problems.DataError: file "a.csv", line 3: empty
    """
    try:
        yield
    except DataError as error:
        if str(error).startswith("file "):
            raise
        raise DataError([f"{where}, {s}" for s in error.sentences], error.count) from None
