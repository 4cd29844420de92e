"""Executing a config file, and explaining what is wrong with it in one sentence."""

from __future__ import annotations

import importlib.util
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType

from mtl.config.default import Config, ConfigError, default
from mtl.config.fields import flatten, unknown


def load(spec: str) -> tuple[Config, ModuleType]:
    """Execute a config file and return (its config, its module).

    A config file is a program: only the file that the user names is executed.

    Args:
      spec: ``path/to/config.py`` or ``path/to/config.py:arg``; ``arg`` is passed to ``get_config``.

    Raises:
      ConfigError: if the file is not there, has no ``get_config``, fails, or sets a key that does not exist.
    """
    name, _, arg = spec.partition(":")
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"--config={spec}: there is no file {name}")
    found = importlib.util.spec_from_file_location(f"mtl_config_{path.stem}", path)
    if found is None or found.loader is None:
        raise ConfigError(f"--config={spec}: {name} is not a Python file; it must end in .py")
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses and pickling look a class's module up there.
    try:
        found.loader.exec_module(module)
        get_config = getattr(module, "get_config", None)
        if get_config is None:
            raise ConfigError(f"--config={spec}: {name} defines no function get_config()")
        config = get_config(arg) if arg else get_config()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(_explain(error, path)) from error
    if not isinstance(config, Config):
        raise ConfigError(f"--config={spec}: get_config() returned {type(config).__name__}, not a ConfigDict")
    return config, module


def _explain(error: Exception, path: Path) -> str:
    """Return one sentence for an exception in a config file, with the line it happened on."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path and f.lineno]
    where = f"{path}, line {lines[-1]}" if lines else str(path)
    if isinstance(error, SyntaxError):
        return f"{path}, line {error.lineno}: {error.msg}"
    if isinstance(error, (AttributeError, KeyError)):
        found = re.search(r"[Kk]ey '?\"?([\w.]+)'?\"?|\"([\w.]+)\" (?:cannot|does)", str(error))
        source = path.read_text().splitlines()[lines[-1] - 1].strip() if lines else ""
        target = re.match(r"\w+\.([\w.]+)\s*=[^=]", source)
        if target and (found or "lock" in str(error)):
            return f"{where}: {unknown(target.group(1), flatten(default()))}"
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return f"{where}: {type(error).__name__}: {first}"


def is_ours(config: Config) -> bool:
    """Return whether a config began from ``default()`` (files written for other codebases did not)."""
    return set(default().keys()) <= set(config.keys())
