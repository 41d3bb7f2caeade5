# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which boot loader a host has, and what it boots next, read from files alone."""

from __future__ import annotations

import typing as t

from . import _bls, _cmdline, _grub_files
from ._sysfs import Host

GRUBBY = ("/usr/sbin/grubby", "/usr/bin/grubby", "/sbin/grubby")
CMDLINE = "/etc/kernel/cmdline"


def provider(host: Host) -> str:
    """``grub`` (Debian's way), ``grubby`` or ``systemd_boot``, or ``openshift``, ``ostree``, ``bootc``, ``proxmox`` or ``unknown``, which are
    not written here."""
    release = host.os_release()
    if release.get("ID") in ("rhcos", "scos") or "OPENSHIFT_VERSION" in release or host.exists("/etc/machine-config-daemon"):
        return "openshift"
    if host.exists("/run/ostree-booted"):
        return "ostree" if host.exists("/usr/bin/rpm-ostree") or not host.exists("/usr/bin/bootc") else "bootc"
    if host.exists("/etc/kernel/proxmox-boot-uuids"):
        return "proxmox"
    # Systems that boot through systemd-boot can still have GRUB's packages: the boot loader says its name to the firmware's variables.
    if "systemd-boot" in _bls.variable(host, "LoaderInfo"):
        return "systemd_boot"
    if first(host, GRUBBY):
        return "grubby"
    # Only Debian's generator reads the directory of our drop-in.
    if host.exists(_grub_files.MAIN) and host.exists(_grub_files.GENERATOR):
        return "grub"
    if first(host, (CMDLINE, *(f"{root}/loader/loader.conf" for root in _bls.ROOTS))):
        return "systemd_boot"
    return "unknown"


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
