"""Standard output and error that cost no result, be they closed, full, broken, or of few letters."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Any


class Outlet(io.FileIO):
    """A descriptor that takes all that is written, and remembers what went wrong with the first that it could not."""

    def __init__(self, descriptor: int) -> None:
        """Write to a descriptor, which stays open."""
        super().__init__(descriptor, "w", closefd=False)
        self.problem: OSError | None = None

    def write(self, data: Any) -> int:
        """Write what can be written and return how many bytes are dealt with."""
        while self.problem is None:
            try:
                written = super().write(data)
            except OSError as error:
                self.problem = error
            else:
                if written is not None:
                    return written
                select.select([], [self], [])  # Whoever shares the pipe has made it one that does not wait.
        return memoryview(data).nbytes


_output: Outlet | None = None


def prepare() -> None:
    """Give this process, which was started as a program of ours, standard streams that no writing to them ends.

    A character that their encoding lacks is spelled out. Those that were closed lead nowhere: else the next file that
    is opened would get their number, and with it all that C++ has to say.
    """
    global _output
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # It gets the lowest number that is free.
    _output = Outlet(1)
    sys.stdout, sys.stderr = text(_output, sys.stdout), text(Outlet(2), sys.stderr)


def text(outlet: Outlet, like: Any) -> io.TextIOWrapper:
    """Return a text stream to an outlet, in the encoding and with the buffering of another stream (or of none)."""
    at_once = getattr(like, "line_buffering", False) or getattr(like, "write_through", False)
    return io.TextIOWrapper(
        io.BufferedWriter(outlet),
        encoding=getattr(like, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=at_once,
    )


def lost() -> str:
    """Return why what was printed could not be, in a sentence; empty if it could, or a reader had seen enough."""
    sys.stdout.flush()
    problem = _output.problem if _output is not None else None
    if problem is None or isinstance(problem, BrokenPipeError):
        return ""
    return f"what is printed cannot be written: {problem.strerror}"
