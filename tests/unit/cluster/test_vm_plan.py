# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is decided about a VM, as values."""

from __future__ import annotations

import copy
import dataclasses
import typing as t

import pytest
from gpu_objects import VGPU, Json, node

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _licence, _vm, _vm_plan, _vm_why

ASKED = _vm.Request("vm", "ml", (_vm.Gpu("gpu0", VGPU),), memory="1Gi")
OURS = {"annotations": {"gpufleet.kubevirt/made-by": "gpu_vm"}}
FLEET = _vm_why.fleet_of([node("gpu1", {"kubevirt.io/schedulable": "true"}, {VGPU: 4})], [], [], [VGPU])
NOBODY = dataclasses.replace(FLEET, permitted=[])


def instance(phase: str) -> Json:
    return {"metadata": {"name": "vm"}, "spec": {}, "status": {"phase": phase}}


def seen(vm: Json | None = None, **more: t.Any) -> _vm_plan.Seen:
    return _vm_plan.Seen(**{"namespace": {}, "vm": vm, "fleet": FLEET, **more})


def stored(request: _vm.Request = ASKED, strategy: str = "Always") -> Json:
    return _vm.manifest(request, strategy)


@pytest.mark.parametrize(
    ("vmi", "active", "placed"),
    [
        (None, False, False),
        ({"metadata": {}}, True, False),
        (instance("Pending"), True, False),
        (instance("Scheduling"), True, False),
        (instance("Scheduled"), True, True),
        (instance("Running"), True, True),
        (instance("Succeeded"), False, False),
        (instance("Failed"), False, False),
    ],
)
def test_an_instance_is_active_until_it_ends_and_placed_from_scheduled_on(vmi: Json | None, active: bool, placed: bool) -> None:
    found = seen(vmi=vmi)
    assert (found.active, found.placed) == (active, placed)


@pytest.mark.parametrize(
    ("strategy", "starts"), [("Always", True), ("RerunOnFailure", True), ("Once", True), ("Manual", False), ("Halted", False)]
)
def test_only_a_vm_that_would_start_is_stopped_by_what_it_cannot_have(strategy: str, starts: bool) -> None:
    plan = _vm_plan.make_plan(dataclasses.replace(ASKED, run_strategy=strategy), None, seen(fleet=NOBODY))
    assert bool(plan.blockers) is starts
    assert bool(plan.warnings) is not starts


@pytest.mark.parametrize(
    ("given", "stored_as", "strategy"), [(None, None, "Always"), (None, "Halted", "Halted"), ("Manual", "Halted", "Manual")]
)
def test_a_run_strategy_is_what_is_asked_for_else_what_it_is_else_always(given: str | None, stored_as: str | None, strategy: str) -> None:
    vm = stored(strategy=stored_as) if stored_as else None
    assert _vm_plan.run_strategy(dataclasses.replace(ASKED, run_strategy=given), vm) == strategy


@pytest.mark.parametrize(
    ("percent", "requested"), [({}, None), ({"overcommit": 100}, None), ({"overcommit": 101}, 99), ({"overcommit": 137}, 72)]
)
def test_what_kubevirt_requests_of_an_instancetypes_memory_is_said_where_it_is_not_all(
    percent: dict[str, int], requested: int | None
) -> None:
    asked = dataclasses.replace(ASKED, instancetype=("big", "cluster"), memory=None)
    warnings = _vm_plan.make_plan(asked, None, seen(instancetype={"spec": {}}, **percent)).warnings
    assert len(warnings) == (requested is not None)
    assert requested is None or f"requests only {requested} % of it" in warnings[0]


def update(path: tuple[str, ...], value: t.Any, phase: str | None = "Running") -> t.Any:
    """The plan where the API server would store another value at ``path``."""
    would_be = copy.deepcopy(stored())
    place = would_be["spec"]
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = value
    vmi = instance(phase) if phase else None
    return _vm_plan.make_plan(ASKED, None, seen(stored(), would_be=would_be, vmi=vmi))


LATER = "differs; it runs, so its template takes effect at its next start"


@pytest.mark.parametrize(
    ("path", "value", "phase", "reason"),
    [
        (("template", "spec", "domain", "cpu", "cores"), 2, "Running", LATER),
        (("template", "spec", "domain", "cpu", "cores"), 2, "Succeeded", "differs"),
        (("template", "spec", "domain", "cpu", "cores"), 2, None, "differs"),
        (("instancetype", "name"), "big", "Scheduled", LATER),
        (("preference", "name"), "linux", "Running", LATER),
        (("runStrategy",), "Halted", "Running", "differs"),
    ],
)
def test_what_waits_for_the_next_start_of_a_vm_that_runs_says_so(
    path: tuple[str, ...], value: t.Any, phase: str | None, reason: str
) -> None:
    plan = update(path, value, phase)
    [change] = plan.changes
    assert (change.action, change.reason) == ("update", reason)
    assert bool(plan.warnings) is (reason == LATER)
    assert change.after == {".".join(("spec", *path)): value}


