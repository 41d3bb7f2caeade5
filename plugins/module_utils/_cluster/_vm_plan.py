# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What to do to a VM and its licence's Secret, and what of the cluster stops it. Nothing here restarts a VM."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _device_names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _kubevirt_gates, _licence, _vm, _vm_request, _vm_why
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._vm import Object, Request

#: With these, KubeVirt starts a VM that has no instance; with ``Once``, if it never had one.
_STARTS = ("Always", "RerunOnFailure", "Once")
#: The first KubeVirt that gives a PCI device a display where one is asked for (pkg/virt-launcher, hostdevice/hostdev.go).
_DISPLAY_OF_PCI = _kubevirt_gates.parse("v1.9.0")


@dataclasses.dataclass(frozen=True)
class Seen:
    """Plain API objects, None where there is none. ``would_be``: the VM as the API server would store it; ``refused``: why it would not.
    ``kinds``: resource -> kinds of its permits. ``overcommit``: per cent of a node's memory that KubeVirt gives to guests.
    ``sharers``: other VMs with the same Secret."""

    namespace: t.Optional[Object]
    vm: t.Optional[Object] = None
    vmi: t.Optional[Object] = None
    would_be: t.Optional[Object] = None
    refused: t.Optional[str] = None
    fleet: _vm_why.Fleet = dataclasses.field(default_factory=_vm_why.Fleet)
    kinds: t.Mapping[str, t.FrozenSet[str]] = dataclasses.field(default_factory=dict)
    version: t.Optional[_kubevirt_gates.Version] = None
    overcommit: int = 100
    instancetype: t.Optional[Object] = None
    secret: t.Optional[Object] = None
    sharers: t.Tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        """Is there an instance that runs, or is on its way?"""
        return self.vmi is not None and (self.vmi.get("status") or {}).get("phase") not in ("Succeeded", "Failed")

    @property
    def placed(self) -> bool:
        return self.active and (((self.vmi or {}).get("status") or {}).get("phase") in ("Scheduled", "Running"))


def run_strategy(request: Request, vm: t.Optional[Object]) -> str:
    """As asked for, else as it is: a VM that somebody has stopped stays stopped."""
    return request.run_strategy or _vm.at(vm, ("spec", "runStrategy")) or _vm.RUN_STRATEGY


def type_gpus(instancetype: t.Optional[Object]) -> t.List[str]:
    """Resource names of an instancetype's GPUs."""
    gpus = _vm.at(instancetype, ("spec", "gpus")) or []
    return [str(gpu["deviceName"]) for gpu in gpus if gpu.get("deviceName")]


def asked(request: Request, instancetype: t.Optional[Object]) -> t.Dict[str, int]:
    """Resource -> how many of it the VM asks for, itself or by its instancetype."""
    names = [gpu.resource for gpu in request.gpus] + type_gpus(instancetype)
    return {name: names.count(name) for name in sorted(set(names))}


def make_plan(request: Request, token: t.Optional[_licence.Token], seen: Seen) -> Plan:
    """What to do so that the VM is there as asked for."""
    plan = Plan()
    plan.blockers += _in_the_way(request, seen)
    if plan.blockers:
        return plan
    plan.blockers += _type_wrong(request, seen)
    plan.blockers += _displays_wrong(request, seen)
    _availability(request, seen, plan)
    if request.instancetype and seen.overcommit > 100:
        # pkg/defaults: what an instancetype gives the guest is divided by it to make the request.
        plan.warnings.append(
            f"{request.target} gets its memory from an instancetype, and KubeVirt requests only {10000 // seen.overcommit} % of it of the node "
            f"(memoryOvercommit: {seen.overcommit}), while VFIO pins all of it. Give memory instead of an instancetype, or set it to 100."
        )
    if request.licence:
        secret = _licence.plan(request.namespace, request.licence, token, seen.secret)
        plan.blockers += secret.blockers
        plan.changes += secret.changes
        if secret.changes and seen.active:
            plan.warnings.append(
                f"{request.target} runs: its guest sees the new licence token after its next start. Nothing was restarted."
            )
        if token is not None and token.open_to_others:
            plan.warnings.append(f"{request.licence.token_file} may be read by others than its owner; give it mode 0600.")
    if seen.refused and not plan.blockers:
        plan.blockers.append(Blocker(request.target, f"the API server refuses it: {seen.refused}", "Mend what it names"))
    if not plan.blockers:
        _vm_changes(request, seen, plan)
    return plan


def _in_the_way(request: Request, seen: Seen) -> t.Iterator[Blocker]:
    where = f"namespace {request.namespace}"
    if seen.namespace is None:
        yield Blocker(where, "there is none", "Make it first; this collection makes no namespace for VMs")
    elif _vm.at(seen.namespace, ("status", "phase")) == "Terminating":
        yield Blocker(where, "it is being deleted", "Wait until it is gone, make it anew and run again")
    if seen.vm is None:
        return
    if _vm.at(seen.vm, ("metadata", "deletionTimestamp")):
        yield Blocker(request.target, "it is being deleted", "Wait until it is gone and run again")
    elif not _licence.ours(seen.vm):
        remedy = f"Choose another name, or hand it over with the annotation {_vm.OURS}={_vm.MAKER}"
        yield Blocker(request.target, "it is there and was not made by this collection", remedy)
    elif "running" in (seen.vm.get("spec") or {}):
        problem = "somebody has set its spec.running, which is deprecated and excludes runStrategy"
        yield Blocker(request.target, problem, "Replace it by runStrategy: Always instead of true, Halted instead of false")


