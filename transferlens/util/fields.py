"""Options as dataclasses: what a value may be, what it means and how it is given, declared once.

A field has a type, a `Rule` in its annotation that says which values are allowed, and its help below it:

    epochs: Annotated[int, at_least(1)] = 12
    "Number of epochs."

`Fields` converts and checks values when an instance is made, from the command line, a file or Python alike, and
`checked` the arguments of a function. Options are composed: a field whose type is a dataclass is a group, and `build`
distributes keywords over all groups.
"""

from __future__ import annotations

import ast
import collections.abc
import dataclasses
import functools
import inspect
import itertools
import math
import operator
import os
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, SupportsFloat, SupportsIndex, TypeVar, Union

from transferlens.util.errors import ParameterError
from transferlens.util.text import suggestion

LARGEST = 2**63
MOST = 2**20  # values of one option
NAME = 255  # longest name of a file [bytes]
SHOWN = 100  # letters of a value in a message
Kind = TypeVar("Kind")
Function = TypeVar("Function", bound=Callable)


@dataclass(frozen=True)
class Rule:
    """Which values of a type are allowed: `text` completes "must be ...", `holds` tests a value."""

    text: str
    holds: Callable[[Any], bool]

    def __repr__(self) -> str:
        return self.text  # as it stands in messages of the command line


def between(low: float, high: float, why: str = "") -> Rule:
    """Return the rule of a closed interval."""
    return Rule(f"{low} to {high}{why}", lambda value: low <= value <= high)


def at_least(low: float, why: str = "") -> Rule:
    """Return the rule of a lower bound; infinity and NaN are not allowed."""
    return Rule(f"at least {low}{why}", lambda value: low <= value < float("inf"))


def above(low: float) -> Rule:
    """Return the rule of an excluded lower bound; infinity and NaN are not allowed."""
    return Rule(f"greater than {low}", lambda value: low < value < float("inf"))


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Base of all options: converts every value to the type of its field, and checks it."""

    def __post_init__(self) -> None:
        for name, hint in _hints(type(self)).items():  # type: ignore[arg-type]
            object.__setattr__(self, name, _converted(hint, getattr(self, name), name))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Types of a dataclass's fields, with the rules in their annotations."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


# ---------------------------------------------------------------------------------------------------- values


def shown(value: Any) -> str:
    """Return a value as it stands in messages: in one line, cut if it is long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:
        return "(a number with too many digits)"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def checked(function: Function) -> Function:
    """Convert and check the arguments of a function by their types, as `Fields` does with options."""
    find = functools.cache(lambda: inspect.signature(function, eval_str=True))  # when all types are defined

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        """Call the function; raise ParameterError if an argument is against its type or rule."""
        bound = find().bind(*args, **keywords)
        for name, value in bound.arguments.items():
            parameter = bound.signature.parameters[name]
            hint: Any = parameter.annotation
            if hint is not parameter.empty:
                hint = tuple[hint, ...] if parameter.kind is parameter.VAR_POSITIONAL else hint
                bound.arguments[name] = _converted(hint, value, name)
        return function(*bound.args, **bound.kwargs)

    return call  # type: ignore[return-value]


