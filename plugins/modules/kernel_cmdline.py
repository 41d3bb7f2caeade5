#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_cmdline
short_description: Have boot arguments on the kernel's line, and touch nothing else on it
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Compares arguments as parsed tokens, with quotes and comma lists. V(intel_iommu=on,sm_on) satisfies V(intel_iommu=on).
  - On Debian and Ubuntu with GRUB, writes its own drop-in C(/etc/default/grub.d/60-gpufleet.cfg) and runs C(update-grub), only if something
    differs. Every other argument keeps its value and place.
  - Refuses other boot loaders with the command to run by hand, unless the running kernel already has what is wanted.
  - A word that nothing appended takes back, such as C(iommu=off), is a failure that names file and line, unless O(absent) lists it.
  - Never reboots.
attributes:
  check_mode:
    support: full
    description: Computes what it would write.
  diff_mode:
    support: full
    description: Shows the files that differ.
options:
  present:
    description: Arguments that must be in effect.
    type: list
    elements: str
    default: []
  absent:
    description: Arguments that must not be there, exactly as they are written. They are removed where they stand.
    type: list
    elements: str
    default: []
  provider:
    description: The boot loader. V(auto) finds out.
    type: str
    choices: [auto, grub]
    default: auto
  host_root:
    description: Directory that holds the host's files. Another than V(/) is for tests, there C(update-grub) is not run but named in RV(pending).
    type: path
    default: /
seealso:
  - module: gpufleet.kubevirt.gpu_node_info
"""

EXAMPLES = r"""
- name: Turn the IOMMU on with the next boot
  gpufleet.kubevirt.kernel_cmdline:
    present:
      - intel_iommu=on
      - iommu=pt
  register: cmdline

- name: Say that a reboot is due
  ansible.builtin.debug:
    msg: A reboot is due
  when: cmdline.reboot_required
"""

RETURN = r"""
changes:
  description: What was changed, or would be.
  type: list
  elements: dict
  returned: always
  sample:
    - target: file /etc/default/grub.d/60-gpufleet.cfg
      action: write
      before: null
      after: GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT intel_iommu=on"
      reason: "must be there: intel_iommu=on"
reboot_required:
  description: Whether the running kernel lacks an argument of O(present), or has one of O(absent).
  type: bool
  returned: always
  sample: true
running:
  description: Arguments of the running kernel. Values that have nothing to do with devices are not shown.
  type: list
  elements: str
  returned: always
  sample: [ro, quiet]
configured:
  description: Arguments of the next boot, as far as the boot loader's files say, or V(null). In check mode those before the change.
  type: list
  elements: str
  returned: always
  sample: [quiet, intel_iommu=on]
provider:
  description: The boot loader.
  type: str
  returned: always
  sample: grub
pending:
  description: Commands that are still to be run for the change to take effect with the next boot.
  type: list
  elements: str
  returned: always
  sample: []
kernel_change:
  description: The release that the next boot will run, if it can be told and is another than the running one.
  type: str
  returned: always
  sample: null
blockers:
  description: What stopped the module.
  type: list
  elements: dict
  returned: failure
  sample:
    - target: argument iommu=off
      problem: iommu=off stands in /etc/default/grub line 9, and nothing that is appended takes it back
      remedy: Remove it there, or name it in gpufleet_kernel_arguments_absent (option absent)
