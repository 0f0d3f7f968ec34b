"""A stand-in for the Hugging Face Hub: what pushing and loading a dataset uses of its HTTP API, and faults on command.

Repositories are lists of commits in memory, each with all its files. Parquet goes through LFS, all else into commits.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

WRITER, READER = "hf_writerwriterwriter", "hf_readerreaderreader"
"""The tokens of two users: ``me``, and ``you``, who may see what is public."""
USERS = {WRITER: "me", READER: "you"}


@dataclass
class Repo:
    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    """SHA and all files of every state, the first one first."""

    def commit(self, files: dict[str, bytes]) -> str:
        sha = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits.append((sha, files))
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision in ("main", ""):
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)


@dataclass
class Fault:
    """What goes wrong: requests that match are answered with a status, or dropped (None), so many times."""

    method: str
    path: str
    status: int | None
    times: int = 1
    before: Callable[[], object] | None = None
    """Called instead of an answer being made: something that happens meanwhile. The request then goes its way."""


@dataclass
class Hub:
    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def files(self, repo: str) -> dict[str, bytes]:
        return self.repos[repo].commits[-1][1]

    def commits(self, repo: str) -> int:
        return len(self.repos[repo].commits)

    def uploads(self) -> int:
        return sum(request.startswith("PUT ") for request in self.requests)


class Answer(Exception):
    def __init__(self, status: int, value: Any = None, **headers: str) -> None:
        self.status, self.headers = status, headers
        self.body = value if isinstance(value, bytes) else json.dumps(value).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{self.command} {path}")
        try:
            if self._fault(path):
                self.close_connection = True
                return
            for method, pattern, handler in ROUTES:
                found = re.fullmatch(pattern, path)
                if found and method == ("GET" if self.command == "HEAD" else self.command):
                    handler(self, **found.groupdict())
            raise Answer(404, {"error": f"no such endpoint: {self.command} {path}"})
        except Answer as answer:
            self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def _fault(self, path: str) -> bool:
        for fault in self.hub.faults:
            if fault.times and fault.method == self.command and re.search(fault.path, path):
                fault.times -= 1
                if fault.before is not None:
                    fault.before()
                    return False
                if fault.status is None:
                    self.connection.close()
                    return True
                retry = {"Retry-After": "0"} if fault.status in (429, 503) else {}
                raise Answer(fault.status, {"error": f"fault {fault.status}"}, **retry)
        return False

    def _send(self, answer: Answer) -> None:
        body, status = answer.body, answer.status
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        size = len(body)
        if wanted and status == 200:
            first, last = int(wanted[1]), min(int(wanted[2] or size - 1), size - 1)
            body, status = body[first : last + 1], 206
            answer.headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Accept-Ranges": "bytes", **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def user(self) -> str | None:
        header = self.headers.get("Authorization") or ""
        return USERS.get(header.removeprefix("Bearer "))

    def repo(self, name: str, *, write: bool = False) -> Repo:
        found = self.hub.repos.get(name)
        if found is None or (found.private and self.user != name.split("/")[0]):
            status = 404 if self.user else 401
            raise Answer(status, {"error": "Repository not found"}, **{"X-Error-Code": "RepoNotFound"})
        if write and self.user != name.split("/")[0]:
            raise Answer(403, {"error": "forbidden"}, **{"X-Error-Message": "You have no rights here"})
        return found

    def state(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        found = self.repo(name).at(revision)
        if found is None:
            raise Answer(404, {"error": "Invalid rev id"}, **{"X-Error-Code": "RevisionNotFound"})
        return found

    def json(self) -> Any:
        return json.loads(self.body)


def whoami(request: Handler) -> None:
    if request.user is None:
        raise Answer(401, {"error": "Invalid credentials in Authorization header"})
    raise Answer(200, {"type": "user", "name": request.user, "orgs": [], "auth": {"accessToken": {"role": "write"}}})


def create(request: Handler) -> None:
    asked = request.json()
    owner = asked.get("organization") or request.user
    if request.user is None or owner != request.user:
        raise Answer(403, {"error": "forbidden"}, **{"X-Error-Message": "You have no rights in this namespace"})
    name = f"{owner}/{asked['name']}"
    if name in request.hub.repos:
        raise Answer(409, {"error": "You already created this dataset repo"})
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    request.hub.repos[name] = repo = Repo(private)
    repo.commit({".gitattributes": b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"})
    raise Answer(200, {"url": f"{request.hub.url}/datasets/{name}", "name": name, "id": "1"})


def info(request: Handler, repo: str, revision: str = "main") -> None:
    sha, files = request.state(repo, revision)
    raise Answer(
        200,
        {
            "_id": "1", "id": repo, "sha": sha, "private": request.hub.repos[repo].private, "gated": False,
            "disabled": False, "downloads": 0, "likes": 0, "tags": [], "author": repo.split("/")[0],
            "siblings": [{"rfilename": name} for name in sorted(files)],
        },
    )  # fmt: skip


def entry(path: str, content: bytes) -> dict[str, Any]:
    """A file in a listing; LFS files have a SHA-256, too."""
    found = {
        "type": "file", "path": path, "size": len(content),
        "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
    }  # fmt: skip
    if path.endswith(".parquet"):
        found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return found


def tree(request: Handler, repo: str, revision: str, path: str) -> None:
    _, files = request.state(repo, revision)
    recursive = parse_qs(urlsplit(request.path).query).get("recursive", ["false"])[0].lower() in ("1", "true")
    prefix = f"{path.strip('/')}/" if path.strip("/") else ""
    found: dict[str, dict[str, Any]] = {}
    for name, content in sorted(files.items()):
        if name.startswith(prefix):
            parts = name.removeprefix(prefix).split("/")
            for i in range(1, len(parts) if recursive else min(2, len(parts))):
                folder = prefix + "/".join(parts[:i])
                found[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
            if recursive or len(parts) == 1:
                found[name] = entry(name, content)
    if prefix and not found:
        raise Answer(404, {"error": "no such path"}, **{"X-Error-Code": "EntryNotFound"})
    raise Answer(200, list(found.values()))


def paths_info(request: Handler, repo: str, revision: str) -> None:
    _, files = request.state(repo, revision)
    is_json = "json" in (request.headers.get("Content-Type") or "")
    paths = request.json()["paths"] if is_json else parse_qs(request.body.decode())["paths"]
    found: list[dict[str, Any]] = [entry(name, files[name]) for name in paths if name in files]
    folders = {name.strip("/") for name in paths if any(file.startswith(name.strip("/") + "/") for file in files)}
    found += [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in sorted(folders)]
    raise Answer(200, found)


def resolve(request: Handler, repo: str, revision: str, path: str) -> None:
    sha, files = request.state(repo, revision)
    if path not in files:
        raise Answer(404, {"error": "Entry not found"}, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
    described = entry(path, files[path])
    etag = described["lfs"]["oid"] if "lfs" in described else described["oid"]
    raise Answer(200, files[path], **{"ETag": f'"{etag}"', "X-Repo-Commit": sha, "Content-Type": "binary/octet-stream"})


def validate_yaml(request: Handler) -> None:
    content = request.json()["content"]
    if "license: cc-by-9.0" in content:
        raise Answer(400, {"errors": [{"message": '"license" must be one of [apache-2.0, ...]'}], "warnings": []})
    raise Answer(200, {"errors": [], "warnings": []})


def preupload(request: Handler, repo: str, revision: str) -> None:
    request.repo(repo, write=True)
    files = request.hub.files(repo)
    raise Answer(
        200,
        {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".parquet") else "regular",
                    "shouldIgnore": False,
                    "oid": entry(file["path"], files[file["path"]])["oid"] if file["path"] in files else None,
                }
                for file in request.json()["files"]
            ]
        },
    )


def lfs_batch(request: Handler, repo: str) -> None:
    request.repo(repo, write=True)
    found = []
    for asked in request.json()["objects"]:
        actions = {"upload": {"href": f"{request.hub.url}/lfs/{asked['oid']}", "header": {}}}
        found.append({**asked, **({} if asked["oid"] in request.hub.lfs else {"actions": actions})})
    raise Answer(200, {"transfer": "basic", "objects": found})


def lfs_put(request: Handler, oid: str) -> None:
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise Answer(400, {"error": "another SHA-256"})
    request.hub.lfs[oid] = request.body
    raise Answer(200, b"")


def commit(request: Handler, repo: str, revision: str) -> None:
    target = request.repo(repo, write=True)
    sha, files = target.commits[-1]
    files = dict(files)
    for line in request.body.splitlines():
        item = json.loads(line)
        key, value = item["key"], item["value"]
        if key == "header" and value.get("parentCommit") not in (None, sha):
            raise Answer(412, {"error": "A commit has happened since. Please refresh and try again."})
        if key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            if value["oid"] not in request.hub.lfs:
                raise Answer(400, {"error": "an LFS object is missing"})
            files[value["path"]] = request.hub.lfs[value["oid"]]
        elif key == "deletedFile":
            del files[value["path"]]
    oid = target.commit(files)
    url = f"{request.hub.url}/datasets/{repo}/commit/{oid}"
    raise Answer(200, {"success": True, "commitOid": oid, "commitUrl": url})


REPO, REVISION = r"(?P<repo>[\w.-]+/[\w.-]+)", r"(?P<revision>[\w.-]+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", "/api/whoami-v2", whoami),
    ("POST", "/api/repos/create", create),
    ("POST", "/api/validate-yaml", validate_yaml),
    ("GET", f"/api/datasets/{REPO}", info),
    ("GET", f"/api/datasets/{REPO}/revision/{REVISION}", info),
    ("GET", f"/api/datasets/{REPO}/tree/{REVISION}(?P<path>(/.*)?)", tree),
    ("POST", f"/api/datasets/{REPO}/paths-info/{REVISION}", paths_info),
    ("POST", f"/api/datasets/{REPO}/preupload/{REVISION}", preupload),
    ("POST", f"/api/datasets/{REPO}/commit/{REVISION}", commit),
    ("POST", rf"/datasets/{REPO}\.git/info/lfs/objects/batch", lfs_batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", lfs_put),
    ("GET", f"/datasets/{REPO}/resolve/{REVISION}/(?P<path>.*)", resolve),
]  # fmt: skip


@contextmanager
def serve(port: int = 0) -> Iterator[Hub]:
    """An empty Hub, at any free port or this one."""
    hub = Hub()
    handler = type("Bound", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