def _converted(hint: Any, value: Any, name: str, rules: Sequence[Rule] = ()) -> Any:
    """Convert one value to a type; raise a ParameterError that names the argument, the value and the rule."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if getattr(value, "ndim", None) == 0 and type(value) is not hint:
        value = value.item()  # NumPy's scalars are numbers and texts
    if origin is Annotated:
        rules = [rule for rule in hint.__metadata__ if isinstance(rule, Rule)]
        value = _converted(arguments[0], value, name, rules)
        for rule in rules:
            if value is not None and not rule.holds(value):
                raise ParameterError(f"{name}={shown(value)} must be {rule.text}")
        return value
    if origin in (Union, types.UnionType):
        if type(None) in arguments and (value is None or int in arguments and str(value).lower() == "none"):
            return None
        return _converted(next(kind for kind in arguments if kind is not type(None)), value, name, rules)
    if origin is Literal:
        if not isinstance(value, (str, int)) or value not in arguments:
            raise ParameterError(f"{name}={shown(value)} must be one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        return _several(arguments, () if value is None and arguments[-1] is ... else value, name)
    if origin in (collections.abc.Sequence, collections.abc.Collection, collections.abc.Iterable):
        return _several((*arguments, ...), list(value) if isinstance(value, Mapping) else value, name)
    if hint in _SINGLE:
        return _single(hint, value, name, rules)
    if isinstance(hint, type) and hint is not Any and not isinstance(value, hint):
        raise ParameterError(f"{name}={shown(value)} must be a {hint.__name__}{getattr(hint, 'SUCH_AS', '')}")
    return value


def _several(arguments: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    """Convert a tuple of values; one value stands for a tuple of one."""
    is_one = not isinstance(value, Iterable) or isinstance(value, (str, bytes, os.PathLike, Mapping))
    values = (value,) if is_one else tuple(itertools.islice(value, MOST + 1))
    if arguments[-1] is ...:
        arguments = arguments[:1] * len(values)
        if len(values) > MOST:
            raise ParameterError(f"{name}={shown(value)} must be at most {MOST} values")
    if len(values) != len(arguments):
        raise ParameterError(f"{name}={shown(value)} must be {len(arguments)} values")
    return tuple(_converted(hint, item, name) for hint, item in zip(arguments, values, strict=True))


# By type of a field: the types of values that it takes, how they are converted, and what they must be, in words.
_SINGLE: dict[Any, tuple[Any, Callable[[Any], Any], str]] = {
    bool: (bool, bool, "true or false"),
    int: (SupportsIndex, operator.index, "a whole number"),
    float: ((SupportsFloat, SupportsIndex), float, "a finite number"),
    str: ((str, int, os.PathLike), lambda v: str(v if isinstance(v, int) else os.fspath(v)), "a string, such as '1'"),
    Path: ((str, os.PathLike), lambda v: Path(os.path.expanduser(v)), "a path"),  # noqa: PTH111  # never raises
}


def _single(hint: Any, value: Any, name: str, rules: Sequence[Rule]) -> Any:
    accepted, convert, words = _SINGLE[hint]
    try:
        if not isinstance(value, accepted) or isinstance(value, bool) and hint is not bool:
            raise TypeError
        converted = convert(value)
        if value == "" if hint is Path else hint is float and not math.isfinite(converted):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        remedy = ": write the table to a csv file, and give its path" if hasattr(value, "to_csv") else ""
        words = ", ".join([words, *(rule.text for rule in rules)])
        raise ParameterError(f"{name}={shown(value)} must be {words}{remedy}") from None
    if hint is int and abs(converted) > LARGEST:  # it may have too many digits to be shown
        broken = (rule.text for rule in rules if not rule.holds(converted))
        raise ParameterError(f"{name} must be {next(broken, 'at most 2**63')}")
    if "\0" in str(converted):
        raise ParameterError(f"{name}={shown(value)} must not hold a zero byte")
    if hint is Path and max(map(len, map(os.fsencode, (converted.name, *converted.parts)))) > NAME:
        raise ParameterError(f"{name}={shown(value)} must be a path whose names have at most {NAME} bytes each")
    return converted


# ----------------------------------------------------------------------------------------------- composition


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _leaves(kind: type) -> Iterator[tuple[str, str, Any]]:
    """Yield name, group and default of every option; those of `kind` itself first, in the group ""."""
    groups = {name: hint for name, hint in _hints(kind).items() if dataclasses.is_dataclass(hint)}
    for field in sorted(dataclasses.fields(kind), key=lambda field: field.name in groups):
        default = _default(field)
        if field.name in groups:
            for leaf in dataclasses.fields(groups[field.name]):
                yield leaf.name, field.name, getattr(default, leaf.name)
        else:
            yield field.name, "", default


def flat(options: Any) -> dict[str, Any]:
    """Return all values of composed options in one dict, without their groups."""
    leaves = _leaves(type(options))
    return {name: getattr(getattr(options, group) if group else options, name) for name, group, _ in leaves}


def names(kind: type) -> list[str]:
    """Return the names of all options, those of `kind` itself first."""
    return [name for name, _, _ in _leaves(kind)]


def check_alone(options: Any, name: str, *, beside: Collection[str] = ()) -> None:
    """Raise if an option has no effect because another one, `name`, is given; all have some that are `beside` it."""
    defaults = {leaf: default for leaf, _, default in _leaves(type(options))}
    given = [leaf for leaf, value in flat(options).items() if value != defaults[leaf] and leaf not in (name, *beside)]
    if given:
        raise ParameterError(f"{' and '.join(given)} cannot be given with {name}: leave out one of them")


def optional(kind: type, only: Sequence[str] = (), *, words: str = "") -> type:
    """Return a dataclass with the fields of `kind`, or `only` some of them, which are None if they are not given.

    `kind` must have no groups; `words` follow the help of each field that does not say what its default is.
    """
    meanings = {name: text if "Default:" in text else f"{text} {words}".strip() for name, text in texts(kind).items()}
    hints = {name: hint for name, hint in _hints(kind).items() if not only or name in only}
    fields: list[Any] = [(name, Optional[hint], None) for name, hint in hints.items()]  # noqa: UP045
    made = dataclasses.make_dataclass(f"Optional{kind.__name__}", fields, bases=(Fields,), frozen=True, kw_only=True)
    made.TEXTS, made.__doc__ = meanings, kind.__doc__  # type: ignore[attr-defined]
    return made


def build(kind: type[Kind], keywords: Mapping[str, Any], *, base: Kind | None = None) -> Kind:
    """Make composed options from keywords without groups, in singular or plural; other values are those of `base`.

    Raise ParameterError if an option is unknown, one without a default is missing, or a value is outside its rule.
    """
    groups = {name: group for name, group, _ in _leaves(kind)}
    given: dict[str, dict[str, Any]] = {}
    for word, value in keywords.items():
        name = next((name for name in (word, f"{word}s", word.removesuffix("s")) if name in groups), None)
        if name is None:
            hint = suggestion(word, groups, f"the options are {', '.join(groups)}")
            raise ParameterError(f"there is no option {word!r}: {hint}")
        if name in given.setdefault(groups[name], {}):
            raise ParameterError(f"{name} is given twice")
        if isinstance(value, list) and not value:  # () is a default, and often means all
            raise ParameterError(f"{name}=[] names none: leave {name} out for its default")
        given[groups[name]][name] = value
    own = given.pop("", {})
    defaults = {field.name: _default(field) for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for group, values in given.items():
        own[group] = dataclasses.replace(defaults[group] if base is None else getattr(base, group), **values)
    if base is not None:
        return dataclasses.replace(base, **own)  # type: ignore[type-var]
    if missing := [name for name, value in defaults.items() if name not in own and value is dataclasses.MISSING]:
        raise ParameterError(f"{' and '.join(missing)} must be given")
    return kind(**own)


# ---------------------------------------------------------------------------------------------- description


@functools.cache
def texts(kind: type) -> dict[str, str]:
    """Return the help of each field of a dataclass: the text below the field, in one line."""
    meanings: dict[str, str] = {}
    for owner in filter(dataclasses.is_dataclass, reversed(kind.__mro__)):
        meanings |= getattr(owner, "TEXTS", {})
        made = _classes(owner.__module__).get(owner.__qualname__)
        body = made.body if made is not None else []  # not in a source if made by `optional`, which gives it TEXTS
        for field, text in zip(body, body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                meanings[field.target.id] = " ".join(str(text.value.value).split())  # type: ignore[union-attr]
    return meanings


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """Return the classes in the source of a module by qualified name: `inspect` would parse it for each of them."""
    try:
        return _classes_of(ast.parse(inspect.getsource(sys.modules[module])).body)
    except (OSError, TypeError, KeyError):  # typed in by hand, or without a source
        return {}


def _classes_of(statements: Sequence[ast.stmt], place: str = "") -> dict[str, ast.ClassDef]:
    """Return the classes that statements and those inside them define, by qualified name."""
    found: dict[str, ast.ClassDef] = {}
    for each in statements:
        inside = place
        if isinstance(each, ast.ClassDef):
            found[place + each.name] = each
            inside = f"{place}{each.name}."
        elif isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside = f"{place}{each.name}.<locals>."
        for part in ("body", "orelse", "finalbody"):
            found |= _classes_of(getattr(each, part, []), inside)
    return found


def explained(kind: type) -> list[tuple[str, Any, str, Any]]:
    """Return name, type, meaning and default of each field of a dataclass."""
    fields: tuple[dataclasses.Field, ...] = dataclasses.fields(kind)
    return [(each.name, _hints(kind)[each.name], texts(kind).get(each.name, ""), _default(each)) for each in fields]


def signature(kind: type, *, positional: str = "", hidden: Collection[str] = ()) -> inspect.Signature:
    """Return the signature of a function that takes these options by name, and one of them by position."""
    parameters = []
    for name, _, default in _leaves(kind):
        how = inspect.Parameter.POSITIONAL_OR_KEYWORD if name == positional else inspect.Parameter.KEYWORD_ONLY
        value = inspect.Parameter.empty if default is dataclasses.MISSING else default
        if name not in hidden:
            parameters.append(inspect.Parameter(name, how, default=str(value) if isinstance(value, Path) else value))
    return inspect.Signature(sorted(parameters, key=lambda parameter: parameter.kind))


def _words(hint: Any) -> str:
    """Return what an option takes, as in the Parameters section of a docstring."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        of_one = typing.get_origin(arguments[0]) is not tuple  # "several" says what the rule of a tuple does
        rules = [rule.text for rule in hint.__metadata__ if isinstance(rule, Rule) and of_one]
        return ", ".join([_words(arguments[0]), *rules])
    if typing.get_origin(hint) is Literal:
        return f"{{{', '.join(map(repr, arguments))}}}"
    if typing.get_origin(hint) is tuple:
        return f"{'one or several' if arguments[-1] is ... else len(arguments)} {_words(arguments[0])}"
    kinds = [kind for kind in arguments or (hint,) if kind is not type(None)]
    return _words(kinds[0]) if arguments else hint.__name__.lower()


def described(kind: type, *, hidden: Collection[str] = ()) -> str:
    """Return the options as the Parameters section of a docstring, with their names in Python."""
    lines = ["Parameters", "----------"]
    for name, group, default in _leaves(kind):
        if name not in hidden:
            owner = _hints(kind)[group] if group else kind
            shown = repr(str(default) if isinstance(default, Path) else default)
            use = "optional" if default in (None, ()) else f"default {shown}"
            kind_and_use = [_words(_hints(owner)[name]), *([use] if default is not dataclasses.MISSING else [])]
            lines.append(f"{name} : {', '.join(kind_and_use)}")
            text = re.sub(r"--no-([a-z-]+)", r"--\1=False", texts(owner).get(name, ""))
            text = re.sub(r"--([a-z-]+)", lambda flag: flag[1].replace("-", "_"), text)
            lines += textwrap.wrap(text, 112, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)
