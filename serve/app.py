"""The routes: the API's contract in FastAPI, and the page's files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from serve.answers import Examples, Health, Models, Predicted, Refused, Reloaded, Truth
from serve.example_answer import EXAMPLE
from serve.gate import LOG, Gate, refused
from serve.page_files import INDEX, PageFile
from serve.refusals import GONE, STATUS, UNKNOWN, Refusal
from serve.reporting import ReportForm
from serve.service import Service
from serve.uploads import FIELD, PART_TYPES, Upload, boundary_of, read_uploads
from weakray import __version__
from weakray.errors import BundleError

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "additionalProperties": False,
                    "properties": {
                        FIELD: {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                            "description": "the images of one study: PNG (8 or 16 bits), JPEG or DICOM",
                        }
                    },
                },
                "encoding": {FIELD: {"contentType": ", ".join(PART_TYPES)}},
            }
        },
    }
}
_OF_FILMS = ("bad_request", "timeout", "too_large", "unsupported_type", "invalid", "busy", "unavailable")
_WORDS = {404: "not_found", 405: "method_not_allowed", 400: "bad_request"}


def create_app(service: Service) -> ASGIApp:
    """The whole server as an ASGI application, its door included; the service is closed when it ends."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(asyncio.to_thread(service.warm))
        yield
        service.stopping = True
        await warming
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="weakray",
        version=__version__,
        description="Findings in chest films: probabilities, boxes and maps. For research; not a medical device.",
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        lifespan=life,
    )
    _refusals(app)
    _predict(app, service)
    _about(app, service)
    _examples(app, service)
    _page(app, service)
    return Gate(app, service.token, service.metrics)


def _documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for OpenAPI."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in ("unauthorized", "forbidden", *codes):
        found[STATUS[code]] = {"model": Refused, "description": code.replace("_", " ")}
    return found


def _refusals(app: FastAPI) -> None:
    """Every answer that is not a success has one form."""

    async def of_ours(request: Request, error: Exception) -> Response:
        return refused(request.scope, error if isinstance(error, Refusal) else UNKNOWN)

    async def of_http(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 400
        what = "method" if status == 405 else "place"
        refusal = Refusal(_WORDS.get(status, "bad_request"), f"no such {what} here; see /openapi.json")
        return refused(request.scope, refusal)

    async def of_values(request: Request, error: Exception) -> Response:
        places = error.errors() if isinstance(error, RequestValidationError) else []
        told = "; ".join(f"{'.'.join(str(part) for part in place['loc'])}: {place['msg']}" for place in places)
        return refused(request.scope, Refusal("invalid", told))

    async def of_gone(request: Request, _: Exception) -> Response:
        return refused(request.scope, GONE)  # nobody reads it; it is counted

    async def of_bugs(request: Request, _: Exception) -> Response:
        return refused(request.scope, UNKNOWN)  # the door writes down what it was

    app.add_exception_handler(Refusal, of_ours)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_values)
    app.add_exception_handler(ClientDisconnect, of_gone)
    app.add_exception_handler(Exception, of_bugs)


def _predict(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/predict",
        response_model=None,
        summary="Findings of one study",
        openapi_extra=_BODY,
        responses={
            200: {
                "model": Predicted,
                "content": {"application/json": {"example": EXAMPLE}},
                "description": "the findings",
            },
            **_documented(*_OF_FILMS),
        },
    )
    async def predict(
        request: Request,
        include: Annotated[list[Literal["maps", "film"]], Query(description="what the answer holds besides")] = [],  # noqa: B006
    ) -> Response:
        """Reads the images of one study and says of each finding how probable it is, and where it is seen."""
        async with _taken(service, request) as uploads:
            work = asyncio.ensure_future(service.predict(uploads, include, request.state.request_id))
            return Response(await _unless_gone(work, request), media_type="application/json")

    @app.post(
        "/v1/report",
        response_class=Response,
        summary="Findings of one film, in DICOM",
        openapi_extra=_BODY,
        responses={
            200: {"content": {"application/dicom": {}}, "description": "a DICOM file in the film's study"},
            **_documented(*_OF_FILMS),
        },
    )
    async def report(
        request: Request,
        form: Annotated[
            ReportForm, Query(description="structured report (TID 1500), or a picture for viewers that show none")
        ] = "report",
    ) -> Response:
        """Reads one DICOM film and answers with a DICOM file that names it, its patient and its study."""
        async with _taken(service, request) as uploads:
            work = asyncio.ensure_future(service.report(uploads, form))
            return Response(await _unless_gone(work, request), media_type="application/dicom")

    @app.post(
        "/v1/reload",
        summary="Read the bundle again",
        responses=_documented("conflict"),
    )
    async def reload() -> Reloaded:
        """Reads the bundle's path again, as SIGHUP does; served only where a token guards the server."""
        if service.token is None:
            raise Refusal("forbidden", "expected a server started with a token; send SIGHUP to this one instead")
        try:
            changed = await asyncio.to_thread(service.reload)
        except BundleError as error:
            raise Refusal("conflict", f"{error}; the bundle before goes on answering") from None
        LOG.info("bundle %s", "exchanged" if changed else "read again, the same")
        return Reloaded(bundle=service.engine.current.name, changed=changed)


