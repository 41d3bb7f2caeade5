#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_vm
short_description: Have a KubeVirt VM with GPUs
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Has one VirtualMachine with GPUs or vGPUs, and a vGPU licence's client token in a Secret of its namespace, as a disk of the guest.
  - Refuses, before anything is written, what could not start. That is a device that KubeVirt does not permit or that no node advertises,
    GPUs that no one node has together, vGPUs that cannot be in one VM, memory that VFIO could not pin, an instancetype that
    brings GPUs or memory already, and a Secret without the token.
  - Restarts nothing. A change of a VM that runs takes effect at its next start, and a warning says so.
  - Changes and deletes only VMs and Secrets that it has made. It knows them by the annotation C(gpufleet.kubevirt/made-by).
  - Fields that others have set and that are not asked for here stay as they are (server-side apply).
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    description: Asks the API server, with KubeVirt's webhooks, by C(dryRun=All).
  diff_mode:
    support: full
    description: Shows the fields that differ. Of the token and of cloud-init's data, only that they differ.
options:
  name:
    description: Name of the VM.
    type: str
    required: true
  namespace:
    description: Its namespace, which must be there.
    type: str
    required: true
  state:
    description: V(absent) deletes the VM, also if it runs, and the Secret that was made for it if no other VM of the namespace has it.
    type: str
    choices: [present, absent]
    default: present
  gpus:
    description: Its devices. None, with an O(instancetype) that has some.
    type: list
    elements: dict
    default: []
    suboptions:
      resource:
        description: Resource name, as nodes advertise it and KubeVirt permits it.
        type: str
        required: true
      name:
        description: Name of the device in the VM. By default V(gpu0), V(gpu1) and so on.
        type: str
      display:
        description: Whether a vGPU has a display. Without it for any GPU, KubeVirt gives the first mediated device one.
        type: bool
      ramfb:
        description: Whether that display has a boot framebuffer. Only one of a VM's can. By default it has one if it has a display.
        type: bool
  instancetype:
    description: An instancetype, which has processors and memory, and may have GPUs.
    type: dict
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      scope:
        description: Whether it is of the whole cluster, or of the VM's namespace.
        type: str
        choices: [cluster, namespace]
        default: cluster
  preference:
    description: A preference.
    type: dict
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      scope:
        description: Whether it is of the whole cluster, or of the VM's namespace.
        type: str
        choices: [cluster, namespace]
        default: cluster
  cpu_cores:
    description: Processor cores of the guest. By default KubeVirt's, which is 1.
    type: int
  memory:
    description:
      - Memory of the guest, such as V(16Gi). All of it is requested of the node, because VFIO pins it, also where KubeVirt overcommits memory.
    type: str
  run_strategy:
    description:
      - Whether the VM runs. Without it, V(Always) for a VM that is made, and left as it is for one that is there.
    type: str
    choices: [Always, Halted, Manual, Once, RerunOnFailure]
  spec:
    description:
      - All else of the VirtualMachine's C(spec), in KubeVirt's own words, such as disks and volumes below C(template.spec).
      - If it names no network and no interface, the VM gets the pod network behind its address (masquerade).
      - Cloud-init's data belongs into a Secret that is named here, because module arguments are logged.
    type: dict
    default: {}
  licence:
    description:
      - A vGPU licence's client token for the guest, on a read-only disk (ISO 9660) with the serial number and the label C(GPUFLEETLICENCE).
      - The guest does not take it by itself. Copy it to where its driver looks, at each start or once.
    type: dict
    suboptions:
      secret:
        description: Name of the Secret in the VM's namespace.
        type: str
        default: gpufleet-licence
      key:
        description: Key in the Secret, and name of the file on the disk.
        type: str
        default: client_configuration_token.tok
      token_file:
        description:
          - The token's file on the machine that the module runs on. The Secret is made from it. The content is in no argument, result, log or diff.
          - Without it the Secret must be there.
        type: path
seealso:
  - module: gpufleet.kubevirt.gpu_vm_info
  - module: gpufleet.kubevirt.kubevirt_permit
"""

EXAMPLES = r"""
- name: Have a VM with a vGPU
  gpufleet.kubevirt.gpu_vm:
    name: workstation
    namespace: design
    gpus:
      - resource: nvidia.com/NVIDIA_A10-4Q
    cpu_cores: 8
    memory: 16Gi
    licence:
      token_file: /run/secrets/client_configuration_token.tok
    spec:
      template:
        spec:
          domain:
            devices:
              disks:
                - {name: root, disk: {bus: virtio}}
          volumes:
            - {name: root, persistentVolumeClaim: {claimName: workstation-root}}
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
changes:
  description: What was changed, or would be.
  type: list
  elements: dict
  returned: always
  sample:
    - target: VM design/workstation
      action: update
      before: {spec.template.spec.domain.cpu.cores: 4}
      after: {spec.template.spec.domain.cpu.cores: 8}
      reason: differs; it runs, so its template takes effect at its next start
