"""A Hub on loopback, of the standard library: repositories in memory, enough of the API to create, upload to, list and download from them."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit


class Hub:
    """Repositories by "models/org/name" or "datasets/org/name": path -> content of the latest commit. `endpoint` is its address."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.endpoint = ""

    def commit_of(self, name: str) -> str:
        """A number that changes with the content, 40 hex digits as git's."""
        digest = hashlib.sha1(name.encode())
        for path, content in sorted(self.repositories[name].items()):
            digest.update(path.encode() + hashlib.sha1(content).digest())
        return digest.hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args) -> None:
        """Silence."""

    def _send(self, status: int, body: bytes | dict | list = b"", **headers) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _missing(self, code: str) -> None:
        self._send(404, {"error": code}, X_Error_Code=code)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_POST(self) -> None:
        """Create a repository, say how files are to be uploaded, take a commit."""
        path, body = unquote(urlsplit(self.path).path), self._body()
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given.get('type', 'model')}s/{given.get('organization') or 'someone'}/{given['name']}"
            self.hub.repositories.setdefault(name, {})
            return self._send(200, {"url": f"{self.hub.endpoint}/{name.removeprefix('models/')}"})
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        found = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/(preupload|commit|paths-info)/(.+)", path)
        if not found or f"{found[1]}/{found[2]}" not in self.hub.repositories:
            return self._missing("RepoNotFound")
        name, files = f"{found[1]}/{found[2]}", self.hub.repositories[f"{found[1]}/{found[2]}"]
        if found[3] == "preupload":
            wanted = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for file in json.loads(body)["files"]]
            return self._send(200, {"files": wanted})
        if found[3] == "paths-info":
            return self._send(200, [entry for entry in self._entries(files) if entry["path"] in json.loads(body)["paths"]])
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                files.pop(line["value"]["path"], None)
        commit = self.hub.commit_of(name)
        url = f"{self.hub.endpoint}/{name.removeprefix('models/')}/commit/{commit}"
        self._send(200, {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    @staticmethod
    def _entries(files: dict[str, bytes]) -> list[dict]:
        """Files, and the folders that they are in."""
        folders = {parent.as_posix() for path in files for parent in PurePosixPath(path).parents} - {"."}
        made = [{"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()} for path in sorted(folders)]
        digests = {path: hashlib.sha1(content).hexdigest() for path, content in sorted(files.items())}
        return made + [{"type": "file", "path": path, "size": len(files[path]), "oid": digest} for path, digest in digests.items()]

    def do_GET(self) -> None:
        """Who asks, what a repository holds, and its files."""
        path = unquote(urlsplit(self.path).path)
        if path == "/api/whoami-v2":
            return self._send(200, {"type": "user", "name": "someone", "auth": {"accessToken": {"role": "write", "displayName": "test"}}, "orgs": []})
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|refs)(?:/[^/]*/?(.*))?)?", path):
            return self._describe(f"{found[1]}/{found[2]}", found[3], found[4] or "")
        found = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name = found and f"{found[1] or 'models/'}{found[2]}"
        if name not in self.hub.repositories:
            return self._missing("RepoNotFound")
        content = self.hub.repositories[name].get(found[4])
        if content is None:
            return self._missing("EntryNotFound")
        self._send(200, content, X_Repo_Commit=self.hub.commit_of(name), ETag=f'"{hashlib.sha1(content).hexdigest()}"', Content_Type="application/octet-stream")

    do_HEAD = do_GET

    def _describe(self, name: str, what: str | None, folder: str) -> None:
        files = self.hub.repositories.get(name)
        if files is None:
            return self._missing("RepoNotFound")
        if what == "tree":
            inside = [entry for entry in self._entries(files) if not folder or entry["path"].startswith(f"{folder}/")]
            deep = "recursive=true" in self.path.lower()
            return self._send(200, [entry for entry in inside if deep or PurePosixPath(entry["path"]).parent == PurePosixPath(folder)])
        if what == "refs":
            return self._send(
                200, {"branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": self.hub.commit_of(name)}], "tags": [], "converts": []}
            )
        siblings = [{"rfilename": path} for path in sorted(files)]
        identity = name.split("/", 1)[1]
        self._send(200, {"id": identity, "modelId": identity, "sha": self.hub.commit_of(name), "private": False, "tags": [], "siblings": siblings})


@contextmanager
def loopback_hub() -> Iterator[Hub]:
    """A Hub that answers while the context is open."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