@asynccontextmanager
async def _taken(service: Service, request: Request) -> AsyncIterator[list[Upload]]:
    """The images of a request, which holds a place and their bytes for the block."""
    limits = service.config.limits
    boundary = boundary_of(request.headers.get("content-type"))
    length = _declared_length(request, limits.request_bytes)
    with service.admission.admit() as claim:
        if length is not None:
            claim.add(length)
        further = claim.add if length is None else _counted_before
        yield await read_uploads(request.stream(), boundary, limits, service.config.load.body_timeout_s, further)


def _counted_before(_: int) -> None:
    """The length that was declared has been claimed as a whole."""


def _declared_length(request: Request, most: int) -> int | None:
    declared = request.headers.get("content-length")
    if declared is None:
        return None
    if not declared.isdecimal():
        raise Refusal("bad_request", "Content-Length: expected a number")
    if int(declared) > most:
        raise Refusal("too_large", f"expected a body of at most {most} bytes, got {int(declared)}")
    return int(declared)


async def _unless_gone(work: asyncio.Future[bytes], request: Request) -> bytes:
    """The work's result; given up when the client goes.

    Raises:
        ClientDisconnect: if it has gone.
    """
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        work.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _about(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", summary="The bundle that answers", responses=_documented())
    async def models() -> Models:
        """What the bundle knows, what it was made from, and the hash of every file."""
        return service.engine.current.models()

    @app.get("/healthz", summary="Whether the process lives", responses=_documented())
    async def healthz() -> Health:
        """Answers as long as the process does."""
        return Health(status="stopping" if service.stopping else "ok")

    @app.get("/readyz", summary="Whether films are taken", responses=_documented("unavailable"))
    async def readyz() -> Health:
        """Answers 503 once the server has been told to stop."""
        if service.stopping or not service.batcher.alive:
            raise Refusal("unavailable", "the server is stopping; ask another")
        return Health(status="ok")

    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **_documented()},
    )
    async def metrics() -> Response:
        """Latency, queue, batches, refusals by reason, positives by finding."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _examples(app: FastAPI, service: Service) -> None:
    def named(example_id: str) -> Any:
        if example_id not in service.examples:
            raise Refusal("not_found", "no example of this name; see /v1/examples")
        return service.examples[example_id]

    @app.get("/v1/examples", summary="Films to look at", responses=_documented())
    async def examples() -> Examples:
        """The example films that this server was given; often none."""
        return Examples(examples=[example.entry for example in service.examples.values()])

    @app.get(
        "/v1/examples/{example_id}",
        summary="An example film",
        response_class=Response,
        responses={200: {"content": {kind: {} for kind in PART_TYPES}}, **_documented("not_found", "invalid")},
    )
    async def film(example_id: str) -> Response:
        """The file itself."""
        example = named(example_id)
        return Response(example.content, media_type=example.media_type)

    @app.get("/v1/examples/{example_id}/truth", summary="Its true boxes", responses=_documented("not_found", "invalid"))
    async def truth(example_id: str) -> Truth:
        """Radiologists' boxes of an example; 404 where they are not known."""
        boxes = named(example_id).boxes
        if boxes is None:
            raise Refusal("not_found", "the truth of this example is not known")
        return Truth(boxes=list(boxes))


def _page(app: FastAPI, service: Service) -> None:
    def sent(request: Request, file: PageFile | None) -> Response:
        if file is None:
            raise Refusal("not_found", "no such file of the page")
        headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def index(request: Request) -> Response:
        return sent(request, service.page.get(INDEX))

    @app.api_route("/page/{name:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(request: Request, name: str) -> Response:
        return sent(request, service.page.get(name))
