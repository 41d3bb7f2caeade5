# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of the lab's own API server, of the standard library only: the lab needs no installed package to start."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from typing import Any
from urllib.parse import urlencode

from tests.lab.layout import Layout

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


class ApiError(Exception):
    """An answer that is not 2xx; `status` is None when there was none."""

    def __init__(self, method: str, path: str, status: int | None, message: str) -> None:
        super().__init__(f"{method} {path}: {status or 'no answer'}: {message}")
        self.status = status


class Api:
    """Requests to one of the lab's servers with one of its client certificates, or none. Threads may share an object: each has its connection."""

    def __init__(self, layout: Layout, port: int, identity: str | None = "admin", timeout: float = 30) -> None:
        self._port = port
        self._timeout = timeout
        self._context = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
        if identity:
            self._context.load_cert_chain(layout.pki / f"client-{identity}.crt", layout.pki / f"client-{identity}.key")
        self._local = threading.local()

    def request(self, method: str, path: str, body: Any = None, kind: str = "application/json", **query: str) -> Any:
        """One request; the decoded answer, or its text where it is not JSON."""
        target = f"{path}?{urlencode(query)}" if query else path
        data = None if body is None else json.dumps(body).encode()
        connection = getattr(self._local, "connection", None)
        for attempt in (1, 2):
            fresh = connection is None
            if connection is None:
                connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=self._timeout, context=self._context)
            try:
                connection.request(method, target, data, {"Content-Type": kind, "Accept": "application/json, */*"})
                response = connection.getresponse()
                text = response.read()
                break
            except (OSError, http.client.HTTPException) as e:
                connection.close()
                self._local.connection = connection = None
                # A kept connection may have been closed by the server since; a fresh one has no such excuse.
                if fresh or attempt == 2:
                    raise ApiError(method, path, None, str(e)) from e
        self._local.connection = connection
        try:
            answer = json.loads(text) if text else {}
        except ValueError:
            answer = text.decode(errors="replace")
        if response.status >= 300:
            message = answer.get("message", "") if isinstance(answer, dict) else answer
            raise ApiError(method, path, response.status, message)
        return answer

    def trouble(self, path: str) -> str | None:
        """Why the path does not answer with 2xx; None when it does."""
        try:
            self.request("GET", path)
        except ApiError as e:
            return str(e)
        return None

    def get(self, path: str, **query: str) -> Any:
        return self.request("GET", path, **query)

    def find(self, path: str) -> Any | None:
        """The object, or None when it is not there."""
        try:
            return self.get(path)
        except ApiError as e:
            if e.status == 404:
                return None
            raise

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """All objects of a collection; none when the API server does not know the resource."""
        answer = self.find(path) if not query else self.get(path, **query)
        return list(answer["items"]) if answer else []

    def create(self, path: str, body: Any) -> Any:
        return self.request("POST", path, body)

    def replace(self, path: str, body: Any) -> Any:
        return self.request("PUT", path, body)

    def patch(self, path: str, body: Any, kind: str = MERGE) -> Any:
        return self.request("PATCH", path, body, kind)

    def delete(self, path: str, body: Any = None) -> None:
        """Delete; gone already is fine."""
        try:
            self.request("DELETE", path, body)
        except ApiError as e:
            if e.status != 404:
                raise