def _type_wrong(request: Request, seen: Seen) -> t.Iterator[Blocker]:
    if request.instancetype is None:
        return
    name, scope = request.instancetype
    where = f"{scope} instancetype {name}"
    if seen.instancetype is None:
        yield Blocker(where, "there is none", "Make it, or see whether it is of the other scope (instancetype.scope)")
        return
    brought = type_gpus(seen.instancetype)
    if brought and request.gpus:
        problem = f"it brings GPUs already ({', '.join(brought)}), and KubeVirt refuses a VM that names some, too"
        yield Blocker(where, problem, "Leave gpus out, or use an instancetype without GPUs")
    elif not brought and not request.gpus:
        yield Blocker(where, "it has no GPU, and none is asked for", "Name at least one in gpus, or use an instancetype that has some")
    elif brought:
        yield from _vm_request.combination(brought, where)
    overcommit = _vm.at(seen.instancetype, ("spec", "memory", "overcommitPercent"))
    if overcommit:
        problem = f"it overcommits memory by {overcommit} %, and VFIO pins all of a guest's memory"
        yield Blocker(where, problem, "Use an instancetype without overcommitPercent")


def _displays_wrong(request: Request, seen: Seen) -> t.Iterator[Blocker]:
    for gpu in request.gpus:
        if gpu.display is None or seen.kinds.get(gpu.resource) != frozenset({"pci"}):
            continue
        if _device_names.plain_type(gpu.resource) is None:
            problem = f"{gpu.name} has display options, and {gpu.resource} is a whole PCI device: they are for vGPUs"
            yield Blocker(request.target, problem, "Leave display and ramfb out; a whole GPU has its own outputs")
        elif seen.version is not None and _DISPLAY_OF_PCI is not None and seen.version < _DISPLAY_OF_PCI:
            problem = f"{gpu.name} has display options, and {gpu.resource} is permitted as a PCI device, for which this KubeVirt has none"
            yield Blocker(request.target, problem, "Leave display and ramfb out, or use KubeVirt 1.9 or newer")


def _availability(request: Request, seen: Seen, plan: Plan) -> None:
    """A device that cannot be had stops a VM that is to start. Of one that has its device or is not to run, it is only said."""
    wanted = asked(request, seen.instancetype)
    found = [_vm_why.unpermitted(wanted, seen.fleet), _vm_why.unavailable(wanted, seen.fleet)]
    starts = run_strategy(request, seen.vm) in _STARTS and not seen.placed
    for cause in filter(None, found):
        if starts:
            plan.blockers.append(Blocker(request.target, cause.problem, cause.remedy))
        else:
            plan.warnings.append(f"{request.target} could not be started now: {cause}.")


def _vm_changes(request: Request, seen: Seen, plan: Plan) -> None:
    wanted = _vm.hidden(_vm.manifest(request, run_strategy(request, seen.vm))["spec"])
    if seen.vm is None:
        after = {path: value for path, (_nothing, value) in _vm.differences(None, wanted).items()}
        plan.changes.append(Change(request.target, "create", None, after, "there is none"))
        return
    differing = _vm.differences(seen.vm.get("spec"), (seen.would_be or {}).get("spec"))
    if not differing:
        return
    shown = [
        {path: side[n] for path, side in ((p, _shown(p, sides)) for p, sides in differing.items()) if side[n] is not None} for n in (0, 1)
    ]
    reason = "differs"
    if seen.active and any(path.startswith(("spec.template", "spec.instancetype", "spec.preference")) for path in differing):
        reason = "differs; it runs, so its template takes effect at its next start"
        plan.warnings.append(f"{request.target} runs: what differs of its template takes effect at its next start. Nothing was restarted.")
    plan.changes.append(Change(request.target, "update", shown[0], shown[1], reason))


def _shown(path: str, sides: t.Tuple[t.Any, t.Any]) -> t.Tuple[t.Any, t.Any]:
    """Both sides of a difference, without what may hold a password: of that, only that it differs."""
    before, after = (_vm.hidden({path.rpartition(".")[2]: side})[path.rpartition(".")[2]] if side is not None else None for side in sides)
    return (f"{before}, other", after) if before is not None and before == after else (before, after)


def plan_absence(request: Request, seen: Seen) -> Plan:
    """What to do so that there is no such VM, and no Secret that was made for it alone."""
    plan = Plan()
    gone = seen.vm is None or _vm.at(seen.vm, ("metadata", "deletionTimestamp"))
    if not gone and not _licence.ours(seen.vm):
        remedy = "Delete it yourself if you mean it, or choose another name"
        plan.blockers.append(Blocker(request.target, "it was not made by this collection, so it is left alone", remedy))
        return plan
    if not gone:
        shown = {"runStrategy": _vm.at(seen.vm, ("spec", "runStrategy")), "runs": seen.active}
        plan.changes.append(Change(request.target, "delete", shown, None, "it is not wanted"))
    if seen.secret is not None and _licence.ours(seen.secret) and not seen.sharers:
        name = seen.secret["metadata"]["name"]
        plan.changes.append(
            Change(_licence.target(request.namespace, name), "delete", {"content": "not shown"}, None, "no other VM has it")
        )
    return plan
