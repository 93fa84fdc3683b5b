"""Validation of settings by pydantic.

Settings are frozen dataclasses that derive from `Settings`. Their annotations carry types, choices and bounds;
`validated` builds them from YAML and `check` tests an instance. Neither converts: text is no number, ``true`` is no
whole number. pydantic is imported on first use, because it takes longer to import than the command line does.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import json
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from bertft.errors import BertftError

__all__ = [
    "Amount",
    "Count",
    "OneOf",
    "Percent",
    "Positive",
    "Settings",
    "Share",
    "Size",
    "Within",
    "check",
    "json_schema",
    "kind_of",
    "one_line",
    "suggestion",
    "validated",
]

T = TypeVar("T")


class Settings:
    """Base class of settings: unknown keys are refused, and nothing is converted."""

    __pydantic_config__: typing.ClassVar[Any] = {"strict": True, "extra": "forbid"}


class Within:
    """Bounds of a number or a length, by their names in pydantic: ``gt``, ``ge``, ``lt``, ``le``, ``min_length``.

    A float may also be text: YAML 1.1 reads ``5e-5``, which lacks a dot, as text.
    """

    def __init__(self, **bounds: float) -> None:
        self.bounds = bounds

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        schema = {**handler(source), **self.bounds}
        if schema["type"] != "float":
            return schema
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(_number, typing.cast(Any, schema))


class OneOf:
    """Choices that a module lists; it is imported when a value is checked, not before."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._chosen, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return {**handler(schema), "enum": list(self.choices())}

    def choices(self) -> tuple[str, ...]:
        """Return the allowed values."""
        return tuple(getattr(importlib.import_module(self.module), self.name))

    def _chosen(self, value: str) -> str:
        from pydantic_core import PydanticCustomError

        choices = self.choices()
        if value not in choices:
            expected = f"{', '.join(choices[:-1])} or {choices[-1]}"
            raise PydanticCustomError("literal_error", "expected {expected}", {"expected": expected})
        return value


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Count = Annotated[int, Within(ge=0)]
Size = Annotated[int, Within(gt=0)]
Percent = Annotated[int, Within(ge=0, le=100)]
Amount = Annotated[float, Within(ge=0)]
Positive = Annotated[float, Within(gt=0)]
Share = Annotated[float, Within(ge=0, lt=1)]

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping by name",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "string_type": "text",
    "too_short": "a list with at least {min_length} entry",
    "tuple_type": "a list",
}


def validated(kind: Any, value: object, file: str, key: str = "") -> Any:
    """Return ``value``, as YAML or JSON gives it, as an instance of ``kind``.

    Args:
        kind: a class derived from `Settings`, or any annotation that pydantic understands.
        value: plain values: mappings, lists, text, numbers.
        file: the file or the command that an error message begins with.
        key: the key of ``value`` in that file; "" where it is the whole file.

    Raises:
        BertftError: names the key, the expected value and the value found.
    """
    from pydantic import ValidationError

    try:
        text = json.dumps(value, default=str)
    except (TypeError, ValueError) as error:  # a key that is a date; an alias that contains itself
        raise BertftError(f"{file}: expected plain YAML, found what JSON cannot hold ({error})") from None
    try:
        return _adapter(kind).validate_json(text)  # JSON: strict, yet a list may become a tuple
    except ValidationError as error:
        sentence = _sentence(kind, json.loads(text), error.errors(include_url=False), key)
        raise BertftError(f"{file}: {sentence}") from None


def check(settings: Settings, where: str) -> None:
    """Raise `BertftError` unless every setting has its declared type and bounds."""
    validated(type(settings), dataclasses.asdict(typing.cast(Any, settings)), where)


def json_schema(kind: Any) -> dict[str, Any]:
    """Return what `validated` accepts as ``kind``, as a JSON schema with a definition for each class of settings."""
    return _untitled(_adapter(kind).json_schema())


def _untitled(node: Any) -> Any:
    """Return a schema without pydantic's titles, which repeat the names of the keys."""
    if isinstance(node, list):
        return [_untitled(one) for one in node]
    if not isinstance(node, dict):
        return node
    return {key: _untitled(value) for key, value in node.items() if key != "title" or not isinstance(value, str)}


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    if dataclasses.is_dataclass(kind):
        return TypeAdapter(kind)
    return TypeAdapter(kind, config=Settings.__pydantic_config__)


def _sentence(kind: Any, value: object, errors: Sequence[Any], key: str) -> str:
    """Return the first unknown key as a sentence, else the most deeply nested error."""
    places = [_place(value, error) for error in errors]
    unknown = [i for i, error in enumerate(errors) if error["type"] == "unexpected_keyword_argument"]
    chosen = unknown[0] if unknown else max(range(len(errors)), key=lambda i: len(places[i]))
    error, place = errors[chosen], places[chosen]
    where = key + "".join(f"[{step}]" if isinstance(step, int) else f".{one_line(step)}" for step in place)
    start = f"{where.removeprefix('.')}: " if where else ""
    if error["type"] == "missing":
        return f"{start}missing, and it has no default"
    if error["type"] == "unexpected_keyword_argument":
        return f"{start}unknown key, {suggestion(str(place[-1]), _names(kind, place[:-1]))}"
    found = kind_of(error["input"])
    if error["type"] == "dataclass_type":
        return f"{start}expected a mapping with {', '.join(_names(kind, place))}, found {found}"
    if error["type"] == "json_invalid":  # half of a surrogate pair
        return "expected Unicode text, found what cannot be encoded"
    if error["type"] not in _EXPECTED:
        return f"{start}{one_line(error['msg'])}, found {found}"
    expected = _EXPECTED[error["type"]].format(**error.get("ctx", {}))
    return f"{start}expected {expected.replace(chr(39), '')}, found {found}"


def _place(value: Any, error: Any) -> list[str | int]:
    """Return the keys that lead to an error, without pydantic's names for the members of a union."""
    place: list[str | int] = []
    for step in error["loc"]:
        inside = isinstance(value, dict) and step in value
        inside |= isinstance(value, (list, tuple)) and isinstance(step, int)
        if inside:
            value = value[step]
        if inside or error["type"] == "missing":
            place.append(step)
    return place


def _names(kind: Any, place: Sequence[str | int]) -> list[str]:
    """Return the keys of the settings at ``place`` within ``kind``."""
    for step in place:
        kind = _settings_in(kind)
        kind = typing.get_type_hints(kind)[str(step)] if dataclasses.is_dataclass(kind) else typing.get_args(kind)[-1]
    return [field.name for field in dataclasses.fields(_settings_in(kind))]


def _settings_in(kind: Any) -> Any:
    """Return the member of a union that is not None, or ``kind`` itself."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return next(option for option in typing.get_args(kind) if option is not type(None))
    return kind


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return the known name that is closest to ``name``, as a question, else all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"


def kind_of(value: object) -> str:
    """Return how an error message calls a value of YAML."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    return repr(value)


def one_line(text: object) -> str:
    """Return ``text`` without line breaks."""
    return " ".join(str(text).split())
