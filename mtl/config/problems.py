"""How a mistake in a config is told."""

from __future__ import annotations

from typing import Any


class ConfigError(ValueError):
    """A mistake in a config: one sentence that names the field, the value and what would be right."""


class refused:
    """A context in which a ``ValueError`` is a mistake in the config.

    >>> with refused("config.lr: "):
    ...     float("high")
    Traceback (most recent call last):
    ...
    mtl.config.problems.ConfigError: config.lr: could not convert string to float: 'high'
    """

    def __init__(self, where: str = "config.") -> None:
        """Begin the sentence with ``where``."""
        self.where = where

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """Raise the mistake in place of the error."""
        if isinstance(error, ValueError):
            raise ConfigError(f"{self.where}{error}") from None
