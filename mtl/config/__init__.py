"""Configs: the default, its checks, its overrides, and the resolved trial with its hash."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl.config.checks import check
    from mtl.config.default import Config, default
    from mtl.config.fields import Flat, flatten, override, parse
    from mtl.config.load import file_of, is_ours, load, name_for
    from mtl.config.problems import ConfigError, refused
    from mtl.config.resolve import resolve
    from mtl.config.trial import Resolved, Trial, canonical

__all__ = [
    "Config",
    "ConfigError",
    "Flat",
    "Resolved",
    "Trial",
    "canonical",
    "check",
    "default",
    "file_of",
    "flatten",
    "is_ours",
    "load",
    "name_for",
    "override",
    "parse",
    "refused",
    "resolve",
]

#: By name, the module that it is imported from when it is asked for: who reads results needs none that rests on JAX.
_HOMES = {
    **dict.fromkeys(("check",), "checks"),
    **dict.fromkeys(("Config", "default"), "default"),
    **dict.fromkeys(("Flat", "flatten", "override", "parse"), "fields"),
    **dict.fromkeys(("file_of", "is_ours", "load", "name_for"), "load"),
    **dict.fromkeys(("ConfigError", "refused"), "problems"),
    **dict.fromkeys(("resolve",), "resolve"),
    **dict.fromkeys(("Resolved", "Trial", "canonical"), "trial"),
}


class _Package(ModuleType):
    """The package, whose functions ``default``, ``load`` and ``resolve`` are not hidden by the modules of that name."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {self.__name__} has no attribute {name}")
        found = getattr(importlib.import_module(f"{self.__name__}.{_HOMES[name]}"), name)
        super().__setattr__(name, found)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        # What imports a module makes it an attribute of its package.
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