def test_one_of_several_differences_is_enough_to_wait_for_the_next_start() -> None:
    would_be = stored(strategy="Halted")
    would_be["spec"]["template"]["spec"]["domain"]["cpu"] = {"cores": 2}
    [change] = _vm_plan.make_plan(ASKED, None, seen(stored(), would_be=would_be, vmi=instance("Running"))).changes
    assert change.reason == LATER
    assert change.before == {"spec.runStrategy": "Always"}


def test_nothing_differs_nothing_is_done() -> None:
    plan = _vm_plan.make_plan(ASKED, None, seen(stored(), would_be=stored(), vmi=instance("Running")))
    assert (plan.changes, plan.blockers, plan.warnings) == ([], [], [])


def with_data(text: str) -> Json:
    made = stored()
    made["spec"]["template"]["spec"]["volumes"] = [{"name": "ci", "cloudInitNoCloud": {"userData": text}}]
    return made


def test_of_cloud_inits_data_is_only_shown_that_it_differs() -> None:
    [change] = _vm_plan.make_plan(ASKED, None, seen(with_data("password: old"), would_be=with_data("password: new"))).changes
    assert "password" not in str(change)
    assert change.before != change.after
    fresh = dataclasses.replace(ASKED, spec=with_data("password: new")["spec"])
    del fresh.spec["runStrategy"]
    fresh.spec["template"]["spec"].pop("domain")
    [made] = _vm_plan.make_plan(fresh, None, seen()).changes
    assert "password" not in str(made) and "cloudInitNoCloud" in str(made)


def test_a_new_token_is_only_said_to_wait_where_the_vm_runs_and_the_token_is_new() -> None:
    asked = dataclasses.replace(ASKED, licence=_vm.Licence("token", "key", "/a/file"))
    token = _licence.Token(b"t", False)
    secret = _licence.body(_vm.Licence("token", "key"), token)
    for held, phase, said in ((None, "Running", True), (None, None, False), (secret, "Running", False)):
        vm = stored(asked)
        vmi = instance(phase) if phase else None
        plan = _vm_plan.make_plan(asked, token, seen(vm, would_be=vm, vmi=vmi, secret=held))
        assert any("new licence token" in warning for warning in plan.warnings) is said


@pytest.mark.parametrize(
    ("display", "kinds", "stops"), [(None, {"pci"}, False), (True, {"mdev"}, False), (True, {"pci", "mdev"}, False), (False, {"pci"}, True)]
)
def test_display_options_are_judged_where_they_are_given_and_for_pci_devices_only(
    display: bool | None, kinds: set[str], stops: bool
) -> None:
    asked = dataclasses.replace(ASKED, gpus=(_vm.Gpu("g", VGPU, display),))
    plan = _vm_plan.make_plan(asked, None, seen(kinds={VGPU: frozenset(kinds)}, version=(1, 7, 0)))
    assert bool(plan.blockers) is stops


@pytest.mark.parametrize(
    ("vm", "secret", "sharers", "actions"),
    [
        (None, None, (), []),
        ({"metadata": OURS, "spec": {"runStrategy": "Always"}}, None, (), [("VM ml/vm", {"runStrategy": "Always", "runs": True})]),
        ({"metadata": {**OURS, "deletionTimestamp": "now"}}, None, (), []),
        (None, {"metadata": {"name": "token", **OURS}}, (), [("secret ml/token", {"content": "not shown"})]),
        (None, {"metadata": {"name": "token", **OURS}}, ("other",), []),
        (None, {"metadata": {"name": "token"}}, (), []),
    ],
)
def test_what_goes_is_ours_and_only_ours(
    vm: Json | None, secret: Json | None, sharers: tuple[str, ...], actions: list[tuple[str, Json]]
) -> None:
    plan = _vm_plan.plan_absence(ASKED, seen(vm, vmi=instance("Running"), secret=secret, sharers=sharers))
    assert [(change.target, change.before) for change in plan.changes] == actions
    assert all((change.action, change.after) == ("delete", None) for change in plan.changes)
    assert plan.blockers == []
