"""The OpenAPI 3.1 document, made from the endpoints and their models."""

import re
from collections.abc import Iterable, Sequence

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from .endpoint import Endpoint

Json = dict[str, object]
#: (model, mode) → the schema that refers to it.
References = dict[tuple[str, JsonSchemaMode], Json]

_REF = "#/components/schemas/{model}"
_PROBLEM: Json = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
_PROBLEM_TITLES = {
    400: "A header is not valid",
    401: "The token is missing or wrong",
    403: "The token lacks the scope",
    404: "There is no such thing",
    409: "Not possible in its state",
    408: "The body came too slowly",
    410: "Those events are gone",
    412: "The node has changed",
    413: "The body is too large",
    422: "The request is not valid",
    502: "The synthetic fleet does not answer",
    503: "Not now",
}


def document(endpoints: Sequence[Endpoint], version: str) -> Json:
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = []
    for endpoint in endpoints:
        if endpoint.body:
            models.append((endpoint.body, "validation"))
        if endpoint.answer:
            models.append((endpoint.answer, "serialization"))
    unique = list(dict.fromkeys(models))
    found, definitions = models_json_schema(unique, ref_template=_REF)
    references: References = {(model.__name__, mode): schema for (model, mode), schema in found.items()}
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        path = re.sub(r":\w+}", "}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Stethos scheduler", "version": version},
        "paths": paths,
        "components": {
            "schemas": {**definitions.get("$defs", {}), "Problem": _PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(endpoint: Endpoint, references: References) -> Json:
    success: Json = {"description": endpoint.summary}
    if endpoint.answer:
        schema = references[endpoint.answer.__name__, "serialization"]
        success["content"] = {endpoint.media_type: {"schema": schema}}
    elif endpoint.status not in (202, 204):
        kind = "object" if endpoint.media_type == "application/json" else "string"
        success["content"] = {endpoint.media_type: {"schema": {"type": kind}}}
    operation: Json = {
        "summary": endpoint.summary,
        "operationId": f"{endpoint.handler.__module__.rpartition('.')[2]}_{endpoint.handler.__name__}",
        "tags": [endpoint.handler.__module__.rpartition(".")[2]],
        "parameters": list(_parameters(endpoint)),
        "responses": {str(endpoint.status): success, **_problems(endpoint)},
    }
    if endpoint.body:
        schema = references[endpoint.body.__name__, "validation"]
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    operation["security"] = [{"token": [str(endpoint.scope)]}] if endpoint.path.startswith("/v1") else []
    return operation


def _parameters(endpoint: Endpoint) -> Iterable[Json]:
    for name, kind in re.findall(r"{(\w+)(?::(\w+))?}", endpoint.path):
        schema = {"type": "integer", "minimum": 0} if kind == "number" else {"type": "string"}
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    for name, text in (endpoint.headers or {}).items():
        yield {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
    if endpoint.query:
        properties = endpoint.query.model_json_schema(ref_template=_REF)
        inlined = properties.get("$defs", {})
        for name, schema in properties["properties"].items():
            yield {"name": name, "in": "query", "schema": _inline(schema, inlined)}


def _inline(schema: Json, definitions: Json) -> Json:
    """Enums of a query string stand where they are used."""
    options = schema.get("anyOf")
    if not isinstance(options, list):
        return schema
    return schema | {"anyOf": [definitions.get(str(o.get("$ref", "")).rpartition("/")[2], o) for o in options]}


def _problems(endpoint: Endpoint) -> Json:
    statuses = set(endpoint.problems)
    if endpoint.path.startswith("/v1"):
        statuses |= {401, 403, 503}
    if endpoint.body:
        statuses |= {408, 413, 422}
    if endpoint.query or endpoint.headers:
        statuses.add(422)
    if re.search(r"{\w+:number}", endpoint.path):
        statuses.add(404)
    return {
        str(status): {"description": _PROBLEM_TITLES[status], "content": _problem(endpoint, status)}
        for status in sorted(statuses)
    }


def _problem(endpoint: Endpoint, status: int) -> Json:
    if status == 401 and endpoint.media_type == "text/html":
        return {"text/html": {"schema": {"type": "string", "description": "The login page."}}}
    return {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
