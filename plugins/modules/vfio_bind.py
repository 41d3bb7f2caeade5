#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vfio_bind
short_description: Give PCI functions to VFIO, so that a VM can have them, and take them back
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Binds functions to a VFIO driver, function by function, through C(driver_override) and C(drivers_probe). Identical devices are told apart by
    their addresses; a list of ids would take all of them.
  - Takes the functions that you name together with the rest of their IOMMU group, because a VM can only have a group as a whole. Bridges
    always stay.
  - Plans a group as a whole. What is refused in one group stops that group only. The others are done, and the module then fails and says what
    was not.
  - Never writes to a function that a process holds. Unbinding such a function asks the VM to give it up, and blocks until it does.
    Holders are looked for when planning and again right before each function is changed. If they cannot be seen, that counts as held.
  - Refuses a function that does not exist, is a bridge, is not NVIDIA's and not listed in O(allow.foreign), is the display that the firmware
    booted with, has virtual functions or vGPUs, has no IOMMU group, or that somebody else has bound at boot (lists of ids for vfio-pci,
    C(driverctl), other udev rules).
  - Refuses, whatever O(allow) says, a function that the host itself uses. That is a disk that is mounted, swap, or part of LVM, md,
    btrfs or ZFS; a network interface that is up, has an address or a route, or is part of another; or what shows the host's console.
  - Remembers in C(/var/lib/gpufleet/vfio.json) which driver a function had, before it takes it away.
attributes:
  check_mode:
    support: full
    description: Says what would be changed. Does not wait for holders.
  diff_mode:
    support: full
    description: Shows the driver of each function, and the udev rules, before and after.
options:
  devices:
    description: The functions, each by its address, or by ids and class. An entry that nothing on the host meets is a failure.
    type: list
    elements: dict
    required: true
    suboptions:
      address:
        description: PCI address, with its domain.
        type: str
      vendor_device:
        description: Vendor and device id. Means all physical functions that have them, and no virtual ones.
        type: str
      subsystem:
        description: Subsystem vendor and device id.
        type: str
      class:
        description: Class without its programming interface, V(0300) or V(0302) for a GPU. Alone, it means NVIDIA's functions only.
        type: str
  state:
    description: V(bound) to a VFIO driver, or V(released) from it.
    type: str
    choices: [bound, released]
    default: bound
  scope:
    description:
      - V(group) takes the other endpoints of the IOMMU group too.
      - V(function) takes what is named and nothing else, also where that leaves a group that no VM can have.
      - V(companions) takes the other endpoints of the group and never a GPU. This is what NVIDIA's VFIO manager leaves undone, and nobody
        may hold any device of the group.
    type: str
    choices: [group, function, companions]
    default: group
  driver:
    description: The VFIO driver. V(auto) is the best match in the running kernel's table of aliases, V(vfio-pci) for most devices.
    type: str
    default: auto
  persist:
    description:
      - V(boot) keeps a udev rule in C(/etc/udev/rules.d/40-gpufleet-vfio.rules) that gives the function to VFIO when the host boots.
      - The rule names the address and checks vendor and device, so it does nothing when another device has come to that address.
      - The rule never takes a function from a driver. A host driver that is built in, in the initramfs or loaded earlier for another device keeps
        the function until this module runs again. Block such a driver where nothing else needs it.
      - V(none) keeps no rule for these functions.
    type: str
    choices: [none, boot]
    default: none
  release_to:
    description:
      - V(host) gives a released function back to the driver that it had, or lets the kernel choose if that is not known or not loaded.
      - V(none) leaves it without a driver.
    type: str
    choices: [host, none]
    default: host
  allow:
    description: What would be refused otherwise.
    type: dict
    suboptions:
      boot_vga:
        description: Take the display that the firmware booted with. The host's console ends there.
        type: bool
        default: false
      foreign:
        description: Addresses of functions that are not NVIDIA's and may be taken.
        type: list
        elements: str
        default: []
  in_use:
    description: V(refuse) a function that a process holds, or V(wait) before the first write to its group until nobody does.
    type: str
    choices: [refuse, wait]
    default: refuse
  wait_timeout:
    description: Seconds to wait for the holders of one group with O(in_use=wait).
    type: int
    default: 300
  owner:
    description:
      - Who binds devices on this host. On a host of the V(operator), the GPU Operator, everything but O(scope=companions) is refused.
    type: str
    choices: [host, operator]
    default: host
  timeout:
    description: Seconds to wait for the kernel's answer to one write. After that the module fails; the kernel may still do what was asked.
    type: int
    default: 30
  host_root:
    description:
      - Directory that holds the host's files, such as a host that is mounted into a container. Kernel files are only written where its C(sys)
        is a real one, and no program runs there; what is to be run comes back in RV(pending).
    type: path
    default: /
seealso:
  - module: gpufleet.kubevirt.gpu_node_info
  - module: gpufleet.kubevirt.kernel_cmdline
"""

EXAMPLES = r"""
- name: Give a GPU and its companions to VFIO, now and at each boot
  gpufleet.kubevirt.vfio_bind:
    devices:
      - address: "0000:41:00.0"
    persist: boot

- name: Give all A10 of this host to VFIO
  gpufleet.kubevirt.vfio_bind:
    devices:
      - vendor_device: "10DE:2236"

- name: Bind what NVIDIA's VFIO manager leaves behind on a host of the operator
  gpufleet.kubevirt.vfio_bind:
    devices:
      - class: "0300"
    scope: companions
    owner: operator

- name: Take a GPU back for the host
  gpufleet.kubevirt.vfio_bind:
    devices:
      - address: "0000:41:00.0"
    state: released
