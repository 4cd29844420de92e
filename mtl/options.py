"""Options by name, held against the annotations of the function that takes them, before it is called.

A function's parameters say what its options are: types, defaults, and ranges (``Annotated[int, Range(1)]``, see
``mtl.ranges``). Functions that a config registers are read alike. What is not annotated has the type of its default, as
a config's fields have: true or false stays that, a number a number, a text a text, a tuple a tuple. A default is
always right, and what this module cannot read of an annotation refuses nothing.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import numbers
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from mtl.ranges import Range, finite
from mtl.tasks import suggest


class _WrongError(Exception):
    """A value that a type does not allow."""


def checked(
    function: Callable[..., Any], options: Mapping[str, Any], where: str, whose: str, without: Collection[str] = ()
) -> dict[str, Any]:
    """Return options as a function takes them: whole numbers as floats where it wants these, lists as tuples.

    Args:
      function: what takes them, or a class.
      options: ``{name: value}``.
      where: where a config has them, such as ``model.options.``; empty for nowhere.
      whose: what takes them, such as ``model mlp``.
      without: parameters that are no options.

    Raises:
      ValueError: for an option that does not exist, one that is missing and has no default, and a value of another
        type or out of its range: one sentence with the option, the value and what would be right.

    >>> def source(rows: Annotated[int, Range(1)], noise: float = 0.1, shuffled: bool = False): ...
    >>> checked(source, {"rows": 3, "noise": 1}, "data.options.", "data mine")
    {'rows': 3, 'noise': 1.0}
    >>> checked(source, {"rows": 3, "shuffled": "maybe"}, "data.options.", "data mine")
    Traceback (most recent call last):
    ...
    ValueError: data.options.shuffled = 'maybe': must be True or False
    """
    known, open_ended = parameters(function)
    at = where or f"{whose}: "
    names = {name: known[name] for name in known if name not in without}
    found = {}
    for option, given in options.items():
        value = tuples(given)
        if option in names:
            found[option] = _option(f"{at}{option}", names[option], value)
        elif open_ended:
            found[option] = value
        else:
            right = suggest(str(option), names) if names else "it takes none"
            field = f"{where}{option}: " if where else ""
            raise ValueError(f'{field}{whose} has no option "{option}": {right}')
    for name, (_, default) in names.items():
        if default is inspect.Parameter.empty and name not in options:
            raise ValueError(f"{at}{name} is missing: it has no default")
    return found


def stated(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    where: str,
    whose: str,
    without: Collection[str] = (),
    ranges: Mapping[str, Range] | None = None,
) -> dict[str, Any]:
    """Return options as ``checked`` does, and with them the default of each that is a float: those that can be data.

    Such an option is a finite number, whatever the annotation allows beside it (a traced array, say).

    Args:
      function, options, where, whose, without: as in ``checked``.
      ranges: of floats by name; not of one whose own default lies outside.

    Raises:
      ValueError: as ``checked``.

    >>> stated(lambda learning_rate, b1=0.9, steps=5: ..., {"steps": 3}, "", "mine", without=("learning_rate",))
    {'b1': 0.9, 'steps': 3}
    """
    given = checked(function, options, where, whose, without)
    found: dict[str, Any] = {}
    for option, p in inspect.signature(function).parameters.items():
        right, value = (ranges or {}).get(option), given.get(option, p.default)
        if option in without or value is p.empty or not (option in given or isinstance(p.default, float)):
            continue
        if isinstance(p.default, float) or (right and value is not None):
            right = right if right and not (isinstance(p.default, float) and not right.holds(p.default)) else None
            if not finite(value) or (right and not right.holds(value)):
                what = f"number {right}" if right else "finite number"
                raise ValueError(f"{where}{option} = {value!r}: must be a {what}")
            value = float(value)
        try:
            hash(value)  # It is a part of what a program is compiled for.
        except TypeError:
            raise ValueError(f"{where}{option} = {value!r}: must be a number, a text or a tuple") from None
        found[option] = value
    return found


def check_free(known: Callable[..., Any] | None, made: Callable[..., Any], what: str) -> None:
    """Check that what a name is registered for already is nothing, or the same: a config file may be executed twice.

    Args:
      known: what has the name.
      made: what is to have it.
      what: both, such as ``model "mine"``.

    Raises:
      ValueError: if another one has the name.
    """
    if known is not None and not same(known, made):
        raise ValueError(f"{what} is already registered; choose another name")


def same(known: Callable[..., Any], made: Callable[..., Any]) -> bool:
    """Return whether two functions are one, or one function of a file that was executed twice, be it changed between.

    Two lambdas of one execution are not, nor are two functions that one function made, though they have one name.

    >>> same(lambda: 1, lambda: 2)
    False
    """
    if known is made:
        return True
    if isinstance(known, functools.partial) and isinstance(made, functools.partial):
        return same(known.func, made.func) and (known.args, known.keywords) == (made.args, made.keywords)
    one, other = inspect.unwrap(known), inspect.unwrap(made)
    names = [(getattr(of, "__module__", ""), getattr(of, "__qualname__", of)) for of in (one, other)]
    if names[0] != names[1]:
        return False
    if not (inspect.isfunction(one) and inspect.isfunction(other)) or one.__globals__ is not other.__globals__:
        return True
    if one.__code__.co_filename != other.__code__.co_filename:  # A cell of a notebook that was changed.
        return True
    alike = (one.__code__, one.__defaults__, one.__kwdefaults__) == (
        other.__code__,
        other.__defaults__,
        other.__kwdefaults__,
    )
    return alike and not one.__closure__


@contextlib.contextmanager
def tried(what: str) -> Iterator[None]:
    """Try out what somebody else wrote: whatever it raises is one sentence.

    Args:
      what: its name, for the beginning of the sentence.

    Raises:
      ValueError: for what functions raise that are called in a way they are not made for.

    >>> with tried('balancer "mine"'):
    ...     len(3)
    Traceback (most recent call last):
    ...
    ValueError: balancer "mine": cannot be used: object of type 'int' has no len()
    """
    wrong = TypeError, ValueError, AttributeError, IndexError, KeyError, NotImplementedError, AssertionError
    try:
        yield
    except wrong as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{what}: cannot be used: {why}") from None


def _option(what: str, parameter: tuple[Any, Any], value: Any) -> Any:
    hint, default = parameter
    if type(value) is type(default) and value == default:
        return value
    try:
        return _read(hint, value)
    except _WrongError:
        like = f", like {default!r}" if isinstance(default, tuple) and default else ""
        raise ValueError(f"{what} = {value!r}: must be {words(hint)}{like}") from None


def signature_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function; of a class those of its ``__init__``, whatever its metaclass takes.

    >>> list(signature_of(Range))
    ['low', 'high', 'open_low', 'open_high']
    """
    if not isinstance(function, type):
        return inspect.signature(function).parameters
    made = inspect.signature(function.__init__).parameters  # type: ignore[misc]
    return {name: p for i, (name, p) in enumerate(made.items()) if i}