blockers:
  description: What stopped the module.
  type: list
  elements: dict
  returned: failure
  sample:
    - target: VM design/workstation
      problem: "KubeVirt does not permit nvidia.com/NVIDIA_A10-8Q: permitted are nvidia.com/NVIDIA_A10-4Q"
      remedy: "Permit it with kubevirt_permit: an entry with resourceName nvidia.com/NVIDIA_A10-8Q"
resources:
  description: Devices that the VM asks for, by itself or by its instancetype, and how many of each.
  type: dict
  returned: when O(state=present) and the cluster was read
  sample: {nvidia.com/NVIDIA_A10-4Q: 1}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import (
    _client,
    _licence,
    _unanswered,
    _vm,
    _vm_io,
    _vm_plan,
    _vm_request,
)

_REFERENCE = {
    "name": {"type": "str", "required": True},
    "scope": {"type": "str", "choices": ["cluster", "namespace"], "default": "cluster"},
}
_SPEC = {
    "name": {"type": "str", "required": True},
    "namespace": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "gpus": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "resource": {"type": "str", "required": True},
            "name": {"type": "str"},
            "display": {"type": "bool"},
            "ramfb": {"type": "bool"},
        },
    },
    "instancetype": {"type": "dict", "options": _REFERENCE},
    "preference": {"type": "dict", "options": _REFERENCE},
    "cpu_cores": {"type": "int"},
    "memory": {"type": "str"},
    "run_strategy": {"type": "str", "choices": ["Always", "Halted", "Manual", "Once", "RerunOnFailure"]},
    "spec": {"type": "dict", "default": {}},
    "licence": {
        "type": "dict",
        "options": {
            "secret": {"type": "str", "default": "gpufleet-licence", "no_log": False},
            "key": {"type": "str", "default": "client_configuration_token.tok", "no_log": False},
            "token_file": {"type": "path", "no_log": False},
        },
    },
}


def _request(params):
    references = {key: (params[key]["name"], params[key]["scope"]) if params[key] else None for key in ("instancetype", "preference")}
    return _vm.Request(
        gpus=tuple(_vm.Gpu(g["name"] or f"gpu{n}", g["resource"], g["display"], g["ramfb"]) for n, g in enumerate(params["gpus"])),
        licence=_vm.Licence(**params["licence"]) if params["licence"] else None,
        **references,
        **{key: params[key] for key in ("name", "namespace", "cpu_cores", "memory", "run_strategy", "spec")},
    )


def main() -> None:
    module = AnsibleModule(argument_spec={**_client.auth_argument_spec(), **_SPEC}, supports_check_mode=True)
    request, present = _request(module.params), module.params["state"] == "present"
    doing = f"{'Having' if present else 'Removing'} {request.target}"
    blockers = _vm_request.problems(request) if present else []
    token = None
    if present and not blockers and request.licence and request.licence.token_file:
        try:
            token = _licence.read(request.licence.token_file)
        except ValueError as error:
            blockers = [_change.Blocker(request.target, str(error), "Give the file with the client token of your licence server")]
    if blockers:
        module.fail_json(msg=_change.message(doing, blockers), changes=[], blockers=[b.as_dict() for b in blockers])
    client = _client.connect(module)

    def apply(changes):
        return _vm_io.apply(client, request, token, changes, module.check_mode)

    def observe():
        return _vm_io.observe(client, request) if present else _vm_io.observe_absence(client, request)

    def plan(seen):
        return _vm_plan.make_plan(request, token, seen) if present else _vm_plan.plan_absence(request, seen)

    def result(seen, _plan):
        return {"resources": _vm_plan.asked(request, seen.instancetype)} if present else {}

    apply.dry_runs = True
    unreadable = (_client.ApiError, LookupError)
    try:
        _change.run(module, doing, observe, plan, apply, result, unreadable=unreadable, settle=_unanswered.settle)
    except (_client.ApiError, LookupError) as error:
        module.fail_json(msg=f"{doing}: {error.args[0] if isinstance(error, LookupError) else error}. Nothing was changed.")


if __name__ == "__main__":
    main()
