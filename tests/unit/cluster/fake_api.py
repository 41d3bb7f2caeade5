# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small Kubernetes API server in this process, on 127.0.0.1, for tests of modules through their ``main()``.

It knows nothing of kinds: an object lives at a path. It does what clients trip over: resource versions and conflicts, ``dryRun=All``,
merge patches, server-side apply, pages, pruned fields, and faults that a test asks for.
"""

from __future__ import annotations

import copy
import dataclasses
import http.server
import json
import threading
import typing as t
import urllib.parse
import uuid

Json = dict[str, t.Any]


@dataclasses.dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: t.Any

    @property
    def writes(self) -> bool:
        return self.method != "GET" and self.query.get("dryRun") != "All"


@dataclasses.dataclass
class Fault:
    """Answers with ``status`` instead of doing what was asked, ``times`` times, where ``when`` is true."""

    status: int
    times: int = 1
    when: t.Callable[[Request], bool] = lambda request: True
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    reason: str = "Fault"
    message: str = "asked for by a test"


class FakeApi:
    """``objects`` by path, ``requests`` in order. ``prune`` sees each object before it is stored; ``before_write`` may change the store."""

    def __init__(self) -> None:
        self.objects: dict[str, Json] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.prune: t.Callable[[str, Json], None] = lambda path, item: None
        self.before_write: t.Callable[[Request], None] = lambda request: None
        self._version = 100
        self._applied: dict[str, Json] = {}
        self._lock = threading.RLock()
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                split = urllib.parse.urlsplit(self.path)
                request = Request(self.command, split.path, dict(urllib.parse.parse_qsl(split.query)), body)
                status, answer, headers = api.answer(request)
                data = json.dumps(answer).encode()
                self.send_response(status)
                for key, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

            def log_message(self, *arguments: t.Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def params(self) -> Json:
        """Module arguments that lead to this server."""
        return {"host": self.url, "api_key": "test"}

    @property
    def written(self) -> list[Request]:
        """The requests that could change something."""
        return [request for request in self.requests if request.writes]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, path: str, item: Json | None = None) -> Json:
        """Put an object at ``path``; its name and namespace come from there."""
        item = copy.deepcopy(item or {})
        parts = path.strip("/").split("/")
        metadata = item.setdefault("metadata", {})
        metadata.setdefault("name", parts[-1])
        metadata.setdefault("uid", str(uuid.uuid4()))
        if "namespaces" in parts[:-2]:
            metadata.setdefault("namespace", parts[parts.index("namespaces") + 1])
        self._store(path, item)
        return item

    def _store(self, path: str, item: Json) -> None:
        with self._lock:
            self._version += 1
            item["metadata"]["resourceVersion"] = str(self._version)
            self.prune(path, item)
            self.objects[path] = item

    def answer(self, request: Request) -> tuple[int, Json, dict[str, str]]:
        with self._lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times > 0 and fault.when(request):
                    fault.times -= 1
                    return *_status(fault.status, fault.reason, fault.message), fault.headers
            if request.method != "GET":
                self.before_write(request)
            status, answer = getattr(self, f"_{request.method.lower()}")(request)
            return status, answer, {}

    def _get(self, request: Request) -> tuple[int, Json]:
        if request.path == "/version":
            return 200, {"gitVersion": "v1.37.0"}
        if request.path in self.objects:
            return 200, self.objects[request.path]
        last = request.path.rstrip("/").rpartition("/")[2]
        collections = {path.rpartition("/")[0] for path in self.objects}
        if request.path not in collections and not self._across_namespaces(request.path):
            plural = {"nodes", "pods", "namespaces", "secrets", "configmaps", "services"}
            if last not in plural:
                return _status(404, "NotFound", f"{request.path} not found")
        items = [item for path, item in sorted(self.objects.items()) if path.rpartition("/")[0] == request.path]
        items += self._across_namespaces(request.path)
        items = [item for item in items if _selected(item, request.query.get("labelSelector", ""))]
        start = int(request.query.get("continue") or 0)
        end = start + int(request.query.get("limit") or len(items) or 1)
        metadata = {"resourceVersion": str(self._version), **({"continue": str(end)} if end < len(items) else {})}
        return 200, {"kind": "List", "metadata": metadata, "items": items[start:end]}

    def _across_namespaces(self, collection: str) -> list[Json]:
        """The objects of a kind in all namespaces, for a path without one."""
        if "/namespaces/" in collection:
            return []
        group, _slash, plural = collection.rpartition("/")
        found = []
        for path, item in sorted(self.objects.items()):
            parts = path.split("/")
            if len(parts) >= 5 and parts[-4] == "namespaces" and "/".join(parts[:-4]) == group and parts[-2] == plural:
                found.append(item)
        return found

    def _post(self, request: Request) -> tuple[int, Json]:
        metadata = request.body.setdefault("metadata", {})
        name = metadata.get("name") or f"{metadata.get('generateName', '')}{uuid.uuid4().hex[:5]}"
        metadata["name"] = name
        path = f"{request.path}/{name}"
        if path in self.objects:
            return _status(409, "AlreadyExists", f"{path} already exists")
        if "/namespaces/" in request.path:
            namespace = "/api/v1/namespaces/" + request.path.split("/namespaces/")[1].split("/")[0]
            if namespace not in self.objects and any(path.startswith("/api/v1/namespaces/") for path in self.objects):
                return _status(404, "NotFound", f"{namespace} not found")
        item = copy.deepcopy(request.body)
        if request.query.get("dryRun") != "All":
            self.add(path, item)
            item = self.objects[path]
        return 201, item

    def _apply(self, request: Request) -> tuple[int, Json]:
        """Server-side apply with force, of one client: what it applied before and does not now goes; a list is one value."""
        before, namespace = self.objects.get(request.path), request.path.partition("/namespaces/")[2].split("/")[0]
        if before is None and namespace and f"/api/v1/namespaces/{namespace}" not in self.objects:
            return _status(404, "NotFound", f"namespaces {namespace} not found")
        after = merge(_without(copy.deepcopy(before or {}), self._applied.get(request.path, {}), request.body), request.body)
        if request.query.get("dryRun") == "All":
            return 200, after
        self._applied[request.path] = copy.deepcopy(request.body)
        if before is None:
            self.add(request.path, after)
        elif after != before:
            self._store(request.path, after)
        return 200, self.objects[request.path]

    def _put(self, request: Request) -> tuple[int, Json]:
        return _status(404, "NotFound", f"{request.path} not found")

    def _patch(self, request: Request) -> tuple[int, Json]:
        if request.query.get("force") == "true":
            return self._apply(request)
        if request.path not in self.objects:
            return _status(404, "NotFound", f"{request.path} not found")
        before = self.objects[request.path]
        wanted = (request.body.get("metadata") or {}).get("resourceVersion")
        if wanted is not None and wanted != before["metadata"]["resourceVersion"]:
            return _status(409, "Conflict", "the object has been modified; please apply your changes to the latest version")
        after = merge(copy.deepcopy(before), request.body)
        if request.query.get("dryRun") == "All":
            return 200, after
        if after != before:
            self._store(request.path, after)
        return 200, self.objects[request.path]

    def _delete(self, request: Request) -> tuple[int, Json]:
        if request.path not in self.objects:
            return _status(404, "NotFound", f"{request.path} not found")
        if request.query.get("dryRun") != "All":
            del self.objects[request.path]
        return 200, {"status": "Success"}


def merge(target: t.Any, patch: t.Any) -> t.Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    target = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = merge(target.get(key), value)
    return target


def _without(target: Json, applied: Json, now: Json) -> Json:
    """An object without the fields that were applied and are not now."""
    for key, value in applied.items():
        if key not in now:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(now[key], dict) and isinstance(target.get(key), dict):
            _without(target[key], value, now[key])
    return target


def _selected(item: Json, selector: str) -> bool:
    labels = (item.get("metadata") or {}).get("labels") or {}
    for term in filter(None, selector.split(",")):
        key, equals, value = term.partition("=")
        if equals and labels.get(key) != value.lstrip("="):
            return False
        if not equals and key not in labels:
            return False
    return True


def _status(status: int, reason: str, message: str) -> tuple[int, Json]:
    return status, {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": status}
