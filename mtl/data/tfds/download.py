"""Fetching one file from its known address, when the user asks for it: nothing is downloaded otherwise."""

from __future__ import annotations

import hashlib
import http.client
import os
import pathlib
import urllib.request

from mtl.data.problems import DataError

_SECONDS = 30


def download(url: str, path: pathlib.Path, sha256: str, max_bytes: int) -> None:
    """Fetch a file whose checksum is known; it has its name only when it is whole and the right one.

    Args:
      url: its address.
      path: where it goes; its folder is made.
      sha256: of the file.
      max_bytes: the most it may hold.

    Raises:
      DataError: if it cannot be fetched, is larger, or is another file.
    """
    where = f'file "{path.name}"'
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
            data = answer.read(max_bytes + 1)
    except (OSError, http.client.HTTPException) as error:  # An answer cut short is no OSError.
        raise DataError(f"{where}: cannot be fetched from {url} ({error})") from None
    if len(data) > max_bytes:
        raise DataError(f"{where}: {url} gives more than {max_bytes:,} bytes")
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise DataError(f"{where}: {url} gives a file of sha256 {found}: must be {sha256}")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(data)
    os.replace(unfinished, path)
