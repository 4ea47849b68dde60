"""The OpenAPI 3.1 description of the api, made from the table of operations and the types."""

import inspect
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from abaco_api import VERSION
from abaco_api.access.authenticator import NONCE_HEADER
from abaco_api.access.domain.rules import NONCE_SCHEME, SCHEME, needs, rule_of, security_of
from abaco_api.contract import request_schemas
from abaco_api.contract.json_schemas import schema_components
from abaco_api.contract.operation import KEY, KEY_PATTERN, MAX_KEY, Operation
from abaco_api.dependencies import AFTER
from abaco_api.http.parameters import JSON, MULTIPART, URLENCODED
from abaco_api.http.response_envelope import SEQUENCE, Failure, Success

Json = dict[str, Any]

TEMPLATE = "#/components/schemas/{name}"
PATH_IDS = {
    "actor_id": ("An actor's id.", "foo_0"),
    "execution_id": ("An execution's id.", "foo_0_exc_0"),
    "worker_id": ("A worker's id.", "foo_0_wkr_0"),
    "subscription_id": ("A subscription's id.", "foo_0_sub_1"),
    "sequence": ("An event's sequence in the log.", "1"),
    "nonce_id": ("A nonce's id, the beginning of its random part.", "AbCd1234"),
    "token_id": ("An API token's id, the beginning of its random part.", "AbCd1234"),
}
ERRORS = {
    400: "A parameter is missing, unknown, or malformed.",
    401: "No credential, or one that is not valid.",
    403: "What may be read, but not changed in this way, or is beyond a quota of the tenant.",
    404: "There is no such resource, or it may not be read.",
    408: "The body did not arrive in time.",
    409: "The state of the resource does not allow it, or the key was sent with another request.",
    413: "Larger than the limit.",
    415: "An unknown content type or coding.",
    429: "The process or the inbox is full, or the tenant sends too much. Try again later.",
    503: "A service that this needs is unavailable. Try again.",
}
ERRORS_BY_KIND = {"command": (400, 404, 429, 503), "query": (400, 404, 429, 503), "probe": ()}
ERRORS_OF_BODY = (408, 413, 415)
SECURITY = {
    "type": "http",
    "scheme": "bearer",
    "description": "A JWT of an issuer in ABACO_AUTH_ISSUERS, or an API token (abaco_pat_…). With "
    "ABACO_AUTH=off no request needs one.",
}
NONCE_SECURITY = {
    "type": "apiKey",
    "in": "header",
    "name": NONCE_HEADER,
    "description": "A nonce (abaco_nonce_…): its own level on its one actor, one use a request.",
}
ENVELOPE = {"status", "msg", "result", "version"}


def encoded(operations: Sequence[Operation], *, auth: bool = True) -> bytes:
    """The description as JSON."""
    return msgspec.json.encode(describe(operations, auth=auth))


def describe(operations: Sequence[Operation], *, auth: bool = True) -> Json:
    """The whole description. Without ``auth`` no operation needs a credential."""
    schemas = _Schemas(operations)
    paths: Json = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(
            operation, schemas, auth=auth
        )
    paths["/openapi.json"] = {"get": _document("openapi", "This description")}
    paths["/asyncapi.json"] = {"get": _document("asyncapi", "The events, as they are in the log")}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "abaco",
            "version": VERSION,
            "description": "Actors that are container images. Every answer is an envelope.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {SCHEME: SECURITY, NONCE_SCHEME: NONCE_SECURITY},
        },
    }


