# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One reading of a host, put together: what ``gpu_node_info`` returns."""

from __future__ import annotations

import typing as t

from . import (
    _bootloader,
    _cmdline,
    _driver,
    _gpus,
    _groups,
    _kernels,
    _pci,
    _system,
)
from ._sysfs import Host


def read(host: Host) -> _system.Facts:
    """Everything about one host, once. What is missing is None, with the reason in ``unknown`` (fact name to text)."""
    unknown = _system.Unknown()
    functions = _pci.functions(host)
    system = _system.system(host, unknown)
    running = _arguments(host, unknown)
    facts = {
        "host": system,
        "boot": _boot(host, running, unknown),
        "kernels": _kernels.kernels(host, system["kernel"], running, unknown),
        "firmware": _system.firmware(host, unknown),
        "iommu": _system.iommu(host, unknown),
        "gpus": _gpus.gpus(host, functions, unknown),
        "nvswitches": _gpus.nvswitches(functions),
        "groups": _groups.of_nvidia(functions),
        "modules": _system.modules(host, unknown),
        "host_driver": _driver.host_driver(host, unknown),
        "kernel_log": _system.kernel_log(host, unknown),
        "qemu": _system.qemu(host, unknown),
    }
    if not host.exists("/sys/bus/pci/devices"):
        unknown.reasons["gpus"] = "there is no /sys/bus/pci/devices"
        facts["gpus"] = facts["nvswitches"] = facts["groups"] = None
    return {**facts, "unknown": unknown.reasons}


def _arguments(host: Host, unknown: _system.Unknown) -> t.Optional[t.List[str]]:
    """The arguments of the running kernel, or None."""
    line = unknown.text(host, "boot.running", "/proc/cmdline")
    return None if line is None else _cmdline.split(line)


def _boot(host: Host, running: t.Optional[t.List[str]], unknown: _system.Unknown) -> _system.Facts:
    """The arguments that run, those that the next boot will have, and of these the ones that do not run yet.

    ``configured`` is None where we cannot tell. Arguments are compared before values are hidden.
    """
    configured = _bootloader.configured(host)
    if configured is None:
        unknown.reasons["boot.configured"] = "the configuration of this boot loader is not read"
    pending = None if running is None or configured is None else [argument for argument in configured if argument not in running]
    return {
        "provider": _bootloader.provider(host),
        "running": _shown(running),
        "configured": _shown(configured),
        "pending": _shown(pending),
    }


def _shown(arguments: t.Optional[t.List[str]]) -> t.Optional[t.List[str]]:
    return None if arguments is None else [_cmdline.shown(argument) for argument in arguments]
