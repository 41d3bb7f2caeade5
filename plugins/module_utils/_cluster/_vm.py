# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A virtual machine with GPUs: what is asked for, and the VirtualMachine object that says so.

Sources: kubevirt/kubevirt, staging/src/kubevirt.io/api/core/v1/schema.go and pkg/instancetype/apply (v1.7 to v1.9).
"""

from __future__ import annotations

import copy
import dataclasses
import typing as t

Object = t.Dict[str, t.Any]

API_VERSION = "kubevirt.io/v1"
#: On a VM or a Secret that this collection has made. What does not carry it is somebody else's.
OURS = "gpufleet.kubevirt/made-by"
MAKER = "gpu_vm"
#: Name of the disk and the volume with the licence token. The guest finds the disk by its serial number.
LICENCE = "gpufleet-licence"
SERIAL = "GPUFLEETLICENCE"
#: Whether a VM runs, if nobody has said so.
RUN_STRATEGY = "Always"


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One device of a VM, by resource name. ``display`` and ``ramfb``: None leaves it to KubeVirt."""

    name: str
    resource: str
    display: t.Optional[bool] = None
    ramfb: t.Optional[bool] = None

    @property
    def boots_with_picture(self) -> bool:
        """Does it have a boot framebuffer? Of a display that is on, KubeVirt turns it on too, unless it is told not to."""
        return self.display is True and self.ramfb is not False

    def raw(self) -> Object:
        entry: Object = {"name": self.name, "deviceName": self.resource}
        if self.display is not None:
            display: Object = {"enabled": self.display}
            if self.ramfb is not None:
                display["ramFB"] = {"enabled": self.ramfb}
            entry["virtualGPUOptions"] = {"display": display}
        return entry


@dataclasses.dataclass(frozen=True)
class Licence:
    """A client token in a Secret of the VM's namespace. With a file, the Secret is made from it; without, it must be there."""

    secret: str
    key: str
    token_file: t.Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Request:
    """One VM. ``spec``: all else of the VirtualMachine's ``spec``, in KubeVirt's words. ``run_strategy`` None: as it is, else Always."""

    name: str
    namespace: str
    gpus: t.Tuple[Gpu, ...] = ()
    instancetype: t.Optional[t.Tuple[str, str]] = None
    preference: t.Optional[t.Tuple[str, str]] = None
    cpu_cores: t.Optional[int] = None
    memory: t.Optional[str] = None
    run_strategy: t.Optional[str] = None
    spec: Object = dataclasses.field(default_factory=dict)
    licence: t.Optional[Licence] = None

    @property
    def target(self) -> str:
        return f"VM {self.namespace}/{self.name}"

    @property
    def guest_memory(self) -> t.Optional[str]:
        """Memory of the guest, from wherever it was said. None with an instancetype, which has it."""
        said = at(self.spec, ("template", "spec", "domain", "memory", "guest"))
        return self.memory or (str(said) if said is not None else None)


def at(tree: t.Any, path: t.Iterable[str]) -> t.Any:
    """The value at a path of keys, or None."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def merge(given: t.Any, ours: t.Any, where: str = "spec") -> t.Any:
    """``ours`` put over ``given``: mappings key by key, lists one after the other. Raises ValueError where both say different things."""
    if isinstance(given, dict) and isinstance(ours, dict):
        merged = dict(given)
        for key, value in ours.items():
            merged[key] = merge(given[key], value, f"{where}.{key}") if key in given else value
        return merged
    if isinstance(given, list) and isinstance(ours, list):
        return given + ours
    if given != ours:
        raise ValueError(f"{where} is {brief(given)}, and would have to be {brief(ours)}")
    return given


def brief(value: t.Any) -> str:
    """A value in words; of one that may hold a password, only its kind."""
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else repr(value)


def _matcher(kind: str, reference: t.Tuple[str, str]) -> Object:
    """KubeVirt's reference to an instancetype or a preference. ``reference``: its name, and ``cluster`` or ``namespace``."""
    name, scope = reference
    return {"name": name, "kind": f"VirtualMachine{'Cluster' if scope == 'cluster' else ''}{kind}"}


