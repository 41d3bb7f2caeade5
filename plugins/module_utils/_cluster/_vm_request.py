# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What is wrong with a request for a VM, as far as the request alone tells."""

from __future__ import annotations

import decimal
import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _device_names, _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _operands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._vm import LICENCE, RUN_STRATEGY, Request, at, brief, manifest

#: A VM's name becomes a label's value and a host name.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_KEY = re.compile(r"[A-Za-z0-9._-]{1,253}")
#: Most vGPUs that one VM can have (NVIDIA/open-gpu-kernel-modules, nv_vgpu_types.h: NVA081_MAX_VGPU_PER_VM).
MOST_VGPUS = 16
#: What has an option of its own -> that option.
_OPTIONS = {"runStrategy": "run_strategy", "instancetype": "instancetype", "preference": "preference"}


def quantity(text: t.Any) -> t.Optional[decimal.Decimal]:
    """Bytes of a Kubernetes quantity such as ``16Gi``; None if it is none above 0."""
    try:
        size = _operands.number(text)
    except ValueError:
        return None
    return size if size > 0 else None


def problems(request: Request) -> t.List[Blocker]:
    """All that is wrong; empty if nothing is. Then :func:`_vm.manifest` does not fail either."""
    found = [*_names_wrong(request), *_spec_wrong(request)]
    if found:
        return found  # what follows reads the parts that were just judged
    found = [*_gpus_wrong(request), *_sizes_wrong(request), *_licence_wrong(request)]
    if found:
        return found  # most of what else could be said follows from these
    try:
        manifest(request, RUN_STRATEGY)
    except ValueError as error:
        found.append(Blocker(request.target, str(error), "Say it in one place only: in spec, or by the option"))
    return found


def _names_wrong(request: Request) -> t.Iterator[Blocker]:
    rule = "at most 63 lower-case letters, digits and '-', with a letter or digit at both ends"
    for what, name in (
        ("name", request.name),
        ("namespace", request.namespace),
        *((f"gpus[{n}].name", g.name) for n, g in _numbered(request)),
    ):
        if not _LABEL.fullmatch(name):
            yield Blocker(request.target, f"{what} is {name!r}", f"Use {rule}")
    for what, reference in (("instancetype", request.instancetype), ("preference", request.preference)):
        if reference is not None:
            try:
                _names.check_node_name(reference[0])  # the same rule: any object's name
            except ValueError:
                yield Blocker(
                    request.target, f"{what} is {reference[0]!r}", "Use the name of the object: lower-case letters, digits, '-' and '.'"
                )
    taken: t.Set[str] = set()
    for number, gpu in _numbered(request):
        if gpu.name in taken:
            yield Blocker(request.target, f"gpus[{number}].name {gpu.name} is there twice", "Give each GPU a name of its own")
        taken.add(gpu.name)
        try:
            _names.check_resource_name(gpu.resource)
        except ValueError as error:
            yield Blocker(request.target, f"gpus[{number}].resource: {error}", "Take the name from kubevirt_permit_info")


def _numbered(request: Request) -> t.Iterator[t.Tuple[int, t.Any]]:
    return iter(enumerate(request.gpus))


#: Path below ``spec`` -> type that it must have where it is given.
_DOMAIN = "template.spec.domain"
_SHAPES: t.Dict[str, t.Type[t.Any]] = {
    "template": dict,
    "template.metadata": dict,
    "template.spec": dict,
    "template.spec.volumes": list,
    "template.spec.networks": list,
    _DOMAIN: dict,
    **{f"{_DOMAIN}.{key}": dict for key in ("cpu", "memory", "resources", "resources.requests", "resources.limits", "devices")},
    **{f"{_DOMAIN}.devices.{key}": list for key in ("disks", "interfaces", "hostDevices")},
}


def _spec_wrong(request: Request) -> t.Iterator[Blocker]:
    shapes: t.Dict[t.Any, str] = {dict: "a mapping", list: "a list"}
    for path, kind in _SHAPES.items():
        value = at(request.spec, path.split("."))
        if value is not None and not isinstance(value, kind):
            yield Blocker(request.target, f"spec.{path} is {brief(value)}", f"Make it {shapes[kind]}, as KubeVirt's VirtualMachine has it")
    if "running" in request.spec:
        problem = "spec.running is deprecated, and KubeVirt refuses it beside runStrategy"
        yield Blocker(request.target, problem, "Use run_strategy: Always instead of true, Halted instead of false")
    for key, option in _OPTIONS.items():
        if key in request.spec:
            yield Blocker(request.target, f"spec.{key} has an option of its own", f"Use {option}")
    inside = at(request.spec, ("template", "spec"))
    devices = at(inside, ("domain", "devices"))
    if at(devices, ("gpus",)) is not None:
        yield Blocker(request.target, "spec.template.spec.domain.devices.gpus has an option of its own", "Use gpus")
    claims = [entry for entry in at(devices, ("hostDevices",)) or [] if isinstance(entry, dict) and entry.get("claimName")]
    if at(inside, ("resourceClaims",)) is not None or claims:
        yield Blocker(
            request.target,
            "spec asks for devices by resource claim, and KubeVirt's list of permitted devices does not apply to those",
            "Ask for a device by its resource name in gpus, or make a VM with claims without this module",
        )


