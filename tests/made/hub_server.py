"""A small server on loopback that speaks the Hub's protocol, as far as ``huggingface_hub`` asks, and fails on demand.

Answered are ``/api/{models,datasets}/ID/revision/REV`` with names, sizes and checksums of the files, and
``/[datasets/]ID/resolve/REV/FILE`` with the Hub's headers, by HEAD and GET, with ranges.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from dataclasses import dataclass, field
import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
import re
from threading import Thread
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 64
"""Files of so many bytes and more are kept outside git, as the Hub does with large ones."""


@dataclass
class FakeHub:
    """What the server holds, how it misbehaves, and what it was asked."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """``"models/org/name"`` or ``"datasets/org/name"`` -> file name -> content."""
    endpoint: str = ""
    commit: str = COMMIT
    asked: list[str] = field(default_factory=list)
    """Method and path of every request, in order; a range after it."""
    busy: bool = False
    """Answers 429 to everything."""
    altered: set[str] = field(default_factory=set)
    """File names whose last byte is another than stated."""
    cut: set[str] = field(default_factory=set)
    """File names that end early, in a body which says it is whole."""
    dropped: dict[str, int] = field(default_factory=dict)
    """File name -> how many more times the connection is closed in the middle of the file; -1 is always."""


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if len(content) >= LARGE else git_sha1(content)


@contextlib.contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """The server, for the time of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            _answer(self, hub)

        def do_GET(self) -> None:
            _answer(self, hub)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(request: BaseHTTPRequestHandler, hub: FakeHub) -> None:
    path = request.path.partition("?")[0]
    requested_range = request.headers.get("Range")
    hub.asked.append(f"{request.command} {path}" + (f" {requested_range}" if requested_range else ""))
    if hub.busy:
        return _send(request, 429, b"slow down", {"Retry-After": "0"})
    if listing := re.fullmatch(r"/api/((?:models|datasets)/.+?)(?:/revision/(.+))?", path):
        return _listing(request, hub, listing[1], listing[2] or "main")
    if file := re.fullmatch(r"/((?:datasets/)?.+?)/resolve/([^/]+)/(.+)", path):
        repo = file[1] if file[1].startswith("datasets/") else f"models/{file[1]}"
        return _file(request, hub, repo, (file[2], file[3]))
    return _send(request, 404, b"", {})


def _listing(request: BaseHTTPRequestHandler, hub: FakeHub, repo: str, revision: str) -> None:
    if repo not in hub.files:
        return _send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
    if revision not in ("main", hub.commit):
        return _send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
    siblings = []
    for name, content in hub.files[repo].items():
        stated: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git_sha1(content)}
        if len(content) >= LARGE:
            stated["lfs"] = {"sha256": checksum(content), "size": len(content), "pointerSize": 130}
        siblings.append(stated)
    told = {"id": repo.partition("/")[2], "sha": hub.commit, "private": False, "tags": [], "downloads": 0}
    return _send(request, 200, json.dumps({**told, "siblings": siblings}).encode(), {})


def _file(request: BaseHTTPRequestHandler, hub: FakeHub, repo: str, place: tuple[str, str]) -> None:
    revision, name = place
    content = hub.files.get(repo, {}).get(name)
    if content is None or revision not in ("main", hub.commit):
        return _send(request, 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": hub.commit})
    headers = {"ETag": f'"{checksum(content)}"', "X-Repo-Commit": hub.commit, "Accept-Ranges": "bytes"}
    if len(content) >= LARGE:
        headers |= {"X-Linked-Etag": f'"{checksum(content)}"', "X-Linked-Size": str(len(content))}
    if name in hub.altered:
        content = content[:-1] + bytes([content[-1] ^ 1])
    start, status = 0, 200
    if requested := re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range") or ""):
        start, status = int(requested[1]), 206
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    body = content[start:]
    if request.command == "GET" and name in hub.cut:
        return _send(request, status, body[: len(body) // 2], headers)
    if request.command == "GET" and hub.dropped.get(name):
        hub.dropped[name] -= 1
        _send(request, status, body, headers, n_sent=len(body) // 2)
        request.close_connection = True
        return None
    return _send(request, status, body, headers)


def _send(
    request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], *, n_sent: int | None = None
) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body[:n_sent])
        request.wfile.flush()
