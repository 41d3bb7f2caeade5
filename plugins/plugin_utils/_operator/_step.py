# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The next step with the GPU Operator of a cluster: install it, adopt a release, change its values, or leave it alone; and what stops that."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents._intents import Problem
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator import _foreign, _toggles
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator._mappings import at, merged
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._plain import plain

Facts = t.Mapping[str, t.Any]

CHART = "gpu-operator"
DEFAULT = "gpu-operator"
#: Where NVIDIA's and Red Hat's documents have the operator on OpenShift, also by OLM.
DEFAULT_OPENSHIFT = "nvidia-gpu-operator"
STRATEGY = ("daemonsets", "updateStrategy")
ON_DELETE = "OnDelete"


def operator_step(wanted: Facts, fleet: Facts, options: Facts | None = None) -> dict[str, t.Any]:
    """``{step, release, namespace, version, first, changed, problems, text}``.

    ``wanted``: the Helm values of ``operator_values``. ``fleet``: what ``gpu_fleet_info`` returned. ``options``: ``release`` and ``namespace``
    as the user gave them (empty: the one that is there), ``version`` of the chart (empty: not known), ``defaults`` (the chart's own values, or
    nothing), ``limited``, ``undecided`` (top-level keys of which ``wanted`` does not say all yet).

    ``step`` is ``install``, ``adopt`` (``first`` are the values of its first write: those of the release and ``OnDelete``, nothing else), ``change``,
    ``converged``, or ``leave`` (OLM's). ``changed`` are the dotted keys whose value is to change. Nothing may be written if there are ``problems``.
    """
    options = options or {}
    wanted = plain(wanted)
    present = plain(fleet["release"]) if fleet["release"] else None
    found: dict[str, t.Any] = {**where(fleet, options), "first": None, "changed": [], "step": "install"}
    if _foreign.by_olm(fleet):
        found["step"] = "leave"
        problems = [*_foreign.not_governed(fleet), *_foreign.olm_lacks(wanted, fleet)]
    else:
        problems = [*_foreign.installs(fleet), *_foreign.not_governed(fleet), *_toggles.crd(wanted)]
        if present:
            values = present["values"]
            found["changed"] = differences(values, wanted)
            found["step"] = "change" if found["changed"] else "converged"
            if at(values, STRATEGY) != ON_DELETE:
                found["step"] = "adopt"
                found["first"] = merged(values, {STRATEGY[0]: {STRATEGY[1]: ON_DELETE}})
            problems += [
                *_kept(present, options, found),
                *_lost(present, wanted, found, options.get("undecided") or ()),
                *_edited(fleet, found),
            ]
            problems += _toggles.disturbing(wanted, fleet, options.get("defaults") or {})
    return {**found, "problems": [problem._asdict() for problem in problems], "text": text(problems)}


def text(problems: t.Sequence[Problem]) -> str:
    """A message that is complete by itself; empty if there is no problem."""
    if not problems:
        return ""
    head = f"Preparing the GPU Operator: stopped by {len(problems)} problem{'s' if len(problems) != 1 else ''}. Nothing was changed."
    return "\n".join([head, *(f"- {problem}." for problem in problems)])


def where(fleet: Facts, options: Facts) -> dict[str, str]:
    """Release, namespace and chart version that this run is about: those that are there, else the given ones, else the defaults."""
    present = fleet["release"] or {}
    operator = fleet["operator"]
    other = next((entry["namespace"] for entry in operator["installs"] if entry["by"] == "OLM"), None)
    default = DEFAULT_OPENSHIFT if operator["openshift"] else DEFAULT
    return {
        "release": str(present.get("name") or options.get("release") or DEFAULT),
        "namespace": str(present.get("namespace") or other or options.get("namespace") or default),
        "version": str(present.get("version") or options.get("version") or ""),
    }