def _gpus_wrong(request: Request) -> t.Iterator[Blocker]:
    if not request.gpus and request.instancetype is None:
        yield Blocker(request.target, "no GPU is asked for", "Name at least one in gpus, or an instancetype that has some")
    yield from combination([gpu.resource for gpu in request.gpus], request.target)
    pictures = [gpu.name for gpu in request.gpus if gpu.boots_with_picture]
    if len(pictures) > 1:
        yield Blocker(
            request.target,
            f"{', '.join(pictures)} would each have a boot framebuffer, and KubeVirt allows one VM one",
            "Set ramfb: false on all of them but one",
        )
    for gpu in request.gpus:
        if gpu.ramfb is True and gpu.display is not True:
            yield Blocker(
                request.target, f"{gpu.name} has a boot framebuffer (ramfb) and no display", "Set display: true too, or leave ramfb out"
            )


def combination(resources: t.Iterable[str], target: str) -> t.Iterator[Blocker]:
    """Several vGPUs in one VM must be of one board and one series; their sizes may differ.

    Source: NVIDIA AI Enterprise 8.1, Infra Software, vGPU, Multi-vGPU.
    """
    types = [kind for kind in map(_device_names.plain_type, resources) if kind]
    if len(types) > MOST_VGPUS:
        yield Blocker(
            target, f"it asks for {len(types)} vGPUs", f"NVIDIA's driver allows {MOST_VGPUS} in one VM; use fewer and larger ones"
        )
    families = {_family(kind): kind for kind in types}
    if len(families) > 1:
        listed = ", ".join(sorted(set(types)))
        yield Blocker(
            target,
            f"its vGPUs ({listed}) are not all of one board and one series",
            "Use types of one board and one series; sizes may differ",
        )


def _family(kind: str) -> t.Tuple[str, str]:
    """Board and series of a vGPU type: ``A100-2-10C`` is of the board A100 and the series C."""
    board, _dash, size = re.sub(r"-\d+(?=-\d)", "", kind).rpartition("-")
    return board, size.lstrip("0123456789")[:1]


def _sizes_wrong(request: Request) -> t.Iterator[Blocker]:
    domain = at(request.spec, ("template", "spec", "domain")) or {}
    if request.cpu_cores is not None and request.cpu_cores < 1:
        yield Blocker(request.target, f"cpu_cores is {request.cpu_cores}", "Give at least 1")
    asked = {f"resources.{kind}": at(domain, ("resources", kind, "memory")) for kind in ("requests", "limits")}
    if request.instancetype is not None:
        # KubeVirt refuses what both the instancetype and the VM say (pkg/instancetype/apply).
        twice = [key for key, value in {"memory": request.memory or domain.get("memory"), **asked}.items() if value]
        twice += [key for key, value in {"cpu_cores": request.cpu_cores or at(domain, ("cpu", "cores"))}.items() if value]
        if twice:
            problem = f"{' and '.join(twice)} {'are' if len(twice) > 1 else 'is'} given beside an instancetype, which says that already"
            yield Blocker(request.target, problem, "Leave it out, or leave the instancetype out")
        return
    guest = request.guest_memory
    if guest is None:
        problem = "it has no memory of the guest" + (", only a request or a limit of its pod" if any(asked.values()) else "")
        yield Blocker(request.target, problem, "Set memory, or use an instancetype")
        return
    size = quantity(guest)
    if not size:
        yield Blocker(request.target, f"memory is {guest!r}", "Write a quantity above 0, such as 16Gi")
        return
    for key, value in asked.items():
        bytes_asked = quantity(value) if value is not None else size
        if bytes_asked is None or (bytes_asked != size if key == "resources.requests" else bytes_asked < size):
            problem = f"{key}.memory is {value}, and the guest's memory {guest}; VFIO pins all of it"
            yield Blocker(request.target, problem, f"Leave {key}.memory out")


def _licence_wrong(request: Request) -> t.Iterator[Blocker]:
    licence = request.licence
    if licence is None:
        return
    try:
        _names.check_node_name(licence.secret)
    except ValueError:
        yield Blocker(request.target, f"licence.secret is {licence.secret!r}", "Use lower-case letters, digits, '-' and '.'")
    if not _KEY.fullmatch(licence.key):
        yield Blocker(request.target, f"licence.key is {licence.key!r}", "Use letters, digits, '-', '_' and '.'")
    inside = at(request.spec, ("template", "spec")) or {}
    for what, entries in (("volume", inside.get("volumes")), ("disk", at(inside, ("domain", "devices", "disks")))):
        if any(isinstance(entry, dict) and entry.get("name") == LICENCE for entry in entries or []):
            yield Blocker(
                request.target, f"spec has a {what} of the name {LICENCE}, which is that of the licence token's", "Give yours another name"
            )
