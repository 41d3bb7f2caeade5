# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Are these Helm values ones that the chart knows? Helm ignores a key that no template reads, without a word."""

from __future__ import annotations

import difflib
import typing as t

Values = t.Mapping[str, t.Any]

#: Top-level keys of the chart's values.yaml (NVIDIA/gpu-operator v26.7.0), for where the chart is not at hand.
CHART_KEYS = frozenset(
    """
    ccManager cdi clusterPolicy daemonsets dcgm dcgmExporter devicePlugin draDriver driver extraObjects fullnameOverride gdrcopy gds gfd global
    gpuCluster hostPaths kataManager kataSandboxDevicePlugin mig migManager nameOverride nfd node-feature-discovery nodeStatusExporter operator
    platform psa psp sandboxDevicePlugin sandboxWorkloads toolkit validator vfioManager vgpuDeviceManager vgpuManager
    """.split()  # noqa: SIM905
)

#: Keys that Helm itself or every chart knows.
_ALWAYS = frozenset({"global", "nameOverride", "fullnameOverride", "extraObjects"})

#: Charts within the chart: their values are theirs, and the parent names only those that it changes.
_SUBCHARTS = frozenset({"node-feature-discovery"})

#: Mappings whose keys are the user's or Kubernetes'.
_FREE = frozenset({"affinity", "annotations", "config", "data", "labels", "nodeSelector", "resources", "startupProbe"})

#: Fields that an operand has in the ClusterPolicy and that the templates take over, also where values.yaml does not name them
#: (api/nvidia/v1/clusterpolicy_types.go, v26.7.0).
_FIELDS = frozenset(
    "args enabled env hostNetwork image imagePullPolicy imagePullSecrets kernelModuleConfig repository resources version".split()  # noqa: SIM905
)

#: Key that was renamed, or that has another name in the ClusterPolicy -> the chart's name (NVIDIA/gpu-operator v26.7.0, release notes).
RENAMED: dict[tuple[str, ...], str] = {
    ("driver", "licensingConfig", "configMapName"): "driver.licensingConfig.secretName, with a Secret in place of the ConfigMap",
    ("driver", "useOpenKernelModules"): "driver.kernelModuleType: open",
    ("driver", "useNvidiaDriverCRD"): "driver.nvidiaDriverCRD.enabled",
    ("driver", "upgradePolicy", "podDeletion"): "driver.upgradePolicy.gpuPodDeletion",
}


def unknown_keys(values: Values, chart: Values | None = None) -> list[str]:
    """What the chart does not know of these values, each as a phrase with its new name or the nearest, if there is one.

    ``chart``: the chart's own values. Without them only the keys at the top and those that were renamed are compared.
    """
    found = [
        f"{'.'.join(path)} (it is {new} now)" for path, new in RENAMED.items() if _has(values, path) and not (chart and _has(chart, path))
    ]
    if chart is None:
        return found + [_said((str(key),), CHART_KEYS) for key in values if key not in CHART_KEYS]
    return found + list(_unknown(values, chart, ()))


def _has(values: t.Any, path: t.Sequence[str]) -> bool:
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


def _unknown(values: Values, chart: Values, above: tuple[str, ...]) -> t.Iterator[str]:
    known = set(chart) | (_FIELDS if above else _ALWAYS)
    for key, value in values.items():
        path = (*above, str(key))
        if path in RENAMED:
            continue
        if key not in known:
            yield _said(path, known)
        elif key not in _FREE and key not in _SUBCHARTS and isinstance(value, dict) and isinstance(chart.get(key), dict) and chart[key]:
            # Where the chart has an empty mapping, the keys are the user's.
            yield from _unknown(value, chart[key], path)


def _said(path: tuple[str, ...], known: t.Collection[str]) -> str:
    near = ", ".join(".".join((*path[:-1], name)) for name in difflib.get_close_matches(path[-1], sorted(known), n=2))
    return f"{'.'.join(path)}{f' (nearest: {near})' if near else ''}"
