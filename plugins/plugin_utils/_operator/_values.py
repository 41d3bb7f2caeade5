# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Helm values for the GPU Operator: what this collection must have, the site's own on top, nothing that would undo the first."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator import _chart, _mirrors, _taints
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator._mappings import Values, at, merged, nested
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._plain import plain

#: Path, the value that it must keep, and what another one would do.
MUST_KEEP: tuple[tuple[tuple[str, ...], t.Any, str], ...] = (
    (("sandboxWorkloads", "enabled"), True, "the operator would take the devices of every VM away"),
    (("sandboxWorkloads", "defaultWorkload"), "container", "a node without a label would become something that nobody chose"),
    (("daemonsets", "updateStrategy"), "OnDelete", "an update would restart vfio-manager and vgpu-manager under running VMs"),
    (("ccManager", "enabled"), False, "the sandbox validator would wait for confidential computing on nodes that are capable of it"),
)

#: Path, and the values that the chart knows for it; None is the chart's default (NVIDIA/gpu-operator v26.7.0, api/nvidia/v1).
#: The mode ``kata`` is left out: its devices are none that KubeVirt could use.
ENUMS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("sandboxWorkloads", "mode"), ("kubevirt",)),
    (("ccManager", "defaultMode"), ("on", "off", "devtools")),
    (("driver", "kernelModuleType"), ("auto", "open", "proprietary")),
)

#: The ConfigMap of the Device Manager that the operator writes itself (controllers/object_controls.go:613-619).
STOCK_CONFIG = "default-vgpu-devices-config"

#: What the chart needs of the vGPU manager's image, and the variable that gives it.
_IMAGE = {"repository": "gpufleet_registry", "image": "gpufleet_operator_values", "version": "gpufleet_vgpu_version"}


def operator_values(intents: t.Iterable[t.Mapping[str, t.Any]], options: t.Mapping[str, t.Any] | None = None) -> Values:
    """The values. ``options``: ``registry, vgpu_version, pull_secret, vgpu_config_name, values, present, openshift,
    chart_values, release_values, mirrors, nodes`` (those of ``gpu_fleet_info``).

    Raises ValueError for what cannot be.
    """
    options = options or {}
    intents = [intent for intent in intents if intent.get("owner") != "host"]  # there the operator has nothing to do
    own = plain(options.get("values") or {})
    hosts = sorted(str(intent["host"]) for intent in intents if intent["workload"] == "vm-vgpu")
    base = _base(bool(hosts), options)
    if hosts and options.get("vgpu_config_name"):
        base["vgpuDeviceManager"] = {"config": {"name": str(options["vgpu_config_name"])}}
    chart = plain(options["chart_values"]) if options.get("chart_values") else None
    base = merged(_mirrors.mirrored(chart, plain(options.get("mirrors") or {})), base)
    taints = _taints.taints_of(intents, options.get("nodes") or [])
    for path, wanted_list in _taints.tolerations(taints, plain(options.get("release_values") or {}), chart or {}).items():
        base = merged(base, nested(path, wanted_list))
    _check_keys(own, base, chart)
    wanted = merged(base, own)
    for path, value, why in MUST_KEEP:
        found = at(wanted, path)
        # Null too would undo it: Helm takes a null as "forget this key". And 1 is no true to a chart's schema.
        if type(found) is not type(value) or found != value:
            raise ValueError(f"gpufleet_operator_values: {'.'.join(path)} must stay {value!r}, not {found!r}: {why}")
    for path, allowed in ENUMS:
        found = at(wanted, path)
        if found is not None and found not in allowed:
            raise ValueError(f"gpufleet_operator_values: {'.'.join(path)} can be {' or '.join(allowed)}, not {found!r}")
    _check_vgpu_manager(hosts, wanted["vgpuManager"])
    name = options.get("vgpu_config_name")  # None: not known yet
    if hosts and name is not None:
        _check_config_name(name, wanted)
    present = options.get("present")
    if present:
        # A limited run decides for its part of the fleet only: what the release has, stays; what it lacks, comes.
        kept = merged(wanted, plain(present))
        if name is not None and any(intent["workload"] == "vm-vgpu" and intent.get("limited") for intent in intents):
            _check_config_name(name, plain(present), kept=True)
        _check_present(intents, kept)
        return kept
    return wanted


