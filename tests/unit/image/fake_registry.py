# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small OCI registry in this process, on 127.0.0.1 with TLS. What it holds lies in two directories, which a fake engine writes to."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import http.server
import json
import re
import ssl
import threading
import typing as t
import urllib.parse
from pathlib import Path

Json = dict[str, t.Any]

USER, PASSWORD = "builder", "geheim-42"
TOKEN = "token-1"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclasses.dataclass
class Fault:
    """Answers with ``status`` where method and path match, ``times`` times."""

    status: int
    method: str
    path: str
    times: int = 1
    body: t.Any = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry:
    """``auth`` is ``basic``, ``bearer`` or ``none``. ``requests`` are method and path, ``sent`` the Authorization headers of each host's path."""

    def __init__(self, directory: Path, certificates: Path, auth: str = "basic", certificate: str = "server") -> None:
        self.directory, self.auth = directory, auth
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.sent: list[tuple[str, str | None]] = []
        self.realm: str | None = None
        for name in ("manifests", "blobs"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                registry.requests.append((self.command, self.path))
                registry.sent.append((self.path, self.headers.get("Authorization")))
                status, data, headers = registry.answer(self.command, self.path, self.headers.get("Authorization"), body)
                self.send_response(status)
                for key, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_HEAD = _serve

            def log_message(self, *arguments: t.Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request: t.Any, client_address: t.Any) -> None:
                pass  # a client that does not trust the certificate hangs up

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if certificate != "none":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates / f"{certificate}.crt", certificates / f"{certificate}.key")
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def tags(self) -> set[str]:
        return {path.name for path in (self.directory / "manifests").iterdir() if not path.name.startswith("sha256:")}

    def put(self, tag: str, labels: dict[str, str] | None, media_type: str = MANIFEST) -> str:
        """Have an image at a tag; its digest."""
        config = json.dumps({"config": {"Labels": labels}}).encode()
        layer = b"a layer"
        for blob in (config, layer):
            (self.directory / "blobs" / digest(blob)).write_bytes(blob)
        document = {"mediaType": media_type, "config": {"digest": digest(config)}, "layers": [{"digest": digest(layer)}]}
        return self.put_manifest(tag, document)

    def put_manifest(self, tag: str, document: Json) -> str:
        data = json.dumps(document).encode()
        for name in (tag, digest(data)):
            (self.directory / "manifests" / name).write_bytes(data)
        return digest(data)

    def answer(self, method: str, path: str, authorization: str | None, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        for fault in self.faults:
            if fault.times and fault.method == method and fault.path in path:
                fault.times -= 1
                return fault.status, json.dumps(fault.body).encode() if fault.body else b"", fault.headers
        split = urllib.parse.urlsplit(path)
        if split.path == "/token":
            if authorization and authorization != self._basic():
                return 401, b"", {}
            return 200, json.dumps({"token": TOKEN}).encode(), {}
        if split.path.startswith("/storage/"):
            return 200, (self.directory / "blobs" / split.path.rpartition("/")[2]).read_bytes(), {}
        wanted = {"basic": self._basic(), "bearer": f"Bearer {TOKEN}", "none": None}[self.auth]
        if wanted and authorization != wanted:
            bearer = f'Bearer realm="{self.realm or f"https://{self.host}/token"}",service="fake",scope="x"'
            return 401, b"", {"WWW-Authenticate": bearer if self.auth == "bearer" else 'Basic realm="fake"'}
        return self._serve(method, split.path, body)

    def _basic(self) -> str:
        return "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def _serve(self, method: str, path: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        if path == "/v2/":
            return 200, b"{}", {"Content-Type": "application/json"}
        match = re.fullmatch(r"/v2/nvidia/vgpu-manager/(manifests|blobs)/([^/]+)", path)
        if not match:
            return 404, b"{}", {}
        file = self.directory / match[1] / match[2]
        if method == "PUT":
            file.write_bytes(body)
            return 201, b"", {}
        if not file.exists():
            return 404, json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}).encode(), {}
        data = file.read_bytes()
        if match[1] == "blobs":
            return 200, data, {}
        return 200, data, {"Content-Type": json.loads(data).get("mediaType", MANIFEST), "Docker-Content-Digest": digest(data)}
