# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel log says when something is wrong with a GPU."""

from __future__ import annotations

import re
import typing as t

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
