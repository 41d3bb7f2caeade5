# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Reads what a VM's plan needs, writes the VM and its Secret, and waits until a VM has its place."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import (
    _fleet,
    _kubevirt_gates,
    _kubevirt_view,
    _licence,
    _operands,
    _permit_io,
    _unanswered,
    _vm,
    _vm_plan,
    _vm_why,
)
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._client import ApiError, Client
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._vm import Object, Request

API = "/apis/kubevirt.io/v1"
TYPES = "/apis/instancetype.kubevirt.io/v1beta1"
POLL_SECONDS = 1.0
#: What the API server says where it, or a webhook of KubeVirt's, does not take an object.
_REFUSALS = (400, 403, 409, 422)


def vm_path(namespace: str, name: str) -> str:
    return f"{API}/namespaces/{namespace}/virtualmachines/{name}"


def vmi_path(namespace: str, name: str) -> str:
    return f"{API}/namespaces/{namespace}/virtualmachineinstances/{name}"


def secret_path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/secrets/{name}"


def read_fleet(client: Client) -> t.Tuple[_vm_why.Fleet, Object]:
    """The nodes with who holds what, and the KubeVirt object as gpu_fleet_info has it, with ``memory_overcommit`` in per cent.

    LookupError, with a sentence, without KubeVirt.
    """
    kubevirts = _fleet.list_if_served(client, _fleet.KUBEVIRTS) or []
    kubevirt = _fleet.kubevirt_of(kubevirts)
    vmis = _fleet.list_if_served(client, _fleet.VMIS)
    if kubevirt is None or vmis is None:
        raise LookupError(f"{client.server} has no KubeVirt. Install it first")
    percents = [_vm.at(item, ("spec", "configuration", "developerConfiguration", "memoryOvercommit")) for item in kubevirts]
    kubevirt = {**kubevirt, "memory_overcommit": max((int(percent) for percent in percents if percent), default=100)}
    permitted = _vm_why.permitted_names(kubevirt["permitted"])
    return _vm_why.fleet_of(client.list("/api/v1/nodes"), client.list("/api/v1/pods"), vmis, permitted), kubevirt


def observe(client: Client, request: Request) -> _vm_plan.Seen:
    """What the plan for a VM that is wanted needs. The API server is asked what it would make of it; nothing is written."""
    fleet, kubevirt = read_fleet(client)
    entries = _kubevirt_view.entries_of(kubevirt["permitted"])
    vm = client.find(vm_path(request.namespace, request.name))
    namespace = client.find(f"/api/v1/namespaces/{request.namespace}")
    would_be, refused = None, None
    if namespace is not None and (vm is None or _licence.ours(vm)):
        would_be, refused = _tried(client, request, vm)
    return _vm_plan.Seen(
        namespace=namespace,
        vm=vm,
        vmi=client.find(vmi_path(request.namespace, request.name)),
        would_be=would_be,
        refused=refused,
        fleet=fleet,
        kinds={name: frozenset(entry.kind for entry in found) for name, found in entries.items()},
        version=_kubevirt_gates.parse(kubevirt["version"]),
        overcommit=kubevirt["memory_overcommit"],
        instancetype=client.find(type_path(request)) if request.instancetype else None,
        secret=client.find(secret_path(request.namespace, request.licence.secret)) if request.licence else None,
    )


def type_path(request: Request) -> str:
    name, scope = request.instancetype or ("", "")
    if scope == "cluster":
        return f"{TYPES}/virtualmachineclusterinstancetypes/{name}"
    return f"{TYPES}/namespaces/{request.namespace}/virtualmachineinstancetypes/{name}"


def _tried(client: Client, request: Request, vm: t.Optional[Object]) -> t.Tuple[t.Optional[Object], t.Optional[str]]:
    body = _vm.manifest(request, _vm_plan.run_strategy(request, vm))
    try:
        return client.apply(vm_path(request.namespace, request.name), body, dry_run=True), None
    except ApiError as error:
        if error.status not in _REFUSALS:
            raise
        return None, str(error)


def observe_absence(client: Client, request: Request) -> _vm_plan.Seen:
    """What the plan for a VM that is not wanted needs: the Secret is the one that the VM names, else the one that is asked for."""
    vm = client.find(vm_path(request.namespace, request.name))
    named = secrets_of(vm) or ([request.licence.secret] if request.licence else [])
    secret = client.find(secret_path(request.namespace, named[0])) if named else None
    others = _fleet.list_if_served(client, f"{API}/namespaces/{request.namespace}/virtualmachines") or [] if secret else []
    return _vm_plan.Seen(
        namespace=None,
        vm=vm,
        vmi=client.find(vmi_path(request.namespace, request.name)),
        secret=secret,
        sharers=tuple(
            sorted(o["metadata"]["name"] for o in others if o["metadata"]["name"] != request.name and set(secrets_of(o)) & set(named))
        ),
    )


