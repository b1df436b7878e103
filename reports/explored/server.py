"""A folder of results for a browser on this computer: 127.0.0.1 only, read only."""

from __future__ import annotations

import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from ...hardware.errors import InputError
from .folder import NotThere, ResultsFolder
from .folder_pages import FILES, FolderPages, view_address
from .page import page, policy_of
from .story import Fact, Story

ADDRESS = "127.0.0.1"

FOREIGN = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline';"
    " img-src data:"
)
"""The policy of pages that lie in the folder: they run apart, as if they came from nowhere, and reach nothing."""

FIXED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Headers of every answer."""

_POINT = re.compile(r"(\d{1,7})/(.+)", re.DOTALL)


class ResultsServer(ThreadingHTTPServer):
    """Serves a folder on 127.0.0.1; raises :class:`InputError` where the port is taken."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folder: ResultsFolder, port: int) -> None:
        self.folder, self.pages = folder, FolderPages(folder)
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as reason:
            raise InputError(f"--port {port}: cannot be listened on: {getattr(reason, 'strerror', reason)}") from None
        self.hosts = {f"{name}:{self.server_port}" for name in (ADDRESS, "localhost")}

    @property
    def address(self) -> str:
        """What to type into a browser."""
        return f"http://{ADDRESS}:{self.server_port}/"


class _Refused(Exception):
    """A request that is not answered: its status and why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; everything else is refused by the base class."""

    server: ResultsServer
    timeout = 20
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Athanor", ""

    def do_GET(self) -> None:
        """A page, or a file as it is."""
        try:
            self._check()
            self._answer(*self._found(self.path))
        except _Refused as refused:
            self._say(refused.status, str(refused))
        except NotThere as missing:
            self._say(HTTPStatus.NOT_FOUND, str(missing))
        except InputError as wrong:
            self._say(HTTPStatus.UNPROCESSABLE_ENTITY, str(wrong))
        except (ValueError, RecursionError, MemoryError) as reason:
            self._say(HTTPStatus.BAD_REQUEST, f"cannot be shown: {type(reason).__name__}")

    do_HEAD = do_GET  # noqa: N815

    def _check(self) -> None:
        """Refuse what does not come from a page of this server, or from its user."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0].strip().lower() not in self.server.hosts:
            raise _Refused(HTTPStatus.FORBIDDEN, "this server answers to 127.0.0.1 and localhost only")
        foreign = self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        if foreign and self.headers.get("Sec-Fetch-Dest") != "document":
            raise _Refused(HTTPStatus.FORBIDDEN, "another site's page asks")
        if self.headers.get("Content-Length", "0") != "0" or self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            raise _Refused(HTTPStatus.BAD_REQUEST, "a request has no body here")

    def _found(self, target: str) -> tuple[bytes, str, str]:
        """(content, type, policy) of an address."""
        path = unquote(urlsplit(target).path, errors="strict") if target.startswith("/") else ""
        folder, pages, top = self.server.folder, self.server.pages, [("All results", "/")]
        if path == "/":
            return _page(pages.index())
        if path.startswith("/view/"):
            name = path.removeprefix("/view/")
            return _page(pages.view(name), top)
        if path.startswith("/point/") and (parts := _POINT.fullmatch(path.removeprefix("/point/"))):
            number, name = int(parts[1]), parts[2]
            return _page(pages.point(name, number), [*top, (name, view_address(name))])
        if path.startswith("/file/"):
            name = path.removeprefix("/file/")
            kind = FILES.get(PurePosixPath(name).suffix)
            if kind is None:
                raise NotThere(f"{name}: not shown")
            return folder.read(name), kind, FOREIGN
        raise NotThere("no such page")

    def _answer(self, content: bytes, kind: str, policy: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in FIXED.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", f"{policy}; frame-ancestors 'none'")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _say(self, status: HTTPStatus, why: str) -> None:
        """A page that says why there is none."""
        story = Story("no page", status.phrase, f"{why}.", [Fact("Status", str(int(status)))], [])
        self._answer(*_page(story, [("All results", "/")]), status=status)

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing: the terminal is the user's."""


def _page(story: Story, links: list[tuple[str, str]] | None = None) -> tuple[bytes, str, str]:
    text = page([story], links=links or [])
    return text.encode("utf-8", "backslashreplace"), FILES[".html"], policy_of(story)
