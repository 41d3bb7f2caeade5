# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""HyperConverged, which writes the KubeVirt object from its own: the same settings in its words, and back.

Its operator replaces the whole KubeVirt spec whenever that differs from what it makes of its own object, so a change belongs there. What differs:
the PCI selector is called ``pciDeviceSelector``, a list holds one entry per selector, an entry may be ``disabled``, and of KubeVirt's feature
gates only those that it names itself can be chosen.

Sources: kubevirt/hyperconverged-cluster-operator, api/v1beta1 and api/v1 hyperconverged_types.go (fields, list keys),
controllers/handlers/kubevirt.go (what becomes of them), pkg/webhooks/mutator (the gate and the field must not contradict each other).
"""

from __future__ import annotations

import copy
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object

GROUP = "hco.kubevirt.io"
KIND = "HyperConverged"
GATE_OFF = "disableMDevConfiguration"
#: Served version -> where below ``spec`` the settings of devices are. Of two that are served, the older one is known to more releases.
VERSIONS: t.Dict[str, t.Tuple[str, ...]] = {"v1beta1": (), "v1": ("virtualization",)}
#: Name of a list, or of a field of its entries, in the KubeVirt object -> in HyperConverged's.
_LISTS = {"usb": "usbHostDevices"}
_FIELDS = {"pciVendorSelector": "pciDeviceSelector"}


def reference(kubevirt: Object) -> t.Optional[Object]:
    """The reference of a KubeVirt object to the HyperConverged object that owns it."""
    found = (kubevirt.get("metadata") or {}).get("ownerReferences") or []
    return next((item for item in found if item.get("kind") == KIND and str(item.get("apiVersion") or GROUP).startswith(GROUP)), None)


def versions(owner: Object) -> t.List[str]:
    """API versions in which to look for the owner: the one that its reference names comes first, unless nothing is known about it."""
    named = str(owner.get("apiVersion") or "").partition("/")[2]
    return sorted(VERSIONS, key=lambda version: version != named)


def version_of(hco: Object) -> str:
    return str(hco.get("apiVersion") or f"{GROUP}/v1beta1").partition("/")[2]


def at(spec: t.Optional[Object], where: t.Iterable[str]) -> Object:
    """The part of a spec below these keys; empty if there is none."""
    node: Object = spec or {}
    for key in where:
        node = node.get(key) or {}
    return node


def gate_off(hco: Object) -> t.Optional[bool]:
    """Is its gate that turns KubeVirt's handling off set: true, false, or None if it is not there?

    A map of booleans in v1beta1, in v1 a list of ``{name, enabled: "True"|"False"}`` in which only a name means true.
    """
    gates = (hco.get("spec") or {}).get("featureGates")
    if isinstance(gates, dict):
        value = gates.get(GATE_OFF)
        return None if value is None else bool(value)
    for gate in gates or []:
        if gate.get("name") == GATE_OFF:
            return str(gate.get("enabled") or "True") == "True"
    return None


def configuration(hco: Object, kubevirt: Object, kubevirt_gate: str) -> Object:
    """Its settings as KubeVirt's ``configuration``. Feature gates are those of the KubeVirt object, but for ``kubevirt_gate``, which is its own."""
    spec = at(hco.get("spec"), VERSIONS[version_of(hco)])
    own = (at(kubevirt.get("spec"), ("configuration",)).get("developerConfiguration")) or {}
    gates = [gate for gate in own.get("featureGates") or [] if gate != kubevirt_gate]
    found: Object = {"developerConfiguration": {**own, "featureGates": [*gates, *([kubevirt_gate] if gate_off(hco) else [])]}}
    if spec.get("mediatedDevicesConfiguration") is not None:
        found["mediatedDevicesConfiguration"] = copy.deepcopy(spec["mediatedDevicesConfiguration"])
    if spec.get("permittedHostDevices") is not None:
        found["permittedHostDevices"] = _renamed(
            spec["permittedHostDevices"], {v: k for k, v in _LISTS.items()}, {v: k for k, v in _FIELDS.items()}
        )
    return found


def spec_patch(hco: Object, patch: Object, kubevirt_gate: str) -> Object:
    """A merge patch of KubeVirt's ``configuration`` as one of HyperConverged's ``spec``."""
    out: Object = {}
    if "permittedHostDevices" in patch:
        out["permittedHostDevices"] = _renamed(patch["permittedHostDevices"], _LISTS, _FIELDS)
    off = gate_off(hco)
    wanted = off
    if "mediatedDevicesConfiguration" in patch:
        out["mediatedDevicesConfiguration"] = dict(patch["mediatedDevicesConfiguration"])
        if off is not None:  # its webhook refuses a gate that contradicts the field
            wanted = not patch["mediatedDevicesConfiguration"]["enabled"]
    gates = (patch.get("developerConfiguration") or {}).get("featureGates")
    if gates is not None:
        wanted = kubevirt_gate in gates
    for key in reversed(VERSIONS[version_of(hco)]):
        out = {key: out} if out else {}
    if wanted != off:
        out["featureGates"] = _with_gate((hco.get("spec") or {}).get("featureGates"), bool(wanted), version_of(hco))
    return out


def _with_gate(gates: t.Any, on: bool, version: str) -> t.Any:
    if version == "v1beta1":
        return {GATE_OFF: on}  # a map: the merge patch leaves the others
    changed = [dict(gate) for gate in gates or []]
    entry = next((gate for gate in changed if gate.get("name") == GATE_OFF), None)
    if entry is None:
        entry = {"name": GATE_OFF}
        changed.append(entry)
    entry["enabled"] = "True" if on else "False"
    return changed


def _renamed(permitted: Object, lists: t.Mapping[str, str], fields: t.Mapping[str, str]) -> Object:
    """The lists and the fields of their entries under other names, in their order, with everything else in them."""
    out: Object = {}
    for name, entries in permitted.items():
        if isinstance(entries, list):
            entries = [{fields.get(key, key): value for key, value in entry.items()} for entry in entries]
        out[lists.get(name, name)] = copy.deepcopy(entries)
    return out
