"""The page and the addresses that programs ask. Whatever a request holds, it costs a bounded amount of memory, and the server lives."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from analysis.demo.card import ModelCard
from analysis.demo.model import PIXELS, File, Model, Prediction
from analysis.evaluation.novelty import FALSE_ALARMS
from analysis.pages.access import HEADERS, Names, same_token
from analysis.pages.page import render
from search_spaces.errors import UserError

OPEN = ("/", "/docs", "/openapi.json", "/health")  # what tells nothing of the ensemble: a page must be there before its token is given
FORM = "multipart/form-data"


@dataclass(frozen=True)
class Limits:
    """What a request, and all of them together, may take."""

    bytes: int = 20_000_000  # of a file
    request: int = 50_000_000  # bytes, all files together
    files: int = 16  # a request
    queue: int = 8  # requests that are read, wait or are answered at a time
    seconds: float = 30  # until a request has come in


class Answer(BaseModel):
    """What is predicted of the images of a request."""

    images: list[Prediction] = Field(description="in the order of the request's files")
    seconds: float = Field(description="that this took, without waiting")


class Health(BaseModel):
    """Whether the server answers."""

    status: str
    waiting: int = Field(description="requests")


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


def make_app(
    model: Model, card: ModelCard, names: Names, token: str = "", limits: Limits | None = None, false_alarms: float = FALSE_ALARMS
) -> FastAPI:
    """The server's application.

    Args:
        names: by which it may be called.
        token: that a request must bring; empty: none.
        false_alarms: share of images like those learned from that may be called unlike anything learned.
    """
    limits = limits or Limits()
    waiting = [0]
    # One image is decoded, and one batch computed, at a time: torch takes all cores, and a bomb's neighbours are no bombs.
    worker = ThreadPoolExecutor(1, thread_name_prefix="predict")
    app = FastAPI(
        title="sweepvote demo",
        version=card.versions["sweepvote"],
        description="Predictions of an ensemble." + (" Every request but those for pages and /health brings a token." if token else ""),
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Guard, names=names, token=token, largest=limits.request)
    shown = {"limits": limits, "pixels": PIXELS, "token": bool(token)}
    # The colours of a page come with matplotlib: better before the first request than during it.
    page = render("demo/page.html.jinja", **shown)

    @contextmanager
    def turn() -> Iterator[None]:
        if waiting[0] >= limits.queue:
            detail = f"{limits.queue} requests wait already, the limit; ask again in a second"
            raise HTTPException(429, detail, headers={"Retry-After": "1"})
        waiting[0] += 1
        try:
            yield
        finally:
            waiting[0] -= 1

    @app.post("/predict", openapi_extra={"requestBody": BODY}, responses=PROBLEMS, summary="Predict images")
    async def predict(request: Request, pictures: bool = False, heatmaps: bool = False) -> Answer:
        """Predict one or several images. Where none of them can be used, the status is that of the first; else each has its own.

        ?pictures=true adds the pixels that the models saw, ?heatmaps=true where they look, which takes about as long again for each target.
        """
        if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != FORM:
            raise HTTPException(415, f"send the images as {FORM}: curl -F images=@a.jpg")
        with turn():
            files = await read_files(request, limits)
            start = perf_counter()
            try:
                found = await asyncio.get_running_loop().run_in_executor(
                    worker, partial(model.predict, files, pictures, false_alarms, heatmaps)
                )
            except UserError as error:
                raise HTTPException(503, str(error)) from None
        if all(one.problem for one in found):
            raise HTTPException(found[0].status, "; ".join(f"{one.image}: {one.problem}" for one in found))
        return Answer(images=found, seconds=perf_counter() - start)

    @app.get("/model", summary="What answers")
    async def describe() -> ModelCard:
        """The ensemble's card: classes, metric, score with its 95 % CI, views, versions."""
        return card

    @app.get("/health", summary="Whether the server answers")
    async def health() -> Health:
        """Takes no turn: answered while images wait, too."""
        return Health(status="ok", waiting=waiting[0])

    @app.get("/", include_in_schema=False)
    async def show_page() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get("/docs", include_in_schema=False)
    async def show_docs() -> HTMLResponse:
        return HTMLResponse(render("demo/docs.html.jinja", schema=app.openapi(), **shown))

    return app


