#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_vm_probe
short_description: Prove devices with throwaway VMs
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Starts one VM without a disk per device, and deletes it as soon as it has a place, or as soon as KubeVirt has refused it.
  - A device of which every unit is in use is not tested, and that is no failure.
  - Explains why a VM gets no place. KubeVirt's own words about a device that is not permitted are part of it.
  - A VM has its place when its pod runs on a node. If a pod has had a node for 20 seconds and the kubelet did not refuse the device,
    that counts, too, so that a slow image registry is no failure.
  - A refusal counts only after 15 seconds where a place is expected, because KubeVirt takes a moment to see a new permit.
  - Probe VMs are no state, so RV(ignore:changed) is always false. What a killed run left is removed by the next one.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    description: Says what it would prove.
  diff_mode:
    support: none
    description: Leaves nothing behind.
options:
  resources:
    description: The devices.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Resource name.
        type: str
        required: true
      node:
        description: The node on which to prove it. Without it, any.
        type: str
      expect:
        description: V(scheduled) if a VM must get a place, V(denied) if KubeVirt must refuse the device.
        type: str
        choices: [scheduled, denied]
        default: scheduled
  namespace:
    description: Namespace of the VMs. It is created if it is missing, and removed again if this module created it.
    type: str
    default: gpufleet-probe
  memory:
    description: Memory of each VM.
    type: str
    default: 64Mi
  timeout:
    description: Seconds until each VM must have a place.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Prove a vGPU
  gpufleet.kubevirt.gpu_vm_probe:
    resources:
      - name: nvidia.com/NVIDIA_A10-4Q
        node: gpu02
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
results:
  description: One entry per device. C(verdict) is V(proven), V(denied), V(not tested) or V(failed).
  type: list
  elements: dict
  returned: always
  sample:
    - name: nvidia.com/NVIDIA_A10-4Q
      expect: scheduled
      verdict: proven
      node: gpu02
      explanation: "nvidia.com/NVIDIA_A10-4Q: a VM with it was admitted, permitted and scheduled to gpu02"
