"""What an annotation says of a value: the field that it is in a signature, and the way from JSON to the value and back.

| annotation | field |
|---|---|
| bool, int, float, str | boolean, integer, number, string |
| datetime, date | datetime; a datetime comes in UTC |
| Literal, Enum | category; an Enum's members by their values |
| list[float], list[int], nested; numpy.ndarray | tensor |
| dataclass, TypedDict, NamedTuple, msgspec.Struct | json with the schema of an object |
| list and tuple of anything above, dict[str, ...] | json with its schema |
| X or None | as X, nullable |
| Any, dict | json |

`Annotated` gives limits (whatever has `ge`, `gt`, `le` or `lt`: annotated_types, msgspec.Meta), a description (a string, or whatever has
`description`) and an example (`examples`).
"""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin

import numpy as np

from modelport.errors import FieldError, SignatureError, pointer
from modelport.frameworks.docstrings import described
from modelport.signature import Field, WrongValue, check, check_record, is_null, made_example, moment_text

_KNOWN = (
    "Known are bool, int, float, str, date, datetime, Literal, Enum, dataclasses, TypedDict, NamedTuple, msgspec.Struct, lists, tuples and "
    "dict[str, ...] of them, numpy.ndarray, each with None, and Any."
)
_LIMITS_UNKNOWN = ("min_length", "max_length", "pattern", "multiple_of")
_LISTS = (list, tuple, set, frozenset, abc.Sequence, abc.Iterable, abc.Collection)
_MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)
_Path = tuple[str | int, ...]


class Value(Protocol):
    """What an annotation says. `field` has no name of its own: who has the value names it."""

    @property
    def field(self) -> Field: ...

    def make(self, checked: Any, at: _Path, errors: list[FieldError]) -> Any:
        """The value out of what `signature.check` gave; what is wrong inside it is added to `errors`."""
        ...

    def plain(self, value: Any) -> Any:
        """The value as JSON. WrongValue when it is not what the annotation says."""
        ...


def value_of(annotation: Any, where: str) -> Value:
    """What an annotation says. SignatureError, with `where` it stands, for one that no field can hold."""
    return _value(annotation, where, ())


def _value(annotation: Any, where: str, inside: tuple[type, ...]) -> Value:
    annotation, notes = _bare(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        value = _union(arguments, where, inside)
    elif annotation is None or annotation is type(None):
        raise _unknown("None", where)
    else:
        value = _simple(annotation) or _composed(annotation, origin, arguments, where, inside)
    return _noted(value, notes, where)


def _bare(annotation: Any) -> tuple[Any, list[Any]]:
    """An annotation without what only wraps it, and what Annotated says of it."""
    notes: list[Any] = []
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            notes += more
        elif get_origin(annotation) in (typing.Required, typing.NotRequired, typing.ClassVar, typing.Final):
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):  # NewType
            annotation = annotation.__supertype__
        elif hasattr(annotation, "__value__"):  # type X = ...
            annotation = annotation.__value__
        else:
            return annotation, notes


def _union(members: Sequence[Any], where: str, inside: tuple[type, ...]) -> Value:
    """X or None, and int or float, which is a number; no other union is one field."""
    given = [member for member in members if member is not type(None)]
    bare = {_bare(member)[0] for member in given} if all(not get_origin(member) for member in given) else set()
    choices = [choice for member in given if get_origin(member) is Literal for choice in get_args(member)]
    if bare == {int, float}:
        value: Value | None = Scalar(Field("", "number"))
    elif len(given) > 1 and all(get_origin(member) is Literal for member in given):
        value = _simple(Literal[tuple(choices)])
    elif len(given) == 1:
        value = _value(given[0], where, inside)
    else:
        value = None
    if value is None:
        raise _unknown(" | ".join(map(_shown, given)), where)
    return value if len(given) == len(members) else _with(value, nullable=True)