def differences(present: Facts, wanted: Facts, above: str = "") -> list[str]:
    """Dotted keys that only one side has, or whose values differ. A key with a dot in it stays one key."""
    found: list[str] = []
    for key in sorted({*present, *wanted}, key=str):
        path = f"{above}{key}"
        sides = [side[key] for side in (present, wanted) if key in side]
        if len(sides) == 2 and all(isinstance(side, t.Mapping) for side in sides):
            found += differences(sides[0], sides[1], f"{path}.")
        elif len(sides) == 1 or sides[0] != sides[1] or type(sides[0]) is not type(sides[1]):
            found.append(path)
    return found


def lost(present: Facts, wanted: Facts, above: str = "") -> list[str]:
    """Dotted keys that the release was given and that are not among the wanted ones: their values would go back to the chart's."""
    found: list[str] = []
    for key, value in present.items():
        path = f"{above}{key}"
        if key not in wanted:
            found.append(path)
        elif isinstance(value, t.Mapping) and isinstance(wanted[key], t.Mapping):
            found += lost(value, wanted[key], f"{path}.")
    return sorted(found)


def _named(present: Facts) -> str:
    return f"release {present['name']} in namespace {present['namespace']}"


def _kept(present: Facts, options: Facts, found: Facts) -> t.Iterator[Problem]:
    """What of a release is never changed: its name, its namespace, its chart, and by this playbook its chart's version."""
    given = (options.get("release") or present["name"], options.get("namespace") or present["namespace"])
    if given != (present["name"], present["namespace"]):
        problem = "the GPU Operator is there already under this name, and a second one would fight with it"
        yield Problem(_named(present), problem, "Set gpufleet_operator_release and gpufleet_operator_namespace to those, or leave both out")
    if present["chart"] != CHART:
        problem = f"it is of chart {present['chart']}, which has the operator as a part of it: its values have other names"
        yield Problem(
            _named(present),
            problem,
            "Install chart gpu-operator as a release of its own, or leave out this part with --skip-tags gpu_operator",
        )
    if present["status"] not in ("deployed", "failed"):
        problem = f"its revision {present['revision']} is {present['status']}: Helm is at work on it, or was killed"
        yield Problem(_named(present), problem, f"Wait, or end it with: helm rollback {present['name']} -n {present['namespace']}")
    wanted = str(options.get("version") or "")
    if wanted and wanted.removeprefix("v") != str(present["version"]).removeprefix("v"):
        problem = f"it has chart version {present['version']}, not {wanted}, and another version is another revision of every operand"
        yield Problem(_named(present), problem, f"Set gpufleet_operator_version to {present['version']}. This playbook does not upgrade")
    if found["step"] == "adopt" and options.get("limited"):
        problem = "daemonsets.updateStrategy is not OnDelete, so updates restart operands under VMs, and that is changed for the whole fleet at once"
        yield Problem(_named(present), problem, "Run site.yml once without --limit")


def _lost(present: Facts, wanted: Facts, found: Facts, undecided: t.Collection[str]) -> t.Iterator[Problem]:
    keys = [key for key in lost(present["values"], wanted) if key.partition(".")[0] not in undecided]
    if found["step"] == "adopt" and keys:
        problem = f"whoever installed it gave it values that the inventory does not have: {', '.join(keys)}"
        yield Problem(_named(present), problem, "Put them into gpufleet_operator_values, or take them out of the release")


def _edited(fleet: Facts, found: Facts) -> t.Iterator[Problem]:
    policy = fleet["cluster_policy"]
    if policy and found["step"] in ("change", "converged") and policy["update_strategy"] != ON_DELETE:
        problem = f"its daemonsets.updateStrategy is {policy['update_strategy']}, and the release says OnDelete: somebody has edited it"
        fields = '{"spec":{"daemonsets":{"updateStrategy":"OnDelete"}}}'
        remedy = f"Set it back: kubectl patch clusterpolicy {policy['name']} --type=merge -p '{fields}'"
        yield Problem(f"ClusterPolicy {policy['name']}", problem, remedy)