"""

import fcntl
import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _bootloader, _cmdline, _grub, _system
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError

DOING = "Setting the kernel arguments"
LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock")
ROOM = 4 << 20  # bytes; the generated file is some ten kilobytes


def lock_problem(path):
    """A Blocker if a package manager is at work."""
    try:
        with open(path, "rb+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _change.Blocker(path, "a package manager is at work", "Wait until it has ended")
    except OSError as error:
        return _change.Blocker(path, f"it cannot be told whether a package manager is at work: {error.strerror}", "Become root")
    return None


def generator_blockers():
    """What would make running the generator unsafe on the real host."""
    if not os.path.exists(_grub.GENERATOR):
        return [
            _change.Blocker(f"file {_grub.GENERATOR}", "it is not there", "Leave provider at auto: this host does not boot Debian's way")
        ]
    found = []
    space = os.statvfs("/boot")
    if space.f_bavail * space.f_frsize < ROOM:
        found.append(_change.Blocker("/boot", f"less than {ROOM >> 20} MiB are free", "Remove old kernels first"))
    return found + [blocker for path in LOCKS for blocker in [lock_problem(path)] if blocker]


class Cmdline:
    """One run on one host."""

    def __init__(self, module, host):
        self.module = module
        self.host = host
        self.present = list(dict.fromkeys(module.params["present"]))
        self.absent = list(dict.fromkeys(module.params["absent"]))
        self.kind = _bootloader.provider(host) if module.params["provider"] == "auto" else module.params["provider"]

    def observe(self):
        running = _cmdline.split(self.host.read_text("/proc/cmdline") or "")
        return running, _grub.read(self.host) if self.kind == "grub" else None

    def due(self, running):
        return _grub.wanting(running, self.present, self.absent)

    def plan(self, seen):
        running, files = seen
        if files is not None:
            plan = _grub.make_plan(files, self.present, self.absent, self.host.is_real)
            if plan.changes and self.host.is_real:
                plan.blockers += generator_blockers()
            return plan
        plan = _change.Plan()
        if self.due(running):
            problem = f"its boot loader ({self.kind}) is not one that this module writes"
            absent = list(dict.fromkeys([*self.absent, *_cmdline.undoing(running, self.present)]))
            plan.blockers.append(_change.Blocker("boot loader", problem, _bootloader.by_hand(self.kind, self.present, absent)))
        return plan

    def apply(self, changes):
        for change in changes:
            path = change.target[len("file ") :]
            try:
                if change.action == "generate":
                    code, out, err = self.module.run_command([_grub.GENERATOR])
                    if code:
                        text = (err or out).strip()[-400:]
                        return [
                            _change.Blocker(
                                change.target, f"{_grub.GENERATOR} ended with {code}: {text}", "Mend that and run again before you reboot"
                            )
                        ]
                elif change.action == "remove":
                    self.host.remove(path)
                else:
                    self.host.write_text(path, change.after)
            except HostError as error:
                return [_change.Blocker(change.target, str(error), "Mend that and run again")]
        return []

    def verify(self, seen):
        plan = self.plan(seen)
        left = plan.blockers + [
            _change.Blocker(
                change.target, f"{change.action} was done but did not take", "Look for another writer of it, and do not reboot before"
            )
            for change in plan.changes
        ]
        return left + (_grub.default_entry_problems(self.host, seen[1]) if self.host.is_real and seen[1] else [])

    def result(self, seen, plan):
        running, files = seen
        shown = [_system.shown_argument(token) for token in running]
        configured = _bootloader.configured(self.host)
        unwritten = plan.changes and self.module.check_mode
        asked = self.present or self.absent
        behind = files is not None and (unwritten or not _grub.generated_has(files, self.present, self.absent))
        release = _system.quiet(self.host, "/proc/sys/kernel/osrelease")
        following = _grub.next_kernel(files) if files else None
        return {
            "reboot_required": self.due(running),
            "running": shown,
            "configured": None if configured is None else [_system.shown_argument(token) for token in configured],
            "provider": self.kind,
            "pending": ["update-grub"] if asked and behind and not self.host.is_real else [],
            "kernel_change": following if following != release else None,
        }


def main() -> None:
    arguments = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "present": arguments,
            "absent": arguments,
            "provider": {"type": "str", "choices": ["auto", "grub"], "default": "auto"},
            "host_root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    problems = [problem for token in module.params["present"] + module.params["absent"] for problem in [_cmdline.problem(token)] if problem]
    problems += [f"{token!r} contradicts another argument of the same key" for token in _cmdline.contradictions(module.params["present"])]
    problems += [f"{token!r} is asked for and forbidden" for token in sorted(set(module.params["present"]) & set(module.params["absent"]))]
    if problems:
        module.fail_json(msg=f"{DOING}: {'; '.join(problems)}. Nothing was changed.")
    try:
        cmdline = Cmdline(module, Host(module.params["host_root"]))
        _change.run(module, DOING, cmdline.observe, cmdline.plan, cmdline.apply, cmdline.result, cmdline.verify)
    except HostError as error:
        module.fail_json(msg=f"{DOING}: {error}.")


if __name__ == "__main__":
    main()
