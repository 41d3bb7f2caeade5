# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An API server that answers what ``gpu_fleet_info`` asks, with nodes that are given, and nothing else: for playbooks that only read."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import typing as t
from pathlib import Path

Facts = dict[str, t.Any]


def _node(entry: Facts) -> Facts:
    labels = {**entry["labels"], "feature.node.kubernetes.io/pci-10de.present": "true"}
    return {
        "metadata": {"name": entry["name"], "labels": labels},
        "status": {
            "nodeInfo": {"bootID": entry["boot_id"]},
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {name: str(count) for name, count in entry["allocatable"].items()},
        },
    }


@contextlib.contextmanager
def served(nodes: t.Iterable[Facts], kubeconfig: Path) -> t.Iterator[None]:
    """Serve these nodes (as of ``fleets.node``) on a loopback port until the block ends; ``kubeconfig`` is written for it."""
    answers: dict[str, t.Any] = {
        "/version": {"gitVersion": "v1.34.0"},
        "/api/v1/namespaces/kube-system": {"metadata": {"name": "kube-system", "uid": "u-1"}},
        "/api/v1/nodes": {"items": [_node(entry) for entry in nodes]},
        "/api/v1/pods": {"items": []},
        "/api/v1/namespaces/gpu-operator/secrets": {"items": []},
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0])
            body = json.dumps({"kind": "Status", "code": 404} if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: t.Any) -> None:  # noqa: A002
            """Tests say what they need themselves."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "x", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }
    kubeconfig.write_text(json.dumps(content), encoding="utf-8")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
