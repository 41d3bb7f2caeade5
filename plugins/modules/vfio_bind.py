#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change, _device_names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _groups, _load, _rebind, _vfio, _vfio_plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError

DOING = {"bound": "Binding to VFIO", "released": "Releasing from VFIO"}


def problems(params):
    """What is wrong with the options themselves."""
    found = []
    checks = {
        "address": _device_names.check_pci_address,
        "vendor_device": _device_names.check_pci_id,
        "subsystem": _device_names.check_pci_id,
    }
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
            _device_names.check_pci_address(address)
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
