"""One writer a work directory: a lease that says who writes there, and is kept alive by a heartbeat.

Leases are numbered, ``lease/000007.json``, and the highest number holds. Who finds it given back, or its holder dead,
creates the next number, which the file system lets only one process do; numbers never go back, so whoever was slow to
decide finds that it is no longer the highest and leaves. Nothing is ever taken by renaming or removing what another
process may hold.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mtl.host.files import FileError, is_half, read, seal, unseal, write_atomically
from mtl.sweep.schema import LEASE, check

#: A holder touches its lease so often, and is taken for dead after so long without (if it runs on another host; of
#: one on this host its process tells).
BEAT_SECONDS = 2.0
STALE_SECONDS = 30.0
#: An old heartbeat is believed only if none comes for so long: a clock may have jumped.
WATCH_SECONDS = 3.0
#: How long the workers of a run that was killed may take to keep what they have.
ORPHAN_SECONDS = 15.0
_MOST_BYTES = 2**16
_NUMBERED = re.compile(r"[0-9]{6,12}\.json")


class HeldError(FileError):
    """Another process writes in the work directory: one sentence that says which."""


class Lease:
    """The right to write in a work directory."""

    def __init__(self, workdir: Path, say: Callable[[str], None] = lambda text: None) -> None:
        """Prepare; nothing is taken yet.

        Args:
          workdir: the work directory.
          say: told what is waited for.
        """
        # The heartbeat comes whenever it is due, and nobody knows in which directory the process then is.
        self.workdir, self.folder, self.say = workdir, workdir.absolute() / "lease", say
        self.token = secrets.token_hex(8)
        self.number = 0
        self.workers: list[int] = []
        #: Whether another process has taken the lease over: this one was silent for too long.
        self.lost = False
        self._over = threading.Event()
        self._on_lost: Callable[[], None] = lambda: None

    def look(self) -> None:
        """Check that nobody holds the lease, as far as can be told at once; nothing is written or waited for.

        Raises:
          HeldError: if somebody on this host does.
        """
        _, holder = self._highest()
        if holder is not None and not holder["released"] and holder["where"] == _where() and _lives(holder["process"]):
            raise HeldError(self._refusal(holder))

    def acquire(self, on_lost: Callable[[], None] = lambda: None) -> None:
        """Take the lease and keep it until ``release``.

        Args:
          on_lost: called, from another thread, if another process takes it over.

        Raises:
          HeldError: if another process holds it.
          FileError: if the directory cannot be written.
        """
        self._on_lost = on_lost
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while not self._try():
                pass
        except OSError as error:
            raise FileError(f"{self.folder} cannot be written: {error.strerror or error}") from None
        threading.Thread(target=self._beat, daemon=True).start()

    def release(self) -> None:
        """Give the lease back; the file stays, so that its number is not used again."""
        self._over.set()
        if self.number and not self.lost and self._highest()[0] == self.number:
            write_atomically(self._file(self.number), self._content(released=True), durable=False)
        self.number = 0

    def check(self) -> None:
        """Check that the lease is still held.

        Raises:
          HeldError: if another process has taken it over.
        """
        if self.lost:
            raise HeldError(f"{self._refusal(self._highest()[1])} (it took over: this process was silent for too long)")

    def add_workers(self, pids: Sequence[int]) -> None:
        """Say in the lease which processes write on this one's behalf: they may outlive it for a moment."""
        self.workers += pids
        write_atomically(self._file(self.number), self._content(), durable=False)

    def _try(self) -> bool:
        """Take the next number if the highest is free, and return whether it was taken; another may be faster."""
        number, holder = self._highest()
        if number and self._is_held(number, holder):
            raise HeldError(self._refusal(holder))
        file = self._file(number + 1)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with open(descriptor, "wb") as opened:
            opened.write(self._content())
        if self._highest()[0] != number + 1:  # It was free long ago, and others have come and gone since.
            file.unlink()
            return False
        self.number = number + 1
        # Older ones, and what a holder that was killed had half written; a probe of somebody who waits is neither.
        for name in os.listdir(self.folder):
            older = re.fullmatch(r"\.?([0-9]{6,12})\.json(\..*\.tmp)?", name)
            if older and int(older[1]) < self.number:
                with contextlib.suppress(IsADirectoryError, PermissionError):  # Nobody's lease: it is in nobody's way.
                    (self.folder / name).unlink(missing_ok=True)
        return True

    def _is_held(self, number: int, holder: dict[str, Any] | None) -> bool:
        if holder is not None and holder["released"]:
            return False
        if holder is not None and holder["where"] == _where():
            if _lives(holder["process"]):
                return True
            return self._orphans_stay(holder)
        # On another host, or not to be read: the heartbeat tells. Its age is measured on the file server's clock, which
        # stamped it, and a clock that jumped is seen by waiting for the next beat.
        first = self._stamp(number)
        age = self._server_time() - first if first is not None else STALE_SECONDS
        if 0 <= age <= STALE_SECONDS:
            return first is not None
        end = time.monotonic() + (WATCH_SECONDS if age > 0 else STALE_SECONDS)
        while time.monotonic() < end:
            time.sleep(0.1)
            if self._stamp(number) != first:
                return self._stamp(number) is not None
        return False

    def _orphans_stay(self, holder: dict[str, Any]) -> bool:
        """Wait for the workers of a run that is dead, and return whether any is still there after that."""
        end = time.monotonic() + ORPHAN_SECONDS
        told = False
        while any(_lives(worker) for worker in holder["workers"]):
            if not told:
                self.say(f"the run before ({_name(holder)}) was killed: waiting for its workers to keep what they have")
                told = True
            if time.monotonic() > end:
                return True
            time.sleep(0.1)
        return False

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                mine = self._highest()[0] == self.number
                if mine:
                    os.utime(self._file(self.number))  # To the server's time, not this host's.
            except FileNotFoundError:
                mine = False
            except OSError:
                continue  # The server may come back; if it does not, whoever takes over is seen here.
            if not mine and not self._over.is_set():
                self.lost = True
                self._on_lost()
                return

    def _content(self, released: bool = False) -> bytes:
        me = os.getpid()
        return seal(
            {
                "host": socket.gethostname(),
                "where": _where(),
                "process": [me, _began(me)],
                "workers": [[pid, _began(pid)] for pid in self.workers],
                "token": self.token,
                "released": released,
            }
        )

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.json"

    def _numbers(self) -> list[int]:
        try:
            names = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(int(name[:-5]) for name in names if _NUMBERED.fullmatch(name))

    def _highest(self) -> tuple[int, dict[str, Any] | None]:
        """Return the highest number (0 if there is none) and what its file says; nothing if it cannot be read."""
        numbers = self._numbers()
        if not numbers:
            return 0, None
        for wait in (0.0, 0.05, 0.2, 0.5):  # A file that was created just now is written in the next moment.
            time.sleep(wait)
            try:
                holder = unseal(read(self._file(numbers[-1]), _MOST_BYTES))
                check(holder, LEASE)
                if not all(
                    len(p) == 2 and isinstance(p[0], int) and p[0] > 0 for p in [holder["process"], *holder["workers"]]
                ):
                    raise FileError("is no lease")
                return numbers[-1], holder
            except FileError:
                if wait and self._numbers()[-1:] != numbers[-1:]:
                    return self._highest()
        return numbers[-1], None

    def _stamp(self, number: int) -> float | None:
        """Return when a lease was last touched, by the file server's clock; nothing if it is gone."""
        with contextlib.suppress(FileNotFoundError):
            return self._file(number).stat().st_mtime
        return None

    def _server_time(self) -> float:
        probe = self.folder / f".probe.{os.getpid()}.{self.token}.tmp"
        try:
            probe.write_bytes(b"")
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _refusal(self, holder: dict[str, Any] | None) -> str:
        who = "an unknown process (its lease cannot be read)" if holder is None else _name(holder)
        return f"work directory {self.workdir} is being written by {who}: wait for it, or end it first"


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder['process'][0]} on host {holder['host'][:100]!r}"