def _simple(annotation: Any) -> Value | None:
    """The values that are one scalar."""
    if annotation in (Any, object):
        return Scalar(Field("", "json", nullable=True, example={}), plain_json)
    if get_origin(annotation) is Literal:
        choices = [choice for choice in get_args(annotation) if choice is not None]
        field = Field("", "category", choices=tuple(choices), nullable=len(choices) < len(get_args(annotation)))
        return Scalar(field) if all(isinstance(choice, str | int) for choice in choices) else None
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, enum.Enum):
        values = tuple(member.value for member in annotation)
        scalars = all(isinstance(value, str | int | float) for value in values)
        return Scalar(Field("", "category", choices=values), _enum_value, annotation) if values and scalars else None
    if issubclass(annotation, datetime):
        return Scalar(Field("", "datetime"), _moment, lambda moment: moment.replace(tzinfo=UTC))
    if issubclass(annotation, date):
        return Scalar(Field("", "datetime", schema={"type": "string", "format": "date"}), _day, datetime.date)
    kinds: dict[type, Literal["boolean", "integer", "number", "string"]] = {
        bool: "boolean", int: "integer", float: "number", str: "string",
        np.bool_: "boolean", np.integer: "integer", np.floating: "number",
    }  # fmt: skip
    kind = next((kind for one, kind in kinds.items() if issubclass(annotation, one)), None)
    return None if kind is None else Scalar(Field("", kind), _item, None if annotation in (bool, int, float, str) else annotation)


def _composed(annotation: Any, origin: Any, arguments: Sequence[Any], where: str, inside: tuple[type, ...]) -> Value:
    """The values that are made of others."""
    cls = origin or annotation
    if cls is np.ndarray:
        return Many(Field("", "tensor", dtype="float64", shape=(-1,)), Scalar(Field("", "number"), _item), np.asarray)
    if cls in _MAPPINGS:
        if arguments and _bare(arguments[0])[0] is not str:
            raise _unknown(_shown(annotation), where, "The keys of an object in JSON are strings: dict[str, ...].")
        return _named(_value(arguments[1], where, inside) if arguments else None)
    if cls in _LISTS:
        return _many(cls, arguments, where, inside, _shown(annotation))
    if isinstance(cls, type) and _is_record(cls):
        if cls in inside:
            raise _unknown(f"{_shown(annotation)}, which refers to itself", where)
        return record_of(cls, where, inside)
    raise _unknown(_shown(annotation), where)


def _many(cls: Any, arguments: Sequence[Any], where: str, inside: tuple[type, ...], shown: str) -> Value:
    make: Callable[[Any], Any] = cls if cls in (tuple, set, frozenset) else list
    if not arguments:
        return Scalar(Field("", "json", example=[], schema={"type": "array"}), plain_json, make)
    length = -1
    if cls is tuple and arguments[-1] is not Ellipsis:
        length = len(arguments)
        if len({repr(argument) for argument in arguments}) > 1:
            raise _unknown(f"{shown}, whose parts differ", where, "A NamedTuple or dataclass gives each part a name.")
    item = _value(arguments[0], where, inside)
    inner = item.field
    if inner.kind in ("number", "integer", "tensor") and not inner.nullable and inner.minimum is inner.maximum is None:
        dtype = inner.dtype or ("int64" if inner.kind == "integer" else "float64")
        return Many(Field("", "tensor", dtype=dtype, shape=(length, *inner.shape)), item, make)
    sizes = {} if length < 0 else {"minItems": length, "maxItems": length}
    example = [_example(inner)] * max(1, length)
    schema = {"type": "array", "items": inner.json_schema(), **sizes}
    return Many(Field("", "json", example=example, schema=schema), item, make)


def _named(item: Value | None) -> Value:
    if item is None:
        return Scalar(Field("", "json", example={}, schema={"type": "object"}), plain_json)
    schema = {"type": "object", "additionalProperties": item.field.json_schema()}
    return Named(Field("", "json", example={}, schema=schema), item)


