# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which boot loader a host has, and for those that are not written here, what to do by hand."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _bls, _cmdline, _grub_files, _readings
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host

GRUBBY = ("/usr/sbin/grubby", "/usr/bin/grubby", "/sbin/grubby")
CMDLINE = "/etc/kernel/cmdline"
#: Systems whose boot arguments somebody else manages: a host's own boot loader is left alone there, whatever an option says.
MANAGED_ELSEWHERE = ("openshift", "ostree", "bootc", "proxmox")
_MACHINE_CONFIG = """apiVersion: machineconfiguration.openshift.io/v1
kind: MachineConfig
metadata:
  name: 99-gpufleet-kernel-arguments
  labels:
    machineconfiguration.openshift.io/role: worker
spec:
  kernelArguments:
"""


def provider(host: Host) -> str:
    """``grub`` (Debian's way), ``grubby`` or ``systemd_boot``, or ``openshift``, ``ostree``, ``bootc``, ``proxmox`` or ``unknown``, which are
    not written here."""
    release = _readings.os_release(host.read_text("/etc/os-release") or "")
    if release.get("ID") in ("rhcos", "scos") or "OPENSHIFT_VERSION" in release or host.exists("/etc/machine-config-daemon"):
        return "openshift"
    if host.exists("/run/ostree-booted"):
        return "ostree" if host.exists("/usr/bin/rpm-ostree") or not host.exists("/usr/bin/bootc") else "bootc"
    if host.exists("/etc/kernel/proxmox-boot-uuids"):
        return "proxmox"
    if first(host, GRUBBY):
        return "grubby"
    # Systems that boot through systemd-boot can still have GRUB's packages: the boot loader says its name to the firmware's variables.
    if "systemd-boot" in _bls.variable(host, "LoaderInfo"):
        return "systemd_boot"
    # Only Debian's generator reads the directory of our drop-in.
    if host.exists(_grub_files.MAIN) and host.exists(_grub_files.GENERATOR):
        return "grub"
    if first(host, (CMDLINE, *(f"{root}/loader/loader.conf" for root in _bls.ROOTS))):
        return "systemd_boot"
    return "unknown"


def by_hand(kind: str, present: t.Sequence[str], absent: t.Sequence[str]) -> str:
    """What an administrator does on a boot loader that is not written here."""
    if kind == "openshift":
        gone = f" Take {' '.join(absent)} out of the MachineConfig that sets it." if absent else ""
        items = "".join(f"    - {_yaml(token)}\n" for token in present)
        return f"{f'Apply this MachineConfig:{chr(10)}{_MACHINE_CONFIG}{items}' if present else ''}{gone}".strip()
    if kind == "ostree":
        words = [*(f"--append-if-missing={token}" for token in present), *(f"--delete-if-present={token}" for token in absent)]
        return f"Run: rpm-ostree kargs {' '.join(_shell(word) for word in words)}"
    if kind == "bootc":
        gone = f", and take {' '.join(absent)} out of the file there that sets it" if absent else ""
        kargs = ", ".join(_yaml(token) for token in present)
        return f"Put kargs = [{kargs}] into /usr/lib/bootc/kargs.d/60-gpufleet.toml of the host's image{gone}, build it, and run: bootc upgrade"
    less = f" and without {' '.join(absent)}" if absent else ""
    if kind == "proxmox":
        return f"Edit {CMDLINE} so that it is with {' '.join(present) or 'nothing more'}{less}, and run: proxmox-boot-tool refresh"
    return f"Boot with {' '.join(present) or 'nothing more'}{less}, however this host is booted"


def _yaml(token: str) -> str:
    escaped = token.replace('"', '\\"')
    return f'"{escaped}"'


def _shell(word: str) -> str:
    return f"'{word}'" if '"' in word or " " in word else word


def configured(host: Host) -> t.Optional[t.List[str]]:
    """The arguments that the next boot will have, read from files alone, or None where that cannot be told."""
    kind = provider(host)
    if kind == "grub":
        try:
            return _grub_files.line_of(_grub_files.read(host))
        except _grub_files.NotComputable:
            return None
    if kind not in ("grubby", "systemd_boot"):
        return None
    menu = _bls.grub_menu(host) if kind == "grubby" else _bls.systemd_menu(host)
    entry = next((fragment for fragment in menu.fragments if fragment.name == menu.default), None)
    return None if entry is None else _cmdline.split(menu.options(entry))


def first(host: Host, paths: t.Iterable[str]) -> t.Optional[str]:
    """The first of these paths that is there."""
    return next((path for path in paths if host.exists(path)), None)