def _check_config_name(name: str, values: Values, kept: bool = False) -> None:
    """Does the Device Manager mount the ConfigMap that the profiles are of? Empty is the stock one. ``kept``: by a run of a part of the fleet."""
    found = at(values, ("vgpuDeviceManager", "config", "name")) or ""
    if ("" if found == STOCK_CONFIG else found) == name:
        return
    who = "a run of a part of the fleet keeps" if kept else "gpufleet_operator_values gives"
    whose = f"ConfigMap {name}" if name else "NVIDIA's stock configuration"
    if not name:
        remedy = f"Set gpufleet_vgpu_config_name: {found}, so that they are taken from there"
    else:
        remedy = "Run site.yml once without --limit" if kept else "Leave that value out"
    raise ValueError(
        f"{who} {found or STOCK_CONFIG!r} as vgpuDeviceManager.config.name, and the profiles of the inventory are of {whose}. {remedy}"
    )


def _check_present(intents: list[t.Mapping[str, t.Any]], kept: Values) -> None:
    """Would the hosts of a limited run ever work under the values that the release keeps?"""
    needs = {"vm-passthrough": ["sandboxWorkloads"], "vm-vgpu": ["sandboxWorkloads", "vgpuManager"]}
    for intent in intents:
        off = [key for key in needs.get(intent["workload"], []) if at(kept, (key, "enabled")) is not True]
        if off and intent.get("limited") and intent.get("state") == "wanted":
            raise ValueError(
                f"{intent['host']}: as {intent['workload']} it needs {' and '.join(f'{key}.enabled' for key in off)}, which the release has "
                f"turned off, and a run of a part of the fleet keeps the release's values. Run site.yml once without --limit"
            )


def _check_keys(own: t.Any, base: Values, chart: t.Mapping[str, t.Any] | None) -> None:
    if not isinstance(own, dict):
        raise ValueError(f"gpufleet_operator_values: Helm values are a mapping, not {own!r}")
    unknown = _chart.unknown_keys(merged(base, own), chart)
    if unknown:
        keys = "no key" if len(unknown) == 1 else "none of these keys:"
        raise ValueError(
            f"gpufleet_operator_values: the chart has {keys} {', '.join(unknown)}, and would ignore {'it' if len(unknown) == 1 else 'them'}"
        )
    for key, value in own.items():
        if key in base and not isinstance(value, dict):
            raise ValueError(f"gpufleet_operator_values: {key} is a mapping, not {value!r}")


def _check_vgpu_manager(hosts: list[str], manager: t.Mapping[str, t.Any]) -> None:
    if hosts and manager.get("enabled") is not True:
        raise ValueError(
            f"gpufleet_operator_values: vgpuManager.enabled must stay True, not {manager.get('enabled')!r}: "
            f"without it {', '.join(hosts)} would get no vGPU"
        )
    missing = [variable for key, variable in _IMAGE.items() if not manager.get(key)] if manager.get("enabled") else []
    if missing:
        who = ", ".join(hosts) or "gpufleet_operator_values: vgpuManager"
        are = "is" if len(missing) == 1 else "are"
        raise ValueError(
            f"{who}: vGPU needs the vGPU manager image of a private registry, and {' and '.join(missing)} {are} not set. "
            f"The chart wants repository, image and version together"
        )


def _base(vgpu: bool, options: t.Mapping[str, t.Any]) -> Values:
    values: Values = {
        "sandboxWorkloads": {"enabled": True, "defaultWorkload": "container"},
        "daemonsets": {"updateStrategy": "OnDelete"},
        "ccManager": {"enabled": False},
        "vgpuManager": {"enabled": False},
        **({"platform": {"openshift": True}} if options.get("openshift") else {}),
    }
    if vgpu:
        values["vgpuManager"] = {
            "enabled": True,
            "repository": str(options.get("registry") or ""),
            "image": "vgpu-manager",
            "version": str(options.get("vgpu_version") or ""),
            **({"imagePullSecrets": [str(options["pull_secret"])]} if options.get("pull_secret") else {}),
        }
    return values
