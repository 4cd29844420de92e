"""Executing a config file, and explaining what is wrong with it in one sentence."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from mtl.config import beside
from mtl.config.declaration import SECTIONS, Fields
from mtl.config.default import FREE, Config
from mtl.config.fields import KNOWN, coerce, unknown
from mtl.config.problems import ConfigError
from mtl.tasks import suggest


def file_of(spec: str) -> tuple[str, str]:
    """Return (the file, the argument) of ``path/to/config.py`` or ``path/to/config.py:arg``.

    Names of folders and files may hold colons: the file is the shortest that there is.

    >>> file_of("config.py:large"), file_of("config.py")
    (('config.py', 'large'), ('config.py', ''))
    """
    ends = [i for i, char in enumerate(f"{spec}:") if char == ":"]
    end = next((i for i in ends if Path(spec[:i]).is_file()), ends[0])
    return spec[:end], spec[end + 1 :]


def name_for(path: Path) -> str:
    """Return the name of the module that a config file is executed as; a dot in it would mean a package.

    >>> name_for(Path("exp.v2.py"))
    'mtl_config_exp_v2'
    """
    return f"mtl_config_{path.stem.replace('.', '_')}"


def load(spec: str) -> tuple[Config, ModuleType]:
    """Execute a config file and return (its config, its module).

    A config file is a program: the file that the user names is executed, and what it imports. That may lie beside it
    or in the current directory; see ``beside``.

    Args:
      spec: ``path/to/config.py`` or ``path/to/config.py:arg``; ``arg`` is passed to ``get_config``.

    Raises:
      ConfigError: if the file is not there, has no ``get_config``, fails, or sets a key that does not exist.
    """
    name, arg = file_of(spec)
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"--config={spec}: there is no file {name}")
    found = importlib.util.spec_from_file_location(name_for(path), path)
    if found is None or found.loader is None:
        raise ConfigError(f"--config={spec}: {name} is not a Python file; it must end in .py")
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses and pickling look a class's module up there.
    beside.open_to(found.name, [str(path.absolute().parent), str(Path.cwd())])
    try:
        # Neither kept as bytecode nor taken from it: that is looked up by the file's time and size, which may lie.
        module.__mtl_source__ = path.read_bytes()  # type: ignore[attr-defined]
        exec(compile(module.__mtl_source__, path, "exec", dont_inherit=True), vars(module))  # noqa: S102 — as asked for
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
    if (told := _about_a_key(error)) is not None:
        return f"{where}: {told}"
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return f"{where}: {type(error).__name__}: {first}"


def _about_a_key(error: Exception) -> str | None:
    """Return the sentence for an error that a ConfigDict raised about one of its keys; nothing for any other.

    However the line is written (an attribute, an item, ``update``, ``setattr``, ``+=``, reading), the ConfigDict's own
    frame, where the error was raised, knows its key; where in the config it stands, the frames above it know.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    inner = frames[-1].f_locals if frames else {}
    node, key = inner.get("self"), inner.get("key", inner.get("attribute"))
    if not isinstance(node, Config) or not isinstance(key, str):
        return None
    section = _path_of(node, [v for frame in frames for v in frame.f_locals.values()])
    if section is None:  # Of another codebase.
        return None if key in node else f"the config has no key {key}: {suggest(key, map(str, node.keys()))}"
    path = f"{section}.{key}" if section else key
    if any(path.startswith(f"{free}.") for free in FREE):
        return None if key in node else f"config.{path} is read and was never set"
    if key not in node:
        return unknown(path, KNOWN)
    if isinstance(error, TypeError) and "value" in inner:
        if path not in KNOWN:
            return unknown(path, KNOWN)  # A section.
        try:
            coerce(path, inner["value"], KNOWN[path])
        except ConfigError as refused:
            return str(refused)
    return None


def _path_of(node: Config, seen: list[object]) -> str | None:
    """Return where a ConfigDict stands in a config of ours among the values ``seen``; nothing if in none."""
    for root in seen:
        if isinstance(root, Config) and is_ours(root):
            for path, section in [("", root), *_sections(root)]:
                if section is node:
                    return path
    # Nobody holds the config it is a part of: a section is also known by its keys, if they are its alone.
    alike = [name for name, section in SECTIONS.items() if set(section._fields) == set(node.keys())]
    return alike[0] if len(alike) == 1 else None


def _sections(config: Config, prefix: str = "") -> list[tuple[str, Config]]:
    found: list[tuple[str, Config]] = []
    for key, value in config.items():
        if isinstance(value, Config):
            found += [(f"{prefix}{key}", value), *_sections(value, f"{prefix}{key}.")]
    return found


def is_ours(config: Config) -> bool:
    """Return whether a config began from ``default()`` (files written for other codebases did not)."""
    return set(Fields._fields) <= set(config.keys())
