"""What a config file adds to the code: its syntax tree and those of the local modules that it imports.

What only settles a trial's config (``get_config``, the sweeps, and the constants and functions that nothing else uses)
is covered by the trial's address, and so left out: a study may grow. Comments, docstrings and layout are no part of a
syntax tree. Not covered: files that a model's function reads, environment variables, code that is loaded from a text.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import dataclasses
import functools
import hashlib
import inspect
import itertools
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import mtl
from mtl.config import ConfigError, beside

_Function = (ast.FunctionDef, ast.AsyncFunctionDef)
_Import = (ast.Import, ast.ImportFrom)
#: What looks names up by their text, so that no name can be said to be unused.
_BY_TEXT = {"globals", "locals", "vars", "eval", "exec", "modules"}
#: What changes something when it is called, wherever it comes from.
_CHANGES = {"register", "setattr", "delattr", "exec", "eval", "__import__", "import_module"}
#: Of mtl, what is called for its value alone.
_VALUES = {"ConfigError", "Phase", "Regime", "Task", "default"}
#: Packages that nobody imports for what the import does.
_DO_NOTHING = {"mtl", *sys.stdlib_module_names}
_BUILTINS = set(dir(builtins))


@dataclasses.dataclass(frozen=True)
class Sources:
    """The code that decides numbers and is neither of mtl nor of an installed package.

    Attributes:
      sha256: of its syntax trees; empty if there is none.
      of: the names of its files, the config file's first.
    """

    sha256: str = ""
    of: str = ""


def sources_of(config_file: str | Path | None) -> Sources:
    """Return what a config file, which this process has executed, adds to the code.

    Args:
      config_file: ``FILE.py[:ARG]``; none for a study without one.

    Raises:
      ConfigError: if a module was changed after this process imported it: what runs is not what is in the file.

    >>> sources_of(None)
    Sources(sha256='', of='')
    """
    if config_file is None:
        return Sources()
    from mtl.config import file_of, name_for

    given, arg = file_of(str(config_file))
    path = Path(given).resolve()
    digests: dict[Path, str] = {}
    waiting: list[tuple[Path, str]] = [(path, name_for(path))]
    while waiting:
        file, name = waiting.pop()
        if file in digests:
            continue
        content = _content(file, name)
        tree = parsed(content) if file.suffix == ".py" else None
        if tree is None:  # A compiled module.
            digests[file] = digest_of(content)
            continue
        body = _without_settings(tree, name, whole=file == path)
        digests[file] = digest_of(body) if body else ""
        if arg and file == path and any(isinstance(s, _Function) and s.name == "get_config" for s in body):
            digests[file] += f":{arg}"  # It may do more than settle values, and what it does may depend on it.
        waiting += [(found, n) for found, n in _used_by(tree, name, file) if found not in digests]
    own = digests.pop(path)
    if not own and not digests:  # Settings and nothing else.
        return Sources()
    whole = hashlib.sha256("".join([own, *sorted(digests.values())]).encode()).hexdigest()
    return Sources(whole, ", ".join([path.name, *sorted(file.name for file in digests)]))


_imported_as: WeakKeyDictionary[ModuleType, bytes] = WeakKeyDictionary()


def _content(file: Path, name: str) -> bytes:
    """Return what was executed of a config file, and of a module what it holds."""
    module = _module_of(name, file)
    executed = getattr(module, "__mtl_source__", None)
    if isinstance(executed, bytes):
        return executed
    content = file.read_bytes()
    if module is not None and _imported_as.setdefault(module, content) != content:
        raise ConfigError(f"{file} was changed after this process had imported it: begin a new process")
    return content


def _module_of(name: str, file: Path) -> ModuleType | None:
    """Return the module of that name, if this process holds it and it is of that file."""
    module = sys.modules.get(name)
    return module if module and Path(getattr(module, "__file__", None) or "").resolve() == file else None


def parsed(content: bytes) -> ast.Module | None:
    """Return a module's syntax tree; nothing if it has none."""
    try:
        return ast.parse(content)
    except (SyntaxError, ValueError):
        return None


