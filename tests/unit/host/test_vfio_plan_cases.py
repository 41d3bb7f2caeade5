# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is decided about single groups of functions, case by case, and in which words."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import KNOWN_AFTER_APPLY, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _boot_binding
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._boot_binding import Rule
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._displaced import Displaced
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._holders import Holder
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._pci import Function
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._vfio import Member, Seen, Selector, Unit, Wish
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._vfio_plan import make_plan

GPU, AUDIO, NIC = "0000:41:00.0", "0000:41:00.1", "0000:41:01.0"
DRIVERS = frozenset({"vfio-pci", "nvidia", "igb", "snd_hda_intel"})
HOLDER = Holder(4711, "qemu-kvm", "/dev/vfio/7", "train")


def member(address: str = GPU, driver: t.Optional[str] = "nvidia", vendor: str = "10de", kind: str = "0302", **more: t.Any) -> Member:
    return Member(Function(address, vendor, "2236", kind, driver, "7", None), **more)


def nic(driver: t.Optional[str] = "igb", **more: t.Any) -> Member:
    return member(NIC, driver, "8086", "0200", **more)


def plan(*members: Member, chosen: t.Collection[str] = (GPU,), seen: t.Optional[t.Dict[str, t.Any]] = None, **wish: t.Any) -> Plan:
    look = {"drivers": DRIVERS, **(seen or {})}
    return make_plan(Wish((Selector(GPU),), **wish), Seen((Unit("7", members, frozenset(chosen)),), **look))


def moves(found: Plan) -> t.List[t.Tuple[str, str, t.Any, t.Any, str]]:
    return [(change.target, change.action, change.before, change.after, change.reason) for change in found.changes]


def refusals(found: Plan) -> t.List[t.Tuple[str, str, str]]:
    return [(blocker.target, blocker.problem, blocker.stops) for blocker in found.blockers]


# What is done


@pytest.mark.parametrize(
    ("one", "wish", "move"),
    [
        (member(), {}, ("bind", "nvidia", "vfio-pci", "VFIO is to have it")),
        (member(driver=None), {}, ("bind", None, "vfio-pci", "VFIO is to have it")),
        (member(driver="vfio-pci"), {}, None),
        (member(), {"state": "released"}, None),
        (member(driver="vfio-pci"), {"state": "released"}, ("release", "vfio-pci", KNOWN_AFTER_APPLY, "the host is to have it back")),
        (
            member(driver="vfio-pci", displaced=Displaced("10DE:2236", "nvidia")),
            {"state": "released"},
            ("release", "vfio-pci", "nvidia", "the host is to have it back"),
        ),
        (
            member(driver="vfio-pci", displaced=Displaced("10DE:2236", "gone")),
            {"state": "released"},
            ("release", "vfio-pci", KNOWN_AFTER_APPLY, "the host is to have it back"),
        ),
        (
            member(driver="vfio-pci", displaced=Displaced("10DE:2236", None)),
            {"state": "released"},
            ("release", "vfio-pci", KNOWN_AFTER_APPLY, "the host is to have it back"),
        ),
        (member(driver="vfio-pci"), {"state": "released", "release_to": "none"}, ("release", "vfio-pci", None, "no driver is to have it")),
        (member(override="vfio-pci"), {"state": "released"}, ("release", "nvidia", "nvidia", "the host keeps it")),
        (member(override="nvidia"), {"state": "released"}, None),
        (
            member(driver=None, override="nvidia", displaced=Displaced("10DE:2236", "nvidia")),
            {"state": "released"},
            ("release", None, "nvidia", "the host is to have it back"),
        ),
        (member(driver=None, override="igb", displaced=Displaced("10DE:2236", "nvidia")), {"state": "released"}, None),
    ],
)
def test_what_is_done_to_one_function(one: Member, wish: t.Dict[str, t.Any], move: t.Any) -> None:
    assert moves(plan(one, **wish)) == ([(GPU, *move)] if move else [])


def test_a_driver_is_loaded_once_for_all_that_are_to_have_it() -> None:
    found = plan(member(), member(AUDIO, "snd_hda_intel", kind="0403"), seen={"drivers": DRIVERS - {"vfio-pci"}})
    assert moves(found)[0] == ("driver vfio-pci", "load", None, "loaded", f"{GPU} is to have it")
    assert [change.target for change in found.changes[1:]] == [GPU, AUDIO]


def test_what_is_not_there_stops_nothing_else() -> None:
    found = plan(member(), seen={"unmatched": (Selector("0000:99:00.0"),)})
    assert refusals(found) == [("address 0000:99:00.0", "there is no such function on this host", "target")]
    assert [change.target for change in found.changes] == [GPU]


