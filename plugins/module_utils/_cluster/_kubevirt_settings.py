# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""KubeVirt's feature gates, and whether it makes and deletes mediated devices itself: what is to be changed for what was asked.

Handling is turned off by a field where the CRD has it, since the gate is deprecated there and the field wins; by the gate where the CRD does not
have the field, since the API server would prune it without a word.

Sources: kubevirt/kubevirt, pkg/virt-config/virt-config.go, pkg/virt-operator/webhooks/kubevirt-update-admitter.go (no gate in both lists).
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _kubevirt_gates, _kubevirt_hco
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_request import Request
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_seen import GATE_OFF, Object, Seen, handling

_WHY_OFF = "KubeVirt must not create or delete mediated devices"
_HANDLING = "mediated device handling"


def gates(seen: Seen, request: Request, plan: Plan) -> Object:
    """Those of the two lists of gates that must change, as a patch of ``developerConfiguration``; adds to the plan what changes and why not."""
    developer = seen.configuration.get("developerConfiguration") or {}
    before = list(developer.get("featureGates") or [])
    disabled_before = list(developer.get("disabledFeatureGates") or [])
    absent = {*request.gates_absent, *request.gates_disabled}
    if request.mdev_handling == "enabled":
        absent.add(GATE_OFF)
    after = [gate for gate in before if gate not in absent]
    for gate, reason in _wanted(seen, request, before, plan):
        if gate in disabled_before:
            plan.blockers.append(Blocker(_target(seen, gate), "it stands in disabledFeatureGates", "Remove it there first"))
        elif gate not in after:
            after.append(gate)
            plan.changes.append(Change(_target(seen, gate), "add", None, gate, reason))
    for gate in dict.fromkeys(gate for gate in before if gate not in after):
        plan.changes.append(Change(_target(seen, gate), "remove", gate, None, "not wanted"))
    for gate in request.gates_absent:
        _warn_of_what_stays_on(seen, gate, disabled_before, plan)
    patch: Object = {"featureGates": after} if after != before else {}
    disabled = [*disabled_before, *_to_disable(seen, request, disabled_before, plan)]
    if disabled != disabled_before:
        patch["disabledFeatureGates"] = disabled
    return patch


def _target(seen: Seen, gate: str) -> str:
    return f"feature gate {_kubevirt_hco.GATE_OFF if seen.hco is not None and gate == GATE_OFF else gate}"


def _wanted(seen: Seen, request: Request, listed: t.Container[str], plan: Plan) -> t.Iterator[t.Tuple[str, str]]:
    """Gates that must be listed and why. What this version of KubeVirt does not have, or always does, is said instead."""
    version = seen.version
    for gate in dict.fromkeys(request.gates_present):
        stage = _kubevirt_gates.stage(gate, version)
        if stage == "missing":
            problem = f"{seen.version_shown} does not have it (it came with {_kubevirt_gates.since(gate, stage)}) and would ignore it"
            plan.blockers.append(Blocker(_target(seen, gate), problem, "Upgrade KubeVirt, or leave it out"))
        elif stage == "ga" and gate not in listed:
            since = _kubevirt_gates.since(gate, stage)
            plan.warnings.append(f"feature gate {gate}: always on since KubeVirt {since}, so it is not listed. Leave it out.")
        else:
            yield gate, "asked for"
    if (
        _kubevirt_gates.stage("GPU", version) == "alpha"
        and request.permits
        and "GPU" not in (*request.gates_present, *request.gates_absent)
    ) and seen.hco is None:  # HyperConverged lists it by itself
        yield "GPU", f"before {_kubevirt_gates.since('GPU', 'ga')} KubeVirt refuses VMs with GPUs without it"
    if request.mdev_handling == "disabled" and not seen.has_enabled_field:
        if version is not None and not _kubevirt_gates.can_stop_handling(version):
            problem = f"{seen.version_shown} deletes mediated devices that it did not make, and nothing turns that off"
            plan.blockers.append(
                Blocker(_HANDLING, problem, "Upgrade KubeVirt to 0.58.2, to 0.59.1 or to a newer one before vGPUs are made")
            )
        else:
            yield GATE_OFF, _WHY_OFF


def _warn_of_what_stays_on(seen: Seen, gate: str, disabled: t.Container[str], plan: Plan) -> None:
    if _kubevirt_gates.on(gate, seen.version, (), disabled):
        stage = _kubevirt_gates.stage(gate, seen.version)
        how = "and cannot be turned off" if stage == "ga" else "unless it stands in feature_gates.disabled"
        plan.warnings.append(f"feature gate {gate}: on in {seen.version_shown} without being listed, {how}.")


def _to_disable(seen: Seen, request: Request, before: t.Container[str], plan: Plan) -> t.Iterator[str]:
    for gate in dict.fromkeys(request.gates_disabled):
        version, stage = seen.version, _kubevirt_gates.stage(gate, seen.version)
        if gate in before:
            continue
        if version is not None and version < _kubevirt_gates.DISABLING:
            problem = (
                f"{seen.version_shown} has no list of disabled gates, which came with {_kubevirt_gates.shown(_kubevirt_gates.DISABLING)}"
            )
            plan.blockers.append(Blocker(_target(seen, gate), problem, "Use feature_gates.absent: in that version no gate is on by itself"))
        elif stage == "ga":
            problem = f"always on since KubeVirt {_kubevirt_gates.since(gate, stage)}"
            plan.blockers.append(Blocker(_target(seen, gate), problem, "Leave it out"))
        else:
            plan.changes.append(Change(_target(seen, gate), "disable", None, gate, "asked for"))
            yield gate


def handling_field(seen: Seen, request: Request, plan: Plan) -> t.Optional[bool]:
    """The value that ``mediatedDevicesConfiguration.enabled`` must get, or None if it stays."""
    if request.mdev_handling == "enabled" and seen.vgpus and handling(seen) == "disabled":
        shown = ", ".join(f"{node} ({', '.join(names)})" for node, names in sorted(seen.vgpus.items()))
        problem = f"KubeVirt deletes mediated devices that it was not told to create, and these nodes have vGPUs: {shown}"
        plan.blockers.append(Blocker(_HANDLING, problem, "Remove those vGPUs first"))
    _warn_of_what_is_not_handed_on(seen, request, plan)
    if not seen.has_enabled_field or request.mdev_handling == "unmanaged":
        return None
    wanted = request.mdev_handling == "enabled"
    now = (seen.configuration.get("mediatedDevicesConfiguration") or {}).get("enabled")
    if now == wanted or (wanted and now is None):
        return None
    plan.changes.append(Change(_HANDLING, "enable" if wanted else "disable", now, wanted, "asked for" if wanted else _WHY_OFF))
    return wanted


def _warn_of_what_is_not_handed_on(seen: Seen, request: Request, plan: Plan) -> None:
    """HyperConverged says off already, but the KubeVirt object, which is what counts, does not: its operator is not there, or slow."""
    own = dataclasses.replace(seen, hco=None)
    if seen.hco is not None and request.mdev_handling == handling(seen) == "disabled" and handling(own) == "enabled":
        plan.warnings.append(
            f"{own.target} still handles mediated devices itself, and deletes those that it did not make, although {seen.target} says otherwise. "
            "See that HyperConverged's operator runs."
        )
