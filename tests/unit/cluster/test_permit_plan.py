# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``kubevirt_permit`` plans, and how it says so: values in, a plan out."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import KNOWN_AFTER_APPLY
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _kubevirt, _kubevirt_request
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_request import Request
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_seen import Entry, Seen, User

GATE = "DisableMDEVConfiguration"
A10 = Entry("pci", "10de:2236", "nvidia.com/A10")
PLANNED = Entry("pci", "10de:2236", KNOWN_AFTER_APPLY)
RAW = {"pciVendorSelector": "10DE:2236", "resourceName": "nvidia.com/A10", "externalResourceProvider": True}
OTHER = {"pciVendorSelector": "10DE:1EB8", "resourceName": "nvidia.com/T4", "externalResourceProvider": True}


def seen(configuration: t.Any = None, users: t.Iterable[tuple[str, str]] = (), metadata: t.Any = None, **more: t.Any) -> Seen:
    kubevirt = {
        "metadata": {"name": "kubevirt", "namespace": "kubevirt", **(metadata or {})},
        "spec": {"configuration": configuration or {}},
    }
    return Seen(kubevirt, more.pop("has_enabled_field", False), tuple(User(who, frozenset({name})) for who, name in users), **more)


def permitted(*raw: t.Any) -> dict[str, t.Any]:
    return {"permittedHostDevices": {"pciHostDevices": list(raw)}}


# ------------------------------------------------------------------ the request by itself


@pytest.mark.parametrize(
    ("request_", "check_mode", "targets"),
    [
        (Request((PLANNED,)), True, []),
        (Request((PLANNED,)), False, [PLANNED.target]),
        (Request((Entry("pci", "10de:2236", "bare"),)), True, ["permit pci 10DE:2236"]),
        (Request((Entry("pci", "10de:2236", "bare"),), "exact", "nvidia.com/"), False, ["permit pci 10DE:2236"]),
        (Request((A10,), "exact", "example.com/"), False, ["permit pci 10DE:2236"]),
        (Request((A10,), "exact"), False, ["resource_prefix"]),
        (Request(gates_present=(GATE,)), False, []),
        (Request(gates_absent=(GATE,)), False, []),
    ],
    ids=["planned", "planned for real", "bad name", "bad name in exact", "outside", "no prefix", "gate", "no gate"],
)
def test_each_thing_wrong_with_a_request_is_said_once(request_: Request, check_mode: bool, targets: list[str]) -> None:
    assert [blocker.target for blocker in _kubevirt_request.request_problems(request_, check_mode)] == targets


@pytest.mark.parametrize(
    ("request_", "configuration", "needed"),
    [
        (Request((A10,)), {}, True),
        (Request((A10,), "absent"), {}, False),
        (Request(), {}, False),
        (Request((A10,)), permitted(), False),
        (Request((A10,), "absent"), permitted(), True),
        (Request((A10,), "exact"), permitted(), True),
    ],
)
def test_users_are_asked_for_where_somebody_could_be_cut_off(request_: Request, configuration: t.Any, needed: bool) -> None:
    assert _kubevirt_request.needs_users(request_, configuration) is needed


def test_a_request_that_says_nothing_only_adds() -> None:
    request = Request((A10,))
    assert (request.state, request.in_use) == ("present", "refuse") and not _kubevirt_request.needs_users(request, permitted())


# ------------------------------------------------------------------ entries


def test_an_entry_that_cannot_be_is_a_blocker_of_the_plan() -> None:
    other = Entry("mdev", "NVIDIA A10-4Q", "nvidia.com/A10")
    plan, _ = _kubevirt.make_plan(Request((other,)), seen(permitted(RAW)))
    assert [blocker.target for blocker in plan.blockers] == [other.target] and plan.changes == []


