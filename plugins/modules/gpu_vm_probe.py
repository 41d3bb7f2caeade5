#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_vm_probe
short_description: Prove devices with throwaway VMs and pods
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Starts one VM without a disk per device, or a pod where the device is for containers, and deletes it as soon as it has a place, or as
    soon as KubeVirt has refused it.
  - A device of which every unit is in use is not tested, and that is no failure. Neither is one of a node that is cordoned.
  - Explains why there is no place, that is, who holds the devices, which nodes are out of service, or what else the scheduler misses. A device
    that KubeVirt refuses is shown from three sides, who permits it, which nodes advertise it and who asks for it, with KubeVirt's own words. A
    device that its list lacks takes no VM to be refused.
  - A VM has its place when its pod runs on a node and asks for one unit of the device there. If a pod has had a node for 20 seconds and the kubelet
    did not refuse the device, that counts, too, so that a slow image registry is no failure.
  - A refusal counts only after 15 seconds where a place is expected, because KubeVirt takes a moment to see a new permit.
  - So does a pod. What it proves is that the scheduler and the kubelet give it the device; no program of it uses the GPU.
  - Probes are no state, so RV(ignore:changed) is always false. What a killed run left is removed by the next one, which knows it by its label.
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
      kind:
        description: Who asks for the device, a V(vm), or a V(pod), which KubeVirt's list does not concern.
        type: str
        choices: [vm, pod]
        default: vm
  namespace:
    description: Namespace of the probes. It is created if it is missing, and removed again if this module created it.
    type: str
    default: gpufleet-probe
  memory:
    description: Memory of each VM.
    type: str
    default: 64Mi
  image:
    description: Image of each pod. It must run for a while without arguments; whether it can be pulled decides nothing.
    type: str
    default: registry.k8s.io/pause:3.10
  timeout:
    description: Seconds until each probe must have a place.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Prove a vGPU
  gpufleet.kubevirt.gpu_vm_probe:
    resources:
      - name: nvidia.com/NVIDIA_A10-4Q
        node: gpu02
      - name: nvidia.com/gpu
        node: gpu03
        kind: pod
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
      kind: vm
      expect: scheduled
      verdict: proven
      node: gpu02
      explanation: "nvidia.com/NVIDIA_A10-4Q: a VM with it was admitted, permitted, counted as one and scheduled to gpu02"
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _client, _probe, _probe_io

DOING = "Proving devices"


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
                    "kind": {"type": "str", "choices": ["vm", "pod"], "default": "vm"},
                },
            },
            "namespace": {"type": "str", "default": "gpufleet-probe"},
            "memory": {"type": "str", "default": "64Mi"},
            "image": {"type": "str", "default": "registry.k8s.io/pause:3.10"},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    params = module.params
    probes = [_probe.Probe(entry["name"], entry["node"], entry["expect"], entry["kind"]) for entry in params["resources"]]
    try:
        for probe in probes:
            _names.check_resource_name(probe.resource)
            if (probe.kind, probe.expect) == ("pod", "denied"):
                raise ValueError(f"{probe.resource} is to be denied to a pod, and KubeVirt's list does not concern pods; use kind vm")
    except ValueError as error:
        module.fail_json(msg=f"{DOING}: {error}. Nothing was changed.", results=[])
    if module.check_mode:
        module.exit_json(changed=False, results=[], msg=f"Would prove {'; '.join(map(str, probes)) or 'nothing'}.")
    run = _probe_io.Run(
        _client.connect(module), _probe_io.Settings(params["namespace"], params["timeout"], params["memory"], params["image"]), probes
    )
    failure = None
    try:
        run.go()
    except (_client.ApiError, _probe_io.Stopped) as error:
        failure = str(error)
    for warning in run.warnings:
        module.warn(warning)
    if failure is not None:
        module.fail_json(msg=f"{DOING}: {failure}. Nothing was proven.", results=[])
    results = [
        {"name": p.resource, "kind": p.kind, "expect": p.expect, "verdict": v.verdict, "node": v.node, "explanation": v.explanation}
        for p, v in ((probe, run.verdicts[number]) for number, probe in enumerate(probes))
    ]
    wrong = [number for number, probe in enumerate(probes) if _probe.contradicts(probe, run.verdicts[number])]
    if wrong:
        lines = [f"- expected {probes[number].expect}: {results[number]['explanation']}." for number in wrong]
        module.fail_json(msg="\n".join([f"{DOING}: {len(wrong)} of {len(probes)} not as expected.", *lines]), results=results)
    module.exit_json(changed=False, results=results)


if __name__ == "__main__":
    main()
