# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's OCI registry: TLS by the lab's CA, one user with a password, on 127.0.0.1, stopped with the lab."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tests.lab import build, processes
from tests.lab.layout import LabError, Layout

PART = "registry"
USER = "lab"


def directory(layout: Layout) -> Path:
    return layout.directory / "registry"


def start(layout: Layout) -> str:
    """Start the registry of a lab that is up, if it does not run yet; its host, such as `127.0.0.1:40001`."""
    record = layout.read()
    program = build.registry_program()
    with layout.lock():
        if PART in processes.running(layout):
            return f"127.0.0.1:{record['ports'][PART]}"
        port = processes.free_ports([PART])[PART]
        host = f"127.0.0.1:{port}"
        password = _prepare(layout, program, host)
        # Distribution takes REGISTRY_* of its environment for settings: what is there for container engines must not reach it.
        argv = ["env", *(f"--unset={name}" for name in os.environ if name.startswith("REGISTRY_"))]
        argv += ["OTEL_TRACES_EXPORTER=none", str(program), "serve", str(directory(layout) / "config.yml")]
        processes.start(layout, PART, argv)
        try:
            processes.wait(layout, PART, _trouble(layout, host, password), 30)
        except LabError:
            processes.stop(layout, [PART])
            raise
        layout.write({**record, "ports": {**record["ports"], PART: port}})
    return host


def clear(layout: Layout) -> None:
    """Stop the registry and remove what it holds; none there is fine."""
    processes.stop(layout, [PART])
    shutil.rmtree(directory(layout), ignore_errors=True)
    record = layout.read()
    if record["ports"].pop(PART, None):
        layout.write(record)


def _prepare(layout: Layout, program: Path, host: str) -> str:
    """Write configuration and logins; the password."""
    own = directory(layout)
    own.mkdir(mode=0o700, exist_ok=True)
    password = secrets.token_urlsafe(12)
    done = subprocess.run([str(program), "htpasswd", USER], input=f"{password}\n", capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"Making the password of the lab's registry: {program} ended with {done.returncode}: {done.stderr.strip()}")
    login = {"auths": {host: {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}}}
    config = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(own / "data")}, "delete": {"enabled": True}},
        "http": {
            "addr": host,
            "secret": secrets.token_hex(16),
            "tls": {"certificate": str(layout.pki / "server.crt"), "key": str(layout.pki / "server.key")},
        },
        "auth": {"htpasswd": {"realm": "lab", "path": str(own / "htpasswd")}},
    }
    texts = {"htpasswd": done.stdout, "password": password, "config.json": json.dumps(login), "config.yml": json.dumps(config)}
    for name, text in texts.items():  # JSON is YAML
        file = own / name
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_text(text)
    return password


def _trouble(layout: Layout, host: str, password: str) -> Callable[[], str | None]:
    """Asks whether the registry answers its user."""
    context = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    token = base64.b64encode(f"{USER}:{password}".encode()).decode()
    request = urllib.request.Request(f"https://{host}/v2/", headers={"Authorization": f"Basic {token}"})

    def ask() -> str | None:
        try:
            with opener.open(request, timeout=5):
                return None
        except urllib.error.HTTPError as e:
            return f"status {e.code}"
        except OSError as e:
            return str(e)

    return ask