def record_of(cls: type, where: str, inside: tuple[type, ...] = ()) -> Record:
    """What the class of a record says. SignatureError when it has no fields, or one that cannot be known."""
    where = f"{where}: {cls.__name__}"
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception as error:
        raise unreadable(f"the annotations of {cls.__name__}", error) from error
    about = described(cls.__doc__)[1]
    members = {}
    for name, absent in _defaults(cls, hints).items():
        value = _value(hints.get(name, Any), f"{where}.{name}", (*inside, cls))
        members[name] = member(value, name, absent, about.get(name, ""), f"{where}.{name}")
    if not members:
        raise SignatureError(f"{where} has no fields")
    fields = [one.field for one in members.values()]
    schema = {
        "type": "object",
        "properties": {field.name: field.json_schema() for field in fields},
        "required": [field.name for field in fields if not field.optional],
        "additionalProperties": False,
    }
    example = {field.name: _example(field) for field in fields if not field.nullable or field.example is not None}
    return Record(Field("", "json", example=example, schema=schema), members, cls)


MISSING: Any = dataclasses.MISSING
"""Stands for a default that there is not."""


def member(value: Value, name: str, absent: Any, description: str, where: str) -> Value:
    """A value under its name, with what it is where it is left out. SignatureError when that is not what its annotation says."""
    default, nullable = None, value.field.nullable
    if absent is None:
        nullable = True
    elif absent is not MISSING:
        try:
            default = value.plain(absent)
        except WrongValue as wrong:
            raise SignatureError(f"{where}: the default {absent!r} is not what is annotated: {wrong}") from wrong
    said = value.field
    example = default if default is not None and (said.example is None or said.kind == "json") else said.example
    return _with(value, name=name, nullable=nullable, default=default, example=example, description=said.description or description)


def _is_record(cls: type) -> bool:
    import msgspec

    named_tuple = issubclass(cls, tuple) and hasattr(cls, "_fields")
    return dataclasses.is_dataclass(cls) or typing.is_typeddict(cls) or named_tuple or issubclass(cls, msgspec.Struct)


def _defaults(cls: Any, hints: Mapping[str, Any]) -> dict[str, Any]:
    """The names of a record's fields, with what each is where it is left out; MISSING where it may not be."""
    import msgspec

    if dataclasses.is_dataclass(cls):
        given = [field for field in dataclasses.fields(cls) if field.init]
        return {field.name: field.default_factory() if callable(field.default_factory) else field.default for field in given}
    if typing.is_typeddict(cls):
        return {name: MISSING if name in cls.__required_keys__ else None for name in hints}
    if issubclass(cls, msgspec.Struct):
        return {field.name: _struct_default(field) for field in msgspec.structs.fields(cls)}
    return {name: cls._field_defaults.get(name, MISSING) for name in cls._fields}


def _struct_default(field: Any) -> Any:
    import msgspec

    if field.default is not msgspec.NODEFAULT:
        return field.default
    return MISSING if field.default_factory is msgspec.NODEFAULT else field.default_factory()


# The values


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Scalar:
    """One value: a number, a text, a choice, a moment; or any JSON."""

    field: Field
    to_json: Callable[[Any], Any] = _same
    from_json: Callable[[Any], Any] | None = None

    def make(self, checked: Any, at: _Path, errors: list[FieldError]) -> Any:
        return checked if checked is None or self.from_json is None else self.from_json(checked)

    def plain(self, value: Any) -> Any:
        given = None if is_null(value) and not isinstance(value, float) else self.to_json(value)
        if self.field.nullable and isinstance(given, float) and math.isnan(given):
            given = None
        check(self.field, given)
        return float(given) if self.field.kind == "number" and given is not None else given


