#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_modules
short_description: Say which kernel modules load at boot, and which must not
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Writes two files of its own, C(/etc/modules-load.d/gpufleet.conf) and C(/etc/modprobe.d/gpufleet.conf), and no other.
    They say what the last call asked for, so one call names everything for its host.
  - Builds the initramfs anew (C(update-initramfs) or C(dracut)) only if the image differs from what is asked for. An image without any of the
    modules that are blocked or have options is right as it is. The images of the running kernel and of newer ones count.
  - Keeps the image that was there before beside the new one, with C(.gpufleet-kept) at the end of its name. It can be booted from the boot loader's
    command line. A later call removes it once the host has booted with the new image.
  - Fails, and names file and line, if a file of somebody else or a boot argument keeps a module of O(load) from being loaded, or sets an option to
    another value.
  - Neither loads nor unloads a module now, and never reboots.
attributes:
  check_mode:
    support: full
    description: Looks into the initramfs, which may take a second, and computes what it would write.
  diff_mode:
    support: full
    description: Shows the files that differ.
options:
  state:
    description: V(absent) removes what this module has written, and builds the initramfs without it.
    type: str
    choices: [present, absent]
    default: present
  load:
    description: Modules to load at boot. Each must be one of the running kernel's.
    type: list
    elements: str
    default: []
  load_if_present:
    description: Modules to load at boot if the running kernel has them.
    type: list
    elements: str
    default: []
  block:
    description: Modules that must not be loaded for a device.
    type: list
    elements: str
    default: []
  options:
    description: Options of modules.
    type: list
    elements: dict
    default: []
    suboptions:
      module:
        description: The module.
        type: str
        required: true
      value:
        description: Its options, such as V(disable_vga=1). V(ids=) of C(vfio-pci) is refused, because it takes every device of an id.
        type: str
        required: true
  initramfs:
    description: V(never) leaves the initramfs to you. RV(pending) has the commands.
    type: str
    choices: [auto, never]
    default: auto
  host_root:
    description:
      - Directory that holds the host's files. In another than V(/), files are written, no program is run, and RV(pending) has the commands
        that are still to be run.
    type: path
    default: /
  run_in_root:
    description: V(chroot) runs the programs of O(host_root) in it.
    type: str
    choices: [never, chroot]
    default: never
seealso:
  - module: gpufleet.kubevirt.kernel_cmdline
"""

EXAMPLES = r"""
- name: Have VFIO at boot, and keep other drivers off the GPUs
  gpufleet.kubevirt.kernel_modules:
    load: [vfio-pci, vfio_iommu_type1]
    block: [nouveau, nova_core, nova_drm, nvidiafb]
    options:
      - module: vfio-pci
        value: disable_vga=1
  register: modules

- name: Say that a reboot is due
  ansible.builtin.debug:
    msg: "A reboot is due: {{ modules.reboot_reasons | join(', ') }}"
  when: modules.reboot_required
"""

RETURN = r"""
changes:
  description: What was changed, or would be.
  type: list
  elements: dict
  returned: always
  sample:
    - target: file /etc/modules-load.d/gpufleet.conf
      action: write
      before: null
      after: vfio-pci
      reason: modules to load at boot
    - target: image /boot/initrd.img-5.15.0-119-generic
      action: rebuild
      before: null
      after: null
      reason: it loads modules before the files on disk count
reboot_required:
  description: Whether a module of O(block) holds a GPU, or another function of its board, now.
  type: bool
  returned: always
  sample: true
reboot_reasons:
  description: Why, in words.
  type: list
  elements: str
  returned: always
  sample: ["nouveau holds 0000:41:00.0"]
not_loaded:
  description: Modules to load at boot that are not loaded now.
  type: list
  elements: str
  returned: always
  sample: [vfio-pci]
pending:
  description: Commands that are still to be run for the change to take effect with the next boot.
  type: list
  elements: str
  returned: always
  sample: []
foreign:
  description: Lines of others that contradict, and lines that make C(vfio-pci) take every device of an id.
  type: list
  elements: dict
  returned: always
  sample:
    - file: /etc/modprobe.d/local.conf
      line: 3
      text: options vfio-pci ids=10de:2236
blockers:
  description: What stopped the module.
  type: list
  elements: dict
  returned: failure
  sample:
    - target: module vfio-pci
      problem: /etc/modprobe.d/local.conf line 1 keeps it from being loaded (blacklist vfio-pci)
      remedy: Remove that from /etc/modprobe.d/local.conf, or do not ask for vfio-pci
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _kernel_modules, _modprobe, _modprobe_conflicts
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
            return _modprobe.Wish()
        options = tuple((entry["module"], " ".join(entry["value"].split())) for entry in self.params["options"])
        return _modprobe.Wish(tuple(load), tuple(self.params["block"]), options)

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
        lines = [line for line, _blocker in _modprobe_conflicts.contradicting(wish, seen.others)] + _modprobe.claims(seen.others)
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
        problems = _modprobe.problems(run.wish([*module.params["load"], *module.params["load_if_present"]]))
        if problems:
            module.fail_json(msg=f"{DOING}: {'; '.join(problems)}. Nothing was changed.")
        _change.run(module, DOING, run.observe, run.plan, run.apply, lambda seen, plan: run.result(seen), run.verify)
    except HostError as error:
        module.fail_json(msg=f"{DOING}: {error}.")


if __name__ == "__main__":
    main()