def digest_of(what: ast.AST | list[ast.stmt] | bytes) -> str:
    """Return the sha256 of syntax trees without docstrings and positions, the same for every version of Python.

    Args:
      what: a tree, or statements; of what has no tree, the bytes.

    >>> same = [ast.parse(text) for text in ("x = f(1)", "x = f( 1, )  # one")]
    >>> digest_of(same[0]) == digest_of(same[1])
    True
    """
    if isinstance(what, bytes):
        return hashlib.sha256(what).hexdigest()
    # Each node with its fields' names, each list with its length, then what is in them: no two trees say the same.
    out: list[str] = []
    stack: list[Any] = [what]
    while stack:  # Not recursive: a sum of a thousand terms is a thousand levels deep.
        value = stack.pop()
        if isinstance(value, ast.AST):
            said, held = [type(value).__name__], []
            for field in value._fields:
                inner = _statements(value) if field == "body" else getattr(value, field, None)
                if inner is not None and inner != []:  # A field that a later Python added is empty in earlier code.
                    said.append(field)
                    held.append(inner)
            out.append(" ".join(said))
            stack += reversed(held)
        elif isinstance(value, list):
            out.append(f"{len(value)} of")
            stack += reversed(value)
        else:
            out.append(f"{type(value).__name__} {value:x}" if isinstance(value, int) else ascii(value))
    return hashlib.sha256("\0".join(out).encode()).hexdigest()


def _statements(node: Any) -> Any:
    """Return the body of a node, without its docstring."""
    if isinstance(node, (*_Function, ast.ClassDef, ast.Module)) and ast.get_docstring(node, clean=False) is not None:
        return node.body[1:]
    return node.body


# --- What only settles a config ---


def _is_entry(statement: ast.stmt) -> bool:
    """Return whether a statement defines what ``mtl`` calls to settle trials' configs."""
    if not isinstance(statement, _Function):
        return False
    alone = not any(isinstance(n, ast.arg) for n in ast.walk(statement.args))
    return statement.name in ("get_config", "get_hyper") or (statement.name.startswith("sweep_") and alone)


def _without_settings(tree: ast.Module, name_of_module: str, whole: bool) -> list[ast.stmt]:
    """Return a module's statements without those that nothing but a config's settings come from.

    Functions that only make values, constants and imports are left out, unless code that stays uses them. Whatever may
    register, set or change something else stays.

    Args:
      tree: a module.
      name_of_module: its full name.
      whole: whether nobody outside of the module uses its names, as of a config file.
    """
    body = _statements(tree)
    bound, uses = {s: _bound(s) for s in body}, {s: _names(s) for s in body}
    used = set().union(*uses.values())
    doers = {name for s in ast.walk(tree) if isinstance(s, _Import) for name in _doers(s, name_of_module)}
    makers = {name for s in body if isinstance(s, (*_Function, *_Import)) for name in bound[s]} - doers

    def told_by(s: ast.stmt) -> list[ast.stmt]:
        """Return what may say what a function changes: who calls it."""
        callers = body if isinstance(s, _Function) else []
        return [t for t in callers if isinstance(t, (*_Function, ast.Assign)) and uses[t] & bound[s]]

    def stays(s: ast.stmt) -> bool:
        if isinstance(s, _Import):  # What nobody uses is imported for what that does.
            return not whole or not (bound[s] & used or _top_modules(s) <= _DO_NOTHING)
        return not whole and not _is_entry(s)

    acting = _reached([s for s in body if _acts(s, makers, doers)], told_by)
    kept = _reached([s for s in body if s in acting or stays(s)], lambda s: [t for t in body if bound[t] & uses[s]])
    by_text = any(uses[s] & _BY_TEXT for s in kept)
    return [s for s in body if by_text or s in kept]