@dataclass(frozen=True)
class Many:
    """A list of values of one kind."""

    field: Field
    item: Value
    collect: Callable[[Any], Any]

    def make(self, checked: Any, at: _Path, errors: list[FieldError]) -> Any:
        if checked is None:
            return None
        if self.field.kind == "tensor":
            number = {"number": float, "integer": int}.get(self.item.field.kind, _same)
            return self.collect([self.item.make(number(part), at, errors) for part in checked])
        if not isinstance(checked, list):
            errors.append(FieldError(pointer(*at), f"expected a list, got {_kind(checked)}", "a list"))
            return None
        wanted = (self.field.schema or {}).get("minItems", len(checked))
        if len(checked) != wanted:
            errors.append(FieldError(pointer(*at), f"expected a list of {wanted}, got one of {len(checked)}", f"a list of {wanted}"))
        return self.collect([_made(self.item, part, (*at, index), errors) for index, part in enumerate(checked)])

    def plain(self, value: Any) -> Any:
        if value is None:
            check(self.field, None)
            return None
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, abc.Iterable):
            raise WrongValue(f"expected a list, got {_kind(value)}")
        parts: list[Any] = []
        try:
            parts.extend(map(self.item.plain, value))
        except WrongValue as wrong:
            raise WrongValue(f"{len(parts)}: {wrong}") from None
        check(self.field, parts)
        return parts


@dataclass(frozen=True)
class Named:
    """Values of one kind by name, which may be any."""

    field: Field
    item: Value

    def make(self, checked: Any, at: _Path, errors: list[FieldError]) -> Any:
        if checked is None:
            return None
        if not isinstance(checked, Mapping):
            errors.append(FieldError(pointer(*at), f"expected an object, got {_kind(checked)}", "an object"))
            return None
        return {name: _made(self.item, part, (*at, name), errors) for name, part in checked.items()}

    def plain(self, value: Any) -> Any:
        if value is None:
            check(self.field, None)
            return None
        if not isinstance(value, Mapping):
            raise WrongValue(f"expected an object, got {_kind(value)}")
        return _plain_parts((str(name), self.item, part) for name, part in value.items())


@dataclass(frozen=True)
class Record:
    """Values that have names and kinds of their own."""

    field: Field
    members: Mapping[str, Value]
    cls: Any

    def make(self, checked: Any, at: _Path, errors: list[FieldError]) -> Any:
        if checked is None:
            return None
        before = len(errors)
        values = check_record([one.field for one in self.members.values()], checked, at, errors)
        return None if len(errors) > before else self.build(values, at, errors)

    def build(self, checked: Sequence[Any], at: _Path, errors: list[FieldError]) -> Any:
        """The record out of the checked values of its fields, in their order."""
        before = len(errors)
        values = {name: one.make(value, (*at, name), errors) for (name, one), value in zip(self.members.items(), checked, strict=True)}
        if len(errors) > before:
            return None
        if typing.is_typeddict(self.cls):
            values = {name: value for name, value in values.items() if value is not None or name in self.cls.__required_keys__}
        return self.cls(**values)

    def plain(self, value: Any) -> Any:
        if value is None:
            check(self.field, None)
            return None
        return _plain_parts((name, self.members[name], part) for name, part in self.parts(value).items())

    def parts(self, value: Any) -> dict[str, Any]:
        """The values of a record by name. WrongValue when one is missing, or there is none of the kind."""
        if isinstance(value, Mapping):
            unknown = [name for name in value if name not in self.members]
            missing = [name for name, one in self.members.items() if name not in value and not one.field.optional]
            if unknown or missing:
                raise WrongValue(f"{missing[0]!r} is missing" if missing else f"there is no field {str(unknown[0])[:60]!r}")
            return {name: value[name] for name in self.members if name in value}
        if typing.is_typeddict(self.cls) or not isinstance(value, self.cls):
            raise WrongValue(f"expected {self.cls.__name__}, got {_kind(value)}")
        return {name: getattr(value, name) for name in self.members}


def _plain_parts(parts: Iterable[tuple[str, Value, Any]]) -> dict[str, Any]:
    """The parts of an object as JSON. WrongValue says where, when one is wrong."""
    plain, name = {}, ""
    try:
        for name, value, part in parts:
            plain[name] = value.plain(part)
    except WrongValue as wrong:
        raise WrongValue(f"{name}: {wrong}") from None
    return plain


def _made(value: Value, raw: Any, at: _Path, errors: list[FieldError]) -> Any:
    try:
        checked = check(value.field, raw)
    except WrongValue as wrong:
        errors.append(FieldError(pointer(*at), wrong.detail(errors), value.field.expected()))
        return None
    return value.make(checked, at, errors)


