"""The source text of a typed client for one model, to be kept in another project: it needs httpx and nothing else."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from modelport.bundle import Bundle
from modelport.signature import Field, Signature

_MOST_CHOICES = 50
_TAKEN = frozenset(dir(builtins)) | {
    "Any",
    "Literal",
    "TypedDict",
    "base64",
    "dataclass",
    "datetime",
    "self",
    "to_json",
    "from_json",
    "Input",
    "Output",
}
"""Names that an attribute must not hide from the annotations beside it."""
_MODULES = frozenset({"os", "random", "time", "httpx", "overload", "Sequence", "field"})
"""Names that the module itself uses: no function is called so."""

_HEAD = '''\
# Generated: formatters and linters leave it as it is.
# fmt: off
# ruff: noqa
"""{title}

Written by `modelport client {name}` from the model's signature. Write it again when the model changes; do not edit it.

    import client

    answer = client.{function}(client.Input({example}))

The service's address is MODELPORT_URL, or given to `{function}`; its key, where it asks for one, MODELPORT_API_KEY.
"""

from __future__ import annotations

{base64}import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
{imports}from typing import {typing}

import httpx

MODEL = {name_literal}
DIGEST = {digest}
"""The bundle this module was written from."""
'''

_ERROR = '''

class PredictionError(Exception):
    """The service did not answer: `status` is that of HTTP, 0 when it was not reached.

    `errors` lists each wrong value: {"pointer": "/0/field", "detail": "expected ..."}.
    """

    def __init__(
        self,
        message: str,
        status: int = 0,
        code: str = "",
        errors: Sequence[dict[str, Any]] = (),
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.errors = list(errors)
        self.request_id = request_id
'''

_CALL = '''

@overload
def {function}(
    inputs: {input},
    *,
    url: str | None = None,
    key: str | None = None,
    timeout_s: float = 30.0,
    retries: int = 3,
    client: httpx.Client | None = None,
) -> {output}: ...


@overload
def {function}(
    inputs: Sequence[{input}],
    *,
    url: str | None = None,
    key: str | None = None,
    timeout_s: float = 30.0,
    retries: int = 3,
    client: httpx.Client | None = None,
) -> list[{output}]: ...


def {function}(
    inputs: {input} | Sequence[{input}],
    *,
    url: str | None = None,
    key: str | None = None,
    timeout_s: float = 30.0,
    retries: int = 3,
    client: httpx.Client | None = None,
) -> {output} | list[{output}]:
    """The answer to one input, or the answers to several.

    `url` is the service's address, or that of one of its models: ".../models/{name}".
    A request that was not taken up is sent again, `retries` times at most. `client` is
    used instead of a new one for the call. Raises PredictionError.
    """
    single = isinstance(inputs, {input})
    body = inputs.to_json() if isinstance(inputs, {input}) else [one.to_json() for one in inputs]
    answer = _ask("/{path}", body, url, key, timeout_s, retries, client)
    return {output}.from_json(answer) if single else [{output}.from_json(one) for one in answer]
'''

_HTTP = '''

def _ask(
    path: str,
    body: Any,
    url: str | None,
    key: str | None,
    timeout_s: float,
    retries: int,
    client: httpx.Client | None,
) -> Any:
    base = url or os.environ.get("MODELPORT_URL", "http://127.0.0.1:8000")
    key = key or os.environ.get("MODELPORT_API_KEY")
    headers = {"Accept": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    http = client or httpx.Client()
    try:
        return _post(http, base.rstrip("/") + path, body, headers, timeout_s, retries)
    finally:
        if client is None:
            http.close()


def _post(
    http: httpx.Client,
    url: str,
    body: Any,
    headers: dict[str, str],
    timeout_s: float,
    retries: int,
) -> Any:
    for attempt in range(retries + 1):
        delay_s = min(0.1 * 2**attempt, 10.0) * random.uniform(0.5, 1)
        try:
            # No redirect is followed: it could lead the key to another host.
            response = http.post(url, json=body, headers=headers, timeout=timeout_s, follow_redirects=False)
        except httpx.TimeoutException as error:
            raise PredictionError(f"{url} did not answer within {timeout_s:g} s") from error
        except httpx.TransportError as error:
            if attempt == retries:
                raise PredictionError(f"{url} was not reached: {error}") from error
            time.sleep(delay_s)
            continue
        if response.is_success:
            return response.json()
        after = response.headers.get("retry-after", "")
        after_s = float(after) if after.isdecimal() else 0.0
        again = response.status_code in (429, 502, 503) and after_s <= timeout_s
        if attempt == retries or not again:
            raise _error(response)
        time.sleep(max(delay_s, after_s))
    raise AssertionError("the last attempt returns or raises")


def _error(response: httpx.Response) -> PredictionError:
    """An answer that is none, by its problem document (RFC 9457)."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    detail = problem.get("detail", f"{response.url} answered {response.status_code}")
    return PredictionError(
        str(detail),
        response.status_code,
        str(problem.get("type", "")).removeprefix("urn:modelport:"),
        problem.get("errors") or (),
        response.headers.get("x-request-id", ""),
    )
