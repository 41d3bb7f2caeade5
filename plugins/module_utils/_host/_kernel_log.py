# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel log says when something is wrong with a GPU."""

from __future__ import annotations

import errno
import os
import re
import typing as t

from ._sysfs import MISSING, Host, HostError

PATH = "/dev/kmsg"
#: By a name of our own.
#: Sources: the kernel's PCI and VFIO code, NVIDIA/open-gpu-kernel-modules, and reports of operators.
SIGNATURES = {
    "mmio_exhausted": re.compile(r"not enough MMIO resources for SR-IOV|BAR1 is 0M|BAR \d+.*(no space|failed to assign)"),
    "bar_reserved": re.compile(r"BAR \d+.*can't reserve"),
    "nova_core": re.compile(r"already bound to NovaCore|NovaCore \w+:"),
    "flr_failed": re.compile(r"not ready \d+ms after FLR; giving up|Unable to change power state from D3cold"),
    "fell_off_bus": re.compile(r"GPU has fallen off the bus|Xid .*\b79\b,"),
    "unsigned_module": re.compile(r"Key was rejected by service|Required key not available|Loading of unsigned module is rejected"),
    "gsp_firmware": re.compile(r"gsp_\w+\.bin failed with error -2"),
}


def read(host: Host, limit: int = 1 << 20) -> str | None:
    """The records that the log has now, without waiting for more: at most ``limit`` bytes, the newest ones. None if there is no log."""
    try:
        descriptor = os.open(host.real(PATH), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in MISSING:
            return None
        raise HostError(PATH, error.strerror or str(error)) from error
    content = b""
    try:
        while True:
            try:
                piece = os.read(descriptor, 8192)
            except OSError as error:
                if error.errno == errno.EPIPE:  # the kernel has overwritten the record meanwhile: go on with the next one
                    continue
                break
            if not piece:
                break
            content = (content + piece)[-limit:]
    finally:
        os.close(descriptor)
    return content.decode("utf-8", "replace")


def signatures(records: str) -> t.List[t.Dict[str, t.Any]]:
    """Those found in the records of the log: ``[{signature, count, line}]``, ``line`` being the last one, cut at 200 characters."""
    # A record is "priority,sequence,time,flags;text"; continuation lines begin with a blank.
    lines = [line.partition(";")[2] or line for line in records.splitlines() if not line.startswith(" ")]
    found = []
    for name in sorted(SIGNATURES):
        hits = [line for line in lines if SIGNATURES[name].search(line)]
        if hits:
            found.append({"signature": name, "count": len(hits), "line": hits[-1][:200]})
    return found
