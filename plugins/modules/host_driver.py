#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_driver
short_description: Remove an NVIDIA driver that is installed on a host itself
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Removes the driver's packages with their configuration, what DKMS has of it, its settings in C(/etc/modprobe.d) and C(/etc/modules-load.d) that
    no package owns, and builds the initramfs anew if the driver is in it. The image that was there before is kept, as
    M(gpufleet.kubevirt.kernel_modules) does.
  - Uses C(apt-get) or C(dnf), C(dkms) and C(systemctl), each with a list of arguments. Packages that nobody needs any more are left.
  - A driver container is none of this, nor are the container toolkit, CUDA, DCGM, and kernels of the flavour C(nvidia).
  - Refuses while a process holds a GPU or another device of the driver, the driver's own daemons left out, which it stops.
  - Refuses if the package manager would remove or install anything else, and names it.
  - Refuses a vGPU manager on a host that owns its devices, and a driver that NVIDIA's installer has put there without a package.
  - Does not unload the driver and never reboots.
attributes:
  check_mode:
    support: full
    description: Asks the package manager to simulate, and lists every package.
  diff_mode:
    support: full
    description: Shows the packages and their versions.
options:
  state:
    description: There is no other than V(absent).
    type: str
    choices: [absent]
    default: absent
  owner:
    description: Who binds and creates the devices of this host, as in C(gpufleet_device_owner).
    type: str
    choices: [operator, host]
    default: operator
  host_root:
    description:
      - Directory that holds the host's files. In another than V(/) no program is run, and RV(pending) has the command that is still to be run.
    type: path
    default: /
  run_in_root:
    description: V(chroot) runs the programs of O(host_root) in it.
    type: str
    choices: [never, chroot]
    default: never
seealso:
  - module: gpufleet.kubevirt.kernel_modules
  - module: gpufleet.kubevirt.gpu_node_info
"""

EXAMPLES = r"""
- name: Show what would be removed
  gpufleet.kubevirt.host_driver:
  check_mode: true
  register: driver

- name: Remove it
  gpufleet.kubevirt.host_driver:
"""

RETURN = r"""
changes:
  description: What was changed, or would be.
  type: list
  elements: dict
  returned: always
  sample:
    - target: package nvidia-driver-580-server
      action: purge
      before: 580.95.05-0ubuntu0.22.04.1 amd64
      after: null
      reason: it is part of an NVIDIA driver
packages:
  description: The packages of a driver that are there now.
  type: list
  elements: dict
  returned: always
  sample: [{name: nvidia-driver-580-server, version: 580.95.05-0ubuntu0.22.04.1}]
reboot_required:
  description: Whether the driver is in the running kernel, and no driver container has put it there.
  type: bool
  returned: always
  sample: true
reboot_reasons:
  description: Why, in words.
  type: list
  elements: str
  returned: always
  sample: ["an NVIDIA driver of the host's own (580.95.05) runs in the kernel"]
pending:
  description: Commands that are still to be run.
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
    - target: process 4711
      problem: process 4711 (python3) has /dev/nvidia0 open
      remedy: "End it (a pod: drain the node) and run again"
"""

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