'''


def client_source(bundle: Bundle, version: str = "") -> str:
    """The module's text: a dataclass for the input, one for the output, and `predict`; as much for each function where the bundle has some.

    The same bundle gives the same text. What it says (names, choices, descriptions) stands there only as string literals and in docstrings,
    escaped.
    """
    functions = {bundle.function or "predict": bundle.signature, **{name: one.signature for name, one in bundle.functions.items()}}
    parts: list[str] = []
    calls: list[str] = []
    taken = {f"{_pascal(name)}{side}" for name in bundle.functions for side in ("Input", "Output")}
    for name, signature in functions.items():
        own = _pascal(name) if name in bundle.functions else ""
        parts += ["", "", *_classes(signature, own, taken)] if parts else _classes(signature, own, taken)
        called = f"{name}_" if name in _TAKEN | _MODULES else name
        calls.append(_CALL.format(function=called, path=name, input=f"{own}Input", output=f"{own}Output", name=bundle.name))
    body = "\n".join(parts)
    fields = [field for signature in functions.values() for field in (*signature.inputs, *signature.outputs)]
    inputs = attributes(bundle.signature.inputs)
    typing = [name for name in ("Any", "Literal", "TypedDict") if re.search(rf"\b{name}\b", body + _ERROR)] + ["overload"]
    ref = f"{bundle.name}:{version}" if version else bundle.name
    head = _HEAD.format(
        title=_prose(f"A typed client for {ref}{': ' + bundle.title if bundle.title else ''}."),
        name=bundle.name,
        function=next(iter(functions)),
        example=f"{inputs[bundle.signature.inputs[0].name]}=..." + (", ..." if len(inputs) > 1 else "") if inputs else "",
        imports="from datetime import datetime\n" if any(field.kind == "datetime" for field in fields) else "",
        base64="import base64\n" if any(field.kind == "image" for field in fields) else "",
        typing=", ".join(typing),
        name_literal=literal(bundle.name),
        digest=literal(bundle.digest),
    )
    return head + "\n\n" + body + "\n" + _ERROR + "".join(calls) + _HTTP


def _classes(signature: Signature, own: str, taken: set[str]) -> list[str]:
    """The classes of what one function takes and gives; their names begin with `own`. The names of others are `taken`."""
    inputs, outputs = attributes(signature.inputs), attributes(signature.outputs)
    named = _named_vectors(signature.outputs, outputs, taken)
    taken |= named.keys()
    parts: list[str] = []
    for name, field in named.items():
        parts += [_typed_dict(name, field), "", ""]
    parts += _input(signature.inputs, inputs, f"{own}Input")
    return [*parts, "", "", *_output(signature.outputs, outputs, {field.name: name for name, field in named.items()}, f"{own}Output")]


def _pascal(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def attributes(fields: Sequence[Field]) -> dict[str, str]:
    """For each field's name a Python identifier that is like it: "petal length (cm)" -> petal_length_cm, "class" -> class_."""
    given: dict[str, str] = {}
    for field in fields:
        name = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", field.name)).strip("_")
        name = unicodedata.normalize("NFKC", name)
        if not name.isidentifier():
            name = f"field_{name}"
        if not name.isidentifier():
            name = "field"
        if keyword.iskeyword(name) or keyword.issoftkeyword(name) or name in _TAKEN:
            name += "_"
        unique, count = name, 2
        while unique in given.values():
            unique, count = f"{name}_{count}", count + 1
        given[field.name] = unique
    return given


def literal(value: Any) -> str:
    """A value as a Python literal; a text as formatters write it: in double quotes, unless it holds more of them than of single ones."""
    if not isinstance(value, str):
        return repr(value)
    quote = "'" if value.count('"') > value.count("'") else '"'
    text = "".join(_escaped(letter, quote) for letter in value)
    return f"{quote}{text}{quote}"


def _escaped(letter: str, quote: str) -> str:
    if letter in (quote, "\\"):
        return "\\" + letter
    return letter if letter.isprintable() else repr(letter)[1:-1]


def _prose(text: str) -> str:
    """A text as it may stand in a docstring: one line, and nothing that ends the docstring or hides in it."""
    line = " ".join(text.replace('"', "'").replace("\\", "/").split())
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in line)


def _input(fields: Sequence[Field], names: dict[str, str], cls: str) -> list[str]:
    ordered = sorted(fields, key=_may_be_left_out)
    lines = ["@dataclass(frozen=True, kw_only=True)", f"class {cls}:", '    """What the model takes."""', ""]
    for field in ordered:
        default = f" = {_default(field)}" if _may_be_left_out(field) else ""
        lines += [f"    {names[field.name]}: {_annotation(field)}{default}", *_doc(field, names[field.name])]
    lines += ["", "    def to_json(self) -> dict[str, Any]:", '        """The record as the service takes it."""']
    if not fields:
        return [*lines, "        return {}"]
    lines.append("        return {")
    for field in fields:
        value = f"self.{names[field.name]}"
        if field.kind == "datetime":
            value = f"{value}.isoformat()" if not field.nullable else f"None if {value} is None else {value}.isoformat()"
        if field.kind == "image":
            encoded = f"base64.b64encode({value}).decode()"
            value = encoded if not field.nullable else f"None if {value} is None else {encoded}"
        lines.append(f"            {literal(field.name)}: {value},")
    return [*lines, "        }"]


def _may_be_left_out(field: Field) -> bool:
    """Whether its attribute has a default: a dataclass takes none that can change."""
    return field.optional and not isinstance(field.default, list | dict)


def _default(field: Field) -> str:
    if field.kind == "datetime" and field.default is not None:
        return f"datetime.fromisoformat({literal(field.default)})"
    return literal(field.default)


def _output(fields: Sequence[Field], names: dict[str, str], vectors: dict[str, str], cls: str) -> list[str]:
    lines = ["@dataclass(frozen=True, kw_only=True)", f"class {cls}:", '    """What the model answers."""', ""]
    for field in fields:
        vector = vectors.get(field.name)
        annotation = _annotation(field) if vector is None else vector + (" | None" if field.nullable else "")
        lines += [f"    {names[field.name]}: {annotation}", *_doc(field, names[field.name])]
    lines += [
        "",
        "    @classmethod",
        f"    def from_json(cls, record: dict[str, Any]) -> {cls}:",
        '        """Out of the record that the service gives."""',
    ]
    if not fields:
        return [*lines, "        return cls()"]
    lines.append("        return cls(")
    for field in fields:
        key = f"record[{literal(field.name)}]"
        if field.kind == "datetime":
            key = f"datetime.fromisoformat({key})" if not field.nullable else f"{key} and datetime.fromisoformat({key})"
        lines.append(f"            {names[field.name]}={key},")
    return [*lines, "        )"]


def _named_vectors(fields: Sequence[Field], names: dict[str, str], taken: set[str]) -> dict[str, Field]:
    """A TypedDict's name for each output that is an object of numbers by class; none of those that are `taken`."""
    vectors: dict[str, Field] = {}
    for field in fields:
        if field.shape and field.choices and len(field.choices) <= _MOST_CHOICES:
            name = _pascal(names[field.name])
            if name in {"PredictionError", "Sequence", *_TAKEN, *vectors, *taken, *names.values()}:
                name = f"Vector{len(vectors) + len(taken)}"
            vectors[name] = field
    return vectors


def _typed_dict(name: str, field: Field) -> str:
    lines = [f"{name} = TypedDict(", f"    {literal(name)},", "    {"]
    lines += [f"        {literal(str(choice))}: float," for choice in dict.fromkeys(map(str, field.choices))]
    return "\n".join([*lines, "    },", ")"])


def _annotation(field: Field) -> str:
    kinds = {
        "number": "float",
        "integer": "int",
        "boolean": "bool",
        "string": "str",
        "text": "str",
        "datetime": "datetime",
        "image": "bytes",
    }
    if field.shape and field.choices:
        kind = "dict[str, float]"
    elif field.shape:
        kind = "int" if field.kind == "integer" else "float"
        for _ in field.shape:
            kind = f"list[{kind}]"
    elif field.kind == "category":
        kind = _literal_type(field.choices)
    else:
        kind = kinds.get(field.kind, "Any")
    return f"{kind} | None" if field.nullable and kind != "Any" else kind


def _literal_type(choices: Sequence[Any]) -> str:
    """Literal["a", "b"]; the choices' plain type where they are many, or of a type that Literal does not take."""
    if len(choices) <= _MOST_CHOICES and not any(isinstance(choice, float) for choice in choices):
        return f"Literal[{', '.join(literal(choice) for choice in choices)}]"
    return " | ".join(sorted({type(choice).__name__ for choice in choices}))


def _doc(field: Field, attribute: str) -> list[str]:
    """What is known of a field, as the docstring below its attribute."""
    parts = [field.description.strip().rstrip(".") + "." if field.description.strip() else ""]
    if field.minimum is not None or field.maximum is not None:
        low = "" if field.minimum is None else f"from {field.minimum:g}"
        high = "" if field.maximum is None else f"to {field.maximum:g}"
        parts.append(f"{' '.join(filter(None, (low, high))).capitalize()}.")
    if field.shape and not field.choices:
        parts.append(f"Of shape {'x'.join(str(size) if size >= 0 else 'any' for size in field.shape)}.")
    if attribute != field.name:
        parts.append(f"The field {field.name!r}.")
    text = _prose(" ".join(filter(None, parts)))
    return [f'    """{text}"""'] if text else []
