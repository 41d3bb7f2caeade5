# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""redfish_bios through its ``main()``, against a small BMC that behaves like each vendor's."""

from __future__ import annotations

import json
import typing as t

import pytest
from conftest import Clock, MakeBmc

from tests.bmc import vendors
from tests.bmc.fake import PASSWORD, SESSIONS, Fault, explained
from tests.unit.conftest import RunModule

Json = dict[str, t.Any]
Params = t.Callable[..., Json]
ON = dict.fromkeys(("iommu", "virtualization", "sriov", "above_4g"), True)
#: The terms that each machine has a setting for.
HAS = {"hpe": ("iommu", "virtualization", "sriov"), "supermicro older": ("iommu", "virtualization", "sriov")}
NAME = "redfish_bios"


def to_settings(request: t.Any) -> bool:
    return bool(request.method == "PATCH")


@pytest.mark.parametrize("vendor", vendors.VENDORS)
def test_terms_become_the_vendors_settings_and_wait_for_the_reset(
    vendor: str, run_module: RunModule, make_bmc: MakeBmc, params: Params
) -> None:
    machine, written = vendors.VENDORS[vendor]
    bmc = make_bmc(machine())
    asked = params(bmc, attributes=dict.fromkeys(HAS.get(vendor, ON), True))

    planned = run_module(NAME, asked, check=True, diff=True)
    assert not planned["failed"] and not bmc.patches
    first = run_module(NAME, asked, diff=True)
    assert planned["changes"] == first["changes"] and planned["diff"] == first["diff"]
    assert planned["settings"] == first["settings"] and planned["reboot_reasons"] == first["reboot_reasons"]
    assert {change["target"]: change["after"] for change in first["changes"]} == {
        f"setting {name}": value for name, value in written.items()
    }
    assert first["changed"] and first["reboot_required"] and planned["reboot_required"]
    assert bmc.pending[bmc.machine.system] == written
    assert all(bmc.machine.attributes[name] != value for name, value in written.items())

    patches = len(bmc.patches)
    second = run_module(NAME, asked)
    assert not second["changed"] and second["reboot_required"] and len(bmc.patches) == patches
    bmc.reset()
    third = run_module(NAME, asked)
    assert not third["changed"] and not third["reboot_required"] and third["reboot_reasons"] == []
    assert len(bmc.patches) == patches


def test_what_is_returned_says_what_is_now_and_what_will_be(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.dell())
    result = run_module(NAME, params(bmc, attributes={"sriov": True, "ProcVirtualization": "Enabled"}))
    assert result["settings"] == [
        {"name": "ProcVirtualization", "asked": "ProcVirtualization: Enabled", "current": "Enabled", "pending": "Enabled"},
        {"name": "SriovGlobalEnable", "asked": "sriov: true", "current": "Disabled", "pending": "Enabled"},
    ]
    assert result["reboot_reasons"] == ["the firmware setting SriovGlobalEnable (sriov: true) changes from Disabled to Enabled"]
    assert result["system"] == {"id": "System.Embedded.1", "vendor": "dell", "model": "M1", "bios_version": "1.2"}
    assert result["task"] == "/redfish/v1/TaskService/Tasks/JID_1"
    assert bmc.patches[0].body == {
        "Attributes": {"SriovGlobalEnable": "Enabled"},
        "@Redfish.SettingsApplyTime": {"ApplyTime": "OnReset"},
    }


def test_a_pending_setting_that_would_undo_what_is_asked_for_is_taken_back(
    run_module: RunModule, make_bmc: MakeBmc, params: Params
) -> None:
    bmc = make_bmc(vendors.lenovo())
    bmc.pending["1"] = {"DevicesandIOPorts_SRIOV": "Disabled", "SystemRecovery_POSTWatchdogTimer": True}
    result = run_module(NAME, params(bmc, attributes={"sriov": True}))
    assert [(change["before"], change["after"]) for change in result["changes"]] == [("Disabled", "Enabled")]
    assert not result["reboot_required"] and bmc.pending["1"]["DevicesandIOPorts_SRIOV"] == "Enabled"
    assert result["others_pending"] == ["SystemRecovery_POSTWatchdogTimer"]
    assert "SystemRecovery_POSTWatchdogTimer" in result["warnings"][0]


def test_a_value_that_also_means_on_is_left(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.lenovo())
    assert not run_module(NAME, params(bmc, attributes={"above_4g": True}))["changed"]
    result = run_module(NAME, params(bmc, attributes={"above_4g": False}), check=True)
    assert result["changes"][0]["after"] == "Disabled"


