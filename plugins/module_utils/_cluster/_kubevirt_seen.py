# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What KubeVirt's objects and the nodes say about devices: who permits, advertises and asks for which.

Sources: kubevirt/kubevirt, staging/src/kubevirt.io/api/core/v1/types.go and pkg/virt-config (v1.7 to v1.9).
"""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _device_names, _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import KNOWN_AFTER_APPLY
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _kubevirt_gates, _kubevirt_hco

Object = t.Dict[str, t.Any]

PERMITTED = "permittedHostDevices"
GATE_OFF = "DisableMDEVConfiguration"
#: Kind of device -> name of its list and of its selector in the KubeVirt object.
FIELDS = {"pci": ("pciHostDevices", "pciVendorSelector"), "mdev": ("mediatedDevices", "mdevNameSelector")}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One device that VMs may use. ``kind`` is pci or mdev; ``external``: another device plugin than KubeVirt's advertises it."""

    kind: str
    selector: str
    resource_name: str
    external: bool = True

    @property
    def target(self) -> str:
        return f"permit {self.kind} {self.shown_selector}"

    @property
    def shown_selector(self) -> str:
        return _names.pci_id_key(self.selector) if self.kind == "pci" else self.selector

    @property
    def same_device(self) -> t.Tuple[str, str]:
        key = _names.pci_id_key(self.selector) if self.kind == "pci" else _names.mdev_name_key(self.selector)
        return self.kind, key

    @property
    def key(self) -> t.Tuple[str, str, str]:
        return (*self.same_device, self.resource_name)

    @property
    def planned(self) -> bool:
        return self.resource_name == KNOWN_AFTER_APPLY

    def raw(self) -> Object:
        return {FIELDS[self.kind][1]: self.shown_selector, "resourceName": self.resource_name, "externalResourceProvider": self.external}

    def shown(self) -> Object:
        return {"resource_name": self.resource_name, "external": self.external}


def read(kind: str, raw: t.Mapping[str, t.Any]) -> Entry:
    """An entry of the KubeVirt object."""
    return Entry(kind, raw.get(FIELDS[kind][1]) or "", raw.get("resourceName") or "", bool(raw.get("externalResourceProvider")))


@dataclasses.dataclass(frozen=True)
class User:
    """A VM, VMI or instancetype that asks for devices by resource name."""

    who: str
    resources: t.FrozenSet[str]


@dataclasses.dataclass(frozen=True)
class Seen:
    """The KubeVirt object and what decisions about it need besides.

    ``has_enabled_field``: what the CRD of the written object knows. ``users``: who uses devices (None: not read). ``vgpus``: which nodes
    advertise vGPUs. ``hco``: the HyperConverged object that KubeVirt's is made of; then that one is written. ``advertised``: for ``exact``,
    resource -> node -> how many.
    """

    kubevirt: Object
    has_enabled_field: bool
    users: t.Optional[t.Tuple[User, ...]] = None
    vgpus: t.Mapping[str, t.Tuple[str, ...]] = dataclasses.field(default_factory=dict)
    hco: t.Optional[Object] = None
    advertised: t.Mapping[str, t.Mapping[str, int]] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def configuration(self) -> Object:
        """The settings of the object that is written, in KubeVirt's words."""
        if self.hco is not None:
            return _kubevirt_hco.configuration(self.hco, self.kubevirt, GATE_OFF)
        return (self.kubevirt.get("spec") or {}).get("configuration") or {}

    @property
    def written(self) -> Object:
        return self.kubevirt if self.hco is None else self.hco

    @property
    def kind(self) -> str:
        return "KubeVirt" if self.hco is None else _kubevirt_hco.KIND

    @property
    def api_version(self) -> str:
        return "kubevirt.io/v1" if self.hco is None else f"{_kubevirt_hco.GROUP}/{_kubevirt_hco.version_of(self.hco)}"

    @property
    def target(self) -> str:
        metadata = self.written["metadata"]
        return f"{self.kind} {metadata.get('namespace')}/{metadata['name']}"

    @property
    def version(self) -> t.Optional[_kubevirt_gates.Version]:
        """KubeVirt's version, as its operator has written it; None if it has not."""
        return _kubevirt_gates.parse((self.kubevirt.get("status") or {}).get("observedKubeVirtVersion"))

    @property
    def version_shown(self) -> str:
        return f"KubeVirt {(self.kubevirt.get('status') or {}).get('observedKubeVirtVersion')}"

    def with_answer(self, answer: Object) -> Seen:
        """The same, with the object as the API server has stored it."""
        return (
            dataclasses.replace(self, kubevirt=answer)
            if self.hco is None
            else dataclasses.replace(self, hco={"apiVersion": self.api_version, **answer})
        )


