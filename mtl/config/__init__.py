"""Configs: the default, its checks, its overrides, and the resolved trial with its hash."""

from mtl.config.checks import check
from mtl.config.default import Config, ConfigError, default, refused
from mtl.config.fields import Flat, flatten, override, parse
from mtl.config.load import file_of, is_ours, load, name_for
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
