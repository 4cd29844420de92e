"""What a config file adds to the code: its syntax tree and those of the local modules that it imports.

What only settles a trial's config (``get_config``, the sweeps, and the constants and functions that nothing else uses)
is covered by the trial's address, and so left out: a study may grow. Comments, docstrings and layout are no part of a
syntax tree. Not covered: files that a model's function reads, environment variables, code that is loaded from a text.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import functools
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import mtl
from mtl.config import ConfigError, beside, file_of, name_for

_Function = (ast.FunctionDef, ast.AsyncFunctionDef)
#: What looks names up by their text, so that no name can be said to be unused.
_BY_TEXT = {"globals", "locals", "vars", "eval", "exec", "modules"}
#: What changes something when it is called, wherever it comes from.
_CHANGES = {"register", "setattr", "delattr", "exec", "eval", "__import__", "import_module"}


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
    out: list[str] = []
    stack: list[Any] = [what]
    while stack:  # Not recursive: a sum of a thousand terms is a thousand levels deep.
        value = stack.pop()
        if isinstance(value, ast.AST):
            out.append(type(value).__name__)
            # A field that a later Python added is empty in the code of an earlier one.
            fields = [(f, v) for f in value._fields if (v := getattr(value, f, None)) is not None and v != []]
            for field, inner in reversed(fields):
                stack += [_without_docstring(value, inner) if field == "body" else inner, _Word(field)]
        elif isinstance(value, list):
            out.append("[")
            stack += [_Word("]"), *reversed(value)]
        elif isinstance(value, _Word):
            out.append(value)
        else:
            out.append(f"{type(value).__name__} {value:x}" if isinstance(value, int) else ascii(value))
    return hashlib.sha256("\0".join(out).encode()).hexdigest()


class _Word(str):
    """A word of the normal form itself, which no text of a program can be taken for."""


def _without_docstring(node: ast.AST, body: Any) -> Any:
    if not isinstance(node, (*_Function, ast.ClassDef, ast.Module)) or not isinstance(body[0], ast.Expr):
        return body
    value = body[0].value
    return body[1:] if isinstance(value, ast.Constant) and isinstance(value.value, str) else body


# --- What only settles a config ---


def _is_entry(statement: ast.stmt) -> bool:
    """Return whether a statement defines what ``mtl`` calls to settle trials' configs."""
    if not isinstance(statement, _Function):
        return False
    alone = not (statement.args.posonlyargs or statement.args.args or statement.args.kwonlyargs)
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
    body: list[ast.stmt] = _without_docstring(tree, tree.body) if tree.body else []
    makers = {s.name for s in body if isinstance(s, _Function)}.union(
        *(_bound(s) for s in body if _is_foreign(s, name_of_module))
    )
    doers = {name for s in ast.walk(tree) for name in _doers(s, name_of_module)}
    changing = {id(s) for s in body if _changes_something(s, makers, doers)}
    names, uses = {id(s): _bound(s) for s in body}, {id(s): _names(s) for s in body}
    # Who calls a function that changes something may say what it changes.
    grown = True
    while grown:
        by = {name for s in body if id(s) in changing and isinstance(s, _Function) for name in names[id(s)]}
        more = {id(s) for s in body if isinstance(s, (*_Function, ast.Assign)) and uses[id(s)] & by}
        grown = not more <= changing
        changing |= more
    used = {name for s in body for name in uses[id(s)] - names[id(s)]}

    def may_go(s: ast.stmt) -> bool:
        if isinstance(s, (ast.Import, ast.ImportFrom)):  # What nobody uses is imported for what that does.
            return whole and (bool(names[id(s)] & used) or _top_modules(s) <= _DO_NOTHING)
        return whole or _is_entry(s)

    kept = {id(s) for s in body if id(s) in changing or not may_go(s)}
    grown = True
    while grown:
        wanted = {name for s in body if id(s) in kept for name in uses[id(s)]}
        if wanted & _BY_TEXT:
            return body
        more = {id(s) for s in body if names[id(s)] & wanted}
        grown = not more <= kept
        kept |= more
    return [s for s in body if id(s) in kept]


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement of a module gives to what it makes."""
    if isinstance(statement, _Function):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}


def _names(node: ast.AST) -> set[str]:
    """Return the names that a node uses, and those of attributes."""
    nodes = list(ast.walk(node))
    found = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return found | {n.attr for n in nodes if isinstance(n, ast.Attribute) and n.attr in _BY_TEXT | _CHANGES}


#: Packages that nobody imports for what the import does.
_DO_NOTHING = {"mtl", *sys.stdlib_module_names}


def _top_modules(statement: ast.stmt) -> set[str]:
    """Return the packages that a statement imports from; what is no package if it imports nothing."""
    if isinstance(statement, ast.Import):
        return {alias.name.partition(".")[0] for alias in statement.names}
    if isinstance(statement, ast.ImportFrom) and not statement.level:
        return {(statement.module or "").partition(".")[0]}
    return {""}


def _is_foreign(statement: ast.stmt, importer: str) -> bool:
    """Return whether a module's statement imports what only makes values: of other packages, and sweeps."""
    if isinstance(statement, ast.ImportFrom) and statement.module == "mtl.sweep":
        return True
    tops = _top_modules(statement)
    files = [_file_of(top, importer) for top in tops]
    return not tops & {"", "mtl", "jax", "flax"} and not any(file and _is_local(file) for file in files)