def names_in(permitted: t.Optional[Object]) -> t.Set[str]:
    """All resource names that a list permits, of any kind; an entry that HyperConverged has disabled permits nothing."""
    lists = [entries for entries in (permitted or {}).values() if isinstance(entries, list)]
    return {raw.get("resourceName", "") for entries in lists for raw in entries if not raw.get("disabled")}


def environment_name(resource_name: str) -> str:
    """What of a resource name is left in the environment variable by which virt-launcher gets the device (pkg/util/util.go)."""
    return resource_name.upper().replace("/", "_").replace(".", "_")


def handling(seen: Seen) -> str:
    """Does KubeVirt create and delete mediated devices now: enabled or disabled? The field wins over the gate where there is one.

    A gate that its version does not have turns nothing off.
    """
    field = (seen.configuration.get("mediatedDevicesConfiguration") or {}).get("enabled")
    gates = (seen.configuration.get("developerConfiguration") or {}).get("featureGates") or []
    on = field if field is not None else not _kubevirt_gates.on(GATE_OFF, seen.version, gates, ())
    return "enabled" if on else "disabled"


def has_enabled_field(
    crd: t.Optional[t.Mapping[str, t.Any]], where: t.Sequence[str] = ("configuration",), name: t.Optional[str] = None
) -> bool:
    """Does this CRD know ``mediatedDevicesConfiguration.enabled`` (KubeVirt 1.8 and newer)? A field that it does not know is pruned.

    ``where``: keys below ``spec``. ``name``: of the version that is asked for; without it, the one that is stored.
    """
    for version in ((crd or {}).get("spec") or {}).get("versions") or []:
        node: t.Any = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        for key in ("spec", *where, "mediatedDevicesConfiguration", "enabled"):
            node = (node.get("properties") or {}).get(key) or {}
        if node and (version.get("storage") if name is None else version.get("name") == name):
            return True
    return False


def users(vmis: t.Iterable[Object], machines: t.Iterable[Object], types: t.Iterable[Object]) -> t.Tuple[User, ...]:
    """Everybody who names a device: running VMIs, VMs' templates, instancetypes."""
    found = []
    for kind, items in (("VMI", vmis), ("VM", machines), ("instancetype", types)):
        for item in items:
            spec: t.Any = item.get("spec") or {}
            if kind == "VM":
                spec = (spec.get("template") or {}).get("spec") or {}
            devices = spec if kind == "instancetype" else (spec.get("domain") or {}).get("devices") or {}
            asked = {
                entry["deviceName"] for field in ("gpus", "hostDevices") for entry in devices.get(field) or [] if entry.get("deviceName")
            }
            if asked:
                metadata = item["metadata"]
                name = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
                found.append(User(f"{kind} {name}", frozenset(asked)))
    return tuple(found)


def vgpus(nodes: t.Iterable[Object]) -> t.Dict[str, t.Tuple[str, ...]]:
    """Node -> the vGPU resources that it advertises now."""
    found = {}
    for node in nodes:
        allocatable = (node.get("status") or {}).get("allocatable") or {}
        names = tuple(
            sorted(name for name, count in allocatable.items() if str(count) != "0" and "/" in name and _device_names.plain_type(name))
        )
        if names:
            found[node["metadata"]["name"]] = names
    return found