def _reached(start: list[ast.stmt], beside: Callable[[ast.stmt], list[ast.stmt]]) -> set[ast.stmt]:
    """Return statements, those beside them, those beside these, and so on."""
    found: set[ast.stmt] = set()
    while start:
        if (at := start.pop()) not in found:
            found.add(at)
            start += beside(at)
    return found


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement of a module gives to what it makes."""
    if isinstance(statement, _Function):
        return {statement.name}
    if isinstance(statement, _Import):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}


def _names(node: ast.AST) -> set[str]:
    """Return the names that a node uses, and those of attributes."""
    nodes = list(ast.walk(node))
    found = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return found | {n.attr for n in nodes if isinstance(n, ast.Attribute) and n.attr in _BY_TEXT | _CHANGES}


def _top_modules(statement: ast.Import | ast.ImportFrom) -> set[str]:
    """Return the packages that a statement imports from; of a relative import the empty name."""
    if isinstance(statement, ast.Import):
        return {alias.name.partition(".")[0] for alias in statement.names}
    return {"" if statement.level else str(statement.module).partition(".")[0]}


def _doers(statement: ast.Import | ast.ImportFrom, importer: str) -> set[str]:
    """Return the names of an import of mtl's, JAX's or local code, which may do anything when it is called."""
    tops = _top_modules(statement)
    anything = tops & {"", "mtl", "jax", "flax"} or any(_local_file(top, importer) for top in tops)
    values = isinstance(statement, ast.ImportFrom) and statement.module == "mtl.sweep"
    return _bound(statement) - _VALUES if anything and not values else set()


def _acts(statement: ast.stmt, makers: set[str], doers: set[str]) -> bool:
    """Return whether a statement of a module may do more than give a name to a value or a function.

    Args:
      statement: of a module.
      makers: names of functions whose values a constant may be, without doubt.
      doers: names of functions and modules that may do anything.
    """
    if isinstance(statement, _Import):
        return any(alias.name == "*" for alias in statement.names) or "__future__" in _top_modules(statement)
    nodes = list(ast.walk(statement))
    constant = isinstance(statement, (ast.Assign, ast.AnnAssign))
    own = _BUILTINS | {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    own |= set() if constant else {n.arg for n in nodes if isinstance(n, ast.arg)}
    called = {_root(n) for n in nodes if isinstance(n, ast.Call)}
    # What something is put into or taken from, and calls whose value nobody takes.
    done_to = {
        _root(n)
        for n in nodes
        if (isinstance(n, (ast.Attribute, ast.Subscript)) and not isinstance(n.ctx, ast.Load))
        or (isinstance(n, ast.Expr) and isinstance(n.value, ast.Call))
    }
    return (
        not (constant or isinstance(statement, _Function))
        or bool(_names(statement) & _CHANGES)
        or any(isinstance(n, (ast.Global, ast.Nonlocal)) or getattr(n, "decorator_list", []) for n in nodes)
        or not done_to <= own
        or bool(called - own - makers if constant else called & doers)
    )


def _root(node: ast.AST) -> str:
    """Return the name that a chain of calls, attributes and items begins with: ``a`` of ``a.b(1).c[2]``.

    It is ``str`` for one that begins with a constant, and empty for one that begins with something else.
    """
    while isinstance(node, (ast.Call, ast.Attribute, ast.Subscript, ast.Expr)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else "str" if isinstance(node, (ast.Constant, ast.JoinedStr)) else ""


# --- Local modules ---


def _used_by(tree: ast.Module, name: str, file: Path) -> Iterator[tuple[Path, str]]:
    """Return (file, name) of each local module that a module imports, wherever, or holds something of."""
    module = _module_of(name, file)
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for imported in _imported(tree, package):
        if (found := _local_file(imported, name)) is not None:
            yield found, imported
    for value in list(vars(module).values()) if module is not None else ():
        while isinstance(value, functools.partial):
            value = value.func
        with contextlib.suppress(OSError, TypeError):  # Built in, or made in no file.
            at = Path(inspect.getfile(value)).resolve()
            if at.suffix == ".py" and at.is_file() and _is_local(at):
                yield at, value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Return the full names of the modules that a module imports, and of what may be modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: -(node.level - 1) or None] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and node.args and isinstance(text := node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else _root(node.func)
            names = [str(text.value)] if called in ("import_module", "__import__") else []
        else:
            continue
        for name in names:
            yield from _prefixes(name)


def _prefixes(name: str) -> Iterator[str]:
    """Return the full names of a module's packages, from the outermost, and its own."""
    return itertools.accumulate(name.split("."), "{}.{}".format)


@functools.cache
def _is_local(file: Path) -> bool:
    """Return whether a file is neither of the standard library nor of an installed package nor of mtl itself."""
    paths = sysconfig.get_paths()
    places = [paths[k] for k in ("stdlib", "platstdlib", "purelib", "platlib")] + [Path(mtl.__file__).parent]
    installed = {"site-packages", "dist-packages"} & set(file.parts)
    return not installed and not any(file.is_relative_to(Path(place).resolve()) for place in places)


def _local_file(name: str, importer: str) -> Path | None:
    """Return a local module's file, if it is there for the one that imports it; nothing is imported to find it."""
    if name.partition(".")[0] in _DO_NOTHING:
        return None
    module = sys.modules.get(name)
    file, places = getattr(module, "__file__", None), None
    for so_far in _prefixes(name) if module is None else ():
        spec = beside.find(so_far, importer, places)
        if spec is None:
            return None
        file, places = spec.origin if spec.has_location else None, list(spec.submodule_search_locations or [])
    found = Path(file or "").resolve()
    return found if found.is_file() and _is_local(found) else None
