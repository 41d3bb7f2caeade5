#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _driver_seen, _host_driver
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Commands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError

DOING = "Removing the host's NVIDIA driver"


class HostDriver:
    """One run on one host."""

    def __init__(self, module, host, commands):
        self.host, self.commands = host, commands
        self.owner = module.params["owner"]
        self.first = None

    def observe(self):
        seen = _driver_seen.observe(self.host, self.commands, again=self.first is not None)
        self.first = self.first or seen
        return seen

    def plan(self, seen):
        return _host_driver.make_plan(seen, self.owner, self.commands.can_run)

    def apply(self, changes):
        return _host_driver.apply(self.host, self.commands, self.first, changes)

    def verify(self, seen):
        return _host_driver.left(seen) if self.commands.can_run else []

    def result(self, seen):
        pending = seen.packages and seen.manager and not self.commands.can_run
        return {
            "packages": [{"name": package.name, "version": package.version} for package in seen.packages],
            "reboot_required": seen.running is not None,
            "reboot_reasons": [f"an NVIDIA driver of the host's own ({seen.running}) runs in the kernel"] if seen.running else [],
            "pending": [" ".join(_driver_seen.removal(seen.manager, seen.packages))] if pending else [],
        }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["absent"], "default": "absent"},
            "owner": {"type": "str", "choices": ["operator", "host"], "default": "operator"},
            "host_root": {"type": "path", "default": "/"},
            "run_in_root": {"type": "str", "choices": ["never", "chroot"], "default": "never"},
        },
        supports_check_mode=True,
    )
    try:
        host = Host(module.params["host_root"])
        run = HostDriver(module, host, Commands(host, module.params["run_in_root"]))
        _change.run(module, DOING, run.observe, run.plan, run.apply, lambda seen, plan: run.result(seen), run.verify)
    except HostError as error:
        module.fail_json(msg=f"{DOING}: {error}.")


if __name__ == "__main__":
    main()