def secrets_of(vm: t.Optional[Object]) -> t.List[str]:
    """Names of the Secrets that a VM has as disks."""
    volumes = _vm.at(vm, ("spec", "template", "spec", "volumes")) or []
    return [volume["secret"]["secretName"] for volume in volumes if (volume.get("secret") or {}).get("secretName")]


def apply(
    client: Client, request: Request, token: t.Optional[_licence.Token], changes: t.Iterable[Change], dry_run: bool
) -> t.List[Blocker]:
    """Write. A VM without its Secret would not start, so what follows a failure is not tried."""
    blockers: t.List[Blocker] = []
    for change in changes:
        if blockers and not blockers[0].unknown:
            blockers.append(Blocker(change.target, f"not tried, because {blockers[0].target} failed", "It follows with the next run"))
            continue
        try:
            if change.target.startswith("secret "):
                _write_secret(client, request, token, change, dry_run)
            elif change.action == "delete":
                client.delete(vm_path(request.namespace, request.name), dry_run=dry_run)
            else:
                vm = client.find(vm_path(request.namespace, request.name))
                client.apply(vm_path(request.namespace, request.name), _vm.manifest(request, _vm_plan.run_strategy(request, vm)), dry_run)
        except ApiError as error:
            blockers.append(_unanswered.blocker(change.target, error, "Mend that and run again"))
    return blockers


def _write_secret(client: Client, request: Request, token: t.Optional[_licence.Token], change: Change, dry_run: bool) -> None:
    name = change.target.rpartition("/")[2]
    path = secret_path(request.namespace, name)
    if change.action == "delete":
        client.delete(path, dry_run=dry_run)
    elif request.licence and token:
        body = _licence.body(request.licence, token)
        if change.action == "create":
            client.create(path.rpartition("/")[0], body, dry_run=dry_run)
        else:
            client.patch(path, {"data": body["data"]}, dry_run=dry_run)


# ------------------------------------------------------------------ is it there, and why not


class Found(t.NamedTuple):
    """A VM, its instance and the pod that runs it; None where there is none."""

    vm: t.Optional[Object]
    vmi: t.Optional[Object]
    pod: t.Optional[Object]

    @property
    def node(self) -> t.Optional[str]:
        status = (self.vmi or {}).get("status") or {}
        return status.get("nodeName") or ((self.pod or {}).get("spec") or {}).get("nodeName")

    @property
    def phase(self) -> t.Optional[str]:
        return ((self.vmi or {}).get("status") or {}).get("phase")

    @property
    def placed(self) -> bool:
        return self.phase in ("Scheduled", "Running") and self.node is not None

    @property
    def off(self) -> bool:
        """Is it there, and nobody has asked KubeVirt to run it, or has it ended for good?"""
        strategy = _vm.at(self.vm, ("spec", "runStrategy"))
        if self.vmi is None:
            return self.vm is not None and strategy in ("Halted", "Manual")
        return self.phase in ("Succeeded", "Failed") and strategy != "Always"

    @property
    def asked(self) -> t.Dict[str, int]:
        """What the instance asks for, else what the VM does; of an instancetype, only the instance knows."""
        template = {"spec": _vm.at(self.vm, ("spec", "template", "spec")) or {}}
        return {name: n for name, n in _fleet.devices_of(self.vmi or template).items() if not name.startswith("claim ")}


def find(client: Client, namespace: str, name: str) -> Found:
    vmi = client.find(vmi_path(namespace, name))
    pod = None
    if vmi is not None:
        selector = f"kubevirt.io/created-by={vmi['metadata']['uid']}"
        pods = client.list(f"/api/v1/namespaces/{namespace}/pods", {"labelSelector": selector})
        pod = next((item for item in pods if not _operands.terminal(item)), pods[-1] if pods else None)
    return Found(client.find(vm_path(namespace, name)), vmi, pod)


def wait(client: Client, namespace: str, name: str, seconds: float) -> Found:
    """The VM as soon as it has its place, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        found = find(client, namespace, name)
        if found.placed or found.off or (found.vm is None and found.vmi is None) or time.monotonic() >= deadline:
            return found
        time.sleep(POLL_SECONDS)


def views(client: Client, asked: t.Iterable[str]) -> t.List[Object]:
    """These devices from three sides, as kubevirt_permit_info has them: who permits, advertises and asks for each."""
    kubevirt = _fleet.kubevirt_of(_fleet.list_if_served(client, _fleet.KUBEVIRTS)) or {}
    found = _kubevirt_view.view(
        kubevirt.get("permitted"), client.list("/api/v1/nodes"), _permit_io.users(client), _operands.RESOURCE_PREFIX
    )
    return [device for device in found["devices"] if device["resource_name"] in set(asked)]
