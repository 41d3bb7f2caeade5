#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import (
    _boot_provider,
    _bootloader,
    _cmdline,
    _disk,
    _grub,
    _grubby,
    _systemd_boot,
)
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Commands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError

DOING = "Setting the kernel arguments"
#: The boot loaders that this module writes, by the name of the provider.
PROVIDERS = {loader.kind: loader for loader in (_grub.Grub, _grubby.Grubby, _systemd_boot.SystemdBoot)}


class Cmdline:
    """One run on one host."""

    def __init__(self, module, host):
        self.module = module
        self.host = host
        self.present = list(dict.fromkeys(module.params["present"]))
        self.absent = list(dict.fromkeys(module.params["absent"]))
        self.commands = Commands(host, module.params["run_in_root"])
        found, wished = _bootloader.provider(host), module.params["provider"]
        self.kind = found if wished == "auto" or found in _boot_provider.MANAGED_ELSEWHERE else wished
        loader = PROVIDERS.get(self.kind)
        self.loader = loader(host, self.commands) if loader else None
        self.first = None
        self.backups = []

    def observe(self):
        running = _cmdline.split(self.host.read_text("/proc/cmdline") or "")
        seen = self.loader.read() if self.loader else None
        self.first = self.first or seen
        return running, seen

    def due(self, running):
        return _cmdline.wanting(running, self.present, self.absent)

    def whole_plan(self, seen):
        """What is to be done, programs included, whether they are run here or not."""
        return self.loader.plan(seen, self.present, self.absent)

    def plan(self, observed):
        running, seen = observed
        if self.loader is None:
            plan = _change.Plan()
            if self.due(running):
                problem = f"its boot loader ({self.kind}) is not one that this module writes"
                absent = list(dict.fromkeys([*self.absent, *_cmdline.undoing(running, self.present)]))
                plan.blockers.append(_change.Blocker("boot loader", problem, _boot_provider.by_hand(self.kind, self.present, absent)))
            return plan
        plan = self.whole_plan(seen)
        programs = [change for change in plan.changes if isinstance(change, _boot_provider.ProgramChange)]
        if not self.commands.can_run:
            plan.changes = [change for change in plan.changes if change not in programs]
        elif programs:
            plan.blockers += _boot_provider.obstacles(self.host, programs, *self.loader.room(seen))
        elif self.due(running):
            plan.blockers += _boot_provider.missing_files(self.loader, seen)
        plan.blockers += _boot_provider.not_text(plan.changes)
        if plan.changes or self.due(running):
            _boot_provider.judge_kernel(plan, self.host, self.loader.default(seen), self.running_release())
        return plan

    def running_release(self):
        return self.host.quiet("/proc/sys/kernel/osrelease")

    def apply(self, changes):
        for change in changes:
            path = change.target[len("file ") :]
            try:
                if isinstance(change, _boot_provider.ProgramChange):
                    seconds = _boot_provider.SECONDS
                    problem = self.commands.run(change.command, seconds).problem(change.command[0], seconds)
                    if problem:
                        return [_change.Blocker(change.target, problem, "Mend that and run again before you reboot")]
                    continue
                if self.module.params["backup"] and change.before is not None:
                    # No boot loader reads a file of this name.
                    self.backups.append(f"{path}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}~")
                    _disk.copy(self.host, path, self.backups[-1])
                if change.action == "remove":
                    self.host.remove(path)
                else:
                    self.host.write_text(path, change.after)
            except HostError as error:
                return [_change.Blocker(change.target, str(error), "Mend that and run again")]
        return []

    def verify(self, observed):
        _running, seen = observed
        plan = self.plan(observed)
        remedy = "Look for another writer of it, and do not reboot before"
        left = plan.blockers + [
            _change.Blocker(change.target, f"{change.action} was done but did not take", remedy) for change in plan.changes
        ]
        if self.commands.can_run:
            left += _boot_provider.damage(self.loader, self.first, seen, self.present, self.absent)
            left += _boot_provider.missing_files(self.loader, seen)
        return list({(blocker.target, blocker.problem): blocker for blocker in left}.values())

    def result(self, observed, _plan):
        running, seen = observed
        configured = self.loader.configured(seen) if self.loader else None
        left = self.whole_plan(seen).changes if self.loader and not self.commands.can_run else []
        entry = self.loader.default(seen) if self.loader else None
        following = entry.release if entry else None
        return {
            "reboot_required": self.due(running),
            "running": [_cmdline.shown(token) for token in running],
            "configured": None if configured is None else [_cmdline.shown(token) for token in configured],
            "provider": self.kind,
            "pending": [change.line for change in left if isinstance(change, _boot_provider.ProgramChange)],
            "kernel_change": following if following != self.running_release() else None,
            "backups": self.backups,
        }


def main() -> None:
    arguments = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "present": arguments,
            "absent": arguments,
            "provider": {"type": "str", "choices": ["auto", "grub", "grubby", "systemd_boot"], "default": "auto"},
            "backup": {"type": "bool", "default": False},
            "host_root": {"type": "path", "default": "/"},
            "run_in_root": {"type": "str", "choices": ["never", "chroot"], "default": "never"},
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
