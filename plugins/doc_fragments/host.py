# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options that modules of the host domain share."""

    # Modules that write files, and run programs of the host.
    DOCUMENTATION = r"""
options:
  host_root:
    description:
      - Directory that holds the host's files. In another than V(/), files are written, no program is run, and RV(pending) has the commands
        that are still to be run.
    type: path
    default: /
  run_in_root:
    description: V(chroot) runs the programs of O(host_root) in it, for which it has to be a whole system.
    type: str
    choices: [never, chroot]
    default: never
"""

    # Modules that write to the kernel.
    KERNEL = r"""
options:
  timeout:
    description: Seconds to wait for one write to the kernel, or one program. The kernel may still finish a write later.
    type: int
    default: 30
  host_root:
    description:
      - Directory that holds the host's files, such as a host that is mounted into a container. With another than V(/), no program of the host is
        run but named in RV(pending), and the kernel is written to only if C(sys) below it is a real sysfs.
    type: path
    default: /
"""

    # Modules that make devices, which are gone after a reboot.
    DEVICES = r"""
attributes:
  check_mode:
    support: full
    description: Says what it would do. Nothing is written, and no program changes anything.
  diff_mode:
    support: full
    description: Shows what differs, device by device, and the files of O(persist).
options:
  persist:
    description:
      - V(boot) makes them again at each boot. The unit C(gpufleet-devices.service) does that. It is ordered before C(kubelet.service),
        C(k3s.service), C(k3s-agent.service), C(rke2-server.service) and C(rke2-agent.service), and is wanted by them, so that these start once
        the devices are there, or the unit has waited five minutes and says in the journal what is missing. In that case it fails, and they start.
      - What to make is in C(/etc/gpufleet/devices.json), which only root can read. The unit runs a copy of this collection's code in
        C(/usr/local/lib/gpufleet), of which each module keeps its own part up to date. The last entry that goes takes unit and code with it.
      - V(none) removes what was persisted for these devices.
      - Another one's persistence of the same devices, mdevctl's or a unit in C(/etc/systemd/system), is refused by name.
    type: str
    choices: [none, boot]
    default: none
"""