@pytest.mark.parametrize(
    ("raws", "reason", "after"),
    [
        ([OTHER, {**RAW, "externalResourceProvider": False}], "external must be true", [OTHER, RAW]),
        ([RAW, OTHER, RAW, RAW], "listed more than once", [RAW, OTHER]),
        ([{**RAW, "note": "x"}, {**RAW, "externalResourceProvider": False}, OTHER], "listed more than once", [{**RAW, "note": "x"}, OTHER]),
    ],
)
def test_an_entry_is_corrected_where_it_stands(raws: list[t.Any], reason: str, after: list[t.Any]) -> None:
    plan, body = _kubevirt.make_plan(Request((A10,)), seen(permitted(*raws)))
    assert [(change.action, change.reason) for change in plan.changes] == [("correct", reason)]
    assert body["permittedHostDevices"]["pciHostDevices"] == after


@pytest.mark.parametrize("disabled", [False, True])
def test_what_was_there_is_shown_as_it_was(disabled: bool) -> None:
    raws = [{**RAW, **({"disabled": True} if disabled else {})}, RAW]
    [change] = _kubevirt.make_plan(Request((A10,)), seen(permitted(*raws)))[0].changes
    assert [entry.get("disabled") for entry in change.before] == [disabled or None, None]


def test_what_exact_takes_out_stands_in_nobodys_way() -> None:
    wanted = Entry("mdev", "NVIDIA A10-4Q", "nvidia.com/A10")
    plan, body = _kubevirt.make_plan(Request((wanted,), "exact", "nvidia.com/"), seen(permitted(RAW)))
    assert plan.blockers == []
    assert body["permittedHostDevices"] == {"pciHostDevices": [], "mediatedDevices": [wanted.raw()]}


def test_a_planned_entry_is_permitted_in_words_only() -> None:
    plan, body = _kubevirt.make_plan(Request((PLANNED,)), seen(permitted(OTHER)))
    assert [(change.action, change.before) for change in plan.changes] == [("permit", None)] and body == {}


# ------------------------------------------------------------------ those who would be cut off


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1, "VM ml/0 uses it and could not start again"),
        (2, "VM ml/0, VM ml/1 use it and could not start again"),
        (5, "VM ml/0, VM ml/1, VM ml/2, VM ml/3, VM ml/4 use it and could not start again"),
        (6, "VM ml/0, VM ml/1, VM ml/2, VM ml/3, VM ml/4 and others use it and could not start again"),
    ],
)
def test_who_could_not_start_again_is_named(number: int, words: str) -> None:
    users = [(f"VM ml/{count}", "nvidia.com/T4") for count in range(number)]
    refused, _ = _kubevirt.make_plan(Request((A10,), "exact", "nvidia.com/"), seen(permitted(RAW, OTHER), users))
    assert [(blocker.target, blocker.problem) for blocker in refused.blockers] == [("device nvidia.com/T4", words)]
    warned, _ = _kubevirt.make_plan(Request((A10,), "exact", "nvidia.com/", in_use="warn"), seen(permitted(RAW, OTHER), users))
    assert (warned.blockers, warned.warnings) == ([], [f"device nvidia.com/T4: {words}."])


def test_nobody_is_cut_off_by_a_list_that_stays() -> None:
    users = [("VM ml/a", "nvidia.com/T4")]
    assert _kubevirt.make_plan(Request((A10,)), seen(permitted(RAW), users))[0].blockers == []


@pytest.mark.parametrize(("request_", "listed"), [(Request((A10,)), True), (Request(), False), (Request((A10,), "absent"), False)])
def test_a_first_list_cuts_off_whoever_is_not_in_it_and_no_list_nobody(request_: Request, listed: bool) -> None:
    plan, _ = _kubevirt.make_plan(request_, seen(users=[("VM ml/a", "nvidia.com/T4")]))
    assert [blocker.target for blocker in plan.blockers] == (["device nvidia.com/T4"] if listed else [])


def test_a_vgpu_is_adopted_under_the_type_that_its_name_tells() -> None:
    found = _kubevirt.adopted(["nvidia.com/NVIDIA_A10-8Q", "nvidia.com/T4", "NVIDIA_A10-4Q"])
    assert found == [Entry("mdev", "NVIDIA_A10-8Q", "nvidia.com/NVIDIA_A10-8Q")]


# ------------------------------------------------------------------ gates and handling


