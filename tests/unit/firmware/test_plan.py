# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is planned, without a BMC: names, spellings, and that a plan that has been carried out is empty."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._firmware import _plan, _redfish, _registry, _terms
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._firmware._bios import Bios, Observed
from tests.bmc import vendors

Json = dict[str, t.Any]


@pytest.mark.parametrize(
    ("names", "vendor"),
    [
        (["Dell Inc."], "dell"),
        ([None, "HPE"], "hpe"),
        (["Hewlett Packard Enterprise"], "hpe"),
        (["Lenovo"], "lenovo"),
        (["Super Micro Computer, Inc."], "supermicro"),
        (["", None, "Supermicro"], "supermicro"),
        (["NVIDIA", None], None),
        ([], None),
    ],
)
def test_vendors_are_known_by_what_they_call_themselves(names: list[str | None], vendor: str | None) -> None:
    assert _terms.vendor_of(names) == vendor


@pytest.mark.parametrize(
    ("name", "attributes", "expected"),
    [
        ("SR-IOVSupport", ["SR-IOVSupport#0048"], ["SR-IOVSupport#0048"]),
        ("SR-IOVSupport", ["SR_IOVSupport_0047"], ["SR_IOVSupport_0047"]),
        ("SR-IOVSupport", ["SR-IOVSupport"], ["SR-IOVSupport"]),
        ("IOMMU", ["IOMMU_0196", "IOMMU"], ["IOMMU"]),
        ("IOMMU", ["IOMMUMode_0196", "XIOMMU_0196", "IOMMU_019", "IOMMU_019g"], []),
        ("IntelVTforDirectedI/O(VT-d)", ["IntelVTforDirectedI_O_VT_d__1E32"], ["IntelVTforDirectedI_O_VT_d__1E32"]),
        (
            "ConsoleRedirection",
            ["ConsoleRedirection_0080", "ConsoleRedirection_007E"],
            ["ConsoleRedirection_007E", "ConsoleRedirection_0080"],
        ),
        ("Slot1", ["Slot1Bif", "Slot_1"], []),
    ],
)
def test_a_name_finds_itself_or_what_it_is_but_for_a_suffix(name: str, attributes: list[str], expected: list[str]) -> None:
    assert _terms.found(name, attributes) == expected


@pytest.mark.parametrize(
    ("on", "choices", "current", "expected"),
    [
        (True, ["Disable", "Enable"], "Disable", "Enable"),
        (False, ["Enabled", "Disabled", "Auto"], "Auto", "Disabled"),
        (True, [], "Off", "On"),
        (True, [], "Auto", None),
        (True, ["1", "0"], "0", None),
        (False, [], True, False),
    ],
)
def test_on_and_off_are_spelled_as_the_firmware_does(on: bool, choices: list[str], current: t.Any, expected: t.Any) -> None:
    assert _terms.spelling(on, choices, current) == expected


def test_every_term_of_the_table_is_a_term_and_looks_like_one() -> None:
    for settings in _terms.SETTINGS.values():
        assert set(settings) <= set(_terms.TERMS)
    assert set(_terms.LOOKS_LIKE) == set(_terms.TERMS)
    for vendor, settings in _terms.SETTINGS.items():
        for term, candidates in settings.items():
            # Dell's ProcVirtualization is the IOMMU too, which its name does not say.
            assert all(_terms.LOOKS_LIKE[term].search(c.name) or (vendor, c.name) == ("dell", "ProcVirtualization") for c in candidates)


def test_steps_and_numbers_held_as_text() -> None:
    stepped = _registry.Attribute("Integer", lower=4, step=8)
    assert _registry.checked(stepped, 4, "12") == 12
    assert _registry.checked(stepped, "4", 12) == "12"
    with pytest.raises(ValueError, match="4 plus a multiple of 8"):
        _registry.checked(stepped, 4, 13)
    with pytest.raises(ValueError, match="at least 2 characters"):
        _registry.checked(_registry.Attribute("String", min_length=2), "ab", "a")


def test_what_has_no_entry_is_judged_by_its_value() -> None:
    assert [_registry.guessed(value).kind for value in (True, 1, "x", None)] == ["Boolean", "Integer", "String", "String"]
    with pytest.raises(ValueError, match="in quotes"):
        _registry.checked(_registry.guessed("On"), "On", True)


def test_a_password_that_was_asked_for_is_known_so_that_it_is_not_shown() -> None:
    wanted = {"SetupPassword": "hunter2", "AssetTag": "rack 7", "sriov": True, "NoSuchSetting": "x"}
    assert _plan.passwords(wanted, observed(vendors.dell(), {})) == {"hunter2"}


def observed(machine: vendors.Machine, pending: Json) -> Observed:
    registry = None if machine.registry is None else _registry.parse({"RegistryEntries": {"Attributes": machine.registry}})
    return Observed("1", dict(machine.attributes), dict(pending), registry, machine.apply_times, "/settings", None, (machine.manufacturer,))


machines = st.sampled_from([machine for machine, _written in vendors.VENDORS.values()])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Observed, Json]:
    """A machine with some settings pending, and a wish that names terms and settings, good and bad ones."""
    machine = draw(machines)()
    switches = {name: value for name, value in machine.attributes.items() if value in ("Enabled", "Disabled", "Enable", "Disable")}
    opposite = {"Enabled": "Disabled", "Disabled": "Enabled", "Enable": "Disable", "Disable": "Enable"}
    pending = {name: opposite[value] for name, value in switches.items() if draw(st.booleans())}
    if draw(st.booleans()):
        pending = {**machine.attributes, **pending}
    names = [*_terms.TERMS, *machine.attributes, "NoSuchSetting"]
    values = st.sampled_from([True, False, "Enabled", "Disable", "yes", "Custom", 60, 100, "", None, "maybe"])
    return observed(machine, pending), draw(st.dictionaries(st.sampled_from(names), values, max_size=4))


