"""Drawing as matplotlib draws by itself, whatever settings lie about."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any


@contextlib.contextmanager
def own_settings(**changes: Any) -> Iterator[None]:
    """Draw with matplotlib's own defaults while the context lasts; figures must be made and written in it.

    No ``matplotlibrc`` counts, neither the user's nor one in the current directory, which could have text set by
    ``latex`` with a preamble of its own. Also a decorator.

    Args:
      changes: settings that differ from the defaults; ``_`` stands for ``.``: ``svg_fonttype="none"``.

    >>> with own_settings(font_size=7.0):
    ...     import matplotlib
    ...     matplotlib.rcParams["font.size"], matplotlib.rcParams["text.usetex"]
    (7.0, False)
    """
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.ERROR)  # What is wrong with a user's settings, or with their directory, changes nothing here.
    try:
        with _elsewhere():
            import matplotlib
        settings: dict[Any, Any] = dict(matplotlib.rcParamsDefault)
        settings |= {name.replace("_", ".", 1): value for name, value in changes.items()}
        with matplotlib.rc_context(settings):
            yield
    finally:
        log.setLevel(level)


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Stay out of the current directory while matplotlib is imported, if it would read a file there."""
    found = None if "matplotlib" in sys.modules else find_spec("matplotlib")
    if found is None or found.origin is None or not os.path.lexists("matplotlibrc"):
        yield
        return
    with contextlib.chdir(os.path.dirname(found.origin)):
        yield