class _Schemas:
    """The schemas of all types."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        results = [o.result for o in operations] + [o.unready for o in operations]
        types: list[Any] = [_success_of(result) for result in results]
        types += [Failure, *request_schemas.BODIES]
        refs, self.components = schema_components(types, TEMPLATE)
        for component in self.components.values():
            if set(component.get("properties", ())) >= ENVELOPE:
                component["required"] = list(component["properties"])
        self._refs = {_key(kind): ref for kind, ref in zip(types, refs, strict=True)}

    def success(self, result: Any) -> Json:
        return self._refs[_key(_success_of(result))]

    @property
    def failure(self) -> Json:
        return self._refs[_key(Failure)]

    def body(self, kind: type[msgspec.Struct]) -> Json:
        return self._refs[_key(kind)]

    def form(self, kind: type[msgspec.Struct]) -> Json:
        """The body as a form, in which a field that is not a plain value is a text."""
        schema: Json = self.components[kind.__name__]
        fields = {name: _form_field(field) for name, field in schema["properties"].items()}
        return {**schema, "properties": fields}


def _success_of(result: Any) -> Any:
    envelope: Any = Success
    return envelope[result]


def _key(kind: Any) -> str:
    return repr(kind)


def _form_field(field: Json) -> Json:
    described = {k: v for k, v in field.items() if k in ("description", "title")}
    if field.get("type") == "object":
        return {**described, "type": "string", "contentMediaType": JSON}
    if "anyOf" in field or "type" not in field:
        kept = {k: v for k, v in field.items() if k in ("maxLength", "minLength")}
        return {**described, **kept, "type": "string"}
    return field


def _operation(operation: Operation, schemas: _Schemas, *, auth: bool) -> Json:
    described: Json = {
        "operationId": re.sub(r"\W+", "_", f"{operation.method}{operation.path}").lower(),
        "summary": operation.summary,
        "description": inspect.getdoc(operation.endpoint) or "",
        "parameters": _parameters(operation),
        "responses": _responses(operation, schemas),
    }
    rule = rule_of(operation.method, operation.path)
    described["security"] = security_of(rule) if auth else []
    described["x-abaco-access"] = needs(rule)
    if operation.body is not None:
        described["requestBody"] = _body(operation.body, schemas)
    return described


def _parameters(operation: Operation) -> list[Json]:
    found = [_path_parameter(name) for name in re.findall(r"{(\w+)}", operation.path)]
    for query in operation.query:
        described = {"name": query.name, "in": query.where, "description": query.description}
        found.append({**described, "schema": query.schema})
    if operation.any_query:
        found.append(_any_query(operation.any_query))
    if operation.kind == "query":
        found.append(_after())
    if operation.repeated is not None:
        found.append(_key_header())
    return found


def _path_parameter(name: str) -> Json:
    description, example = PATH_IDS[name]
    schema = {"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]*$"}
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "example": example,
        "schema": schema,
    }


def _any_query(description: str) -> Json:
    names = {"minLength": 1, "pattern": "^[^=\\x00]+$"}
    texts = {"type": "string", "pattern": "^[^\\x00]*$"}
    values = {"type": "object", "propertyNames": names, "additionalProperties": texts}
    return {
        "name": "environment",
        "in": "query",
        "style": "form",
        "explode": True,
        "description": description,
        "schema": values,
    }


def _after() -> Json:
    return {
        "name": AFTER,
        "in": "header",
        "description": f"The {SEQUENCE} of an earlier response, from any process. The response "
        "includes at least the events up to it.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
    }


def _key_header() -> Json:
    return {
        "name": KEY,
        "in": "header",
        "description": "A unique key that the client chooses for this request, for example a UUID. "
        "A request that is repeated with its key is executed once, and every repetition gets the "
        "first answer, from any process. Another request with the same key is refused.",
        "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY, "pattern": KEY_PATTERN},
    }


def _body(kind: type[msgspec.Struct], schemas: _Schemas) -> Json:
    required = bool(schemas.components[kind.__name__].get("required"))
    form = {"schema": schemas.form(kind)}
    content = {JSON: {"schema": schemas.body(kind)}, URLENCODED: form, MULTIPART: form}
    return {"required": required, "content": content}


def _responses(operation: Operation, schemas: _Schemas) -> Json:
    success: Json = {
        "description": operation.summary,
        "content": {JSON: {"schema": schemas.success(operation.result)}},
    }
    for media in operation.media:
        success["content"][media] = {"schema": {"type": "string"}}
    if operation.kind == "command":
        success["headers"] = {SEQUENCE: _header("The sequence of the event in the log.")}
    errors = {*ERRORS_BY_KIND[operation.kind], *operation.errors}
    if operation.repeated is not None:
        errors.add(409)
    if operation.body is not None or operation.any_query:
        errors |= set(ERRORS_OF_BODY)
    if not rule_of(operation.method, operation.path).public:
        errors |= {401, 403}
    found = {str(operation.status): success}
    found |= {str(status): _error(status, schemas) for status in sorted(errors)}
    if operation.unready is not None:
        found["503"] = _error(503, schemas)
    return found


def _error(status: int, schemas: _Schemas) -> Json:
    described: Json = {
        "description": ERRORS[status],
        "content": {JSON: {"schema": schemas.failure}},
    }
    if status in (429, 503):
        described["headers"] = {"Retry-After": _header("Seconds.")}
    if status == 401:
        scheme = {"type": "string"}
        described["headers"] = {"WWW-Authenticate": {"description": "Bearer", "schema": scheme}}
    return described


def _header(description: str) -> Json:
    return {"description": description, "schema": {"type": "integer"}}


def _document(name: str, summary: str) -> Json:
    content = {JSON: {"schema": {"type": "object"}}}
    return {
        "operationId": f"get_{name}_json",
        "summary": summary,
        "parameters": [],
        "security": [],
        "responses": {"200": {"description": summary, "content": content}},
    }
