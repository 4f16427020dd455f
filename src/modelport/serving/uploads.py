"""Pictures in requests become values of records: a body that is one, the files of a form, URLs and base64 in JSON.

What comes out is for `Inputs.records`: bytes where a picture was sent, or what went wrong on its way.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from modelport.errors import BodyTooLarge, FieldError, InvalidInput, MalformedBody, UnsupportedMediaType, pointer
from modelport.pictures import MEDIA_TYPES, PictureError
from modelport.signature import Field, Signature, did_you_mean, from_cell

FORM = "multipart/form-data"
TYPES = (*MEDIA_TYPES, "image/jpg", "application/x-image")
"""Content types of a body that is a picture: also what some write for image/jpeg, and what Amazon SageMaker's clients send."""
MAX_PARTS = 16
MAX_URLS = 16
logging.getLogger("python_multipart").addHandler(logging.NullHandler())  # what is wrong with a form is for its sender
_NO_URLS = PictureError("is named by its URL, and this service fetches none: it was started without --allow-url")


def picture_field(signature: Signature) -> Field | None:
    """The input that a picture alone is for: the only image, beside which nothing must be given; None where there is no such."""
    images = [one for one in signature.inputs if one.kind == "image"]
    return images[0] if len(images) == 1 and all(one is images[0] or one.optional for one in signature.inputs) else None


def check_size(data: bytes, most: int) -> None:
    """BodyTooLarge for a picture of more bytes than are taken."""
    if len(data) > most:
        raise BodyTooLarge(f"the picture has {len(data):,} bytes; at most {most:,} are taken", hint="Make it smaller, or raise --max-body.")


# Forms


@dataclass(slots=True)
class Part:
    """One part of a form."""

    name: str
    is_file: bool
    data: bytes = b""


def parts(body: bytes, content_type: str) -> list[Part]:
    """The parts of a multipart body (RFC 7578). MalformedBody where it does not parse; BodyTooLarge for more than MAX_PARTS."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise UnsupportedMediaType("the form's Content-Type has no boundary", hint="Let the library that sends the form make the header.")
    reader = _Reader()
    try:
        parser = MultipartParser(boundary, reader.callbacks(), max_header_count=8, max_header_size=4096)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise MalformedBody("the form does not parse: its parts are not divided as its Content-Type says") from error
    if not reader.ended:
        raise MalformedBody("the form is cut short: its last boundary is missing")
    return reader.parts


@dataclass
class _Reader:
    """Gathers what the parser finds."""

    parts: list[Part] = field(default_factory=list)
    ended: bool = False
    _name: bytes = b""
    _value: bytes = b""
    _headers: dict[str, str] = field(default_factory=dict)
    _data: list[bytes] = field(default_factory=list)

    def callbacks(self) -> Any:
        names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end", "end")
        return {f"on_{name}": getattr(self, name) for name in names}

    def part_begin(self) -> None:
        if len(self.parts) >= MAX_PARTS:
            raise BodyTooLarge(f"the form has more than {MAX_PARTS} parts", hint="Send the pictures in several requests.")
        self._headers, self._data = {}, []

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("utf-8", "replace")
        self._name = self._value = b""

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def part_end(self) -> None:
        kind, options = parse_options_header(self._headers.get("content-disposition", "").encode())
        if kind != b"form-data" or b"name" not in options:
            raise MalformedBody("a part of the form has no name", hint='Each has "Content-Disposition: form-data; name=...".')
        is_file = b"filename" in options or self._headers.get("content-type", "").startswith("image/")
        self.parts.append(Part(options[b"name"].decode("utf-8", "replace"), is_file, b"".join(self._data)))

    def end(self) -> None:
        self.ended = True


def form_records(found: Sequence[Part], signature: Signature, max_picture_bytes: int) -> tuple[list[dict[str, Any]], bool]:
    """The records of a form, and whether it is one alone: one for each picture, with the form's other values in each.

    A file under whatever name is the picture of a model that takes one. InvalidInput names a part that belongs to no field.
    """
    fields = {one.name: one for one in signature.inputs}
    images = [one.name for one in signature.inputs if one.kind == "image"]
    values: dict[str, list[Any]] = {}
    errors = []
    for part in found:
        name = images[0] if part.is_file and len(images) == 1 else part.name.removesuffix("[]")
        known = fields.get(name)
        if known is None:
            errors.append(FieldError(pointer(part.name), f"there is no field {part.name[:60]!r}{did_you_mean(part.name, fields)}"))
        elif known.kind == "image":
            check_size(part.data, max_picture_bytes)
            values.setdefault(name, []).append(part.data)
        else:
            values.setdefault(name, []).append(_text(known, part))
    count = max(map(len, values.values()), default=1)
    for name, given in values.items():
        if len(given) not in (1, count):
            errors.append(FieldError(pointer(name), f"stands there {len(given)} times, and another field {count} times"))
    if errors:
        raise InvalidInput(errors)
    return [{name: given[index % len(given)] for name, given in values.items()} for index in range(count)], count == 1


def _text(known: Field, part: Part) -> Any:
    """What a part that is no picture says, as a cell of a CSV file would. Browsers send each end of a line as two characters."""
    try:
        return from_cell(known, part.data.decode().replace("\r\n", "\n"))
    except UnicodeDecodeError:
        raise MalformedBody(f"the part {part.name[:60]!r} of the form is no UTF-8 text") from None


# URLs and base64 in JSON


def urls_in(value: Any) -> list[str]:
    """The URLs of all {"url": ...} in a JSON value, each once. BodyTooLarge for more than MAX_URLS."""
    found = list(dict.fromkeys(_urls(value)))
    if len(found) > MAX_URLS:
        raise BodyTooLarge(f"the body names {len(found)} URLs; at most {MAX_URLS} are fetched for one request")
    return found


def _urls(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if is_url(one):
                yield one["url"]
            else:
                waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def is_url(value: Any) -> bool:
    """Whether a JSON value is {"url": ...}, which stands for a picture."""
    return isinstance(value, dict) and value.keys() == {"url"} and isinstance(value["url"], str)


def resolved(records: Sequence[Any], signature: Signature, fetched: Mapping[str, bytes | PictureError]) -> list[Any]:
    """Records with what was fetched in place of {"url": ...}, and the text in place of {"b64": ...}, as TensorFlow Serving has it.

    A record that is nothing but {"url": ...} is one of its picture, for a model that takes a picture.
    """
    alone = picture_field(signature)
    images = [one.name for one in signature.inputs if one.kind == "image"]

    def one(value: Any) -> Any:
        if is_url(value):
            return fetched.get(value["url"], _NO_URLS)
        if isinstance(value, dict) and value.keys() == {"b64"}:
            return value["b64"]
        return value

    made = []
    for record in records:
        if alone is not None and isinstance(record, dict) and alone.name not in record and record.keys() in ({"url"}, {"b64"}):
            record = {alone.name: record}
        if isinstance(record, dict):
            record = {name: one(value) if name in images else value for name, value in record.items()}
        made.append(record)
    return made
