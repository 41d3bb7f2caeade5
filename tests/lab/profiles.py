# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleets that a lab can have, and the inventory of each.

`mixed` is that of the demo and of most tests; its inventory stands in `inventories/lab`. The inventories of the others are written into the
lab's state directory, of the same group variables.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.hosts.specification import LAB_HOSTS, Gpu, HostSpec
from tests.lab.layout import CHECKOUT, LabError, Layout

GROUPS = {"container": "gpu_container", "passthrough": "gpu_vm_passthrough", "vgpu": "gpu_vm_vgpu"}
_GROUP_VARS = CHECKOUT / "inventories" / "lab" / "group_vars" / "all.yml"


@dataclasses.dataclass(frozen=True)
class Profile:
    """Hosts by name, ``gpu-<container|passthrough|vgpu>-<n>``, and what the inventory says of the vGPU ones."""

    what: str
    hosts: Mapping[str, HostSpec]
    vgpu_profile: Any = None


def _host(*gpus: Gpu) -> HostSpec:
    return HostSpec(list(gpus), cmdline="intel_iommu=on")


def _a10(address: str) -> Gpu:
    return Gpu(address)


def _a16(bus: int) -> list[Gpu]:
    """A board of four GPUs behind one bridge, from this bus on."""
    return [Gpu(f"0000:{bus + 2 * n:02x}:00.0", device="25b6", subsystem="10de:14a9") for n in range(4)]


def _t4(address: str) -> Gpu:
    return Gpu(address, device="1eb8", subsystem="10de:12a2", vfs_total=0)


def _a100(address: str) -> Gpu:
    return Gpu(address, device="20f1", subsystem="10de:145f")


PROFILES: dict[str, Profile] = {
    "mixed": Profile("container, whole and virtual A10 and RTX A6000, one host without an IOMMU", LAB_HOSTS),
    "mig": Profile(
        "A100 whose vGPUs are GPU instances (MIG)",
        {"gpu-vgpu-0": _host(_a100("0000:41:00.0"), _a100("0000:a1:00.0")), "gpu-passthrough-0": _host(_a100("0000:41:00.0"))},
        "A100-1-5C",
    ),
    "a16": Profile(
        "an A16 under NVIDIA's default, which fails there, and one that is handed through",
        {"gpu-vgpu-0": _host(*_a16(0x41)), "gpu-passthrough-0": _host(*_a16(0x41))},
        "default",
    ),
    "two-models": Profile(
        "a T4 and an A10 in one host, of which no stock configuration but the default is for both",
        {"gpu-vgpu-0": _host(_t4("0000:41:00.0"), _a10("0000:a1:00.0")), "gpu-container-0": _host(_t4("0000:41:00.0"))},
        {"T4": "T4-8Q", "A10": "A10-12Q"},
    ),
    "twenty": Profile(
        "twenty hosts of two A10 for vGPUs",
        {f"gpu-vgpu-{n}": _host(_a10("0000:41:00.0"), _a10("0000:a1:00.0")) for n in range(20)},
        "A10-4Q",
    ),
}


def profile(name: str) -> Profile:
    """The profile of this name; LabError with the list for another."""
    if name not in PROFILES:
        known = "; ".join(f"{known}: {found.what}" for known, found in PROFILES.items())
        raise LabError(f"Starting a lab with the profile {name}: there is none of this name. Known: {known}.")
    return PROFILES[name]


def of(layout: Layout) -> Profile:
    """The profile of a lab that is up, or on its way."""
    return profile(layout.read().get("profile", "mixed"))


def inventory(layout: Layout, name: str) -> Path:
    """Where the inventory of a lab with this profile is."""
    return CHECKOUT / "inventories" / "lab" if name == "mixed" else layout.directory / "inventory"


def hosts_of(found: Profile) -> dict[str, Any]:
    """The inventory's hosts in their groups. JSON is YAML, and the lab has no package that writes the latter."""
    children: dict[str, Any] = {}
    for host in found.hosts:
        group = GROUPS[host.split("-")[1]]
        children.setdefault(group, {"hosts": {}})["hosts"][host] = {}
        if group == GROUPS["vgpu"]:
            children[group]["vars"] = {"gpufleet_vgpu_profile": found.vgpu_profile}
    return {"all": {"children": {"gpu_nodes": {"children": children}}}}


def write_inventory(layout: Layout, name: str) -> None:
    """Write the inventory that a profile has beside `mixed`: its hosts, and the variables of `inventories/lab` with this lab's places in them."""
    if name == "mixed":
        return
    directory = inventory(layout, name)
    (directory / "group_vars").mkdir(parents=True, exist_ok=True)
    (directory / "hosts.yml").write_text(json.dumps(hosts_of(profile(name)), indent=2) + "\n")
    places = {"lab_checkout": CHECKOUT, "lab_dir": layout.directory}
    lines = _GROUP_VARS.read_text().splitlines()
    for key, place in places.items():
        [number] = [n for n, line in enumerate(lines) if line.startswith(f"{key}:")]
        lines[number] = f"{key}: {json.dumps(str(place))}"
    (directory / "group_vars" / "all.yml").write_text("\n".join(lines) + "\n")