def _where() -> str:
    """Return what names this host since it was started, and the numbering of its processes (containers have theirs)."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts += [boot.read_text().strip(), os.readlink(space)]
    return " ".join(parts)


def _began(pid: int) -> str:
    """Return when a process began, by its host's own count; empty if it is gone (or the system does not tell)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


def _lives(process: Sequence[Any]) -> bool:
    """Return whether a process of this host lives: the number alone may have passed to another one."""
    pid, began = process
    if Path("/proc/self/stat").exists():
        return bool(began) and _began(pid) == began
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove_halves(workdir: Path) -> None:
    """Remove what processes that were killed had half written; only the holder of the lease may."""
    for folder in (
        workdir,
        *(workdir / name for name in ("results", "prefixes", "snapshots", "packs")),
        *workdir.glob("trials/*"),
    ):
        if folder.is_symlink() or folder.parent.is_symlink():
            continue
        for half in folder.glob(".*.tmp"):
            if is_half(half.name) and (half.is_symlink() or half.is_file()):
                half.unlink(missing_ok=True)


@contextlib.contextmanager
def held(
    workdir: Path, say: Callable[[str], None], on_lost: Callable[[], None], writes: bool = True
) -> Iterator[Lease | None]:
    """Hold a work directory's lease while the context lasts.

    Of processes that run together the one that writes takes it, and all learn whether it could.

    Args:
      workdir: the work directory.
      say: told what is waited for.
      on_lost: called if another process takes it over.
      writes: whether this process writes.

    Raises:
      HeldError: if another process holds it.
    """
    from mtl.train.processes import agree

    lease, problem = Lease(workdir, say) if writes else None, ""
    if lease is not None:
        try:
            lease.acquire(on_lost)
        except FileError as error:
            problem = str(error)
    problem = agree(problem)
    if problem:
        raise HeldError(problem)
    try:
        if lease is not None:
            remove_halves(workdir)
        yield lease
    finally:
        if lease is not None:
            lease.release()
