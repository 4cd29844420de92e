"""Modules beside a config file: found by the config and by one another, and by nobody else.

They are looked for last. So a config may import ``helper`` from ``helper.py`` beside it, while a ``queue.py``, ``jax/``
or ``pyarrow.py`` there is never taken for the module that JAX, pandas or the standard library asks for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import FrameType, ModuleType

#: The folders of each module that a config file is or has imported, by its name (of a package, the package's).
_folders: dict[str, list[str]] = {}


def open_to(module: str, folders: Sequence[str]) -> None:
    """Let a module, and what it imports from there, import from folders that are not on ``sys.path``."""
    _folders[module] = list(folders)
    if _Finder not in sys.meta_path:
        sys.meta_path.append(_Finder)


def find(name: str, importer: str, folders: Sequence[str] | None = None) -> ModuleSpec | None:
    """Return where a module is for another one that imports it; nothing is imported.

    Args:
      name: its full name.
      importer: the full name of the one that imports it.
      folders: of its package, if it is in one.
    """
    found = PathFinder.find_spec(name, folders)
    return found if found is not None or folders is not None else _beside(name, _folders.get(_top(importer)))


class _Finder:
    """Finds what the code of a config file asks for, where nothing else does."""

    @staticmethod
    def find_spec(name: str, path: Iterable[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return where a module is, if whoever imports it is a config file or came from beside one."""
        frame: FrameType | None = sys._getframe(1)
        for within in (False, True):  # Up to Python's import, which may have been wrapped, and out of it.
            while frame is not None and (_top(_name_of(frame)) in ("importlib", "_frozen_importlib")) == within:
                frame = frame.f_back
        if frame is None or path is not None:
            return None
        at = os.path.dirname(frame.f_code.co_filename)  # Of what was loaded from a path, and has any name.
        known = _folders.get(_top(_name_of(frame)))
        return _beside(name, known or next((folders for folders in _folders.values() if at in folders), None))


def _beside(name: str, folders: list[str] | None) -> ModuleSpec | None:
    found = PathFinder.find_spec(name, folders) if folders else None
    if found is not None and folders is not None:
        _folders[name] = folders
    return found


def _name_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _top(name: str) -> str:
    return name.partition(".")[0]
