"""Serves the page of a run, and takes requests from it, for this machine alone.

Whoever knows the address may stop trials, so it holds a token that nobody can guess, and only the page itself is heard: a request that
names another host (a name that was made to lead here) or another origin (a page of somebody else's, open in the same browser) is refused.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from analysis.pages.access import HEADERS, HERE, Names, listen, same_token
from analysis.pages.page import render
from search_spaces.errors import UserError
from search_spaces.schema import SpaceError
from trainables.storage import Folder
from tuner import requests
from tuner.watch.state import Watched

LONGEST = 64 * 1024  # bytes of a request
JSON = "application/json"


class Server(ThreadingHTTPServer):
    """The page of one run."""

    daemon_threads = True

    def __init__(self, run: Folder, port: int = 0):
        """
        Args:
            port: 0: one that is free.
        Raises: RunError where the port is taken.
        """
        self.watched = Watched(run)
        self.token = secrets.token_urlsafe(24)
        heard = listen(HERE, port)
        super().__init__((HERE, port), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self.server_address = heard, heard.getsockname()
        self.server_name, self.server_port = self.server_address[:2]

    @property
    def address(self) -> str:
        """The page, with the token."""
        return f"http://{HERE}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a browser that goes away in mid-answer is no error."""


@contextmanager
def serving(run: Folder, port: int = 0) -> Iterator[Server]:
    """The page of a run, from another thread, until the end of the block. Raises: RunError where the port is taken."""
    with Server(run, port) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="watch", daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server  # pyrefly: ignore[bad-override-mutable-attribute]
    server_version = "sweepvote"
    sys_version = ""
    timeout = 10

    def do_GET(self) -> None:
        match self._path():
            case "" if not urlsplit(self.path).path.endswith("/"):
                self._answer(HTTPStatus.PERMANENT_REDIRECT, b"", JSON, Location=f"/{self.server.token}/")
            case "":
                self._answer(HTTPStatus.OK, render("pages/watch.html.jinja", run=self.server.watched.run.name), "text/html; charset=utf-8")
            case "state":
                self._json(HTTPStatus.OK, self.server.watched.state())
            case None:
                self._refuse()
            case _:
                self._json(HTTPStatus.NOT_FOUND, {"mistake": "there is no such page"})

    def do_POST(self) -> None:
        action = ACTIONS.get(self._path() or "")
        if self._path() is None or self.headers.get("Content-Type", "").partition(";")[0] != JSON:
            self._refuse()
        elif action is None:
            self._json(HTTPStatus.NOT_FOUND, {"mistake": f"there is nothing to ask for by that name; there are {', '.join(ACTIONS)}"})
        else:
            try:
                self._json(HTTPStatus.OK, {"said": action(self.server.watched.run, self._body())})
            except SpaceError as error:
                self._json(HTTPStatus.BAD_REQUEST, {"mistake": "\n".join(line.removeprefix("--set: ") for line in error.mistakes)})
            except (UserError, ValueError, KeyError, TypeError) as error:
                self._json(HTTPStatus.BAD_REQUEST, {"mistake": str(error)})
            except OSError as error:
                self._json(HTTPStatus.INSUFFICIENT_STORAGE, {"mistake": f"{error.filename}: {error.strerror}"})

    def _path(self) -> str | None:
        """What is asked for below the token; None: whoever asks may not."""
        _, token, *rest = urlsplit(self.path).path.split("/", 2) + [""]
        own = Names().own_page(self.headers.get("Host", ""), self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site"))
        return rest[0] if same_token(self.server.token, token) and own else None

    def _body(self) -> Mapping[str, Any]:
        length = int(self.headers.get("Content-Length", 0))
        if not 0 < length <= LONGEST:
            raise ValueError(f"a request has 1 to {LONGEST} bytes")
        values = json.loads(self.rfile.read(length))
        if not isinstance(values, dict):
            raise ValueError("a request is a JSON object")
        return values

    def _refuse(self) -> None:
        self._json(HTTPStatus.FORBIDDEN, {"mistake": "open the page by the address that was printed, which holds its token"})

    def _json(self, status: HTTPStatus, values: Mapping[str, Any]) -> None:
        self._answer(status, json.dumps(values, default=str).encode(), JSON)

    def _answer(self, status: HTTPStatus, content: bytes, kind: str, **more: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content)), **more}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal shows the search."""


def _stop(run: Folder, body: Mapping[str, Any]) -> str:
    trial = _number(body, optional=True)
    requests.stop(str(run), trial)
    return "The search stops after the current epochs." if trial is None else f"Trial {trial} stops after its current epoch."


def _spare(run: Folder, body: Mapping[str, Any]) -> str:
    trial = _number(body)
    requests.spare(str(run), trial)
    return f"Trial {trial} is not pruned any more."


def _enqueue(run: Folder, body: Mapping[str, Any]) -> str:
    values = body.get("values")
    if not isinstance(values, dict):
        raise ValueError("values: texts by path are missing")
    _, when = requests.enqueue(str(run), [f"{path}={text}" for path, text in values.items()], f"{requests.who()}, on the page")
    return f"Enqueued: {when}."


def _number(body: Mapping[str, Any], optional: bool = False) -> Any:
    trial = body.get("trial")
    if not (isinstance(trial, int) and not isinstance(trial, bool)) and not (optional and trial is None):
        raise ValueError(f"trial: {trial!r} is not a number of a trial")
    return trial


# What the page may ask for: (run, body) -> what was done, in words. Raises: UserError, ValueError.
ACTIONS: dict[str, Callable[[Folder, Mapping[str, Any]], str]] = {"stop": _stop, "spare": _spare, "enqueue": _enqueue}
