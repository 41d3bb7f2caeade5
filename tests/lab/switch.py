# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Switches the faults of a lab that is up. The record in ``lab.json`` says which are on; the simulated operator looks there in every round."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from tests.lab import faults, pki, processes
from tests.lab.api import Api
from tests.lab.faults import FAULTS
from tests.lab.layout import CHECKOUT, IDENTITIES, Layout

_PROXY = "fault-proxy"
_WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


def switch(layout: Layout, names: Iterable[str]) -> list[str]:
    """Have exactly these faults; none of them, or ``none``: a lab without. Returns those that are on."""
    wanted = faults.chosen(names)
    with layout.lock():
        layout.write({**layout.read(), "faults": wanted})
        carry_out(layout, wanted)
    return wanted


def active(layout: Layout) -> list[str]:
    """The faults that are on."""
    found: Sequence[str] = layout.read()["faults"]
    return list(found)


def parts(layout: Layout) -> list[str]:
    """The processes that the faults need."""
    return [_PROXY] if any(FAULTS[name].where == "api" for name in active(layout)) else []


def carry_out(layout: Layout, names: Sequence[str]) -> None:
    """Do what these faults need beside the record: the proxy, to which the playbooks' kubeconfig then leads, and the webhook."""
    of_api = [name for name in names if FAULTS[name].where == "api"]
    kinds = sorted({kind for name in names for kind in FAULTS[name].kinds})
    processes.stop(layout, [_PROXY], seconds=1)
    if of_api:
        _start_proxy(layout, of_api)
    ports = layout.read()["ports"]
    pki.write_kubeconfig(layout, "operator", ports[_PROXY if of_api else "kube-apiserver"])
    api = Api(layout, ports["kube-apiserver"])
    api.delete(f"{_WEBHOOKS}/{faults.WEBHOOK}")
    if kinds:
        api.create(_WEBHOOKS, webhook(kinds))


def _start_proxy(layout: Layout, names: Sequence[str]) -> None:
    argv = [sys.executable, "-m", "tests.lab.fault_proxy", "--directory", str(layout.directory)]
    for name in names:
        argv += ["--fault", name]
    processes.start(layout, _PROXY, argv, cwd=CHECKOUT, environment={"PYTHONDONTWRITEBYTECODE": "1"})
    port = layout.read()["ports"][_PROXY]

    def trouble() -> str | None:
        context = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
        context.load_cert_chain(layout.pki / "client-operator.crt", layout.pki / "client-operator.key")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as plain, context.wrap_socket(plain, server_hostname="localhost"):
                return None  # no request: those are counted
        except OSError as e:
            return str(e)

    processes.wait(layout, _PROXY, trouble)


def webhook(kinds: Sequence[str]) -> dict[str, Any]:
    """A webhook that nobody serves, for these kinds of KubeVirt, and for the playbooks' user alone, so that the lab itself goes on."""
    user = IDENTITIES["operator"][0]
    rule = {"apiGroups": ["kubevirt.io"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": list(kinds)}
    hook = {
        "name": faults.WEBHOOK,
        "clientConfig": {"url": faults.NOWHERE},
        "rules": [rule],
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 2,
        "matchConditions": [{"name": "playbooks", "expression": f"request.userInfo.username == '{user}'"}],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": faults.WEBHOOK},
        "webhooks": [hook],
    }