def _domain(request: Request) -> Object:
    devices: Object = {}
    if request.gpus:
        devices["gpus"] = [gpu.raw() for gpu in request.gpus]
    if request.licence:
        devices["disks"] = [{"name": LICENCE, "serial": SERIAL, "disk": {"bus": "virtio", "readonly": True}}]
    domain: Object = {"devices": devices}
    if request.cpu_cores:
        domain["cpu"] = {"cores": request.cpu_cores}
    if request.guest_memory and request.instancetype is None:
        domain["memory"] = {"guest": request.guest_memory}
        # VFIO pins all of a guest's memory, so all of it is requested: without this, KubeVirt requests less where memory is overcommitted.
        domain["resources"] = {"requests": {"memory": request.guest_memory}}
    return domain


def manifest(request: Request, run_strategy: str) -> Object:
    """The VirtualMachine. Raises ValueError with a reason if what is given contradicts itself."""
    template: Object = {"domain": _domain(request)}
    inside = at(request.spec, ("template", "spec"))
    if _wants_default_network(inside):
        template["domain"]["devices"]["interfaces"] = [{"name": "default", "masquerade": {}}]
        template["networks"] = [{"name": "default", "pod": {}}]
    if request.licence:
        template["volumes"] = [{"name": LICENCE, "secret": {"secretName": request.licence.secret, "volumeLabel": SERIAL}}]
    spec: Object = {"runStrategy": run_strategy, "template": {"spec": template}}
    if request.instancetype:
        spec["instancetype"] = _matcher("Instancetype", request.instancetype)
    if request.preference:
        spec["preference"] = _matcher("Preference", request.preference)
    return {
        "apiVersion": API_VERSION,
        "kind": "VirtualMachine",
        "metadata": {"name": request.name, "namespace": request.namespace, "annotations": {OURS: MAKER}},
        "spec": merge(copy.deepcopy(request.spec), spec),
    }


def _wants_default_network(inside: t.Any) -> bool:
    """Nothing was said about networks: then the pod's network, behind the pod's address (KubeVirt's own default is a bridge)."""
    devices = at(inside, ("domain", "devices"))
    silent = at(inside, ("networks",)) is None and at(devices, ("interfaces",)) is None
    return silent and at(devices, ("autoattachPodInterface",)) is not False


# ------------------------------------------------------------------ what differs, to be shown

#: Values of these keys may hold passwords: cloud-init's and Ignition's data in the object itself, and sysprep's.
_HIDDEN = ("userData", "userDataBase64", "networkData", "networkDataBase64")


def hidden(tree: t.Any) -> t.Any:
    """The same, with what may hold a password left out."""
    if isinstance(tree, dict):
        return {key: "not shown" if key in _HIDDEN else hidden(value) for key, value in tree.items()}
    return [hidden(entry) for entry in tree] if isinstance(tree, list) else tree


def differences(before: t.Any, after: t.Any, where: str = "spec") -> t.Dict[str, t.Tuple[t.Any, t.Any]]:
    """Dotted path -> (before, after) of all that differs. A list is one value; None where there is nothing."""
    if _goes_deeper(before, after):
        before, after = before or {}, after or {}
        found: t.Dict[str, t.Tuple[t.Any, t.Any]] = {}
        for key in sorted({*before, *after}):
            found.update(differences(before.get(key), after.get(key), f"{where}.{key}"))
        return found
    return {} if before == after else {where: (before, after)}


def _goes_deeper(before: t.Any, after: t.Any) -> bool:
    """Are both mappings, or is one and there is nothing on the other side?"""
    kinds = [isinstance(side, dict) for side in (before, after)]
    return all(kinds) or (any(kinds) and None in (before, after) and bool(before or after))
