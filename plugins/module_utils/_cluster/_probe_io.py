# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Makes the VMs and pods that prove devices, watches them, and removes them again."""

from __future__ import annotations

import calendar
import dataclasses
import secrets
import time
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import (
    _fleet,
    _kubevirt_view,
    _operands,
    _permit_io,
    _probe,
    _vm_why,
)
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._client import ApiError, Client
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object

GONE_SECONDS = 60.0
POLL_SECONDS = 0.3
#: A new namespace gets its service account a moment later, and no pod is admitted before.
ACCOUNT_SECONDS = 10.0
_LAUNCHERS = {"labelSelector": "kubevirt.io=virt-launcher"}
_KINDS = ("vm", "pod")


class Stopped(Exception):
    """Nothing can be proven at all; says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """``timeout``: seconds until each probe must have its place. ``memory``: of a VM. ``image``: of a pod."""

    namespace: str
    timeout: float
    memory: str
    image: str


class Run:
    """The probes of one call. ``verdicts`` by number of the probe; ``warnings`` about what was left behind."""

    def __init__(self, client: Client, settings: Settings, probes: t.Sequence[_probe.Probe]) -> None:
        self.client = client
        self.settings = settings
        self.probes = probes
        self.verdicts: t.Dict[int, _probe.Verdict] = {}
        self.warnings: t.List[str] = []
        self._namespace = f"/api/v1/namespaces/{settings.namespace}"
        #: Kind -> its collection.
        self._made_in = {
            "vm": f"/apis/kubevirt.io/v1/namespaces/{settings.namespace}/virtualmachineinstances",
            "pod": f"{self._namespace}/pods",
        }
        self._made_namespace = False
        self._names: t.Dict[int, str] = {}
        self._fleet = _vm_why.Fleet()

    def go(self) -> None:
        """Prove all. Raises :class:`Stopped` or ApiError; nothing is left behind then either."""
        self._remove_leftovers()
        self._fleet = self._read()
        for number, probe in enumerate(self.probes):
            known = _probe.before(probe, self._fleet)
            if known:
                self.verdicts[number] = known
        needed = [number for number in range(len(self.probes)) if number not in self.verdicts]
        if needed:
            try:
                self._prepare()
                began = {}
                for number in needed:
                    began[number] = time.monotonic()
                    self._create(number)
                self._watch(began)
            finally:
                self._clean()
        self._explain()

    def _read(self) -> _vm_why.Fleet:
        nodes = self.client.list("/api/v1/nodes")
        vmis = _fleet.list_if_served(self.client, _fleet.VMIS)
        kubevirt = _fleet.kubevirt_of(_fleet.list_if_served(self.client, _fleet.KUBEVIRTS))
        if (vmis is None or kubevirt is None) and any(probe.kind == "vm" for probe in self.probes):
            raise Stopped("the cluster has no KubeVirt, so no VM can be started; install it, or leave the smoke test out")
        permitted = _vm_why.permitted_names(kubevirt["permitted"]) if kubevirt else []
        return _vm_why.fleet_of(nodes, self.client.list("/api/v1/pods"), vmis or [], permitted)

    def _prepare(self) -> None:
        """Have the namespace."""
        deadline = time.monotonic() + GONE_SECONDS
        while True:
            found = self.client.find(self._namespace)
            if found is None:
                body = {"metadata": {"name": self.settings.namespace, "annotations": {_probe.NAMESPACE_NOTE: "true"}}}
                self.client.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", **body})
                self._made_namespace = True
                return
            if (found.get("status") or {}).get("phase") != "Terminating":
                # A killed run may have left its namespace, which is ours to remove.
                self._made_namespace = _operands.annotations_of(found).get(_probe.NAMESPACE_NOTE) == "true"
                return
            if time.monotonic() > deadline:
                raise Stopped(f"namespace {self.settings.namespace} is being deleted and does not go; look at its finalizers")
            time.sleep(POLL_SECONDS)

    def _remove_leftovers(self) -> None:
        """What a run that was killed left: older than any probe of a living run can be. It goes before anybody counts what is free."""
        for kind in _KINDS:
            old = []
            for item in self._ours(kind):
                made = calendar.timegm(time.strptime(item["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ"))
                if time.time() - made > self.settings.timeout + GONE_SECONDS:
                    old.append(item["metadata"]["name"])
            self._delete(kind, old)

    def _ours(self, kind: str) -> t.List[Object]:
        """Probes of this or another run. A VM's pod carries the labels of its VM, so a probe that is a pod has another value."""
        return _fleet.list_if_served(self.client, self._made_in[kind], {"labelSelector": f"{_probe.LABEL}={_probe.VALUES[kind]}"}) or []

    def _create(self, number: int) -> None:
        probe = self.probes[number]
        name = f"probe-{number}-{secrets.token_hex(3)}"
        # Noted before it exists: an answer that got lost must not leave anything behind.
        self._names[number] = name
        if probe.kind == "vm":
            body = _probe.instance(probe, name, self.settings.memory, self._fleet.hostnames)
        else:
            body = _probe.pod(probe, name, self.settings.image, self._fleet.hostnames)
        deadline = time.monotonic() + ACCOUNT_SECONDS
        while True:
            try:
                self.client.create(self._made_in[probe.kind], body)
            except ApiError as error:
                if error.status == 409:  # the name is random: if it is taken, an earlier attempt arrived
                    return
                if error.status == 403 and "service account" in str(error) and time.monotonic() < deadline:
                    time.sleep(POLL_SECONDS)
                    continue
                what = "VM" if probe.kind == "vm" else "pod"
                self.verdicts[number] = _probe.Verdict("failed", f"{probe.resource}: the {what} was not admitted: {error}")
            return

    def _watch(self, began: t.Mapping[int, float]) -> None:
        bound: t.Dict[int, float] = {}
        while True:
            kinds = {self.probes[number].kind for number in self._names if number not in self.verdicts}
            found = {kind: {item["metadata"]["name"]: item for item in self._ours(kind)} for kind in kinds}
            launchers: t.Dict[t.Optional[str], Object] = {}
            if "vm" in kinds:
                for pod in self.client.list(self._made_in["pod"], _LAUNCHERS):
                    launchers.setdefault(_operands.labels(pod).get("kubevirt.io/created-by"), pod)
            now = time.monotonic()
            for number, name in self._names.items():
                if number in self.verdicts:
                    continue
                probe = self.probes[number]
                item = found[probe.kind].get(name)
                if probe.kind == "pod":
                    verdict = _probe.judge_pod(probe, item, self._fleet)
                else:
                    verdict = _probe.judge(probe, item, launchers.get(item["metadata"]["uid"]) if item else None, self._fleet)
                if verdict.node:
                    bound.setdefault(number, now)
                since = now - bound[number] if number in bound else None
                verdict = _probe.aged(probe, verdict, now - began[number], since, self.settings.timeout)
                if verdict.verdict != "waiting":
                    self.verdicts[number] = verdict
            if all(number in self.verdicts for number in self._names):
                return
            time.sleep(POLL_SECONDS)

    def _delete(self, kind: str, names: t.Iterable[str]) -> t.List[str]:
        """Delete probes and wait until their devices are free again: a VM is gone when its pod is, too. Returns those that stay."""
        left = set(names)
        for name in sorted(left):
            self.client.delete(f"{self._made_in[kind]}/{name}")
        deadline = time.monotonic() + GONE_SECONDS
        while left:
            present = {item["metadata"]["name"] for item in self._ours(kind)}
            if kind == "vm":
                launchers = self.client.list(self._made_in["pod"], _LAUNCHERS)
                present |= {str(_fleet.vmi_of(pod)) for pod in launchers if not _operands.terminal(pod)}
            left &= present
            if left and time.monotonic() > deadline:
                break
            if left:
                time.sleep(POLL_SECONDS)
        return sorted(left)

    def _clean(self) -> None:
        """Delete what was made. Trouble here must not hide what was found out."""
        where = self.settings.namespace
        try:
            left = []
            for kind in _KINDS:
                left += self._delete(kind, [name for number, name in self._names.items() if self.probes[number].kind == kind])
            if left:
                self.warnings.append(f"Probes in namespace {where} do not go away: {', '.join(left)}. The next run removes them.")
            elif self._made_namespace and not any(self._ours(kind) for kind in _KINDS):
                self.client.delete(self._namespace)
        except ApiError as error:
            self.warnings.append(f"Probes in namespace {where} may be left: {error}. The next run removes them.")

    def _explain(self) -> None:
        """A refusal that nobody expected is shown from all three sides: who permits the device, who advertises it, who asks for it."""
        refused = [n for n, verdict in self.verdicts.items() if verdict.verdict == "denied" and self.probes[n].expect == "scheduled"]
        if not refused:
            return
        try:
            kubevirt = _fleet.kubevirt_of(_fleet.list_if_served(self.client, _fleet.KUBEVIRTS)) or {}
            users = _permit_io.users(self.client)
            view = _kubevirt_view.view(kubevirt.get("permitted"), self.client.list("/api/v1/nodes"), users, _operands.RESOURCE_PREFIX)
        except (ApiError, ValueError) as error:
            self.warnings.append(f"Who permits, advertises and asks for what was refused could not be read: {error}")
            return
        devices = {device["resource_name"]: device for device in view["devices"]}
        for number in refused:
            device = devices.get(self.probes[number].resource)
            if device:
                verdict = self.verdicts[number]
                self.verdicts[number] = dataclasses.replace(verdict, explanation=f"{verdict.explanation} ({_vm_why.sides(device)})")