@pytest.mark.parametrize(
    ("before", "request_", "changes"),
    [
        ([], Request(gates_present=("HostDevices",)), [("add", "HostDevices", None, "HostDevices", "asked for")]),
        (["GPU"], Request(gates_absent=("GPU",)), [("remove", "GPU", "GPU", None, "not wanted")]),
        ([], Request(mdev_handling="disabled"), [("add", GATE, None, GATE, "KubeVirt must not create or delete mediated devices")]),
    ],
)
def test_a_gate_is_added_or_removed_for_a_reason(before: list[str], request_: Request, changes: list[t.Any]) -> None:
    plan, _ = _kubevirt.make_plan(request_, seen({"developerConfiguration": {"featureGates": before}}))
    assert [(c.action, c.target.removeprefix("feature gate "), c.before, c.after, c.reason) for c in plan.changes] == changes


@pytest.mark.parametrize(
    ("now", "wanted", "change"),
    [
        (None, "disabled", ("disable", None, False, "KubeVirt must not create or delete mediated devices")),
        (False, "enabled", ("enable", False, True, "asked for")),
        (None, "enabled", None),
        (None, "unmanaged", None),
        (False, "unmanaged", None),
        (True, "unmanaged", None),
    ],
)
def test_handling_is_switched_for_a_reason_or_left(now: bool | None, wanted: str, change: t.Any) -> None:
    configuration = {} if now is None else {"mediatedDevicesConfiguration": {"enabled": now}}
    plan, _ = _kubevirt.make_plan(Request(mdev_handling=wanted), seen(configuration, has_enabled_field=True))
    assert [(c.action, c.before, c.after, c.reason) for c in plan.changes] == ([change] if change else [])


# ------------------------------------------------------------------ somebody else's object


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"ownerReferences": [{"kind": "HyperConverged", "name": "kubevirt-hyperconverged", "controller": True}]}, "'s own terms: {"),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, " applies: {"),
    ],
)
def test_a_change_to_somebody_elses_object_is_named_for_them(metadata: t.Any, words: str) -> None:
    plan, _ = _kubevirt.make_plan(Request((A10,)), seen(permitted(), metadata=metadata))
    assert words in plan.blockers[-1].remedy and plan.blockers[-1].target == "KubeVirt kubevirt/kubevirt"
    assert _kubevirt.make_plan(Request((A10,)), seen(permitted(RAW), metadata=metadata))[0].blockers == []


def test_what_somebody_else_should_change_reads_the_same_each_time() -> None:
    metadata = {"annotations": {"argocd.argoproj.io/tracking-id": "x"}}
    plan, _ = _kubevirt.make_plan(Request((A10,), gates_present=("HostDevices",)), seen(permitted(), metadata=metadata))
    remedy = plan.blockers[-1].remedy
    assert 0 < remedy.index("developerConfiguration") < remedy.index("permittedHostDevices")


def test_what_is_adopted_may_be_a_second_name_for_a_device_where_kubevirts_own_object_is_written() -> None:
    request = Request((Entry("mdev", "NVIDIA A10-4Q", "nvidia.com/OTHER"),), adopt_in_use=True)
    plan, body = _kubevirt.make_plan(request, seen(users=[("VM ml/x", "nvidia.com/NVIDIA_A10-4Q")]))
    assert plan.blockers == [] and len(body["permittedHostDevices"]["mediatedDevices"]) == 2


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "n0 advertises it,"), (5, "n0, n1, n2, n3, n4 advertise it,"), (6, "n0, n1, n2, n3, n4 and others advertise it,")],
)
def test_nodes_that_advertise_what_exact_forbids_are_named_up_to_five(number: int, words: str) -> None:
    advertised = {"nvidia.com/T4": {f"n{index}": 1 for index in range(number)}}
    plan, _body = _kubevirt.make_plan(Request((A10,), "exact", "nvidia.com/"), seen(permitted(RAW, OTHER), users=(), advertised=advertised))
    [blocker] = plan.blockers
    assert blocker.problem.startswith(words)


@pytest.mark.parametrize(("entry", "known"), [(A10, True), (PLANNED, False)])
def test_a_change_can_be_in_the_object_once_its_name_is_known(entry: Entry, known: bool) -> None:
    [change] = _kubevirt.make_plan(Request((entry,)), seen(permitted(OTHER)))[0].changes
    assert _kubevirt.known(change) is known
