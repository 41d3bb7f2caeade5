#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mdev_create
short_description: Have vGPUs on a host, by type name and number, on either framework
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Makes mediated devices, or vGPUs on virtual functions of NVIDIA's vendor-specific VFIO, whichever the driver of each GPU offers. Takes the whole
    wish for a host in one call. GPUs do not stop each other. What can be done is done, then the module fails and names the rest.
  - A type is given by its name and looked up in what the driver offers when it runs. C(A10-4Q) means C(NVIDIA A10-4Q).
  - A vGPU that a process or a VM holds is never removed. Who holds it is looked for again right before the write.
  - Nothing is removed before it is known that what is wanted fits. Where that cannot be known, nothing is removed either.
  - A mediated device gets the same UUID in each run, derived from the machine id, its parent, its type and its number.
  - On vendor-specific VFIO the names of types that were seen are kept in C(/var/lib/gpufleet/vgpu_types.json), because the driver does
    not tell them again.
attributes:
  check_mode:
    support: full
    description: Says what it would do. Nothing is written, and no program changes anything.
  diff_mode:
    support: full
    description: Shows what differs, device by device, and the files of O(persist).
options:
  gpus:
    description: What each GPU should have, each GPU in one entry. A GPU is chosen by exactly one of its three options.
    type: list
    elements: dict
    required: true
    suboptions:
      address:
        description: PCI address of the GPU, with its domain.
        type: str
      index:
        description: Number of the GPU among the host's NVIDIA GPUs in the order of their addresses, from 0.
        type: int
      vendor_device:
        description: PCI vendor and device, such as V(10DE:2236). Means all GPUs that have it.
        type: str
      types:
        description: The types. Left out, O(state=exact) and O(state=absent) remove every vGPU of the GPU.
        type: list
        elements: dict
        suboptions:
          type:
            description: Name of the type, full or plain.
            type: str
            required: true
          count:
            description: How many. Required unless O(state=absent), which removes all of the type.
            type: int
          placement_ids:
            description: Where each one is placed, in GB from the start of the framebuffer. Vendor-specific VFIO only.
            type: list
            elements: int
  state:
    description:
      - V(exact) makes what is missing and removes everything else of these GPUs.
      - V(present) only makes what is missing.
      - V(absent) removes the types named, or everything.
    type: str
    choices: [exact, present, absent]
    default: exact
  backend:
    description: The framework. V(auto) takes the one that the driver of each GPU offers.
    type: str
    choices: [auto, mdev, vendor_vfio]
    default: auto
  mixed_size:
    description:
      - Mixed-size mode of the GPUs, set by C(nvidia-smi vgpu -shm) while a GPU has no vGPU, and again at boot with O(persist=boot).
      - Without it, a GPU takes vGPUs of one size. V(unmanaged) leaves the mode as it is.
    type: str
    choices: [unmanaged, "on", "off"]
    default: unmanaged
  persist:
    description:
      - V(boot) makes them again at each boot. The unit C(gpufleet-devices.service) does that. It is ordered before C(kubelet.service),
        C(k3s.service), C(k3s-agent.service), C(rke2-server.service) and C(rke2-agent.service), and is wanted by them, so that these start once
        the devices are there, or the unit has waited five minutes and says in the journal what is missing. In that case it fails, and they start.
      - What to make is in C(/etc/gpufleet/devices.json), which only root can read. The unit runs a copy of this collection's code in
        C(/usr/local/lib/gpufleet), which this module keeps up to date. The last entry that goes takes unit and code with it.
      - V(none) removes what was persisted for these devices.
      - Another one's persistence of the same devices, mdevctl's or a unit in C(/etc/systemd/system), is refused by name.
    type: str
    choices: [none, boot]
    default: none
  in_use:
    description: What happens when a vGPU that must go is held. V(wait) waits up to O(timeout) seconds until it is not, V(refuse) does not.
    type: str
    choices: [refuse, wait]
    default: refuse
  planned_vfs:
    description: In check mode, the RV(gpufleet.kubevirt.sriov_vfs#module:planned_vfs) that do not exist yet. Ignored otherwise.
    type: list
    elements: dict
    default: []
  owner:
    description: Who makes the devices of this host by decision. With V(operator), the GPU Operator does, and this module refuses.
    type: str
    choices: [host, operator]
    default: host
  timeout:
    description: Seconds to wait for one write to the kernel, or one program. The kernel may still finish a write later.
    type: int
    default: 30
  host_root:
    description: >-
      Directory that holds the host's files. With another than V(/), no program of the host is run but named in RV(pending), and the kernel is
      written to only if C(sys) below it is a real sysfs.
    type: path
    default: /
seealso:
  - module: gpufleet.kubevirt.sriov_vfs
  - module: gpufleet.kubevirt.gpu_node_info
"""

EXAMPLES = r"""
- name: Have six vGPUs on one GPU, after each boot too
  gpufleet.kubevirt.mdev_create:
    gpus:
      - address: "0000:41:00.0"
        types:
          - type: A10-4Q
            count: 6
    persist: boot

- name: Remove all vGPUs of all A10
  gpufleet.kubevirt.mdev_create:
    gpus:
      - vendor_device: "10DE:2236"
    state: absent
"""

RETURN = r"""
changes:
  description: What was changed, or would be.
  type: list
  elements: dict
  returned: always
  sample:
    - target: vGPU 6b0c4b9e-9a3e-5b0e-8a5e-4d8a3b6a1f10
      action: create
      before: null
      after:
        gpu: "0000:41:00.0"
        parent: "0000:41:00.4"
        device: 6b0c4b9e-9a3e-5b0e-8a5e-4d8a3b6a1f10
        type: NVIDIA A10-4Q
      reason: A10-4Q is wanted
pending:
  description: Commands that are left to be run on the host, because O(host_root) is not V(/).
  type: list
  elements: str
  returned: always
  sample: []
blockers:
  description: What stopped the module, or some of its targets.
  type: list
  elements: dict
  returned: failure
  sample:
    - target: GPU 0000:41:00.0
      problem: the driver offers no type A10-5Q
      remedy: The nearest are NVIDIA A10-4Q, NVIDIA A10-6Q, NVIDIA A10-8Q
gpus:
  description: The GPUs that were meant, as they are now, with the number of vGPUs per type. A V(null) backend means that the GPU offers none.
  type: list
  elements: dict
  returned: always
  sample:
    - address: "0000:41:00.0"
      backend: mdev
      counts: {NVIDIA A10-4Q: 6}
      devices:
        - device: 6b0c4b9e-9a3e-5b0e-8a5e-4d8a3b6a1f10
          parent: "0000:41:00.4"
          type: NVIDIA A10-4Q
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _devices_at_boot, _persist, _vgpu_run, _vgpu_wish
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Commands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError

DOING = "Making the vGPUs"


def fail(module, blockers):
    module.fail_json(msg=_change.message(DOING, blockers), blockers=[blocker.as_dict() for blocker in blockers], changes=[])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "gpus": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "address": {"type": "str"},
                    "index": {"type": "int"},
                    "vendor_device": {"type": "str"},
                    "types": {
                        "type": "list",
                        "elements": "dict",
                        "options": {
                            "type": {"type": "str", "required": True},
                            "count": {"type": "int"},
                            "placement_ids": {"type": "list", "elements": "int"},
                        },
                    },
                },
            },
            "state": {"type": "str", "choices": ["exact", "present", "absent"], "default": "exact"},
            "backend": {"type": "str", "choices": ["auto", "mdev", "vendor_vfio"], "default": "auto"},
            "mixed_size": {"type": "str", "choices": ["unmanaged", "on", "off"], "default": "unmanaged"},
            "persist": {"type": "str", "choices": ["none", "boot"], "default": "none"},
            "in_use": {"type": "str", "choices": ["refuse", "wait"], "default": "refuse"},
            "planned_vfs": {"type": "list", "elements": "dict", "default": []},
            "owner": {"type": "str", "choices": ["host", "operator"], "default": "host"},
            "timeout": {"type": "int", "default": 30},
            "host_root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    given = module.params
    problems = _vgpu_wish.argument_problems(given["gpus"], given["state"]) + _vgpu_wish.planned_problems(given["planned_vfs"])
    if problems:
        fail(module, problems)
    try:
        host = Host(given["host_root"])
        commands = Commands(host)
        options = _vgpu_run.Options(
            backend=given["backend"],
            persist=given["persist"] == "boot",
            waits=given["in_use"] == "wait",
            checks=module.check_mode,
            owner=given["owner"],
            timeout=given["timeout"],
            planned={str(entry["address"]).lower(): int(entry["count"]) for entry in given["planned_vfs"]} if module.check_mode else {},
        )
        run = _vgpu_run.Run(host, commands, _persist.Persistence(host, commands, _devices_at_boot.__name__), options)
        problems = run.select(given["gpus"], given["state"], given["mixed_size"])
        if problems:
            fail(module, problems)
        _change.run(module, DOING, run.observe, run.plan, run.apply, run.result, run.verify)
    except HostError as error:
        module.fail_json(msg=f"{DOING}: {error}. See what of it was done, and run again.")


if __name__ == "__main__":
    main()
