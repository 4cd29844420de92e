"""A process that outlives this one long enough to say why it ended.

Of several processes that run together, JAX aborts the others when one dies: from C++, at once, with a stack trace, and
without a word to Python. So what C++ says is kept in a file, and a witness reads it when its process is gone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from mtl.host.spawn import python
from mtl.host.streams import Outlet, text

#: What JAX says when it ends a process because another one is gone.
_LOST = (b"JAX distributed service", b"coordination service")
LOST = (
    "another process of this run has ended or cannot be reached, so this one ends too; what was done is kept: run the "
    "same command again for the rest, or the same without --coordinator and --hosts to go on in one process"
)
#: So much of what C++ said is shown where it is shown.
_MOST_BYTES = 2**16


class Witness:
    """Watches this process from another one; until it is told that all ended well."""

    def __init__(self) -> None:
        """Start watching: from now on standard error is Python's alone."""
        noise = tempfile.TemporaryFile()  # noqa: SIM115 — open as long as the process
        sys.stderr.flush()
        voice = os.dup(2)
        self._process = subprocess.Popen(
            python("mtl.host.witness", str(noise.fileno())),
            stdin=subprocess.PIPE,
            stderr=voice,
            pass_fds=[noise.fileno()],
            start_new_session=True,  # A signal to the group is not for it.
        )
        os.dup2(noise.fileno(), 2)
        noise.close()
        sys.stderr = text(Outlet(voice), sys.stderr)

    def dismiss(self, word: str = "ended") -> None:
        """Tell it how this process ends, and wait for what it says: of ``lost``, that another one is gone."""
        sys.stderr.flush()
        self._process.communicate(word.encode())


def main() -> int:
    """Wait for the end of the process that holds the other end of standard input, and say why it came."""
    last = sys.stdin.buffer.read()
    with os.fdopen(int(sys.argv[1]), "rb") as noise:
        noise.seek(max(0, noise.seek(0, os.SEEK_END) - _MOST_BYTES))
        said = noise.read()
    if last == b"lost" or (not last and all(part in said for part in _LOST)):
        print(f"mtl: {LOST}", file=sys.stderr)
    elif not last:  # It crashed, or was killed: whatever there is may tell.
        sys.stderr.buffer.write(said)
    return 0
