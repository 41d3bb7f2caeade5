#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _persist, _vgpu_run, _vgpu_wish, _vgpus_at_boot
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
        run = _vgpu_run.Run(host, commands, _persist.Persistence(host, commands, _vgpus_at_boot.KIND, _vgpus_at_boot.__name__), options)
        problems = run.select(given["gpus"], given["state"], given["mixed_size"])
        if problems:
            fail(module, problems)
        _change.run(module, DOING, run.observe, run.plan, run.apply, run.result, run.verify)
    except HostError as error:
        module.fail_json(msg=f"{DOING}: {error}. See what of it was done, and run again.")


if __name__ == "__main__":
    main()
