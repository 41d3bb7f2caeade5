# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""One reading of a host, put together: what ``gpu_node_info`` returns."""

from __future__ import annotations

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _bootloader, _cmdline, _pci, _system
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host


def read(host: Host) -> _system.Facts:
    """Everything about one host, once. What is missing is None, with the reason in ``unknown`` (fact name to text)."""
    unknown = _system.Unknown()
    functions = _pci.functions(host)
    facts = {
        "host": _system.system(host, unknown),
        "boot": _boot(host, unknown),
        "firmware": _system.firmware(host, unknown),
        "iommu": _system.iommu(host, unknown),
        "gpus": _pci.gpus(host, functions, unknown),
        "nvswitches": _pci.nvswitches(functions),
        "groups": _pci.groups(functions),
        "modules": _system.modules(host, unknown),
        "host_driver": _system.host_driver(host, unknown),
        "kernel_log": _system.kernel_log(host, unknown),
        "qemu": _system.qemu(host, unknown),
    }
    if not host.exists("/sys/bus/pci/devices"):
        unknown.reasons["gpus"] = "there is no /sys/bus/pci/devices"
        facts["gpus"] = facts["nvswitches"] = facts["groups"] = None
    return {**facts, "unknown": unknown.reasons}


def _boot(host: Host, unknown: _system.Unknown) -> _system.Facts:
    """The arguments that run and those that the next boot will have; ``configured`` is None where we cannot tell."""
    running = unknown.text(host, "boot.running", "/proc/cmdline")
    configured = _bootloader.configured(host)
    return {
        "provider": _bootloader.provider(host),
        "running": None if running is None else [_system.shown_argument(argument) for argument in _cmdline.split(running)],
        "configured": None if configured is None else [_system.shown_argument(argument) for argument in configured],
    }
