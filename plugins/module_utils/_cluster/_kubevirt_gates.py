# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""KubeVirt's feature gates for devices, by version: which there are, which are on without being listed, which can be turned off.

KubeVirt takes any name without a word, so a gate that its version does not have is listed to no effect. Of a known one: GA is always on; a
listed one is on; one in ``disabledFeatureGates`` (1.8 and newer) is off; beta is on from 1.9 on, and before that off unless listed.

Source: kubevirt/kubevirt, pkg/virt-config/featuregate/{active,inactive,feature-gates}.go at each tag; the comments in active.go that name a
version are not reliable, the tags are.
"""

from __future__ import annotations

import re
import typing as t

Version = t.Tuple[int, int, int]

#: Gate -> since which version it is in which stage, in order.
GATES: t.Dict[str, t.Tuple[t.Tuple[Version, str], ...]] = {
    "GPU": (((0, 0, 0), "alpha"), ((1, 4, 0), "ga")),
    "HostDevices": (((0, 0, 0), "alpha"),),
    "DisableMDEVConfiguration": (((0, 58, 2), "alpha"), ((1, 8, 0), "deprecated")),
    "GPUsWithDRA": (((1, 6, 0), "alpha"), ((1, 9, 0), "beta")),
    "HostDevicesWithDRA": (((1, 6, 0), "alpha"), ((1, 9, 0), "beta")),
    "PCINUMAAwareTopology": (((1, 8, 0), "alpha"),),
    "LibvirtHooksServerAndClient": (((1, 8, 0), "alpha"), ((1, 9, 0), "beta")),
    "VGPULiveMigration": (((1, 9, 0), "alpha"),),
    "IOMMUFD": (((1, 9, 0), "alpha"),),
    "GraceIOVirtualization": (((1, 9, 0), "alpha"),),
}
#: Since when beta gates are on by default, and since when a gate can be listed as disabled.
_BETA_ON: Version = (1, 9, 0)
DISABLING: Version = (1, 8, 0)


def parse(version: t.Any) -> t.Optional[Version]:
    """``v1.7.0`` or ``v1.8.0-rc.1`` as numbers; None if it is not known or no release (then nothing is concluded from it)."""
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", str(version or ""))
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def shown(version: Version) -> str:
    """As a release is called: 1.9, or 0.58.2 where the patch level matters."""
    return ".".join(str(number) for number in (version if version[2] else version[:2]))


def stage(gate: str, version: t.Optional[Version]) -> t.Optional[str]:
    """alpha, beta, ga, deprecated, or ``missing`` if this version does not have it; None if the gate or the version is not known here."""
    steps = GATES.get(gate)
    if steps is None or version is None:
        return None
    if gate == "DisableMDEVConfiguration" and not can_stop_handling(version):
        return "missing"
    reached = [name for since, name in steps if version >= since]
    return reached[-1] if reached else "missing"


def since(gate: str, name: str) -> str:
    """Since which version a gate is in this stage, or (``missing``) is there at all."""
    return shown(next((version for version, found in GATES[gate] if found == name), GATES[gate][0][0]))


def can_stop_handling(version: Version) -> bool:
    """Can KubeVirt be told to leave mediated devices alone? Not before 0.58.2, nor in 0.59.0, which delete what they were not told of."""
    return version >= (0, 58, 2) and version != (0, 59, 0)


def on(gate: str, version: t.Optional[Version], listed: t.Container[str], disabled: t.Container[str]) -> bool:
    """Is a gate in effect? Of one that is not known here: is it listed?"""
    now = stage(gate, version)
    if now in ("ga", "missing"):
        return now == "ga"
    if gate in listed:
        return True
    return now == "beta" and version is not None and version >= _BETA_ON and gate not in disabled


def effective(version: t.Optional[Version], listed: t.Sequence[str], disabled: t.Sequence[str]) -> t.Dict[str, bool]:
    """Each gate for devices that this version has, and each that is listed: is it in effect?"""
    names = {*listed, *disabled, *(gate for gate in GATES if stage(gate, version) not in (None, "missing"))}
    return {gate: on(gate, version, listed, disabled) for gate in sorted(names)}