@pytest.mark.parametrize("state", ["bound", "released"])
def test_the_rule_of_a_device_that_is_gone_goes_with_a_release_only(state: str) -> None:
    rule = Rule("0000:99:00.0", "10de", "2236", "vfio-pci")
    seen = {"unmatched": (Selector("0000:99:00.0"),), "rules": _boot_binding.text_of([rule])}
    found = plan(member(driver="vfio-pci" if state == "bound" else "nvidia"), seen=seen, state=state)
    if state == "bound":
        assert len(found.blockers) == 1 and not found.changes
    else:
        assert not found.blockers
        assert moves(found) == [(f"file {_boot_binding.RULES}", "remove", seen["rules"], None, "what is bound when the host boots")]


def test_rules_are_written_for_what_is_bound_and_not_over_somebody_elses_lines() -> None:
    wanted = _boot_binding.text_of([Rule(GPU, "10de", "2236", "vfio-pci")])
    target = f"file {_boot_binding.RULES}"
    found = plan(member(driver="vfio-pci"), persist="boot")
    assert moves(found) == [(target, "write", None, wanted, "what is bound when the host boots")]
    assert not plan(member(driver="vfio-pci"), persist="boot", seen={"rules": wanted}).changes
    strange = plan(member(driver="vfio-pci"), persist="boot", seen={"rules": "x" * 101})
    assert refusals(strange) == [(target, f"it has a line that is not ours: {'x' * 100}", "target")] and not strange.changes


@pytest.mark.parametrize(("displaced", "ruled"), [(Displaced("8086:2236", "igb"), False), (None, True), (None, False)])
def test_a_foreign_function_is_released_if_we_have_bound_it(displaced: t.Optional[Displaced], ruled: bool) -> None:
    rules = _boot_binding.text_of([Rule(NIC, "8086", "2236", "vfio-pci")] if ruled else [])
    ours = displaced is not None or ruled
    other = nic("vfio-pci", displaced=displaced)
    found = plan(member(driver="vfio-pci"), other, state="released", seen={"rules": rules})
    assert [change.target for change in found.changes if change.action == "release"] == ([GPU, NIC] if ours else [GPU])
    named = plan(other, state="released", chosen=(NIC,), seen={"rules": rules})
    assert bool(named.blockers) is not ours


def test_a_rule_goes_when_its_function_is_bound_for_this_boot_only() -> None:
    rules = _boot_binding.text_of([Rule(GPU, "10de", "2236", "vfio-pci")])
    found = plan(member(driver="vfio-pci"), persist="none", seen={"rules": rules})
    assert [(change.action, change.before, change.after) for change in found.changes] == [("remove", rules, None)]


def test_a_function_for_which_the_kernel_does_not_answer_stops_its_whole_group() -> None:
    found = plan(member(), member(AUDIO, "snd_hda_intel", kind="0403", silent=True))
    assert [(blocker.target, blocker.stops) for blocker in found.blockers] == [(AUDIO, "target")] and not found.changes
    assert "the kernel does not answer" in found.blockers[0].problem


# What is refused


@pytest.mark.parametrize(
    ("members", "more", "expected"),
    [
        ([member(virtual=4)], {}, [(GPU, "it has 4 virtual functions, which would vanish")]),
        ([member(vgpus=2)], {}, [(GPU, "it has 2 vGPUs, which would vanish")]),
        ([member(driver="vfio-pci", virtual=4, vgpus=2)], {}, []),
        ([member(uses=("has sda, which is swap",))], {}, [(GPU, "it has sda, which is swap")]),
        ([member(driver="vfio-pci", uses=("has sda, which is swap",))], {}, []),
        ([member(boot_vga=True)], {}, [(GPU, "it is the display that the firmware booted with (boot_vga)")]),
        ([member(boot_vga=True)], {"boot_vga": True}, []),
        ([member(holders=(HOLDER,))], {}, [(GPU, "it is held by process 4711 (qemu-kvm, VM train)")]),
        ([member(holders=(HOLDER,))], {"wait": True}, []),
        ([member(holders=None)], {"wait": True, "seen": {"unseen": "no /proc"}}, [(GPU, "it cannot be told who holds it: no /proc")]),
        ([member(driver="vfio-pci", holders=(HOLDER,))], {}, []),
        ([member(elsewhere=("/a", "/b"))], {}, [(GPU, "/a, /b already says which driver has it at boot")]),
        ([member(driver="vfio-pci", elsewhere=("/a",))], {"persist": "boot"}, [(GPU, "/a already says which driver has it at boot")]),
        ([member(driver="vfio-pci", elsewhere=("/a",))], {}, []),
        (
            [member(), nic()],
            {},
            [(NIC, f"it is in group 7 of {GPU} and is no NVIDIA device (8086:2236, class 0200, driver igb)")],
        ),
        (
            [member(), nic(None)],
            {},
            [(NIC, f"it is in group 7 of {GPU} and is no NVIDIA device (8086:2236, class 0200, no driver)")],
        ),
        ([member(), nic()], {"foreign": frozenset({NIC})}, []),
        ([member(), nic("vfio-pci")], {}, []),
        ([member(), member(NIC, "pcieport", "8086", "0604")], {}, []),
        ([nic()], {"chosen": (NIC,)}, [(NIC, "it is no NVIDIA device (8086:2236, class 0200, driver igb)")]),
        ([nic()], {"chosen": (NIC,), "foreign": frozenset({NIC})}, []),
        ([member(kind="0604")], {}, [(GPU, "it is a bridge, which stays with the kernel")]),
        (
            [member()],
            {"seen": {"drivers": DRIVERS - {"vfio-pci"}, "absent": {"vfio-pci": ("no module", "Install it")}}},
            [(GPU, "no module")],
        ),
        (
            [member()],
            {"seen": {"drivers": DRIVERS - {"vfio-pci"}, "by_hand": frozenset({"vfio-pci"})}},
            [(GPU, "the driver vfio-pci is not loaded, and no program runs for a host in a directory")],
        ),
    ],
)
def test_what_stops_a_group(members: t.List[Member], more: t.Dict[str, t.Any], expected: t.List[t.Any]) -> None:
    found = plan(*members, **more)
    assert refusals(found) == [(target, problem, "target") for target, problem in expected]
    if expected:
        assert not found.changes


