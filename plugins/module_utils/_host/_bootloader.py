# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which boot loader a host has, and for those that we do not write, the command to run by hand."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _grub, _system
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host

_LOADER = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


def provider(host: Host) -> str:
    """``grub`` (Debian's way), ``grubby``, ``ostree``, ``openshift``, ``systemd_boot`` or ``unknown``."""
    release = _system.os_release(host.read_text("/etc/os-release") or "")
    if release.get("ID") in ("rhcos", "scos"):
        return "openshift"
    if host.exists("/run/ostree-booted"):
        return "ostree"
    if host.exists("/usr/sbin/grubby") or host.exists("/usr/bin/grubby"):
        return "grubby"
    # Systems that boot through systemd-boot can still have GRUB's packages (Proxmox): the boot loader says its name to the firmware's variables.
    if "systemd-boot" in (host.read_bytes(_LOADER) or b"").decode("utf-16-le", "ignore"):
        return "systemd_boot"
    # Only Debian's generator reads the directory of our drop-in.
    if host.exists(_grub.MAIN) and host.exists(_grub.GENERATOR):
        return "grub"
    if host.exists("/etc/kernel/cmdline") or host.exists("/efi/loader/loader.conf") or host.exists("/boot/loader/loader.conf"):
        return "systemd_boot"
    return "unknown"


def by_hand(kind: str, present: t.Sequence[str], absent: t.Sequence[str]) -> str:
    """What an administrator does on a boot loader that we do not write."""
    if kind == "openshift":
        return f"Apply a MachineConfig with spec.kernelArguments: [{', '.join(present)}]"
    if kind == "ostree":
        words = [*(f"--append-if-missing={token}" for token in present), *(f"--delete-if-present={token}" for token in absent)]
        return f"Run: rpm-ostree kargs {' '.join(words)}"
    if kind == "grubby":
        words = [f'--args="{" ".join(present)}"'] if present else []
        words += [f'--remove-args="{" ".join(absent)}"'] if absent else []
        return f"Run: grubby --update-kernel=ALL {' '.join(words)}, and the same in /etc/kernel/cmdline for kernels to come"
    if kind == "systemd_boot":
        edit = f"Add {' '.join(present) or 'nothing'} to /etc/kernel/cmdline, remove {' '.join(absent) or 'nothing'}"
        return f'{edit}, and run for each kernel: kernel-install add "$(uname -r)" IMAGE (its vmlinuz, below /lib/modules or /boot)'
    less = f" and without {' '.join(absent)}" if absent else ""
    return f"Boot with {' '.join(present) or 'nothing more'}{less}, however this host is booted"


def configured(host: Host) -> t.Optional[t.List[str]]:
    """The arguments that the next boot will have, or None where we cannot tell."""
    if provider(host) != "grub":
        return None
    try:
        return _grub.line_of(_grub.read(host).texts)
    except _grub.NotComputable:
        return None
