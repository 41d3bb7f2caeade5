#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_vm_info
short_description: Say whether a VM has its GPUs, and why not
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Reads one VM, or an instance without a VM, whoever made it, and says on which node it has its devices.
  - If it has no place, names one cause from three sides, who permits its devices, which nodes advertise them and who holds them there, and what
    it asks for; with KubeVirt's, the scheduler's or the kubelet's own words, and with what to do.
  - Only reads.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    description: Only reads. It does not wait, and a VM that is not there is no failure.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  name:
    description: Name of the VM.
    type: str
    required: true
  namespace:
    description: Its namespace.
    type: str
    required: true
  wait:
    description:
      - Wait until the VM has its place, and fail with the cause if it has none in time. It has one when KubeVirt says C(Scheduled) or C(Running).
      - A VM that is not to run is not waited for.
    type: bool
    default: false
  wait_timeout:
    description: Seconds to wait.
    type: int
    default: 300
seealso:
  - module: gpufleet.kubevirt.gpu_vm
  - module: gpufleet.kubevirt.kubevirt_permit_info
"""

EXAMPLES = r"""
- name: Ask why a VM does not start
  gpufleet.kubevirt.gpu_vm_info:
    name: workstation
    namespace: design
  register: found
  delegate_to: localhost
  run_once: true

- name: Show it
  ansible.builtin.debug:
    msg: "{{ found.cause }}"
"""

RETURN = r"""
vm:
  description:
    - What was found; null if there is no such VM. C(phase) is that of its instance, null if there is none.
    - C(restart_required) says that KubeVirt holds back a change of its template until its next start.
  type: dict
  returned: success
  sample:
    name: workstation
    namespace: design
    run_strategy: Always
    phase: Scheduled
    node: gpu02
    resources: {nvidia.com/NVIDIA_A10-4Q: 1}
    restart_required: false
cause:
  description:
    - Why it has no place; null if it has one. C(name) is one of V(not permitted), V(not advertised), V(not together), V(in use),
      V(node not available), V(scheduler), V(device refused), V(not to run), V(kubevirt) and V(waiting).
  type: dict
  returned: always, if the cluster could be read
  sample:
    name: in use
    problem: "every node that has nvidia.com/NVIDIA_A10-4Q has too few free, held by gpu02: design/other"
    remedy: Stop one of these, or add devices
devices:
  description:
    - What the VM asks for, from three sides, as RV(gpufleet.kubevirt.kubevirt_permit_info#module:devices) has it. Empty if it has its place.
  type: list
  elements: dict
  returned: always, if the cluster could be read
  sample:
    - resource_name: nvidia.com/NVIDIA_A10-4Q
      permitted: true
      entries: [{kind: mdev, selector: NVIDIA A10-4Q, external: true}]
      advertised: {gpu02: 6}
      requested_by: [VM design/other, VM design/workstation, VMI design/other, VMI design/workstation]
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _client, _vm, _vm_io, _vm_why

DOING = "Looking at VM"


def _shown(found, name, namespace):
    if found.vm is None and found.vmi is None:
        return None
    conditions = _vm.at(found.vm, ("status", "conditions")) or []
    return {
        "name": name,
        "namespace": namespace,
        "run_strategy": _vm.at(found.vm, ("spec", "runStrategy")),
        "phase": found.phase,
        "node": found.node,
        "resources": found.asked,
        "restart_required": any(c.get("type") == "RestartRequired" and c.get("status") == "True" for c in conditions),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_client.auth_argument_spec(),
            "name": {"type": "str", "required": True},
            "namespace": {"type": "str", "required": True},
            "wait": {"type": "bool", "default": False},
            "wait_timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    name, namespace = module.params["name"], module.params["namespace"]
    waits = module.params["wait"] and not module.check_mode
    where = f"{DOING} {namespace}/{name}"
    client = _client.connect(module)
    try:
        fleet, _kubevirt = _vm_io.read_fleet(client)
        found = _vm_io.wait(client, namespace, name, module.params["wait_timeout"] if waits else 0)
        if not found.placed and waits:
            fleet, _kubevirt = _vm_io.read_fleet(client)  # what stands in the way now, not when the wait began
        devices = _vm_io.views(client, found.asked) if found.asked and not found.placed else []
    except (_client.ApiError, LookupError) as error:
        module.fail_json(msg=f"{where}: {error.args[0] if isinstance(error, LookupError) else error}.")
    shown = _shown(found, name, namespace)
    if shown is None and waits:
        module.fail_json(
            msg=f"{where}: there is no such VM. Look for its name with gpu_fleet_info, or make it with gpu_vm.", vm=None, cause=None
        )
    cause = None
    if shown is not None and not found.placed:
        cause = _vm_why.cause(found.asked, found.vm, found.vmi, found.pod, fleet)
        if cause.name == "not permitted":
            sides = " ".join(f"{device['resource_name']} is {_vm_why.sides(device)}." for device in devices if not device["permitted"])
            cause = dataclasses.replace(cause, problem=f"{cause.problem}. {sides}".rstrip(". "))
    told = {"vm": shown, "devices": devices, "cause": vars(cause) if cause else None}
    if cause and waits and cause.name != "not to run":
        seconds = module.params["wait_timeout"]
        module.fail_json(msg=f"{where}: it has no place after {seconds} s: {cause.problem}. {cause.remedy}.", **told)
    module.exit_json(changed=False, **told)


if __name__ == "__main__":
    main()