"""

RETURN = r"""
changes:
  description: What was changed, or would be.
  type: list
  elements: dict
  returned: always
  sample:
    - target: "0000:41:00.0"
      action: bind
      before: nvidia
      after: vfio-pci
      reason: VFIO is to have it
functions:
  description: The functions of all groups concerned, bridges left out. In check mode as they are before the change.
  type: list
  elements: dict
  returned: always
  sample:
    - address: "0000:41:00.0"
      driver: vfio-pci
      iommu_group: "30"
groups:
  description: The IOMMU groups concerned, by number, and whether a VM can have them. In check mode as they are before the change.
  type: dict
  returned: always
  sample:
    "30":
      members: ["0000:41:00.0", "0000:41:00.1"]
      viable: true
      blockers: []
pending:
  description: Commands that are to be run on the host before this can be done, where this module runs none.
  type: list
  elements: str
  returned: always
  sample: []
blockers:
  description: What stopped the module.
  type: list
  elements: dict
  returned: failure
  sample:
    - target: "0000:41:00.2"
      problem: it is held by process 4711 (qemu-kvm, VM team-a_train)
      remedy: "Stop the VM or process first, or set in_use: wait"
"""

import re

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change, _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _groups, _load, _rebind, _vfio, _vfio_plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError

DOING = {"bound": "Binding to VFIO", "released": "Releasing from VFIO"}


def problems(params):
    """What is wrong with the options themselves."""
    found = []
    checks = {"address": _names.check_pci_address, "vendor_device": _names.check_pci_id, "subsystem": _names.check_pci_id}
    for device in params["devices"]:
        for name, value in device.items():
            try:
                if value is not None and name in checks:
                    checks[name](value)
            except ValueError as error:
                found.append(f"{name}: {error}")
        if device["class"] is not None and not re.fullmatch("[0-9a-fA-F]{4}", device["class"]):
            found.append(f"class: {device['class']!r} is no PCI class: write four hexadecimal digits, such as 0302")
    for address in params["allow"]["foreign"]:
        try:
            _names.check_pci_address(address)
        except ValueError as error:
            found.append(f"allow.foreign: {error}")
    if params["driver"] != "auto" and not re.fullmatch(r"\w[\w-]*", params["driver"], re.ASCII):
        found.append(f"driver: {params['driver']!r} is no name of a driver")
    elif params["driver"] != "auto" and "vfio" not in params["driver"]:
        found.append(f"driver: {params['driver']!r} is no VFIO driver")
    return found + [f"{name}: must be at least 0" for name in ("timeout", "wait_timeout") if params[name] < 0]


def wish_of(params):
    return _vfio.Wish(
        devices=tuple(_vfio.Selector(d["address"], d["vendor_device"], d["subsystem"], d["class"]) for d in params["devices"]),
        boot_vga=params["allow"]["boot_vga"],
        foreign=frozenset(address.lower() for address in params["allow"]["foreign"]),
        wait=params["in_use"] == "wait",
        **{name: params[name] for name in ("state", "scope", "driver", "persist", "release_to", "owner")},
    )


def result(seen, _plan):
    functions = {member.address: member.function for unit in seen.units for member in unit.members}
    return {
        "functions": [
            {"address": address, "driver": functions[address].driver, "iommu_group": functions[address].group}
            for address in sorted(functions)
            if not functions[address].is_bridge
        ],
        "groups": {u.group: _groups.facts([member.function for member in u.members]) for u in seen.units if u.group is not None},
        "pending": sorted(f"modprobe {driver}" for driver in seen.by_hand),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "devices": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {name: {"type": "str"} for name in ("address", "vendor_device", "subsystem", "class")},
                "mutually_exclusive": [("address", "vendor_device"), ("address", "subsystem"), ("address", "class")],
                "required_one_of": [("address", "vendor_device", "class")],
            },
            "state": {"type": "str", "choices": ["bound", "released"], "default": "bound"},
            "scope": {"type": "str", "choices": ["group", "function", "companions"], "default": "group"},
            "driver": {"type": "str", "default": "auto"},
            "persist": {"type": "str", "choices": ["none", "boot"], "default": "none"},
            "release_to": {"type": "str", "choices": ["host", "none"], "default": "host"},
            "allow": {
                "type": "dict",
                "apply_defaults": True,
                "options": {
                    "boot_vga": {"type": "bool", "default": False},
                    "foreign": {"type": "list", "elements": "str", "default": []},
                },
            },
            "in_use": {"type": "str", "choices": ["refuse", "wait"], "default": "refuse"},
            "wait_timeout": {"type": "int", "default": 300},
            "owner": {"type": "str", "choices": ["host", "operator"], "default": "host"},
            "timeout": {"type": "int", "default": 30},
            "host_root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    params, doing = module.params, DOING[module.params["state"]]
    wrong = problems(params)
    if wrong:
        module.fail_json(msg=f"{doing}: {'; '.join(wrong)}. Nothing was changed.")
    try:
        host, wish = Host(params["host_root"]), wish_of(params)

        def observe():
            return _vfio.observe(host, wish)

        def plan(seen):
            return _vfio_plan.make_plan(wish, seen)

        rebinding = _rebind.Rebinding(
            host,
            timeout=params["timeout"],
            wait_timeout=params["wait_timeout"] if wish.wait else 0,
            whole_group=wish.scope == "companions",
            load=lambda driver: _load.load(host, module.get_bin_path("modprobe", required=True), driver, params["timeout"]),
            again=lambda: plan(observe()),
        )
        _change.run(module, doing, observe, plan, rebinding.apply, result)
    except HostError as error:
        module.fail_json(msg=f"{doing}: {error}.")


if __name__ == "__main__":
    main()