@functools.lru_cache(maxsize=256)
def parameters(function: Callable[..., Any]) -> tuple[dict[str, tuple[Any, Any]], bool]:
    """Return ({name: (type, default)} of what can be given by name, whether any other name is taken too).

    >>> parameters(lambda rows=3, *, path: ...)
    ({'rows': (int | float, 3), 'path': (typing.Any, <class 'inspect._empty'>)}, False)
    """
    found, open_ended = {}, False
    for name, p in signature_of(function).items():
        open_ended |= p.kind is p.VAR_KEYWORD
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
            hint = _hint(function, name, p.annotation)
            if hint is p.empty:
                default = tuples(p.default)
                hint = next((h for kind, h in _OF_DEFAULTS.items() if type(default) is kind), Any)
            found[name] = (hint, tuples(p.default))
    return found, open_ended


#: An entry of a docstring's list of arguments, with the lines that go on with it.
_ENTRY = re.compile(r"^( +)(\w+(?:, \w+)*)(?: \([^)]*\))?: (.+(?:\n\1 +\S.*)*)", re.MULTILINE)


def meanings(of: Any) -> dict[str, str]:
    """Return ``{name: what it means}`` of arguments or attributes, as a docstring lists them.

    >>> meanings(tried)["what"]
    'its name, for the beginning of the sentence.'
    """
    of_all = of.__mro__[::-1] if isinstance(of, type) else (of,)
    entries = [entry for each in of_all for entry in _ENTRY.findall(inspect.getdoc(each) or "")]
    return {name: " ".join(text.split()) for _, names, text in entries for name in names.split(", ")}


#: What an option without an annotation is, by the type of its default.
_OF_DEFAULTS: dict[type, Any] = {bool: bool, int: int | float, float: float, str: str, tuple: tuple, dict: dict}


def _hint(function: Callable[..., Any], name: str, annotation: Any) -> Any:
    """Return what an annotation says, evaluated where it was written; empty for none, and for one of unknown names."""
    if not isinstance(annotation, str):
        return annotation
    if isinstance(function, type):
        owner = next((c for c in function.__mro__ if name in vars(c).get("__annotations__", {})), function)
        space = vars(sys.modules[owner.__module__])
    else:
        space = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        return typing.get_type_hints(holder, dict(space), include_extras=True)[name]
    except (NameError, AttributeError, TypeError, SyntaxError):
        return inspect.Parameter.empty


