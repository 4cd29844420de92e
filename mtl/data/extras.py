"""Packages that only some data need."""

from __future__ import annotations

import importlib.util

from mtl.data.problems import DataError


def needs(module: str, extra: str, what: str) -> None:
    """Refuse in one sentence if a package is not there.

    Args:
      module: what will be imported.
      extra: the extra of ``mtl`` that brings it.
      what: what needs it.

    Raises:
      DataError: naming the package and how to install it.

    >>> needs("nowhere", "nothing", "Castles in Spain")
    Traceback (most recent call last):
    ...
    mtl.data.problems.DataError: Castles in Spain need nowhere, which is not installed: pip install "mtl[nothing]"
    """
    if importlib.util.find_spec(module) is None:
        raise DataError(f'{what} need {module}, which is not installed: pip install "mtl[{extra}]"')
