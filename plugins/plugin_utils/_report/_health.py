# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Known signatures of trouble, in what the cluster and the hosts say, each with what it means and what to do."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _operands

Facts = t.Mapping[str, t.Any]

BAD, WARN = "bad", "warn"
STATE_LABEL = f"{_names.VGPU_CONFIG_LABEL}.state"
#: A resource that is named by a device id: the plugin's own pci.ids does not know the device.
_BY_ID = re.compile(r"nvidia\.com/[0-9a-fA-F]{4}")

#: Signatures of the kernel log (gpu_node_info) -> level, what it means, what to do.
LOG = {
    "mmio_exhausted": (
        BAD,
        "the firmware has left too little address space for the GPU's regions",
        "Enable Above 4G decoding and a larger MMIO window in the firmware, and reset the host",
    ),
    "bar_reserved": (
        WARN,
        "another driver, such as the firmware's framebuffer, holds a region of the GPU",
        "Use another card for the console, or keep framebuffer drivers off the GPU",
    ),
    "nova_core": (
        BAD,
        "the driver nova_core has taken a GPU",
        "Run gpufleet.kubevirt.prepare_hosts, which blocks it, and let it reboot the host",
    ),
    "flr_failed": (BAD, "a GPU did not come back from a reset", "Power the host off and on, then look at the card and its slot"),
    "fell_off_bus": (BAD, "a GPU has stopped to answer on the bus", "Power the host off and on, then look at power, cooling and slot"),
    "unsigned_module": (
        BAD,
        "Secure Boot refuses NVIDIA's kernel module",
        "Sign the module with an enrolled key, or switch Secure Boot off",
    ),
    "gsp_firmware": (
        BAD,
        "the driver has not found the firmware of the GPU's own processor",
        "See whether the driver container may write the host's firmware search path",
    ),
}


class Finding(t.NamedTuple):
    """One sign of trouble. ``level``: ``bad`` counts as unhealthy, ``warn`` does not."""

    signature: str
    level: str
    target: str
    problem: str
    remedy: str


def node(found: Facts | None, facts: Facts | None) -> list[Finding]:
    """What a node's object and its host's facts show. None: not there, or not read."""
    return [*(_of_node(found) if found else ()), *(_of_host(facts) if facts else ())]


def _of_node(found: Facts) -> t.Iterator[Finding]:
    labels, name = found.get("labels") or {}, f"node {found['name']}"
    if not found.get("ready"):
        yield Finding("node_not_ready", BAD, name, "it is not ready", "Look at its kubelet, network and conditions")
    paused = sorted(key for key, value in labels.items() if key.startswith(_DEPLOY) and str(value).startswith("paused-for-"))
    if paused:
        level = WARN if found.get("at_work") else BAD
        why = "while a component changes the node" if found.get("at_work") else "and nothing is at work that would set them free"
        remedy = "Wait for it" if found.get("at_work") else "Run gpufleet.kubevirt.cluster, which sets them free"
        yield Finding("operands_paused", level, name, f"operands are paused ({', '.join(paused)}), {why}", remedy)
    if labels.get(f"{_DEPLOY}driver") == "pre-installed":
        problem = "the operator has found an NVIDIA driver on the host, and stays away from its GPUs"
        yield Finding(
            "driver_pre_installed", BAD, name, problem, "Remove the driver: gpufleet_remove_host_driver, then gpufleet.kubevirt.site"
        )
    if labels.get(STATE_LABEL) == "failed":
        problem = f"the vGPU Device Manager failed to make {labels.get(_names.VGPU_CONFIG_LABEL) or 'its profile'}"
        yield Finding(
            "vgpu_config_failed",
            BAD,
            name,
            problem,
            "Read the log of nvidia-vgpu-device-manager on the node, then run gpufleet.kubevirt.site",
        )
    used = found.get("used") or {}
    for resource in sorted(found.get("withdrawn") or []):
        if used.get(resource):
            problem = f"it advertises no more {resource}, and pods hold some"
            yield Finding("resource_withdrawn", BAD, name, problem, "See whether the GPUs are there and their device plugin runs")
    for resource in sorted(found.get("allocatable") or {}):
        if _BY_ID.fullmatch(resource):
            problem = f"its device plugin does not know the name of {resource}"
            yield Finding(
                "unnamed_device", WARN, name, problem, "The name changes with a newer plugin: permit it under the name that it has then"
            )


_DEPLOY = f"{_operands.RESOURCE_PREFIX}gpu.deploy."


def _of_host(facts: Facts) -> t.Iterator[Finding]:
    off = {str(gpu["address"]) for gpu in facts.get("gpus") or [] if gpu.get("fell_off_bus")}
    for address in sorted(off):
        _level, problem, remedy = LOG["fell_off_bus"]
        yield Finding("fell_off_bus", BAD, f"GPU {address}", problem, remedy)
    for entry in facts.get("kernel_log") or []:
        signature = str(entry["signature"])
        if signature == "fell_off_bus" and off:
            continue
        level, problem, remedy = LOG.get(
            signature, (WARN, "the kernel log shows it", "Read the line, and the documentation of gpu_node_info")
        )
        yield Finding(signature, level, "kernel log", f"{problem} ({entry['count']} times, last: {str(entry['line']).strip()})", remedy)


def cluster(fleet: Facts) -> list[Finding]:
    """What is one for the whole fleet."""
    return list(_of_cluster(fleet))


def _of_cluster(fleet: Facts) -> t.Iterator[Finding]:
    policy, release, kubevirt = (fleet.get(key) or {} for key in ("cluster_policy", "release", "kubevirt"))
    if policy and policy.get("ready") is False:
        problem = (
            f"it is {policy.get('state') or 'in no known state'}: {policy.get('message') or policy.get('reason') or 'it says not why'}"
        )
        yield Finding("policy_not_ready", BAD, f"ClusterPolicy {policy.get('name')}", problem, "Look at the operands that are not ready")
    if release and release.get("status") not in (None, "deployed"):
        problem = f"its last revision is {release['status']}"
        yield Finding("release_not_deployed", BAD, f"Helm release {release.get('name')}", problem, "Run gpufleet.kubevirt.cluster")
    if kubevirt and kubevirt.get("phase") not in (None, "Deployed"):
        yield Finding(
            "kubevirt_not_deployed", BAD, f"KubeVirt {kubevirt.get('name')}", f"it is {kubevirt['phase']}", "Look at virt-operator's log"
        )
