#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _owners, _persist, _sriov, _vfs_at_boot
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Commands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sriov_host import SriovHost, command
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError

DOING = "Setting the virtual functions"
KIND = _vfs_at_boot.KIND


class VirtualFunctions:
    """One run on one host."""

    def __init__(self, module, host, wishes):
        self.module = module
        self.host = host
        self.wishes = wishes
        self.commands = Commands(host)
        self.sriov = SriovHost(host, self.commands, module.params["timeout"])
        self.persistence = _persist.Persistence(host, self.commands, KIND, _vfs_at_boot.__name__)
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
        return blockers + (self.persistence.apply(rest, self.sriov.failed) if rest else [])

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