#: Of mtl, what is called for its value alone.
_VALUES = {"Phase", "Regime", "Task", "default"}


def _doers(node: ast.AST, importer: str) -> set[str]:
    """Return the names of an import of mtl's or of local code, which may do anything when it is called."""
    if not isinstance(node, (ast.Import, ast.ImportFrom)) or _is_foreign(node, importer):
        return set()
    if isinstance(node, ast.ImportFrom) and node.module in ("mtl.config", "mtl.sweep"):
        return set()
    return _bound(node) - _VALUES


def _changes_something(statement: ast.stmt, makers: set[str], doers: set[str]) -> bool:
    """Return whether a statement of a module may do more than give a name to a value or a function.

    Args:
      statement: of a module.
      makers: names of functions whose values a constant may be, without doubt.
      doers: names of functions and modules that may do anything.
    """
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        star = any(alias.name == "*" for alias in statement.names)
        return star or (isinstance(statement, ast.ImportFrom) and statement.module == "__future__")
    nodes = list(ast.walk(statement))
    own = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    if _names(statement) & _CHANGES:
        return True
    if isinstance(statement, (ast.Assign, ast.AnnAssign)):
        calls = [n for n in nodes if isinstance(n, ast.Call)]
        return any(_is_put(n) for n in nodes) or not all(_root(n) in own | makers | _BUILTINS for n in calls)
    if not isinstance(statement, _Function) or statement.decorator_list:
        return True
    own |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    for node in nodes:
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            return True
        if isinstance(node, (*_Function, ast.ClassDef)) and node.decorator_list:
            return True
        if isinstance(node, ast.Call) and _root(node) in doers:  # Whatever becomes of what it returns.
            return True
        does = _is_put(node) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
        if does and _root(node) not in own | _BUILTINS:
            return True
    return False


_BUILTINS = set(dir(builtins))


def _is_put(node: ast.AST) -> bool:
    """Return whether a node puts something into an object, or takes it away."""
    return isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load)


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
        found = _file_of(imported, name)
        if found is not None and _is_local(found):
            yield found, imported
    for value in list(vars(module).values()) if module is not None else ():
        at, of = _made_in(value)
        if at.suffix == ".py" and at.is_file() and _is_local(at.resolve()):
            yield at.resolve(), of


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
            parts = name.split(".")
            yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


@functools.cache
def _installed() -> tuple[Path, ...]:
    """Return where the standard library, installed packages and mtl itself are."""
    paths = sysconfig.get_paths()
    places = [paths[k] for k in ("stdlib", "platstdlib", "purelib", "platlib")] + [str(Path(mtl.__file__).parent)]
    return tuple(Path(place).resolve() for place in places)


def _is_local(file: Path) -> bool:
    if {"site-packages", "dist-packages"} & set(file.parts):
        return False
    return not any(file.is_relative_to(place) for place in _installed())


def _file_of(name: str, importer: str) -> Path | None:
    """Return a module's file, if it is there for the one that imports it; nothing is imported to find it."""
    top, _, rest = name.partition(".")
    if top in sys.stdlib_module_names or top == "mtl":
        return None
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is None:
        spec, places, so_far = None, None, ""
        for part in [top, *rest.split(".")] if rest else [top]:
            so_far = f"{so_far}.{part}".lstrip(".")
            spec = beside.find(so_far, importer, places)
            if spec is None:
                return None
            places = list(spec.submodule_search_locations or [])
        file = spec.origin if spec is not None and spec.has_location else None
    return Path(file).resolve() if file and Path(file).is_file() else None


def _made_in(value: Any) -> tuple[Path, str]:
    """Return (the file, the name of the module) in which a module, a function or a class was made."""
    while isinstance(value, functools.partial):
        value = value.func
    if isinstance(value, ModuleType):
        return Path(getattr(value, "__file__", None) or ""), value.__name__
    if isinstance(value, FunctionType):
        return Path(value.__code__.co_filename), value.__module__ or ""
    if isinstance(value, type):
        module = sys.modules.get(value.__module__)
        return Path(getattr(module, "__file__", None) or ""), value.__module__
    return Path(), ""
