"""JSON to dataclasses and back, strictly: unknown, missing and mistyped keys are errors that name the key."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar

T = TypeVar("T")


class StrictError(ValueError):
    """A value that does not fit; the message says where and what was expected."""


def parse(kind: type[T], value: Any, where: str) -> T:
    """Make a `kind` of plain JSON data; `where` names the place in messages."""
    result: T = _parse(kind, value, where)
    return result


def _parse(kind: Any, value: Any, where: str) -> Any:
    if is_dataclass(kind):
        return _parse_dataclass(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        _expect(isinstance(value, list | tuple), value, where, "a list")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        _expect(len(kinds) == len(value), value, where, f"{len(kinds)} entries")
        return tuple(_parse(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is list:
        _expect(isinstance(value, list), value, where, "a list")
        return [_parse(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value)]
    if origin is dict:
        _expect(isinstance(value, dict), value, where, "an object")
        return {name: _parse(arguments[1], v, f"{where}.{name}") for name, v in value.items()}
    if origin in (typing.Union, types.UnionType):
        if value is not None and type(None) in arguments:  # X | None
            return _parse(next(a for a in arguments if a is not type(None)), value, where)
        _expect(isinstance(value, arguments), value, where, " or ".join(a.__name__ for a in arguments))
        return value
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    _expect(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), value, where, kind.__name__)
    return value


def _parse_dataclass(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, Mapping), value, where, "an object")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    unknown = [name for name in value if name not in known]
    if unknown:
        raise StrictError(f"{where}: unknown key '{unknown[0]}'; known are {', '.join(known)}")
    missing = [
        name for name, f in known.items() if name not in value and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise StrictError(f"{where}: the key '{missing[0]}' is missing")
    return kind(**{name: _parse(hints[name], v, f"{where}.{name}") for name, v in value.items()})


def _expect(fits: bool, value: Any, where: str, expected: str) -> None:
    if not fits:
        raise StrictError(f"{where}: expected {expected}, got {value!r:.60}")
