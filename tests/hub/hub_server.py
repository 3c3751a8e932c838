"""A Hub for tests: the endpoints that the real huggingface_hub client calls to create, fill and read repositories.

Repositories live in memory. Uploads follow the Hub's two ways (in the commit, or through LFS, for `.safetensors` and
`.bin`), commits are NDJSON, and files are served by revision with the headers that the client's cache relies on.
The storage of the Hub's Xet protocol is not spoken: clients need `HF_HUB_DISABLE_XET=1`.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


LFS_SUFFIXES = (".safetensors", ".bin", ".png")


@dataclass
class File:
    content: bytes
    is_lfs: bool

    @property
    def blob_id(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """What the client compares with its own file to find out whether it changed."""
        return self.sha256 if self.is_lfs else self.blob_id


@dataclass
class Repository:
    private: bool
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, ref: str, files: dict[str, File], message: str) -> str:
        sha = hashlib.sha1(f"{len(self.commits)} {message}".encode()).hexdigest()
        self.commits[sha], self.refs[ref] = files, sha
        self.messages.append(message)
        return sha

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


class HubServer(ThreadingHTTPServer):
    """Serves on a free port of this machine while used as a context manager.

    Attributes:
        endpoint (`str`): the value for `HF_ENDPOINT`.
        tokens (`dict`): users by their token. A user may write, and read private repositories, in their namespace.
        repositories (`dict`): by name, such as `user/digits`, `datasets/user/digits` or `spaces/user/digits`.
        is_broken (`bool`): whether every request is answered with status 500.
        requests (`list`): of what came in, as (user or `None`, method, path).
    """

    daemon_threads = True

    def __init__(self, tokens: dict[str, str]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.tokens = tokens
        self.repositories: dict[str, Repository] = {}
        self.lfs_objects: dict[str, bytes] = {}
        self.is_broken = False
        self.requests: list[tuple[str | None, str, str]] = []

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.server_close()

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a repository, by name."""
        repository = self.repositories[name]
        return {path: file.content for path, file in repository.commits[repository.resolve(revision)].items()}

    def downloaded(self, name: str) -> set[str]:
        """The files of a repository that were fetched so far."""
        found = [
            re.fullmatch(rf"/{name}/resolve/[^/]+/(.+)", path) for _, method, path in self.requests if method == "GET"
        ]
        return {match[1] for match in found if match}


class _Refusal(Exception):
    def __init__(self, status: int, code: str, message: str, **headers: str):
        super().__init__(message)
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": message, **headers}


ROUTES = []


def route(methods: str, pattern: str):
    """Registers a method of the handler for paths that match `pattern`; its groups become the arguments."""

    def register(function):
        ROUTES.append((methods.split(), re.compile(pattern), function))
        return function

    return register


