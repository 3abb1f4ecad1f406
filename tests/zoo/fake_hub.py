"""A Hugging Face hub on 127.0.0.1: as much of it as listing and downloading needs.

    GET  /api/models/ORG/REPO[/revision/main]     the files and their sizes
    HEAD, GET  /ORG/REPO/resolve/REVISION/FILE    a file, with the hub's headers

Large files are told by their sha256, small ones by another hash, as on the hub.
"""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".gguf", ".safetensors")


@dataclass
class Repository:
    """What one repository serves. `lies` are files whose announced hash is not theirs."""

    files: dict[str, bytes]
    token: str | None = None  # needed to read it
    gated: bool = False
    lies: set[str] = field(default_factory=set)


class FakeHub:
    """A context manager: the server runs inside it. `requests` are the (method, path) it saw."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def downloads(self) -> list[str]:
        """Paths of files that were sent, not only asked about."""
        return [path for method, path in self.requests if method == "GET" and "/resolve/" in path]

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def __enter__(self) -> "FakeHub":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

        def do_HEAD(self) -> None:
            self._serve()

        def do_GET(self) -> None:
            self._serve()

        def _serve(self) -> None:
            hub.requests.append((self.command, self.path))
            path = self.path.partition("?")[0].strip("/").split("/")
            name = "/".join(path[2:4] if path[0] == "api" else path[:2])
            repository = hub.repositories.get(name)
            bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if repository is None or (repository.token and repository.token != bearer):
                self._answer(401, b"", {"X-Error-Code": "RepoNotFound"})
            elif path[0] == "api":
                self._list(name, repository)
            else:
                self._send_file(repository, "/".join(path[4:]))

        def _list(self, name: str, repository: Repository) -> None:
            siblings = [
                {"rfilename": file, "size": len(data)} for file, data in repository.files.items()
            ]
            answer = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings,
                      "private": False, "tags": [], "downloads": 0, "likes": 0}  # fmt: skip
            self._answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

        def _send_file(self, repository: Repository, file: str) -> None:
            data = repository.files.get(file)
            if repository.gated:
                self._answer(403, b"", {"X-Error-Code": "GatedRepo"})
                return
            if data is None:
                self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            told = b"another file" if file in repository.lies else data
            sha = hashlib.sha256(told).hexdigest()
            tag = sha if file.endswith(LARGE) else sha[:40]
            headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            if file.endswith(LARGE):
                headers |= {"X-Linked-ETag": f'"{tag}"', "X-Linked-Size": str(len(data))}
            start = self._range_start()
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._answer(206 if start else 200, data[start:], headers)

        def _range_start(self) -> int:
            asked = self.headers.get("Range", "bytes=0-").removeprefix("bytes=")
            return int(asked.partition("-")[0] or 0)

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    return Handler
