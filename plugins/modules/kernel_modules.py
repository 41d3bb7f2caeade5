#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _kernel_modules, _modprobe, _modprobe_wish
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Commands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError

DOING = "Setting the kernel modules"


class KernelModules:
    """One run on one host."""

    def __init__(self, module, host, commands):
        self.host, self.commands = host, commands
        self.params = module.params
        self.check_mode = module.check_mode
        self.may_build = commands.can_run and self.params["initramfs"] == "auto"
        self.images = ()

    def wish(self, load):
        if self.params["state"] == "absent":
            return _modprobe_wish.Wish()
        options = tuple((entry["module"], " ".join(entry["value"].split())) for entry in self.params["options"])
        return _modprobe_wish.Wish(tuple(load), tuple(self.params["block"]), options)

    def wished(self, seen):
        return self.wish(_kernel_modules.to_load(self.params["load"], self.params["load_if_present"], seen))

    def observe(self):
        seen = _kernel_modules.observe(self.host, self.commands, bool(self.wish(()).concerns))
        self.images = seen.images
        return seen

    def plan(self, seen):
        return _kernel_modules.make_plan(self.wished(seen), seen, self.may_build)

    def apply(self, changes):
        return _kernel_modules.apply(self.host, self.commands, changes, self.images)

    def verify(self, seen):
        return _kernel_modules.left(self.wished(seen), seen, self.may_build)

    def result(self, seen):
        wish = self.wished(seen)
        held = _kernel_modules.in_the_way(wish, seen)
        behind = [] if self.may_build else _kernel_modules.stale(wish, seen)
        lines = [line for line, _blocker in _modprobe_wish.contradicting(wish, seen.others)] + _modprobe.claims(seen.others)
        return {
            "reboot_required": bool(held),
            "reboot_reasons": [f"{holder.module} holds {holder.address}" for holder in held],
            "not_loaded": _kernel_modules.not_loaded(wish, seen),
            "pending": [" ".join(seen.commands[image.path] or ["build", image.path]) for image in behind],
            "foreign": [line.as_dict() for line in lines],
        }


def main() -> None:
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "load": names,
            "load_if_present": names,
            "block": names,
            "options": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"module": {"type": "str", "required": True}, "value": {"type": "str", "required": True}},
            },
            "initramfs": {"type": "str", "choices": ["auto", "never"], "default": "auto"},
            "host_root": {"type": "path", "default": "/"},
            "run_in_root": {"type": "str", "choices": ["never", "chroot"], "default": "never"},
        },
        supports_check_mode=True,
    )
    try:
        host = Host(module.params["host_root"])
        run = KernelModules(module, host, Commands(host, module.params["run_in_root"]))
        problems = _modprobe_wish.problems(run.wish([*module.params["load"], *module.params["load_if_present"]]))
        if problems:
            module.fail_json(msg=f"{DOING}: {'; '.join(problems)}. Nothing was changed.")
        _change.run(module, DOING, run.observe, run.plan, run.apply, lambda seen, plan: run.result(seen), run.verify)
    except HostError as error:
        module.fail_json(msg=f"{DOING}: {error}.")


if __name__ == "__main__":
    main()
