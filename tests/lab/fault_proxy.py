# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy before an API server that answers some requests wrongly, as the rules of faults say, and passes everything else through.

`python -m tests.lab.fault_proxy --directory DIR --fault NAME ...` is that of a lab: on 127.0.0.1, with the lab's serving certificate, for the
playbooks' identity alone, which it is to the API server too. Which requests are answered wrongly depends on nothing but their order.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import http.server
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.lab.faults import FAULTS, LOST, RESET, SILENT, Rule
from tests.lab.layout import IDENTITIES, Layout

#: Headers that concern one connection and are not passed on (RFC 9110, 7.6.1).
_OF_A_CONNECTION = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection"})
_CHUNK = 64 << 10  # bytes
SILENT_SECONDS = 15.0  # how long a connection without an answer is held: longer than a client waits for its first

Connect = Callable[[], http.client.HTTPConnection]


class Counter:
    """Which requests meet which rule: every n-th that fits it. ``seed`` shifts where the counting begins."""

    def __init__(self, rules: Mapping[str, Rule], seed: int = 0) -> None:
        self.rules = dict(rules)
        self._seen = dict.fromkeys(rules, seed)
        self._lock = threading.Lock()
        self.hits: list[tuple[str, str, str]] = []  #: name of the rule, method, path

    def decide(self, method: str, path: str) -> Rule | None:
        """The rule that this request meets. Each that fits counts it; the first whose turn it is answers."""
        met = None
        with self._lock:
            for name, rule in self.rules.items():
                if rule.fits(method, path):
                    self._seen[name] += 1
                    if met is None and self._seen[name] % rule.every == 0:
                        met = rule
                        self.hits.append((name, method, path))
        return met


class Proxy(http.server.ThreadingHTTPServer):
    """Listens on 127.0.0.1. ``connect`` opens a connection to the API server; with ``context`` it speaks TLS, to the client ``user`` alone."""

    daemon_threads = True

    def __init__(self, port: int, connect: Connect, counter: Counter, context: ssl.SSLContext | None = None, user: str = "") -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.connect, self.counter, self.context, self.user = connect, counter, context, user
        self.silent_seconds = SILENT_SECONDS

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.context is None:
            super().finish_request(request, client_address)
            return
        with self.context.wrap_socket(request, server_side=True) as secured:
            subject: Any = (secured.getpeercert() or {}).get("subject", ())
            if ("commonName", self.user) in [pair for names in subject for pair in names]:
                super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections end in all ways here, on purpose and by clients that go."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """One client's connection, with one to the API server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy

    def setup(self) -> None:
        super().setup()
        self.upstream = self.server.connect()

    def finish(self) -> None:
        self.upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        rule = self.server.counter.decide(self.command, path)
        if rule is None:
            self._pass_on(self._ask(body))
        elif rule.answer == RESET:
            self._reset()
        elif rule.answer == LOST:
            self._ask(body).read()
            self._reset()
        elif rule.answer == SILENT:
            self.connection.settimeout(self.server.silent_seconds)
            with contextlib.suppress(OSError):
                self.connection.recv(1)  # until the client goes
            self.close_connection = True
        else:
            self._answer(rule, int(rule.answer))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve

    def _ask(self, body: bytes) -> http.client.HTTPResponse:
        """The API server's answer. A connection that it has closed meanwhile is opened anew, as a client would."""
        headers = {key: value for key, value in self.headers.items() if key.lower() not in _OF_A_CONNECTION}
        for attempt in (1, 2):
            fresh = self.upstream.sock is None
            try:
                self.upstream.request(self.command, self.path, body or None, headers)
                return self.upstream.getresponse()
            except (OSError, http.client.HTTPException):
                self.upstream.close()
                if fresh or attempt == 2:
                    raise
        raise AssertionError

    def _pass_on(self, answer: http.client.HTTPResponse) -> None:
        """Answers without a length, which watches are, in chunks as they come."""
        self.send_response_only(answer.status, answer.reason)
        for key, value in answer.getheaders():
            if key.lower() not in _OF_A_CONNECTION:
                self.send_header(key, value)
        bodiless = self.command == "HEAD" or answer.status in (204, 304)
        whole = bodiless or answer.getheader("Content-Length") is not None
        if not whole:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while not bodiless and (part := answer.read1(_CHUNK)):
            self.wfile.write(part if whole else b"%x\r\n%s\r\n" % (len(part), part))
        if not whole:
            self.wfile.write(b"0\r\n\r\n")
        answer.close()

    def _answer(self, rule: Rule, status: int) -> None:
        content = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": rule.reason,
            "message": rule.message,
            "code": status,
        }
        data = json.dumps(content).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if rule.retry_after is not None:
            self.send_header("Retry-After", str(rule.retry_after))
        self.end_headers()
        self.wfile.write(data)

    def _reset(self) -> None:
        """Closing a socket whose lingering time is 0 sends a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def of_lab(layout: Layout, names: list[str], seed: int = 0) -> Proxy:
    """The proxy of a lab, with the rules of its faults."""
    ports, pki = layout.read()["ports"], layout.pki
    to_server = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    to_server.load_cert_chain(pki / "client-operator.crt", pki / "client-operator.key")
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki / "ca.crt"))
    own.load_cert_chain(pki / "server.crt", pki / "server.key")
    own.verify_mode = ssl.CERT_REQUIRED
    rules = {name: rule for name in names if (rule := FAULTS[name].rule) is not None and FAULTS[name].where == "api"}

    def connect() -> http.client.HTTPConnection:
        return http.client.HTTPSConnection("127.0.0.1", ports["kube-apiserver"], context=to_server)

    return Proxy(ports["fault-proxy"], connect, Counter(rules, seed), own, IDENTITIES["operator"][0])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab.fault_proxy", description="Answer some requests to a lab's API server wrongly."
    )
    parser.add_argument("--directory", type=Path, required=True, help="the lab's state directory")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME")
    parser.add_argument("--seed", type=int, default=0, help="how many requests count as seen already")
    given = parser.parse_args()
    with of_lab(Layout(given.directory), given.fault, given.seed) as proxy:
        proxy.serve_forever(poll_interval=0.2)


if __name__ == "__main__":
    main()
