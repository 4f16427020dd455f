"""The OpenAPI 3.1 document of a service, made from the signature: its examples are real rows and the answers they had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from modelport import pictures
from modelport.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    HeadersTooLarge,
    InvalidInput,
    MalformedBody,
    ModelContract,
    ModelportError,
    NotAcceptable,
    RequestTimeout,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    WrongHost,
)
from modelport.serving import uploads
from modelport.serving.outputs import csv_records
from modelport.serving.problems import PROBLEM_JSON
from modelport.serving.service import Service
from modelport.serving.settings import Settings
from modelport.signature import Signature

_ALWAYS = (Unauthorized, WrongHost, HeadersTooLarge, ModelportError)
_PREDICT = (
    MalformedBody, NotAcceptable, RequestTimeout, BodyTooLarge, UnsupportedMediaType, InvalidInput, Unavailable, DeadlineExceeded,
)  # fmt: skip
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"key": []}]


def document(services: Sequence[Service], settings: Settings, version: str, *, nested: bool = False) -> dict[str, Any]:
    """The document of one model, or of all that are served together, each below /models/<name>.

    `nested` is the document of one model that lies there itself; its paths are relative to where it lies.
    """
    alone = services[0] if len({service.model for service in services}) == 1 else None
    title = settings.title or (alone and alone.bundle.title) or (alone.name if alone else "Models")
    schemas: dict[str, Any] = {"Problem": _problem_schema(), "Model": _model_schema()}
    paths: dict[str, Any] = {}
    for service in services:
        model, base = ("", "") if alone else (f"{service.model}.", f"/models/{service.model}")
        prefix = f"{model}{service.function}." if service.function else model
        schemas[f"{prefix}Input"] = {"title": f"{service.name} input", **_with_small_pictures(service.signature).input_schema()}
        schemas[f"{prefix}Output"] = {"title": f"{service.name} output", **service.signature.output_schema()}
        if not service.function:
            paths[f"{base}/predict"] = {"post": _predict(service, settings, prefix, f"{model}predict")}
            paths[f"{base}/"] = {"get": _about(service, prefix)}
        paths[f"{base}/{service.path}"] = _function(service, settings, prefix, f"{model}{service.path}")
        if settings.allow_url and alone and service.inputs.picture is not None:
            paths[f"{base}/{service.path}"].setdefault("get", _by_url(service, prefix, f"{model}predict.url"))
    if not nested:
        paths |= _health_paths()
    components: dict[str, Any] = {"schemas": schemas}
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": alone.version if alone and alone.version else version,
            "description": _description(alone, settings),
        },
        "servers": [{"url": ".", "description": "where this document is"}],
        "paths": paths,
        "components": components,
        "x-modelport": {"dialects": [way for service in services for way in dialects(service, alone=alone is not None and not nested)]},
    }
    if settings.keys:
        made["security"] = _SECURITY
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    return made


def dialects(service: Service, *, alone: bool) -> list[dict[str, str]]:
    """The protocols of other servers in which the model can be asked too: name, path and where the protocol is described."""
    known = [
        {
            "name": "Open Inference Protocol",
            "method": "POST",
            "path": f"/v2/models/{service.name}/infer",
            "spec": "https://github.com/kserve/open-inference-protocol",
        },
        {
            "name": "TensorFlow Serving",
            "method": "POST",
            "path": f"/v1/models/{service.name}:predict",
            "spec": "https://www.tensorflow.org/tfx/serving/api_rest",
        },
        {
            "name": "Amazon SageMaker",
            "method": "POST",
            "path": "/invocations",
            "spec": "https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html",
        },
    ]
    return known if alone else known[:-1]


def _description(service: Service | None, settings: Settings) -> str:
    own = settings.description or (service.bundle.description if service else "")
    more = (
        "Every answer has an `X-Request-Id` (send one to choose it) and says in `X-Model` which model gave it. "
        "Errors are problem documents (RFC 9457)."
    )
    return f"{own}\n\n{more}" if own else more


def _function(service: Service, settings: Settings, prefix: str, name: str) -> dict[str, Any]:
    """A function at the path of its own name; or a model that is asked by GET too."""
    asked = {"post": _predict(service, settings, prefix, name)}
    return asked | ({"get": _query(service, prefix, f"{name}.get")} if service.takes_query else {})


def _query(service: Service, prefix: str, name: str) -> dict[str, Any]:
    """A GET, whose parameters are the fields."""
    row = service.examples[0] if service.examples else {}
    parameters = [
        {
            "name": field.name,
            "in": "query",
            "required": not field.optional,
            **({"description": field.description} if field.description else {}),
            "schema": {key: value for key, value in replace(field, nullable=False).json_schema().items() if key != "description"},
            **_example(row.get(field.name)),
        }
        for field in service.signature.inputs
    ]
    return {
        "operationId": name,
        "summary": f"Ask {service.name} by GET",
        "description": "The parameters are one record, each typed as strictly as in JSON.",
        "tags": [service.model],
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "The prediction.",
                "headers": _headers(),
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{prefix}Output"}}, **_csv_output(service)},
            },
            **_problems((*_PREDICT, ModelContract, *_ALWAYS)),
        },
    }


def _predict(service: Service, settings: Settings, prefix: str, name: str) -> dict[str, Any]:
    answers = [row["output"] for row in service.golden[:3]]
    inputs = [row["input"] for row in service.golden[:3]] or service.examples[:3]
    way = "A record in gives a record out; a list gives a list in the same order. CSV with a header (`text/csv`) gives CSV."
    if service.inputs.has_pictures:
        shown = _with_small_pictures(service.signature).inputs
        inputs = [{**row, **{one.name: one.example for one in shown if one.kind == "image"}} for row in inputs[:1]]
        answers = answers[:1]
        way += " " + _picture_words(service, settings)
    about = service.description if service.bundle.function else ""
    return {
        "operationId": name,
        "summary": f"Predict with {service.name}",
        "description": f"{about}\n\n{way}" if about else way,
        "tags": [service.model],
        "requestBody": {
            "required": True,
            "content": {"application/json": _one_or_many(f"{prefix}Input", inputs, settings.max_rows), **_pictures(service)},
        },
        # JSON Schema cannot say what a table must hold: a description of CSV as a string would promise that any string is taken.
        "x-csv": {
            "description": "A header with the fields' names, and a line for each record.",
            **_example(inputs and _csv_input(service, inputs)),
        },
        "responses": {
            "200": {
                "description": "The predictions, in the order of the rows.",
                "headers": _headers(),
                "content": {
                    "application/json": _one_or_many(f"{prefix}Output", answers, settings.max_rows),
                    **_csv_output(service),
                },
            },
            **_problems((*_PREDICT, ModelContract, *_ALWAYS)),
        },
    }


def _with_small_pictures(signature: Signature) -> Signature:
    """The signature with a small picture as the example of each image: a real one would be most of the document."""
    small = pictures.to_base64(pictures.example())
    return replace(signature, inputs=tuple(replace(one, example=small) if one.kind == "image" else one for one in signature.inputs))


def _picture_words(service: Service, settings: Settings) -> str:
    """What the service takes of pictures, and how they may be sent."""
    images = [one for one in service.signature.inputs if one.kind == "image"]
    sizes = "; ".join(f"`{one.name}` becomes {one.preprocessing.describe()}" for one in images if one.preprocessing is not None)
    ways = ["in JSON as base64", "as a file of a form, several of which give a list"]
    if service.inputs.picture is not None:
        ways.insert(0, "as the body")
    if settings.allow_url:
        ways.append('in JSON by its URL, as `{"url": "https://..."}`')
    words = (
        f"Pictures are JPEG, PNG or WEBP, whatever their name or type says. A picture may be sent {', '.join(ways[:-1])}, or {ways[-1]}."
    )
    return f"{words} Of a picture {sizes}." if sizes else words


def _pictures(service: Service) -> dict[str, Any]:
    """Bodies that hold pictures. JSON Schema cannot say what a picture is: only what the parts of a form are called."""
    if not service.inputs.has_pictures:
        return {}
    fields = service.signature.inputs
    properties = {
        one.name: {"type": "array", "items": {}, "maxItems": uploads.MAX_PARTS} if one.kind == "image" else one.json_schema()
        for one in fields
    }
    required = [one.name for one in fields if not one.optional]
    form = {"schema": {"type": "object", "properties": properties, "required": required}}
    kinds: dict[str, Any] = {kind: {} for kind in pictures.MEDIA_TYPES} if service.inputs.picture is not None else {}
    return kinds | {uploads.FORM: form}


def _by_url(service: Service, prefix: str, name: str) -> dict[str, Any]:
    """A GET that names a picture by its URL."""
    url = {"type": "string", "format": "uri", "maxLength": 2048}
    return {
        "operationId": name,
        "summary": f"Ask {service.name} about the picture at a URL",
        "description": "The service fetches the picture itself: from public addresses, or from the hosts that it was told.",
        "tags": [service.model],
        "parameters": [{"name": "url", "in": "query", "required": True, "description": "Of a JPEG, PNG or WEBP picture.", "schema": url}],
        "responses": {
            "200": {
                "description": "The prediction.",
                "headers": _headers(),
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{prefix}Output"}}, **_csv_output(service)},
            },
            **_problems((*_PREDICT, ModelContract, *_ALWAYS)),
        },
    }


def _one_or_many(schema: str, rows: Sequence[Any], most: int) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    content: dict[str, Any] = {"schema": {"anyOf": [reference, {"type": "array", "items": reference, "maxItems": most}]}}
    if rows:
        content["examples"] = {
            "one": {"summary": "one record", "value": rows[0]},
            "many": {"summary": "a list", "value": list(rows)},
        }
    return content


def _csv_input(service: Service, rows: Sequence[dict[str, Any]]) -> str:
    fields = service.signature.inputs
    if any(field.shape or field.kind in ("json", "image") for field in fields):
        return ""
    return csv_records(fields, [{field.name: row.get(field.name) for field in fields} for row in rows]).decode()


def _csv_output(service: Service) -> dict[str, Any]:
    answers = [row["output"] for row in service.golden[:3]]
    example = _example(answers and csv_records(service.signature.outputs, answers).decode())
    return {"text/csv": {"schema": {"type": "string"}, **example}}


def _example(value: Any) -> dict[str, Any]:
    return {"example": value} if value not in (None, "", [], {}) else {}


def _about(service: Service, prefix: str) -> dict[str, Any]:
    return {
        "operationId": f"{prefix}about",
        "summary": f"What {service.name} is",
        "description": "JSON; the page for people to a browser.",
        "tags": [service.name],
        "responses": {
            "200": {
                "description": "Its name, version, digest, signature and endpoints.",
                "headers": _headers(),
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/Model"}},
                    "text/html": {"schema": {"type": "string"}},
                },
            },
            **_problems((*_ALWAYS, NotAcceptable)),
        },
    }


def _health_paths() -> dict[str, Any]:
    return {
        "/livez": {"get": _health("livez", "The service runs.", (WrongHost, HeadersTooLarge))},
        "/readyz": {"get": _health("readyz", "The model gives its recorded answers.", (WrongHost, HeadersTooLarge, Unavailable))},
    }


def _health(path: str, summary: str, errors: Sequence[type[ModelportError]]) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
    return {
        "operationId": path,
        "summary": summary,
        "tags": ["health"],
        "security": [],
        "responses": {
            "200": {"description": summary, "headers": _headers(), "content": {"application/json": {"schema": schema}}},
            **_problems(errors),
        },
    }


def _headers() -> dict[str, Any]:
    return {"X-Request-Id": {"description": "The request's id: the caller's own, or a UUIDv7.", "schema": {"type": "string"}}}


def _problems(errors: Sequence[type[ModelportError]]) -> dict[str, Any]:
    """The answers for errors, one a status; errors of one status share it."""
    titles: dict[int, list[str]] = {}
    for error in sorted(errors, key=lambda error: error.status):
        titles.setdefault(error.status, []).append(f"{error.title} (`urn:modelport:{error.code}`)")
    schema = {"$ref": "#/components/schemas/Problem"}
    content = {PROBLEM_JSON: {"schema": schema}}
    return {str(status): {"description": "; ".join(said) + ".", "content": content} for status, said in titles.items()}


def _model_schema() -> dict[str, Any]:
    text = {"type": "string"}
    texts = dict.fromkeys(("name", "version", "digest", "title", "subtitle", "description", "framework", "engine"), text)
    return {
        "type": "object",
        "properties": texts | {"signature": {"type": "object"}, "endpoints": {"type": "object", "additionalProperties": text}},
        "required": ["name", "version", "digest", "signature", "endpoints"],
    }


def _problem_schema() -> dict[str, Any]:
    text = {"type": "string"}
    wrong = {
        "type": "object",
        "properties": {
            "pointer": {"type": "string", "description": "Where the value stands: a JSON pointer (RFC 6901)."},
            "detail": text,
            "expected": text,
            "got": {},
        },
        "required": ["pointer", "detail"],
    }
    return {
        "type": "object",
        "description": "RFC 9457",
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "hint": text,
            "request_id": text,
            "errors": {"type": "array", "items": wrong},
        },
        "required": ["type", "title", "status", "detail"],
    }