@given(cases())
def test_a_plan_that_has_been_carried_out_is_empty(case: tuple[Observed, Json]) -> None:
    seen, wanted = case
    vendor = _terms.vendor_of(seen.names)
    plan = _plan.make_plan(wanted, seen, vendor)
    written = {change.target.removeprefix("setting "): change.after for change in plan.changes}
    after = dataclasses.replace(seen, pending={**seen.pending, **written})
    again = _plan.make_plan(wanted, after, vendor)
    assert again.changes == [] and again.blockers == plan.blockers and _plan.not_taken(plan.changes, after) == []
    assert len(_plan.not_taken(plan.changes, seen)) == len(plan.changes)
    booted = dataclasses.replace(after, current={**seen.current, **after.pending}, pending={})
    assert _plan.make_plan(wanted, booted, vendor).changes == []


@pytest.mark.parametrize(("names", "said"), [(("Example", None, "X"), "it says Example, X"), ((None, ""), "it says nobody")])
def test_an_unknown_vendor_is_named_by_what_it_says(names: tuple[t.Any, ...], said: str) -> None:
    plan = _plan.make_plan({"sriov": True}, Observed("1", {}, names=names), None)
    assert plan.blockers[0].problem.endswith(said)


@pytest.mark.parametrize(
    ("vendor", "current", "problem"),
    [
        ("dell", {}, "this machine has no setting that is known for it (none of SriovGlobalEnable)"),
        ("hpe", {}, "this machine has no setting that is known for it (none of Sriov)"),
        (
            "dell",
            {f"NicSriov{number}": "x" for number in range(7)},
            (
                "this machine has no setting that is known for it (none of SriovGlobalEnable); by their names these could be meant: "
                "NicSriov0, NicSriov1, NicSriov2, NicSriov3, NicSriov4"
            ),
        ),
    ],
)
def test_a_term_that_is_not_found_says_what_was_looked_for(vendor: str, current: Json, problem: str) -> None:
    plan = _plan.make_plan({"sriov": True}, Observed("1", current), vendor)
    assert [blocker.problem for blocker in plan.blockers] == [problem]


def test_a_term_without_a_setting_for_this_vendor_looks_for_none() -> None:
    plan = _plan.make_plan({"above_4g": True}, Observed("1", {}), "hpe")
    assert plan.blockers[0].problem == "this machine has no setting that is known for it"


@pytest.mark.parametrize(("on", "word"), [(True, "on"), (False, "off")])
def test_a_value_that_cannot_be_spelled_is_a_blocker(on: bool, word: str) -> None:
    plan = _plan.make_plan({"sriov": on}, Observed("1", {"SriovGlobalEnable": "Auto"}), "dell")
    assert plan.blockers[0].problem == f"it is 'Auto', and nothing tells how it says {word}" and not plan.changes


@pytest.mark.parametrize(
    ("name", "known", "nearest"),
    [
        ("abc", ["SomethingWithAbcInIt", "other"], ["SomethingWithAbcInIt"]),
        ("ab", ["SomethingWithAbInIt", "other"], []),
        ("abcd", [f"abcd{number}" for number in range(7)], [f"abcd{number}" for number in range(5)]),
        ("Turbo", ["Turbp", "Tarbo", "Turba", "Torbo", "Terbo", "Tirbo", "Zzz"], None),
    ],
)
def test_names_like_another_are_at_most_five(name: str, known: list[str], nearest: list[str] | None) -> None:
    found = _plan._nearest(name, known)
    assert len(found) == 5 and "Zzz" not in found if nearest is None else found == nearest


def test_a_setting_that_cannot_be_written_is_a_blocker_and_no_change() -> None:
    registry = {"A": _registry.Attribute("String", read_only=True), "B": _registry.Attribute("String")}
    plan = _plan.make_plan({"A": "x", "B": "x"}, Observed("1", {"A": "y", "B": "y"}, registry=registry, settings="/s"), "dell")
    assert ([blocker.target for blocker in plan.blockers], [change.target for change in plan.changes]) == (["setting A"], ["setting B"])


class Listening:
    """Stands for the client: keeps what is sent, and shows it as pending."""

    target = "BMC test"

    def __init__(self) -> None:
        self.bodies: list[Json] = []

    def patch(self, path: str, body: Json, etag: str | None) -> _redfish.Answer:
        self.bodies.append(body)
        return _redfish.Answer(200, {}, {})

    def get(self, path: str) -> _redfish.Answer:
        return _redfish.Answer(200, {"Attributes": self.bodies[-1]["Attributes"]}, {})


@given(cases())
def test_only_what_is_asked_for_is_ever_sent(case: tuple[Observed, Json]) -> None:
    seen, wanted = case
    plan = _plan.make_plan(wanted, seen, _terms.vendor_of(seen.names))
    if not plan.changes:
        return
    client = Listening()
    Bios(client).write(seen, {change.target.removeprefix("setting "): change.after for change in plan.changes})  # type: ignore[arg-type]
    sent = client.bodies[0]["Attributes"]
    allowed = set(wanted) | {
        name
        for term in set(wanted) & set(_terms.TERMS)
        for candidate in _terms.SETTINGS[str(_terms.vendor_of(seen.names))].get(term, ())
        for name in _terms.found(candidate.name, seen.current)
    }
    assert set(sent) <= allowed and set(sent) <= set(seen.current)
    assert set(client.bodies[0]) <= {"Attributes", "@Redfish.SettingsApplyTime"}
    assert all(seen.due(name) != value for name, value in sent.items())
