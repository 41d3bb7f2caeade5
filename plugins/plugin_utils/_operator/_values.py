# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Helm values for the GPU Operator: what this collection must have, the site's own on top, nothing that would undo the first."""

from __future__ import annotations

import copy
import difflib
import typing as t

Values = t.Dict[str, t.Any]

#: Top-level keys of the chart's values.yaml (NVIDIA/gpu-operator v26.7.0).
CHART_KEYS = frozenset(
    """
    ccManager cdi clusterPolicy daemonsets dcgm dcgmExporter devicePlugin draDriver driver extraObjects fullnameOverride gdrcopy gds gfd global
    gpuCluster hostPaths kataManager kataSandboxDevicePlugin mig migManager nameOverride nfd node-feature-discovery nodeStatusExporter operator
    platform psa psp sandboxDevicePlugin sandboxWorkloads toolkit validator vfioManager vgpuDeviceManager vgpuManager
    """.split()  # noqa: SIM905
)

#: Path, the value that it must keep, and what another one would do.
MUST_KEEP = (
    (("sandboxWorkloads", "enabled"), True, "the operator would take the devices of every VM away"),
    (("sandboxWorkloads", "defaultWorkload"), "container", "a node without a label would become something that nobody chose"),
    (("daemonsets", "updateStrategy"), "OnDelete", "an update would restart vfio-manager and vgpu-manager under running VMs"),
    (("ccManager", "enabled"), False, "the sandbox validator would wait for confidential computing on nodes that are capable of it"),
)


def operator_values(intents: t.Iterable[t.Mapping[str, t.Any]], options: t.Mapping[str, t.Any] | None = None) -> Values:
    """The values. ``options``: ``registry, vgpu_version, pull_secret, values, present``. Raises ValueError for what cannot be."""
    options = options or {}
    own = _plain(options.get("values") or {})
    for key in own:
        if key not in CHART_KEYS:
            near = ", ".join(difflib.get_close_matches(str(key), sorted(CHART_KEYS), n=2))
            hint = f" (nearest: {near})" if near else ""
            raise ValueError(f"gpufleet_operator_values: the chart has no key {key!r}{hint}, and would ignore it")
    wanted = merged(_base(list(intents), options), own)
    for path, value, why in MUST_KEEP:
        given = _at(own, path)
        if given is not None and given != value:
            raise ValueError(f"gpufleet_operator_values: {'.'.join(path)} must stay {value!r}, not {given!r}: {why}")
    present = options.get("present")
    if present:
        # A limited run decides for its part of the fleet only: what the release has, stays; what it lacks, comes.
        return merged(wanted, _plain(present))
    return wanted


def _base(intents: list[t.Mapping[str, t.Any]], options: t.Mapping[str, t.Any]) -> Values:
    values: Values = {
        "sandboxWorkloads": {"enabled": True, "defaultWorkload": "container"},
        "daemonsets": {"updateStrategy": "OnDelete"},
        "ccManager": {"enabled": False},
        "vgpuManager": {"enabled": False},
    }
    hosts = sorted(str(intent["host"]) for intent in intents if intent["workload"] == "vm-vgpu")
    if hosts:
        needed = {"gpufleet_registry": options.get("registry"), "gpufleet_vgpu_version": options.get("vgpu_version")}
        missing = [name for name, value in needed.items() if not value]
        given = _at(options.get("values") or {}, ("vgpuManager",)) or {}
        if missing and not (given.get("repository") and given.get("version")):
            raise ValueError(
                f"{', '.join(hosts)}: vGPU needs the vGPU manager image of a private registry, and {' and '.join(missing)} is not set"
            )
        values["vgpuManager"] = {
            "enabled": True,
            "repository": str(options.get("registry") or ""),
            "image": "vgpu-manager",
            "version": str(options.get("vgpu_version") or ""),
            **({"imagePullSecrets": [str(options["pull_secret"])]} if options.get("pull_secret") else {}),
        }
    return values


def merged(base: t.Mapping[str, t.Any], top: t.Mapping[str, t.Any]) -> Values:
    """``top`` over ``base``: mappings key by key, anything else as a whole."""
    result = copy.deepcopy(dict(base))
    for key, value in top.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, t.Mapping) else copy.deepcopy(value)
    return result


def _at(values: t.Mapping[str, t.Any], path: t.Sequence[str]) -> t.Any:
    found: t.Any = values
    for key in path:
        found = found.get(key) if isinstance(found, t.Mapping) else None
    return found


def _plain(value: t.Any) -> t.Any:
    if isinstance(value, t.Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value
