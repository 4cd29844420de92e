"""The config that users begin with: sections whose keys are locked, and free ones."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict as Config

from mtl.config.declaration import FIELDS, Fields


class _Section(Config):
    """A section of a config. A free one (see ``FREE``) has names for keys, which may hold dots."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set a key; a dictionary becomes a section as free as the one that it replaces or goes into."""
        there = self._fields.get(key)
        if self.allow_dotted_keys or (isinstance(there, Config) and there.allow_dotted_keys):
            value = _free(value)
        super().__setitem__(key, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be what was pickled or copied; ml_collections itself forgets that keys may hold dots."""
        super().__setstate__({**state, "_fields": {}, "_locked": False})
        object.__setattr__(self, "_allow_dotted_keys", state["_allow_dotted_keys"])
        for key, value in state["_fields"].items():
            self[key] = value
        object.__setattr__(self, "_locked", state["_locked"])


def _free(value: Any) -> Any:
    if not isinstance(value, dict | Config) or isinstance(value, _Section):
        return value
    section = _Section(allow_dotted_keys=True)
    for key, inner in value.items():
        section[key] = inner
    return section


def default() -> Config:
    """Return the default config, locked: a key that is not in it is an error.

    Durations have their unit in the name, and exactly one of ``total_steps``, ``total_epochs``, ``total_examples``
    is set (not 0) in each of ``source`` and ``target``.
    """
    c = _section(Fields())
    c.lock()
    for path in FREE:
        c[path].unlock()
    return c


def _section(declared: Any) -> Config:
    c = _Section()
    for key, value in declared._asdict().items():
        c[key] = _section(value) if hasattr(value, "_asdict") else _free(value)
    return c


#: Sections whose keys are free: regimes by name, numbers per task or pattern, and the options of what has a name.
FREE = tuple(path for path, field in FIELDS.items() if isinstance(field.default, dict))
