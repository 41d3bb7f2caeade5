# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""KubeVirt in the lab: its real definitions, admission (virt-api) and virt-controller, without virt-operator and virt-handler.

What virt-operator would write is written here: the KubeVirt object's phase, without which the other components ignore its
configuration. What virt-handler would do beyond a node's label is not there: a virtual machine instance stops at Scheduled.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.lab import build, processes
from tests.lab.api import Api
from tests.lab.layout import LabError, Layout

VERSION = "v1.7.0"  # go/kubevirt/go.mod
NAMESPACE = "kubevirt"
OBJECT = f"/apis/kubevirt.io/v1/namespaces/{NAMESPACE}/kubevirts/kubevirt"
# As an installation from the release's own manifest has it.
FRESH_SPEC: dict[str, Any] = {"configuration": {"developerConfiguration": {"featureGates": []}}, "imagePullPolicy": "IfNotPresent"}
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def objects(directory: Path, *arguments: str) -> list[dict[str, Any]]:
    """What KubeVirt's own package generates: definitions, or webhooks."""
    argv = [build.program(directory, "kubelab-kubevirt"), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise LabError(f"Making KubeVirt's objects with {argv[0]}: {done.stderr.strip()}")
    items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return items


def install(layout: Layout, api: Api, directory: Path) -> None:
    """The definitions, the namespace and the KubeVirt object, as if virt-operator had deployed it."""
    definitions = objects(directory)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda d: api.create(_DEFINITIONS, d), definitions))
    api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    bundle = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kubevirt-ca"},
        "data": {"ca-bundle": (layout.pki / "ca.crt").read_text()},
    }
    api.create(f"/api/v1/namespaces/{NAMESPACE}/configmaps", bundle)
    waiting = [d["metadata"]["name"] for d in definitions]

    def served() -> bool:
        while waiting and _established(api, waiting[-1]):
            waiting.pop()
        return not waiting

    _wait(served, "KubeVirt's definitions to be served")
    write_object(api)


def _established(api: Api, name: str) -> bool:
    conditions = api.get(f"{_DEFINITIONS}/{name}")["status"]["conditions"] or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def write_object(api: Api) -> None:
    """Create the KubeVirt object, or put it back to its fresh state."""
    fresh = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", "namespace": NAMESPACE},
        "spec": FRESH_SPEC,
    }
    present = api.find(OBJECT)
    if present is None:
        present = api.create(OBJECT.rsplit("/", 1)[0], fresh)
    else:
        fresh["metadata"]["resourceVersion"] = present["metadata"]["resourceVersion"]  # type: ignore[index]
        present = api.replace(OBJECT, fresh)
    status = {
        "phase": "Deployed",
        "defaultArchitecture": "amd64",
        "observedKubeVirtVersion": VERSION,
        "targetKubeVirtVersion": VERSION,
        "operatorVersion": VERSION,
        "observedGeneration": present["metadata"].get("generation", 1),
        "conditions": [{"type": "Available", "status": "True", "reason": "AllComponentsReady", "message": "set by the lab"}],
    }
    api.patch(OBJECT + "/status", {"status": status})


def start(
    layout: Layout, api: Api, directory: Path, argv: dict[str, list[str]], checks: dict[str, Callable[[], str | None]], port: int
) -> None:
    """virt-api and virt-controller, then virt-api's webhooks."""
    for part in ("virt-api", "virt-controller"):
        processes.start(layout, part, argv[part])
    processes.wait(layout, "virt-api", checks["virt-api"])
    plural = {
        "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
        "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
    }
    for hook in objects(directory, f"-webhook-url=https://127.0.0.1:{port}", f"-ca={layout.pki / 'ca.crt'}"):
        api.create(f"/apis/admissionregistration.k8s.io/v1/{plural[hook['kind']]}", hook)
    processes.wait(layout, "virt-controller", checks["virt-controller"])


def clear(api: Api) -> None:
    """Delete all virtual machines and instances, wherever they are, and wait until they are gone."""
    kinds = ("virtualmachines", "virtualmachineinstancereplicasets", "virtualmachineinstances")

    def left() -> list[str]:
        return [
            f"/apis/kubevirt.io/v1/namespaces/{o['metadata']['namespace']}/{kind}/{o['metadata']['name']}"
            for kind in kinds
            for o in api.items(f"/apis/kubevirt.io/v1/{kind}")
        ]

    for path in left():
        api.delete(path, {"gracePeriodSeconds": 0})
    _wait(lambda: not left(), "virtual machines to be gone")


def _wait(ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(f"Waiting for {what}: not so after {seconds:.0f} s.")
        time.sleep(0.1)