def fits(hint: Any, value: Any) -> bool:
    """Return whether a type and its range allow a value; of a tuple, the range is of its length.

    >>> fits(Annotated[int, Range(1)], 0), fits(Annotated[tuple[float, ...], Range(1)], (0, 0.5))
    (False, True)
    """
    try:
        _read(hint, value)
    except _WrongError:
        return False
    return True


def _read(hint: Any, value: Any) -> Any:
    """Return a value as a type has it, or raise ``_WrongError``."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        read = _read(inside[0], value)
        size = len(read) if isinstance(read, tuple) else read
        counts = isinstance(size, int | float) and not isinstance(size, bool)
        return read if not counts or all(r.holds(size) for r in inside[1:] if isinstance(r, Range)) else _no()
    if origin in (typing.Union, types.UnionType):
        return _first(inside, value)
    if origin is Literal:
        return value if any(type(value) is type(v) and value == v for v in inside) else _no()
    kind = origin or hint
    if kind in (None, types.NoneType):
        return value if value is None else _no()
    if kind is bool:
        return value if isinstance(value, bool) else _no()
    if kind in (int, float):
        wanted = numbers.Integral if kind is int else numbers.Real
        if isinstance(value, bool) or not isinstance(value, wanted):
            _no()
        try:
            return kind(value) if math.isfinite(value) else _no()
        except OverflowError:
            return _no()
    if kind is str:
        return value if isinstance(value, str) else _no()
    if kind in (tuple, list, Sequence):
        return _sequence(kind, inside, value)
    if kind in (dict, Mapping):
        if not isinstance(value, Mapping):
            _no()
        return {_read(inside[0], k): _read(inside[1], v) for k, v in value.items()} if inside else dict(value)
    return value


def _sequence(kind: Any, inside: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        _no()
    each = _fixed(kind, inside)
    if each is None:
        return tuple(_read(inside[0], v) for v in value) if inside else value
    return tuple(_read(h, v) for h, v in zip(each, value, strict=True)) if len(value) == len(each) else _no()


def _fixed(kind: Any, inside: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return the types of a tuple of a fixed length; None of any other."""
    return inside if kind is tuple and inside and inside[-1] is not ... else None


def _first(hints: Sequence[Any], value: Any) -> Any:
    for hint in hints:
        try:
            return _read(hint, value)
        except _WrongError:
            continue
    return _no()


def _no() -> Any:
    raise _WrongError


def words(hint: Any, bounds: tuple[Range, ...] = ()) -> str:
    """Return what a value must be, for the end of a sentence.

    >>> words(tuple[Annotated[int, Range(1)], ...] | None)
    'a tuple, each of it a whole number, at least 1, or None'
    """
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return words(inside[0], tuple(r for r in inside[1:] if isinstance(r, Range)))
    if origin in (typing.Union, types.UnionType):
        # What a compiled program gives is for no config to give.
        parts = [words(h, bounds) for h in inside if not str(getattr(h, "__module__", "")).startswith("jax")]
        if len(parts) == 1:
            return parts[0]
        comma = "," if any("," in p for p in parts) else ""
        return f"{', '.join(parts[:-1])}{comma} or {parts[-1]}"
    if origin is Literal:
        parts = [f'"{v}"' if isinstance(v, str) else str(v) for v in inside]
        return " or ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
    kind = origin or hint
    if kind in (int, float):
        bounded = any(r.low > -math.inf and r.high < math.inf for r in bounds)
        noun = "a whole number" if kind is int else "a number" if bounded else "a finite number"
        return " ".join([noun, *(f"{r}".replace("at ", ", at ", 1) for r in bounds)]).replace(" ,", ",")
    if kind in (tuple, list, Sequence):
        each = _fixed(kind, inside)
        if each is not None:
            alike = f", each {words(each[0])}" if len(set(each)) == 1 else f": {', '.join(map(words, each))}"
            return f"a tuple of {len(each)}{alike}"
        return f"a tuple, each of it {words(inside[0])}" if inside else "a tuple"
    if kind in (dict, Mapping):
        return f"a dictionary, each value {words(inside[1])}" if inside else "a dictionary"
    names = {bool: "True or False", str: "a text", None: "None", types.NoneType: "None"}
    return names.get(kind, f"of type {getattr(kind, '__name__', kind)}")


def tuples(value: Any) -> Any:
    """Return lists and tuples, at any depth, as tuples: options are keys of caches."""
    if isinstance(value, Mapping):
        return {name: tuples(v) for name, v in value.items()}
    return tuple(tuples(v) for v in value) if isinstance(value, list | tuple) else value