NAME = r"(?P<name>[^/]+/[^/]+)"
OF_REPOSITORY = rf"/api/(?P<kind>models|datasets|spaces)/{NAME}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_GET(self):
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *args):
        pass

    def _answer(self):
        address = urlsplit(self.path)
        path, self.query = unquote(address.path), parse_qs(address.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b"".join(self._chunks())
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.user = self.server.tokens.get(token)
        self.server.requests.append((self.user, self.command, path))
        try:
            if self.server.is_broken:
                raise _Refusal(500, "InternalError", "Internal Error - We're working hard to fix this")
            if token and self.user is None:
                raise _Refusal(401, "InvalidToken", "Invalid credentials in Authorization header")
            for methods, pattern, function in ROUTES:
                match = pattern.fullmatch(path)
                if match and self.command in methods:
                    return function(self, **match.groupdict())
            raise _Refusal(404, "UnknownRoute", f"this test server does not know {self.command} {path}")
        except _Refusal as refusal:
            self._send(refusal.status, json.dumps({"error": str(refusal)}).encode(), **refusal.headers)

    def _chunks(self):
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _send(self, status: int, content: bytes, **headers: str):
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_json(self, content, status: int = 200):
        self._send(status, json.dumps(content).encode())

    def _json(self):
        return json.loads(self.body)

    # Repositories, revisions and rights

    def _repository(self, name: str, kind: str = "models", write: bool = False) -> Repository:
        repository = self.server.repositories.get(name if kind == "models" else f"{kind}/{name}")
        is_owner = self.user == name.split("/")[0]
        if repository is None or (repository.private and not is_owner):
            raise _Refusal(404 if self.user else 401, "RepoNotFound", "Repository not found")
        if write and not is_owner:
            raise _Refusal(403, "Forbidden", "You have no write access to this repository")
        return repository

    def _revision(self, repository: Repository, revision: str) -> str:
        sha = repository.resolve(revision)
        if sha is None:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    @route("GET", "/api/whoami-v2")
    def whoami(self):
        if self.user is None:
            raise _Refusal(401, "Unauthorized", "Invalid username or password.")
        self._send_json({"type": "user", "name": self.user, "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    @route("POST", "/api/repos/create")
    def create(self):
        request = self._json()
        if self.user is None:
            raise _Refusal(401, "Unauthorized", "Invalid username or password.")
        namespace = request.get("organization") or self.user
        if namespace != self.user:
            raise _Refusal(403, "Forbidden", f"You don't have the rights to create a model under {namespace}")
        name = f"{namespace}/{request['name']}"
        if request.get("type", "model") != "model":
            name = f"{request['type']}s/{name}"
        answer = {"url": f"{self.server.endpoint}/{name}"}
        if name in self.server.repositories:
            return self._send_json({**answer, "error": "You already created this repo"}, status=409)
        repository = Repository(private=request.get("visibility") == "private")
        attributes = b"".join(b"*%s filter=lfs diff=lfs merge=lfs -text\n" % s.encode() for s in LFS_SUFFIXES)
        repository.commit("main", {".gitattributes": File(attributes, is_lfs=False)}, "initial commit")
        self.server.repositories[name] = repository
        self._send_json(answer)

    @route("GET", rf"{OF_REPOSITORY}/auth-check(?P<write>/write)?")
    def auth_check(self, kind: str, name: str, write: str | None):
        self._repository(name, kind, write=write is not None)
        self._send_json({})

    @route("GET", rf"{OF_REPOSITORY}(/revision/(?P<revision>.+))?")
    def info(self, kind: str, name: str, revision: str | None):
        repository = self._repository(name, kind)
        sha = self._revision(repository, revision or "main")
        siblings = [{"rfilename": path} for path in sorted(repository.commits[sha])]
        self._send_json({"id": name, "sha": sha, "private": repository.private, "tags": [], "siblings": siblings})

    @route("GET", rf"{OF_REPOSITORY}/refs")
    def refs(self, kind: str, name: str):
        repository = self._repository(name, kind)
        branches = [{"name": ref, "ref": ref, "targetCommit": sha} for ref, sha in repository.refs.items()]
        self._send_json({"branches": branches, "tags": [], "converts": []})

    @route("POST", rf"{OF_REPOSITORY}/tag/(?P<revision>.+)")
    def tag(self, kind: str, name: str, revision: str):
        repository = self._repository(name, kind, write=True)
        repository.refs[self._json()["tag"]] = self._revision(repository, revision)
        self._send_json({})

    @route("POST", rf"{OF_REPOSITORY}/branch/(?P<branch>.+)")
    def branch(self, kind: str, name: str, branch: str):
        repository = self._repository(name, kind, write=True)
        repository.refs[branch] = self._revision(repository, self._json().get("startingPoint", "main"))
        self._send_json({})

    # Reading

    @staticmethod
    def _entry(path: str, file: File) -> dict:
        entry = {"type": "file", "path": path, "size": len(file.content), "oid": file.blob_id}
        if file.is_lfs:
            entry["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": 134}
        return entry

    @route("GET", rf"{OF_REPOSITORY}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?")
    def tree(self, kind: str, name: str, revision: str, folder: str | None):
        repository = self._repository(name, kind)
        files = repository.commits[self._revision(repository, revision)]
        inside = {path: file for path, file in files.items() if path.startswith(f"{folder}/" if folder else "")}
        if self.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
            raise _Refusal(400, "NotSupported", "this test server lists trees recursively only")
        self._send_json([self._entry(path, file) for path, file in sorted(inside.items())])

    @route("POST", rf"{OF_REPOSITORY}/paths-info/(?P<revision>[^/]+)")
    def paths_info(self, kind: str, name: str, revision: str):
        repository = self._repository(name, kind)
        files = repository.commits[self._revision(repository, revision)]
        self._send_json([self._entry(path, files[path]) for path in self._json()["paths"] if path in files])

    @route("GET HEAD", rf"/((?P<kind>datasets|spaces)/)?{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def resolve(self, name: str, revision: str, path: str, kind: str | None):
        repository = self._repository(name, kind or "models")
        sha = self._revision(repository, revision)
        if path not in repository.commits[sha]:
            raise _Refusal(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": sha})
        file = repository.commits[sha][path]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{file.oid}"', "Content-Type": "application/octet-stream"}
        if file.is_lfs:
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
        self._send(200, file.content, **headers)

    # Writing

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self):
        request = self._json()
        errors = card_errors(request["content"], is_space=request["repoType"] == "space")
        self._send_json({"errors": [{"message": error} for error in errors], "warnings": []}, 400 if errors else 200)

    @route("POST", rf"{OF_REPOSITORY}/preupload/(?P<revision>.+)")
    def preupload(self, kind: str, name: str, revision: str):
        repository = self._repository(name, kind, write=True)
        there = repository.commits[self._revision(repository, revision)]
        answers = []
        for file in self._json()["files"]:
            path = file["path"]
            mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
            oid = there[path].oid if path in there else None
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send_json({"files": answers})

    @route("POST", rf"/((?P<kind>datasets|spaces)/)?{NAME}\.git/info/lfs/objects/batch")
    def lfs_batch(self, name: str, kind: str | None):
        self._repository(name, kind or "models", write=True)
        objects = []
        for wanted in self._json()["objects"]:
            if wanted["oid"] not in self.server.lfs_objects:
                href = f"{self.server.endpoint}/lfs/{wanted['oid']}"
                wanted = {**wanted, "actions": {"upload": {"href": href}}}
            objects.append(wanted)
        self._send_json({"transfer": "basic", "objects": objects})

    @route("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})")
    def lfs_upload(self, oid: str):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Refusal(400, "BadDigest", "the content is not what was announced")
        self.server.lfs_objects[oid] = self.body
        self._send(200, b"")

    @route("POST", rf"{OF_REPOSITORY}/commit/(?P<revision>.+)")
    def commit(self, kind: str, name: str, revision: str):
        repository = self._repository(name, kind, write=True)
        files = dict(repository.commits[self._revision(repository, revision)])
        message = ""
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), is_lfs=False)
            elif line["key"] == "lfsFile":
                files[value["path"]] = File(self.server.lfs_objects[value["oid"]], is_lfs=True)
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise _Refusal(400, "NotSupported", f"this test server does not commit a {line['key']}")
        is_pr = "create_pr" in self.query
        number = 1 + sum(ref.startswith("refs/pr/") for ref in repository.refs)
        sha = repository.commit(f"refs/pr/{number}" if is_pr else revision, files, message)
        home = f"{self.server.endpoint}/{name}"
        answer = {"success": True, "commitOid": sha, "commitUrl": f"{home}/commit/{sha}"}
        self._send_json({**answer, "pullRequestUrl": f"{home}/discussions/{number}"} if is_pr else answer)


def card_errors(card: str, is_space: bool = False) -> list[str]:
    """What is wrong with the metadata of a card, by the rules that the Hub documents for it."""
    match = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    if match is None:
        return ["there is no metadata"]
    metadata = yaml.safe_load(match[1])
    if is_space:
        return space_errors(metadata)
    errors = [
        f"{key} must be a string"
        for key in ("license", "library_name", "pipeline_tag", "base_model")
        if not isinstance(metadata.get(key, ""), str)
    ]
    errors += [
        f"{key} must be a list of strings"
        for key in ("tags", "datasets")
        if not all(isinstance(entry, str) for entry in metadata.get(key, []))
    ]
    for name in [*metadata.get("datasets", []), metadata.get("base_model")]:
        if isinstance(name, str) and not re.fullmatch(r"([\w-][\w.-]*/)?[\w-][\w.-]*", name):
            errors.append(f"{name} is no repository")
    for model in metadata.get("model-index", []):
        if not isinstance(model.get("name"), str):
            errors.append("model-index: a model has no name")
        for result in model["results"]:
            if not isinstance(result.get("task", {}).get("type"), str):
                errors.append("model-index: a result has no task type")
            for key in ("type", "name"):
                if not isinstance(result.get("dataset", {}).get(key), str):
                    errors.append(f"model-index: a data set has no {key}")
            for metric in result["metrics"]:
                try:
                    json.dumps(metric["value"], allow_nan=False)
                except ValueError:
                    errors.append(f"model-index: {metric['type']} is not finite")
    return errors


def space_errors(settings: dict) -> list[str]:
    """What is wrong with the front matter of a Space, by the Hub's reference of its settings."""
    colors = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
    errors = [f"{key} must be one of {colors}" for key in ("colorFrom", "colorTo") if settings.get(key) not in colors]
    for key in ("title", "emoji", "app_file"):
        if not isinstance(settings.get(key), str):
            errors.append(f"{key} must be a string")
    if settings.get("sdk") not in ("gradio", "docker", "static"):
        errors.append("sdk must be gradio, docker or static")
    if not re.fullmatch(r"\d+\.\d+\.\d+", str(settings.get("sdk_version"))):
        errors.append("sdk_version must be a version")
    errors += [f"{name} is no repository" for name in settings.get("models", []) if name.count("/") > 1]
    return errors