def test_amd_machines_of_dell_have_a_setting_for_the_iommu_alone(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    machine = vendors.dell()
    machine.attributes["IommuSupport"] = "Disabled"
    bmc = make_bmc(machine)
    result = run_module(NAME, params(bmc, attributes={"iommu": "yes", "virtualization": "enabled"}))
    assert [change["target"] for change in result["changes"]] == ["setting IommuSupport"]


def test_names_may_lack_the_suffix_of_the_board(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.supermicro_older())
    result = run_module(NAME, params(bmc, attributes={"QuietBoot": False, "SR-IOVSupport#0048": "Enabled"}))
    assert not result["failed"] and bmc.pending["1"] == {"QuietBoot#002E": False, "SR-IOVSupport#0048": "Enabled"}


@pytest.mark.parametrize(
    ("machine", "attributes", "target", "expected"),
    [
        (
            vendors.dell,
            {"SriovGlobalEnabled": "Enabled"},
            "setting SriovGlobalEnabled",
            "no such setting; the nearest are SriovGlobalEnable",
        ),
        (vendors.dell, {"Virtualization": "Enabled"}, "setting Virtualization", "the nearest are ProcVirtualization"),
        (vendors.dell, {"Xyzzy": 1}, "setting Xyzzy", "the terms are above_4g, iommu, sriov, virtualization"),
        (vendors.dell, {"SysProfile": "perfoptimized"}, "setting SysProfile", "one of PerfPerWattOptimizedDapc, PerfOptimized, Custom"),
        (vendors.dell, {"SriovGlobalEnable": True}, "setting SriovGlobalEnable", "one of Enabled, Disabled; YAML takes On"),
        (vendors.dell, {"AcPwrRcvryUserDelay": 10}, "setting AcPwrRcvryUserDelay", "at least 60"),
        (vendors.dell, {"AcPwrRcvryUserDelay": 6000}, "setting AcPwrRcvryUserDelay", "at most 600"),
        (vendors.dell, {"AcPwrRcvryUserDelay": "soon"}, "setting AcPwrRcvryUserDelay", "a whole number"),
        (vendors.dell, {"AssetTag": "x" * 64}, "setting AssetTag", "at most 63 characters"),
        (vendors.dell, {"AssetTag": ["x"]}, "setting AssetTag", "one value"),
        (vendors.dell, {"SetupPassword": "hunter2"}, "setting SetupPassword", "it is a password"),
        (vendors.dell, {"SystemModelName": "R760"}, "setting SystemModelName", "does not let it be written"),
        (
            vendors.dell,
            {"iommu": True, "virtualization": False},
            "setting ProcVirtualization",
            "iommu: true and virtualization: false contradict",
        ),
        (
            vendors.dell,
            {"sriov": True, "SriovGlobalEnable": "Disabled"},
            "setting SriovGlobalEnable",
            "contradict each other: Disabled and Enabled",
        ),
        (vendors.dell, {"sriov": "maybe"}, "term sriov", "'maybe' is neither yes nor no"),
        (vendors.hpe, {"above_4g": True}, "term above_4g", "no setting that is known for it"),
        (vendors.supermicro_older, {"above_4g": True}, "term above_4g", "none of Above4GDecoding"),
        (
            vendors.supermicro,
            {"ConsoleRedirection": True},
            "setting ConsoleRedirection",
            "ConsoleRedirection_007E, ConsoleRedirection_0080",
        ),
        (vendors.supermicro, {"SR_IOVSupport": "1"}, "setting SR_IOVSupport_0047", "one of Disabled, Enabled"),
        (vendors.lenovo, {"SystemRecovery_POSTWatchdogTimer": "maybe"}, "setting SystemRecovery_POSTWatchdogTimer", "true or false"),
    ],
)
def test_what_cannot_be_set_is_refused_and_nothing_is_written(
    machine: t.Callable[[], vendors.Machine],
    attributes: Json,
    target: str,
    expected: str,
    run_module: RunModule,
    make_bmc: MakeBmc,
    params: Params,
) -> None:
    bmc = make_bmc(machine())
    good = {"virtualization": False} if "virtualization" not in attributes and "iommu" not in attributes else {}
    result = run_module(NAME, params(bmc, attributes={**attributes, **good}))
    assert result["failed"] and not result["changed"] and not bmc.patches
    assert [blocker["target"] for blocker in result["blockers"]] == [target]
    assert expected in result["blockers"][0]["problem"] and result["blockers"][0]["remedy"]
    assert result["msg"].startswith("Setting the firmware: stopped by 1 problem.") and expected in result["msg"]
    assert "Nothing was changed." in result["msg"] and "hunter2" not in json.dumps(result)


def test_a_term_that_the_machine_lacks_names_settings_that_could_be_meant(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    machine = vendors.dell()
    machine.attributes["SriovSupportNew"] = machine.attributes.pop("SriovGlobalEnable")
    problem = run_module(NAME, params(make_bmc(machine), attributes={"sriov": True}))["blockers"][0]
    assert "none of SriovGlobalEnable" in problem["problem"] and "could be meant: SriovSupportNew" in problem["problem"]
    assert "gpufleet_firmware_attributes: {sriov: null}" in problem["remedy"]


def test_a_board_with_several_settings_for_a_term_is_not_guessed_at(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    machine = vendors.supermicro()
    machine.attributes["SR_IOVSupport_0048"] = "Disabled"
    result = run_module(NAME, params(make_bmc(machine), attributes={"sriov": True}))
    assert "SR_IOVSupport_0047, SR_IOVSupport_0048" in result["blockers"][0]["problem"]


def test_terms_of_an_unknown_vendor_are_refused_unless_the_vendor_is_given(
    run_module: RunModule, make_bmc: MakeBmc, params: Params
) -> None:
    machine = vendors.dell()
    machine.manufacturer, machine.root = "Whitebox", {}
    bmc = make_bmc(machine)
    result = run_module(NAME, params(bmc, attributes={"sriov": True}))
    assert "it says Whitebox" in result["blockers"][0]["problem"] and not bmc.patches
    assert run_module(NAME, params(bmc, vendor="dell", attributes={"sriov": True}))["changed"]
    assert not run_module(NAME, params(bmc, attributes={"SriovGlobalEnable": "Enabled"}))["failed"]


def test_without_registry_the_spelling_of_the_present_value_counts(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    machine = vendors.supermicro_older()
    machine.attributes["SR-IOVSupport#0048"] = "Auto"
    bmc = make_bmc(machine)
    result = run_module(NAME, params(bmc, attributes={"sriov": True}))
    assert "'Auto', and nothing tells how it says on" in result["blockers"][0]["problem"]
    assert run_module(NAME, params(bmc, attributes={"iommu": True}))["changes"][0]["after"] == "Enable"


def test_the_read_only_flag_matters_only_for_what_differs(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    machine = vendors.dell()
    for entry in machine.registry or []:
        entry["ReadOnly"] = True
    bmc = make_bmc(machine)
    assert not run_module(NAME, params(bmc, attributes={"virtualization": True}))["failed"]
    result = run_module(NAME, params(bmc, attributes={"virtualization": True, "sriov": True}))
    assert "a job that waits for a reboot" in result["msg"] and not bmc.patches


def test_a_second_job_is_refused_with_what_to_do(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.dell())
    run_module(NAME, params(bmc, attributes={"sriov": True}))
    result = run_module(NAME, params(bmc, attributes={"sriov": True, "above_4g": True}))
    assert result["failed"] and not result["changed"] and result["changes"] == []
    assert "SYS011" in result["msg"] and "Reboot the host so that the waiting job runs" in result["msg"]


def test_a_service_that_demands_to_be_told_when_is_told(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    machine = vendors.dell()
    machine.apply_times = ()
    bmc = make_bmc(machine)
    demand = explained("Base.1.8.PropertyMissing", "The property @Redfish.SettingsApplyTime is required.")
    bmc.faults = [Fault(400, to_settings, body=demand)]
    result = run_module(NAME, params(bmc, attributes={"sriov": True}))
    assert result["changed"] and not result["failed"]
    assert [request.body.get("@Redfish.SettingsApplyTime") for request in bmc.patches] == [None, {"ApplyTime": "OnReset"}]


def test_a_service_that_applies_at_no_reset_is_not_written_to(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    machine = vendors.dell()
    machine.apply_times = ("Immediate",)
    bmc = make_bmc(machine)
    result = run_module(NAME, params(bmc, attributes={"sriov": True}))
    assert "only at Immediate" in result["blockers"][0]["problem"] and not bmc.patches


def test_a_service_without_pending_settings_is_not_written_to(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    machine = vendors.supermicro_older()
    machine.settings = ""
    bmc = make_bmc(machine)
    assert not run_module(NAME, params(bmc, attributes={"virtualization": True}))["failed"]
    result = run_module(NAME, params(bmc, attributes={"sriov": True}))
    assert "@Redfish.Settings" in result["blockers"][0]["problem"] and not bmc.patches


def test_what_does_not_become_pending_is_a_failure(run_module: RunModule, make_bmc: MakeBmc, params: Params, clock: Clock) -> None:
    machine = vendors.dell()
    machine.apply_times = ()  # and so it is not told when, and keeps the settings aside
    result = run_module(NAME, params(make_bmc(machine), attributes={"sriov": True}))
    assert result["failed"] and not result["changed"]
    assert "Enabled was written, and after the next reset it would still be Disabled" in result["msg"]
    assert sum(clock.pauses) >= 20


def test_what_becomes_pending_a_little_later_is_waited_for(run_module: RunModule, make_bmc: MakeBmc, params: Params, clock: Clock) -> None:
    bmc = make_bmc(vendors.dell())
    late: dict[str, Json] = {}

    def later() -> None:
        bmc.faults = [
            Fault(200, lambda request: request.path.endswith("/Settings") and request.method == "GET", 2, body={"Attributes": late})
        ]

    bmc.before_patch = later
    assert run_module(NAME, params(bmc, attributes={"sriov": True}))["changed"]
    assert clock.pauses == [2.0, 2.0]


@pytest.mark.parametrize(("machine", "first", "second"), [(vendors.lenovo, '"1-1"', None), (vendors.hpe, 'W/"1-1"', '"1-1"')])
def test_etags_are_honoured_also_where_a_service_hands_out_weak_ones(
    machine: t.Callable[[], vendors.Machine], first: str, second: str | None, run_module: RunModule, make_bmc: MakeBmc, params: Params
) -> None:
    bmc = make_bmc(machine())
    result = run_module(NAME, params(bmc, attributes={"iommu": True}))
    assert result["changed"]
    sent = [request.headers.get("if-match") for request in bmc.patches if request.path.endswith("/") == bmc.machine.slash]
    assert sent == [tag for tag in (first, second) if tag]


def test_settings_that_somebody_else_changes_in_between_are_not_overwritten(
    run_module: RunModule, make_bmc: MakeBmc, params: Params
) -> None:
    bmc = make_bmc(vendors.lenovo())

    def other() -> None:
        bmc.before_patch = lambda: None
        bmc.version += 1
        bmc.pending["1"]["DevicesandIOPorts_SRIOV"] = "Disabled"

    bmc.before_patch = other
    result = run_module(NAME, params(bmc, attributes={"sriov": False}))
    assert result["failed"] and "somebody else changed" in result["msg"] and len(bmc.patches) == 1


def test_another_setting_that_changes_in_between_does_not_matter(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.lenovo())

    def other() -> None:
        bmc.before_patch = lambda: None
        bmc.version += 1

    bmc.before_patch = other
    assert run_module(NAME, params(bmc, attributes={"iommu": True}))["changed"]
    assert [request.headers["if-match"] for request in bmc.patches] == ['"1-1"', '"1-2"']


def test_one_of_several_systems_must_be_named(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.lenovo())
    other = vendors.lenovo()
    other.system = "2"
    bmc.systems["2"], bmc.pending["2"] = other, {}
    result = run_module(NAME, params(bmc, attributes={"iommu": True}))
    assert "several systems behind it: 1, 2" in result["msg"] and "gpufleet_bmc_system_id" in result["msg"]
    result = run_module(NAME, params(bmc, system_id="3", attributes={"iommu": True}))
    assert "no system 3, it has 1, 2" in result["msg"] and not bmc.patches
    assert run_module(NAME, params(bmc, system_id="2", attributes={"iommu": True}))["changed"]
    assert bmc.pending["1"] == {} and bmc.pending["2"]


def test_a_system_without_bios_settings_does_not_count(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.lenovo())
    board = vendors.lenovo()
    board.system, board.bios = "HGX_Baseboard_0", ""
    bmc.systems[board.system], bmc.pending[board.system] = board, {}
    assert run_module(NAME, params(bmc, attributes={"iommu": True}))["system"]["id"] == "1"
    result = run_module(NAME, params(bmc, system_id="HGX_Baseboard_0", attributes={"iommu": True}))
    assert "offers no BIOS settings (HGX_Baseboard_0)" in result["msg"]


def test_a_machine_that_has_reported_no_settings_yet_is_named(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    machine = vendors.lenovo()
    machine.attributes = {}
    result = run_module(NAME, params(make_bmc(machine), attributes={"iommu": True}))
    assert "knows no BIOS setting" in result["msg"] and "Power it on once" in result["msg"]


@pytest.mark.parametrize("auth", ["auto", "session", "basic"])
def test_sessions_are_closed_and_the_password_is_nowhere(auth: str, run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.dell())
    results = [
        run_module(NAME, params(bmc, auth=auth, attributes=attributes), check=check, diff=True)
        for attributes, check in (({"sriov": True}, True), ({"sriov": True}, False), ({"Xyzzy": 1}, False))
    ]
    assert PASSWORD not in json.dumps(results) and not bmc.sessions
    logins = [request for request in bmc.requests if request.path == SESSIONS]
    assert len(logins) == (0 if auth == "basic" else 3)
    sent = [request for request in bmc.requests if "authorization" in request.headers]
    assert bool(sent) is (auth == "basic")
    assert not [request for request in bmc.requests if request.path == "/redfish/v1/" and "authorization" in request.headers]


def test_a_service_without_sessions_gets_the_password_with_each_request(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.dell(), sessions=False)
    assert run_module(NAME, params(bmc, attributes={"sriov": True}))["changed"]
    result = run_module(NAME, params(bmc, auth="session", attributes={"sriov": True}))
    assert "offers no sessions" in result["msg"]