def _with(value: Value, **changes: Any) -> Value:
    changed: Value = replace(value, field=replace(value.field, **changes))  # type: ignore[type-var]  # each of them is a dataclass
    return changed


def _example(field: Field) -> Any:
    return made_example(field) if field.example is None else field.example


# JSON of scalars


def plain_json(value: Any) -> Any:
    """Whatever it is as JSON, as far as that can be told without an annotation. WrongValue where it cannot."""
    import msgspec

    try:
        return msgspec.to_builtins(value, str_keys=True, enc_hook=_of_numpy)
    except (TypeError, ValueError, RecursionError) as error:
        raise WrongValue(f"expected what JSON can hold, got {_kind(value)}: {error}") from error


def _of_numpy(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{_kind(value)} has no JSON form")


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0) else value


def _enum_value(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _moment(value: Any) -> Any:
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").astype(object)
    if isinstance(value, datetime):
        return moment_text(value)
    return value.isoformat() if isinstance(value, date) else value


def _day(value: Any) -> Any:
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[D]").astype(object)
    if isinstance(value, datetime):
        value = value.date()
    return value.isoformat() if isinstance(value, date) else value


# What Annotated says


def _noted(value: Value, notes: Sequence[Any], where: str) -> Value:
    """The value with its limits, description and example."""
    changes: dict[str, Any] = {}
    for note in [inner for outer in notes for inner in (outer, *_metadata(outer))]:
        if isinstance(note, str):
            changes["description"] = note
            continue
        for unknown in _LIMITS_UNKNOWN:
            if getattr(note, unknown, None):
                hint = "Known limits: ge, gt, le, lt. The function can check the rest: raise modelport.InvalidInput(name, what is wrong)."
                raise SignatureError(f"{where} is limited by {unknown}, which no field has", hint=hint)
        changes |= _limits(note, value.field, where)
        words = getattr(note, "description", None) or getattr(note, "documentation", None)
        if isinstance(words, str):
            changes["description"] = words
        examples = getattr(note, "examples", None)
        if isinstance(examples, list) and examples:
            changes["example"] = examples[0]
    if not changes:
        return value
    if ("minimum" in changes or "maximum" in changes) and value.field.kind not in ("number", "integer"):
        raise SignatureError(f"{where} has limits and is a {value.field.kind}", hint="Only numbers have them.")
    return _with(value, **changes)


def _metadata(note: Any) -> Sequence[Any]:
    """The notes inside a note, as pydantic's Field has them."""
    inner = getattr(note, "metadata", ())
    return inner if isinstance(inner, list | tuple) else ()


def _limits(note: Any, field: Field, where: str) -> dict[str, Any]:
    """The inclusive limits that a note gives; one that excludes a number ends beside it."""
    found: dict[str, Any] = {}
    for name, side, outward in (("ge", "minimum", 0), ("gt", "minimum", 1), ("le", "maximum", 0), ("lt", "maximum", -1)):
        limit = getattr(note, name, None)
        if limit is None:
            continue
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not math.isfinite(limit):
            raise SignatureError(f"{where} has the limit {name}={limit!r}", hint="A limit is a number.")
        if outward and field.kind == "integer":
            limit = math.floor(limit) + 1 if outward > 0 else math.ceil(limit) - 1
        elif outward:
            limit = math.nextafter(limit, outward * math.inf)
        found[side] = limit
    return found


# Words


def unreadable(what: str, error: Exception) -> SignatureError:
    """The error for annotations that do not evaluate."""
    hint = "What they name must be imported where the file runs, not only for type checkers."
    return SignatureError(f"{what} cannot be read: {type(error).__name__}: {error}", hint=hint)


def _unknown(shown: str, where: str, hint: str = _KNOWN) -> SignatureError:
    return SignatureError(f"{where} is annotated {shown}, which no field can hold", hint=hint)


def _shown(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation).replace("typing.", "")


def _kind(value: Any) -> str:
    plain = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object", type(None): "null"}
    return plain.get(type(value), f"{type(value).__module__}.{type(value).__qualname__}")