"""

import calendar
import secrets
import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _client, _fleet, _operands, _probe

DOING = "Proving devices with VMs"
GONE_SECONDS = 60
POLL_SECONDS = 0.3


class Run:
    """The probes of one call."""

    def __init__(self, module, client, probes):
        self.module = module
        self.client = client
        self.probes = probes
        self.namespace = f"/api/v1/namespaces/{module.params['namespace']}"
        self.instances = f"/apis/kubevirt.io/v1/namespaces/{module.params['namespace']}/virtualmachineinstances"
        self.made_namespace = False
        self.fleet = None
        self.names = {}  # number of the probe -> name of its VM
        self.verdicts = {}

    def fail(self, what):
        self.module.fail_json(msg=f"{DOING}: {what}. Nothing was proven.", results=[])

    def go(self):
        self.remove_leftovers()
        self.read()
        for number, probe in enumerate(self.probes):
            known = _probe.before(probe, self.fleet)
            if known:
                self.verdicts[number] = known
        needed = [number for number in range(len(self.probes)) if number not in self.verdicts]
        if needed:
            try:
                self.prepare()
                began = {}
                for number in needed:
                    began[number] = time.monotonic()
                    self.create(number)
                self.watch(began)
            finally:
                self.clean()

    def read(self):
        nodes = self.client.list("/api/v1/nodes")
        vmis = _fleet.list_if_served(self.client, _fleet.VMIS)
        kubevirt = _fleet.kubevirt_of(_fleet.list_if_served(self.client, _fleet.KUBEVIRTS))
        if vmis is None or kubevirt is None:
            self.fail("the cluster has no KubeVirt, so no VM can be started; install it, or leave the smoke test out")
        self.fleet = _probe.Fleet(
            _fleet.node_facts(nodes, self.client.list("/api/v1/pods"), vmis),
            {node["metadata"]["name"]: _operands.labels(node).get(_probe.HOSTNAME, node["metadata"]["name"]) for node in nodes},
            _probe.permitted_names(kubevirt["permitted"]),
        )

    def prepare(self):
        deadline = time.monotonic() + GONE_SECONDS
        while True:
            found = self.client.find(self.namespace)
            if found is None:
                body = {"metadata": {"name": self.module.params["namespace"], "annotations": {_probe.NAMESPACE_NOTE: "true"}}}
                self.client.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", **body})
                self.made_namespace = True
                return
            if (found.get("status") or {}).get("phase") != "Terminating":
                # A killed run may have left its namespace, which is ours to remove.
                self.made_namespace = _operands.annotations_of(found).get(_probe.NAMESPACE_NOTE) == "true"
                return
            if time.monotonic() > deadline:
                self.fail(f"namespace {self.module.params['namespace']} is being deleted and does not go; look at its finalizers")
            time.sleep(POLL_SECONDS)

    def remove_leftovers(self):
        """VMs of a run that was killed: older than any probe of a living run can be. They go before anybody counts what is free."""
        old = []
        query = {"labelSelector": f"{_probe.LABEL}=true"}
        for vmi in _fleet.list_if_served(self.client, self.instances, query) or []:
            made = calendar.timegm(time.strptime(vmi["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ"))
            if time.time() - made > self.module.params["timeout"] + GONE_SECONDS:
                old.append(vmi["metadata"]["name"])
        self.delete(old)

    def create(self, number):
        probe = self.probes[number]
        name = f"probe-{number}-{secrets.token_hex(3)}"
        # Noted before it exists: an answer that got lost must not leave a VM behind.
        self.names[number] = name
        try:
            self.client.create(self.instances, _probe.instance(probe, name, self.module.params["memory"], self.fleet.hostnames))
        except _client.ApiError as error:
            if error.status != 409:  # the name is random: if it is taken, an earlier attempt arrived
                self.verdicts[number] = _probe.Verdict("failed", f"{probe.resource}: the VM was not admitted: {error}")

    def watch(self, began):
        bound = {}
        while True:
            vmis = {vmi["metadata"]["name"]: vmi for vmi in self.client.list(self.instances)}
            pods = {}
            for pod in self.client.list(f"{self.namespace}/pods", {"labelSelector": "kubevirt.io=virt-launcher"}):
                pods.setdefault(_operands.labels(pod).get("kubevirt.io/created-by"), pod)
            now = time.monotonic()
            for number, name in self.names.items():
                if number in self.verdicts:
                    continue
                vmi = vmis.get(name)
                probe = self.probes[number]
                verdict = _probe.judge(probe, vmi, pods.get(vmi["metadata"]["uid"]) if vmi else None, self.fleet)
                if verdict.node:
                    bound.setdefault(number, now)
                since = now - bound[number] if number in bound else None
                verdict = _probe.aged(probe, verdict, now - began[number], since, self.module.params["timeout"])
                if verdict.verdict != "waiting":
                    self.verdicts[number] = verdict
            if all(number in self.verdicts for number in self.names):
                return
            time.sleep(POLL_SECONDS)

    def delete(self, names):
        """Delete VMs and wait until their devices are free again: the VM and its pod are gone. Returns those that stay."""
        for name in names:
            self.client.delete(f"{self.instances}/{name}")
        left = set(names)
        deadline = time.monotonic() + GONE_SECONDS
        while left:
            present = {vmi["metadata"]["name"] for vmi in self.client.list(self.instances)}
            pods = self.client.list(f"{self.namespace}/pods", {"labelSelector": "kubevirt.io=virt-launcher"})
            present |= {_fleet.vmi_of(pod) for pod in pods if not _operands.terminal(pod)}
            left &= present
            if left and time.monotonic() > deadline:
                break
            if left:
                time.sleep(POLL_SECONDS)
        return sorted(left)

    def clean(self):
        """Delete what was made. Trouble here must not hide what was found out."""
        where = self.module.params["namespace"]
        try:
            left = self.delete(list(self.names.values()))
            if left:
                self.module.warn(f"Probe VMs in namespace {where} do not go away: {', '.join(left)}. The next run removes them.")
            elif self.made_namespace and not self.client.list(self.instances):
                self.client.delete(self.namespace)
        except _client.ApiError as error:
            self.module.warn(f"Probe VMs in namespace {where} may be left: {error}. The next run removes them.")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_client.auth_argument_spec(),
            "resources": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "node": {"type": "str"},
                    "expect": {"type": "str", "choices": ["scheduled", "denied"], "default": "scheduled"},
                },
            },
            "namespace": {"type": "str", "default": "gpufleet-probe"},
            "memory": {"type": "str", "default": "64Mi"},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    probes = [_probe.Probe(entry["name"], entry["node"], entry["expect"]) for entry in module.params["resources"]]
    try:
        for probe in probes:
            _names.check_resource_name(probe.resource)
    except ValueError as error:
        module.fail_json(msg=f"{DOING}: {error}. Nothing was changed.", results=[])
    if module.check_mode:
        module.exit_json(changed=False, results=[], msg=f"Would prove {', '.join(probe.resource for probe in probes) or 'nothing'}.")
    run = Run(module, _client.connect(module), probes)
    try:
        run.go()
    except _client.ApiError as error:
        run.fail(error)
    results = [
        {"name": p.resource, "expect": p.expect, "verdict": v.verdict, "node": v.node, "explanation": v.explanation}
        for p, v in ((probe, run.verdicts[number]) for number, probe in enumerate(probes))
    ]
    wrong = [number for number, probe in enumerate(probes) if _probe.contradicts(probe, run.verdicts[number])]
    if wrong:
        lines = [f"- expected {probes[number].expect}: {results[number]['explanation']}." for number in wrong]
        module.fail_json(msg="\n".join([f"{DOING}: {len(wrong)} of {len(probes)} not as expected.", *lines]), results=results)
    module.exit_json(changed=False, results=results)


if __name__ == "__main__":
    main()
