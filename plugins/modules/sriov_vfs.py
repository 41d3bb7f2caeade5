#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sriov_vfs
short_description: Have virtual functions on PCI functions, in the wanted number
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Takes the whole wish for a host in one call. Functions do not stop each other. What can be done is done, then the module fails and names the rest.
  - For NVIDIA's GPUs it uses NVIDIA's own C(/usr/lib/nvidia/sriov-manage), which makes all virtual functions of a GPU, or none. What that
    program says is not believed. The number, the links, the drivers of the virtual functions and the driver of the GPU are read back from
    sysfs, and it gets three attempts.
  - Going from one number to another takes all virtual functions away first. That is refused while the function or one of its virtual functions
    is held by a process or has a vGPU.
  - A firmware that leaves no MMIO space for virtual functions is named as the cause, from the kernel's log.
attributes:
  check_mode:
    support: full
    description: Says what it would do. Nothing is written, and no program changes anything.
  diff_mode:
    support: full
    description: Shows what differs, device by device, and the files of O(persist).
options:
  devices:
    description: The functions, each once.
    type: list
    elements: dict
    required: true
    suboptions:
      address:
        description: PCI address, with its domain.
        type: str
        required: true
      count:
        description: How many virtual functions, V(0) for none, V(max) for as many as the function can have.
        type: str
        default: max
  method:
    description: V(auto) is V(sriov_manage) for NVIDIA's GPUs, and V(sysfs) (C(sriov_numvfs)) for everything else.
    type: str
    choices: [auto, sriov_manage, sysfs]
    default: auto
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
  - module: gpufleet.kubevirt.mdev_create
  - module: gpufleet.kubevirt.gpu_node_info
"""

EXAMPLES = r"""
- name: Have all virtual functions of a GPU, after each boot too
  gpufleet.kubevirt.sriov_vfs:
    devices:
      - address: "0000:41:00.0"
        count: max
    persist: boot
  register: sriov

- name: Make vGPUs on them, or say in check mode what would be made
  gpufleet.kubevirt.mdev_create:
    gpus:
      - address: "0000:41:00.0"
        types:
          - type: A10-4Q
            count: 6
    planned_vfs: "{{ sriov.planned_vfs }}"
"""

RETURN = r"""
changes:
  description: What was changed, or would be.
  type: list
  elements: dict
  returned: always
  sample:
    - target: function 0000:41:00.0
      action: set
      before: {count: 0}
      after: {count: 16, method: sriov_manage}
      reason: all virtual functions are wanted, made by sriov_manage
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
    - target: function 0000:41:00.0
      problem: its 0000:41:00.4 has the vGPU 6b0c4b9e-9a3e-5b0e-8a5e-4d8a3b6a1f10
      remedy: "Remove it first (mdev_create, state: absent)"
vfs:
  description: The functions, as they are now.
  type: list
  elements: dict
  returned: always
  sample:
    - address: "0000:41:00.0"
      driver: nvidia
      total: 16
      count: 1
      virtual_functions:
        - address: "0000:41:00.4"
          driver: nvidia
planned_vfs:
  description: >-
    How many virtual functions each function has once the changes are made, for O(gpufleet.kubevirt.mdev_create#module:planned_vfs). Where the
    kernel does not say an address before they exist, it is C(known after apply).
  type: list
  elements: dict
  returned: always
  sample:
    - address: "0000:41:00.0"
      count: 1
      virtual_functions: ["0000:41:00.4"]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _devices_at_boot, _owners, _persist, _sriov
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Commands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sriov_host import SriovHost, command
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError

DOING = "Setting the virtual functions"
KIND = "sriov_vfs"


class VirtualFunctions:
    """One run on one host."""

    def __init__(self, module, host, wishes):
        self.module = module
        self.host = host
        self.wishes = wishes
        self.commands = Commands(host)
        self.sriov = SriovHost(host, self.commands, module.params["timeout"])
        self.persistence = _persist.Persistence(host, self.commands, _devices_at_boot.__name__)
        self.pending = []

    def observe(self):
        functions = self.sriov.observe([wish.address for wish in self.wishes])
        virtual = {address: [v.address for v in function.virtual] for address, function in functions.items()}
        return functions, self.persistence.observe(), _owners.at_boot(self.host, virtual, {_persist.UNIT_FILE})

    def plan(self, seen):
        functions, kept, others = seen
        plan = _change.Plan()
        updates = {}
        for wish in self.wishes:
            function = functions.get(wish.address)
            part = _sriov.plan(function, wish, self.sriov.has_program)
            if wish.address in others and wish.count != 0:
                part = _change.Plan(blockers=[others[wish.address]])
            plan.blockers += part.blockers
            plan.changes += [change for change in part.changes if not self.left(change)]
            if not part.blockers and function:
                updates[wish.address] = self.entry(function, wish)
        boot = _persist.plan(kept, KIND, updates, self.persistence.code, self.persistence.unit)
        plan.changes += boot.changes
        plan.blockers += boot.blockers
        return plan

    def left(self, change):
        """In a tree NVIDIA's program is not run: its command is left to the user."""
        if self.commands.can_run or change.after["method"] != "sriov_manage":
            return False
        text = " ".join(command(change.target[len("function ") :], change.after["count"]))
        self.pending = list(dict.fromkeys([*self.pending, text]))
        return True

    def entry(self, function, wish):
        if self.module.params["persist"] != "boot" or wish.count == 0:
            return None
        count = _sriov.MAX if wish.count is None else wish.count
        return {"count": count, "method": wish.method, "id": function.vendor_device}

    def apply(self, changes):
        devices = [change for change in changes if change.action == _sriov.SET]
        blockers = self.sriov.apply(devices)
        rest = [change for change in changes if change not in devices]
        return blockers + (self.persistence.apply(rest, self.sriov.failed, KIND) if rest else [])

    def result(self, seen, plan):
        functions = [seen[0][wish.address] for wish in self.wishes if wish.address in seen[0]]
        planned = {c.target: c.after["count"] for c in plan.changes if c.action == _sriov.SET} if self.module.check_mode else {}
        return {
            "vfs": [
                {
                    "address": function.address,
                    "driver": function.driver,
                    "total": function.total,
                    "count": function.enabled,
                    "virtual_functions": [{"address": v.address, "driver": v.driver} for v in function.virtual],
                }
                for function in functions
            ],
            "planned_vfs": [_sriov.after(function, planned.get(function.target)) for function in functions],
            "pending": self.pending + _persist.pending(plan.changes, self.commands.can_run),
        }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "devices": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {"address": {"type": "str", "required": True}, "count": {"type": "str", "default": "max"}},
            },
            "method": {"type": "str", "choices": ["auto", "sriov_manage", "sysfs"], "default": "auto"},
            "persist": {"type": "str", "choices": ["none", "boot"], "default": "none"},
            "timeout": {"type": "int", "default": 30},
            "host_root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    wishes, problems = _sriov.wishes(module.params["devices"], module.params["method"])
    if problems:
        module.fail_json(msg=_change.message(DOING, problems), blockers=[problem.as_dict() for problem in problems], changes=[])
    try:
        run = VirtualFunctions(module, Host(module.params["host_root"]), wishes)
        _change.run(module, DOING, run.observe, run.plan, run.apply, run.result)
    except HostError as error:
        module.fail_json(msg=f"{DOING}: {error}. See what of it was done, and run again.")


if __name__ == "__main__":
    main()