async def read_files(request: Request, limits: Limits) -> list[File]:
    """The files of a form. Raises: HTTPException where they are too many, too large, too slow or none."""
    try:
        async with asyncio.timeout(limits.seconds):
            form = await request.form(max_files=limits.files, max_fields=limits.files)
    except TimeoutError:
        raise HTTPException(408, f"the request did not come in within {limits.seconds:g} s") from None
    except HTTPException as error:
        if "Too many" in error.detail:
            raise HTTPException(413, f"more than {limits.files} files; send them in several requests") from None
        raise
    try:
        uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not uploads:
            raise HTTPException(422, "there is no file in the form; send images: curl -F images=@a.jpg -F images=@b.jpg")
        large = [upload.filename or "" for upload in uploads if (upload.size or 0) > limits.bytes]
        if large:
            raise HTTPException(413, f"{', '.join(large)}: more than {limits.bytes:,} bytes, the limit of a file")
        return [(upload.filename or f"image {number}", await upload.read()) for number, upload in enumerate(uploads, start=1)]
    finally:
        await form.close()


class Guard:
    """Refuses requests of others before anything of them is read, and stops reading one that is too long."""

    def __init__(self, app: ASGIApp, names: Names, token: str, largest: int):
        self.app, self.names, self.token, self.largest = app, names, token, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, body = Headers(scope=scope), Body(receive, self.largest)
        answered = partial(self._send, send, body)
        if problem := self._problem(scope["path"], headers):
            status, detail = problem
            await JSONResponse({"detail": detail}, status)(scope, body.receive, answered)
        else:
            await self.app(scope, body.receive, answered)

    def _problem(self, path: str, headers: Headers) -> tuple[int, str] | None:
        host, origin, site = headers.get("Host", ""), headers.get("Origin"), headers.get("Sec-Fetch-Site")
        if not self.names.own_host(host):
            return 403, f"{host} is no name of this server; open it by the address that it printed"
        if path in OPEN:
            return None
        if not self.names.own_page(host, origin, site):
            return 403, "the page of another server may not ask"
        if self.token and not same_token(self.token, headers.get("Authorization", "").removeprefix("Bearer ")):
            return 401, "this takes the token that the server was started with: Authorization: Bearer TOKEN"
        if not headers.get("Content-Length", "0").isdecimal() or int(headers.get("Content-Length", "0")) > self.largest:
            return 413, f"more than {self.largest:,} bytes, the limit of a request"
        return None

    async def _send(self, send: Send, body: "Body", message: Message) -> None:
        if message["type"] == "http.response.start":
            # Who is refused in mid-sentence, and not heard out, is told of a broken line and not of the reason.
            await body.drain()
            message["headers"] = [*message.get("headers", []), *((name.encode(), value.encode()) for name, value in HEADERS.items())]
        await send(message)


class Body:
    """The body of a request, of which no more is read than the limit."""

    DRAINED = 5  # seconds

    def __init__(self, receive: Receive, largest: int):
        self._receive, self._left, self._more = receive, largest, True

    async def receive(self) -> Message:
        """The next part. Raises: HTTPException beyond the limit."""
        message = await self._receive()
        self._more = message.get("more_body", False)
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise HTTPException(413, "more bytes than a request may have")
        return message

    async def drain(self) -> None:
        """Hear the rest, for a while, and forget it."""
        try:
            async with asyncio.timeout(self.DRAINED):
                while self._more:
                    self._more = (await self._receive()).get("more_body", False)
        except TimeoutError:
            self._more = False


BODY: dict[str, Any] = {
    "required": True,
    "content": {
        FORM: {
            "schema": {
                "type": "object",
                "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                "required": ["images"],
            }
        }
    },
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "the form is damaged"},
    401: {"model": Problem, "description": "the token is missing or wrong"},
    403: {"model": Problem, "description": "asked by the page of another server, or under a name that is not this server's"},
    408: {"model": Problem, "description": "the request came in too slowly"},
    413: {"model": Problem, "description": "too many files, bytes or pixels"},
    415: {"model": Problem, "description": "not a form, or not an image of a known format"},
    422: {"model": Problem, "description": "no file, or an image that is damaged"},
    429: {"model": Problem, "description": "too many requests wait; Retry-After says when to ask again"},
    503: {"model": Problem, "description": "the device has no room"},
}