def test_a_function_without_a_group_is_not_bound() -> None:
    one = Member(Function(GPU, "10de", "2236", "0302", "nvidia", None, None))
    found = make_plan(Wish((Selector(GPU),)), Seen((Unit(None, (one,), frozenset({GPU})),), drivers=DRIVERS))
    assert refusals(found) == [(GPU, "it has no IOMMU group", "target")] and not found.changes


def test_the_operators_devices_are_its_own_but_for_what_it_leaves() -> None:
    assert [(blocker.target, blocker.stops) for blocker in plan(member(), owner="operator").blockers] == [("host", "all")]
    found = plan(member(), member(AUDIO, "snd_hda_intel", kind="0403"), owner="operator", scope="companions")
    assert [change.target for change in found.changes] == [AUDIO] and not found.blockers


# Whose holders count, and what is only said


@pytest.mark.parametrize(
    ("other", "wish", "stopped"),
    [
        (member(AUDIO, "snd_hda_intel", kind="0403", holders=(HOLDER,)), {"scope": "function"}, False),
        (member(AUDIO, "vfio-pci", kind="0403", holders=(HOLDER,)), {"scope": "function"}, True),
        (member(AUDIO, "pcieport", kind="0604", holders=(HOLDER,)), {}, False),
    ],
)
def test_holders_count_of_what_a_vm_can_have(other: Member, wish: t.Dict[str, t.Any], stopped: bool) -> None:
    assert bool(plan(member(), other, **wish).blockers) is stopped


def test_on_behalf_of_the_operator_the_holders_of_the_whole_group_count() -> None:
    found = plan(member(holders=(HOLDER,)), member(AUDIO, "snd_hda_intel", kind="0403"), scope="companions")
    assert [blocker.target for blocker in found.blockers] == [GPU] and not found.changes


def test_what_is_waited_for_and_what_is_bound_elsewhere_is_said() -> None:
    waits = plan(member(holders=(HOLDER,)), wait=True)
    assert waits.warnings == [f"{GPU} is held by process 4711 (qemu-kvm, VM train): waiting for that to end"]
    assert plan(member(driver="vfio-pci", holders=(HOLDER,)), wait=True).warnings == []
    elsewhere = plan(member(driver="vfio-pci", elsewhere=("/a", "/b")))
    assert elsewhere.warnings == [f"{GPU}: /a, /b has it bound at boot, not this collection"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (member(AUDIO, "snd_hda_intel", kind="0403"), True),
        (member(AUDIO, None, kind="0403"), False),
        (member(AUDIO, "vfio-pci", kind="0403"), False),
        (member(AUDIO, "pcieport", kind="0604"), False),
    ],
)
def test_what_keeps_a_group_from_a_vm_is_said_if_only_one_function_is_meant(other: Member, said: bool) -> None:
    words = f"group 7 also holds {AUDIO} (10de:2236, class 0403, driver snd_hda_intel): no VM can have the group until that is bound too"
    found = plan(member(), other, scope="function").warnings
    assert found == ([f"{words} (scope: group)"] if said else [])
    assert plan(member(), other).warnings == []
    assert plan(member(driver="vfio-pci"), other, scope="function", state="released").warnings == []
