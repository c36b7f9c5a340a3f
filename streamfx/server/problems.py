"""Errors as answers: problem JSON (RFC 9457) with one clear sentence, and never a traceback or a secret."""

from __future__ import annotations

import http
import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from streamfx.core.errors import StreamFXError, UsageError, redact

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """What is wrong (RFC 9457). ``detail`` is a sentence for the user."""

    type: str = "about:blank"
    title: str
    status: int = Field(ge=400, le=599)
    detail: str


class ProblemError(Exception):
    """An answer other than success. ``detail``: one sentence that says what is wrong and what to do."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


def problem_body(status: int, detail: str) -> bytes:
    """The JSON of a problem."""
    problem = {"type": "about:blank", "title": _title(status), "status": status, "detail": redact(detail)}
    return json.dumps(problem).encode()


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For route declarations: these statuses answer with a problem."""
    schema = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _title(status), "content": schema} for status in statuses}


def install(app: FastAPI) -> None:
    """Makes every error of the application a problem. What users got wrong (``UsageError``) is 422; what cannot be done
    now (any other ``StreamFXError``) is 409; what we got wrong is logged, and 500."""
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(StreamFXError, _ours)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _unexpected)
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        schema = describe()
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema()
        for path in schema["paths"].values():
            for operation in path.values():
                # FastAPI's own idea of a validation error is not what we answer.
                answer = operation.get("responses", {}).get("422")
                if answer is not None:
                    answer |= responses(422)[422]
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _title(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _answer(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(problem_body(status, detail), status, dict(headers or {}), MEDIA_TYPE)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return _answer(error.status, error.detail, error.headers)


async def _ours(request: Request, error: Exception) -> Response:
    return _answer(422 if isinstance(error, UsageError) else 409, str(error))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentences = {
        404: "there is nothing at this path; /openapi.json lists the paths there are",
        405: "this path takes other methods; Allow lists them",
        400: "the body cannot be read; send valid JSON",
    }
    return _answer(error.status_code, sentences.get(error.status_code, str(error.detail)), error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    """One sentence on the first thing that is wrong, without the value: it may be a stream key."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _answer(400, "the body is not valid JSON; check it for quotes and commas")
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "path", "query", "header"))
    where = place or {"body": "the body"}.get(str(first["loc"][0]), "the request")
    message = str(first["msg"])
    return _answer(422, f"{where[:100]}: {message[:1].lower()}{message[1:]}")


async def _unexpected(request: Request, error: Exception) -> Response:
    logger.error("request failed method=%s path=%s", request.method, redact(request.url.path), exc_info=error)
    return _answer(500, "something went wrong in the server; its log has the reason")
