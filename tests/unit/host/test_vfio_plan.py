# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deciding what to bind, for hosts that hypothesis makes up; and loading a driver, which a tree cannot show."""

from __future__ import annotations

import dataclasses
import os
import stat
import typing as t
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import KNOWN_AFTER_APPLY, Change, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _boot_binding, _groups, _load, _rebind
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._boot_binding import Rule
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._displaced import Displaced, ids
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._holders import Holder
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._pci import Function
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._usage import Usage
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._vfio import Member, Seen, Selector, Unit, Wish, observe
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._vfio_plan import BIND, LOAD, RELEASE, make_plan
from tests.hosts import furniture, kernel_pci, tree
from tests.hosts.kernel import ReactingHost

DRIVERS = frozenset({"vfio-pci", "nvidia", "snd_hda_intel", "igb"})
HOLDER = Holder(4711, "qemu-kvm", "/dev/vfio/7", "train")
RULE_FILE = f"file {_boot_binding.RULES}"


@st.composite
def units(draw: st.DrawFn, number: int) -> Unit:
    group = draw(st.sampled_from([str(number), str(number), str(number), None]))
    members = []
    for index in range(1 if group is None else draw(st.integers(1, 4))):
        vendor, kind = draw(st.sampled_from([("10de", "0302"), ("10de", "0403"), ("8086", "0200"), ("8086", "0604"), ("10de", "0680")]))
        driver = draw(st.sampled_from(["vfio-pci", "nvidia", "igb", None]))
        function = Function(f"0000:4{number}:00.{index}", vendor, "2236", kind, driver, group, None)
        members.append(
            Member(
                function=function,
                override=draw(st.sampled_from([None, None, "vfio-pci"])),
                boot_vga=draw(st.integers(0, 9)) == 0,
                virtual=draw(st.sampled_from([0, 0, 0, 2])),
                vgpus=draw(st.sampled_from([0, 0, 0, 1])),
                holders=draw(st.sampled_from([(), (), (), (HOLDER,), None])),
                uses=draw(st.sampled_from([(), (), (), ("has sda, which is swap",)])),
                elsewhere=draw(st.sampled_from([(), (), (), ("/etc/driverctl.d/x",)])),
                displaced=draw(st.sampled_from([None, None, Displaced(ids(function), "nvidia"), Displaced(ids(function), None)])),
            )
        )
    chosen = draw(st.sets(st.sampled_from([member.address for member in members]), min_size=1))
    return Unit(group, tuple(members), frozenset(chosen))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Wish, Seen]:
    found = tuple(draw(units(number)) for number in range(draw(st.integers(1, 3))))
    addresses = [member.address for unit in found for member in unit.members]
    wish = Wish(
        devices=(Selector(kind="0302"),),
        state=draw(st.sampled_from(["bound", "released"])),
        scope=draw(st.sampled_from(["group", "function", "companions"])),
        persist=draw(st.sampled_from(["none", "boot"])),
        release_to=draw(st.sampled_from(["host", "none"])),
        boot_vga=draw(st.booleans()),
        foreign=frozenset(draw(st.sets(st.sampled_from(addresses)))),
        wait=draw(st.booleans()),
        owner=draw(st.sampled_from(["host", "host", "operator"])),
    )
    ruled = draw(st.sets(st.sampled_from([*addresses, "0000:99:00.0"])))
    rules = _boot_binding.text_of(Rule(address, "10de", "2236", "vfio-pci") for address in ruled)
    drivers = DRIVERS if draw(st.booleans()) else DRIVERS - {"vfio-pci"}
    return wish, Seen(
        found, drivers=drivers, rules=rules, by_hand=frozenset() if draw(st.booleans()) else frozenset({"vfio-pci"}) - drivers
    )


def applied(seen: Seen, plan: Plan) -> Seen:
    """What the host looks like after this plan."""
    moves = {change.target: change for change in plan.changes if change.action in (BIND, RELEASE)}

    def after(member: Member) -> Member:
        change = moves.get(member.address)
        if change is None:
            return member
        driver = None if change.after == KNOWN_AFTER_APPLY else change.after
        function = member.function._replace(driver=driver)
        if change.action == RELEASE:
            return dataclasses.replace(member, function=function, override=None, displaced=None)
        return dataclasses.replace(member, function=function, override=driver, displaced=Displaced(ids(function), member.function.driver))

    drivers = seen.drivers | {change.target.removeprefix("driver ") for change in plan.changes if change.action == LOAD}
    written = [change for change in plan.changes if change.target == RULE_FILE]
    return dataclasses.replace(
        seen,
        units=tuple(dataclasses.replace(unit, members=tuple(map(after, unit.members))) for unit in seen.units),
        drivers=drivers,
        rules=written[0].after if written else seen.rules,
    )


def moved(plan: Plan) -> set[str]:
    return {change.target for change in plan.changes if change.action in (BIND, RELEASE)}


@given(cases())
def test_a_second_run_finds_nothing_to_do(case: tuple[Wish, Seen]) -> None:
    wish, seen = case
    plan = make_plan(wish, seen)
    assert make_plan(wish, applied(seen, plan)).changes == []


@given(cases())
def test_what_must_not_be_touched_never_is(case: tuple[Wish, Seen]) -> None:
    wish, seen = case
    plan = make_plan(wish, seen)
    ruled, _strange = _boot_binding.own(seen.rules)
    for unit in seen.units:
        for member in unit.members:
            if member.address not in moved(plan):
                continue
            assert not member.function.is_bridge
            assert member.holders is not None
            assert wish.wait or not member.holders
            assert not (member.virtual or member.vgpus or member.elsewhere)
            assert not (wish.scope == "companions" and member.function.is_gpu)
            ours = wish.state == "released" and (member.displaced is not None or member.address in ruled)
            assert not member.foreign or member.address in wish.foreign or ours
            if wish.state == "bound":
                assert not member.uses and unit.group is not None
                assert wish.boot_vga or not member.boot_vga or member.foreign
            if wish.scope == "companions" and not wish.wait:
                assert not any(other.holders for other in unit.members if not other.function.is_bridge)


@given(cases())
def test_a_group_is_planned_as_a_whole_or_not_at_all(case: tuple[Wish, Seen]) -> None:
    wish, seen = case
    plan = make_plan(wish, seen)
    stopped = {blocker.target for blocker in plan.blockers}
    before, _strange = _boot_binding.own(seen.rules)
    after, _strange = _boot_binding.own(applied(seen, plan).rules)
    for unit in seen.units:
        addresses = {member.address for member in unit.members}
        if plan.stopped or stopped & (addresses | {", ".join(sorted(unit.chosen))}):
            assert not moved(plan) & addresses
            assert all(before.get(address) == after.get(address) for address in addresses)
        elif (wish.state, wish.scope) == ("bound", "group"):
            then = next(u for u in applied(seen, plan).units if u.chosen == unit.chosen)
            assert _groups.facts([member.function for member in then.members])["viable"]
    if wish.owner == "operator" and wish.scope != "companions":
        assert plan.stopped and not plan.changes


@given(cases())
def test_rules_of_functions_that_are_not_meant_stay(case: tuple[Wish, Seen]) -> None:
    wish, seen = case
    before, _strange = _boot_binding.own(seen.rules)
    after, _strange = _boot_binding.own(applied(seen, make_plan(wish, seen)).rules)
    assert before.get("0000:99:00.0") == after.get("0000:99:00.0")
    if wish.state == "bound" and wish.persist == "boot":
        assert set(before) <= set(after)


addresses = st.from_regex(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", fullmatch=True)


@given(
    st.lists(st.builds(Rule, addresses, st.just("10de"), st.sampled_from(["2236", "1aef"]), st.sampled_from(["vfio-pci", "a_vfio_pci"])))
)
def test_our_rules_are_read_as_they_are_written(rules: list[Rule]) -> None:
    by_address = {rule.address: rule for rule in rules}
    assert _boot_binding.own(_boot_binding.text_of(by_address.values())) == (by_address, [])


def test_this_very_machine_can_be_looked_at() -> None:
    seen = observe(Host("/"), Wish((Selector("ffff:ff:1f.7"),)))
    assert seen.units == () and len(seen.unmatched) == 1


class Closed(Host):
    def link(self, path: str) -> str | None:
        if path == "/proc/77/ns/mnt":
            raise HostError(path, "Permission denied")
        return super().link(path)


def test_the_mounts_of_a_process_that_cannot_be_seen_are_unknown_and_those_of_one_that_ended_are_none(host: ReactingHost) -> None:
    root = Path(host.root)
    furniture.mounts(root)
    furniture.process(root, 77, "sh")
    furniture.disk(root, "0000:02:00.0", "nvme0n1", "259:0")
    disk = kernel_pci._function(host, "0000:02:00.0")
    assert Usage(Closed(host.root)).of(disk) == ["has nvme0n1, and what is mounted or swap on this host cannot be read"]
    (root / "proc/77/comm").unlink()
    assert Usage(Closed(host.root)).of(disk) == []


# Loading


def one(driver: str | None = "nvidia", **seen: t.Any) -> Seen:
    member = Member(Function("0000:41:00.0", "10de", "2236", "0302", driver, "7", None))
    return Seen((Unit("7", (member,), frozenset({member.address})),), **seen)


def test_a_driver_that_is_missing_is_loaded_first() -> None:
    plan = make_plan(Wish((Selector("0000:41:00.0"),)), one(drivers=frozenset({"nvidia"})))
    assert [(change.target, change.action) for change in plan.changes] == [("driver vfio-pci", LOAD), ("0000:41:00.0", BIND)]
    assert not make_plan(Wish((Selector("0000:41:00.0"),)), one("vfio-pci", drivers=frozenset({"nvidia"}))).changes


def rebinding(host: Host, load: t.Callable[[str], None]) -> _rebind.Rebinding:
    return _rebind.Rebinding(host, timeout=1, wait_timeout=0, whole_group=False, load=load, again=Plan)


CHANGES = [Change("driver vfio-pci", LOAD, None, "loaded", ""), Change("0000:41:00.0", BIND, "nvidia", "vfio-pci", "")]


@pytest.fixture
def host(tmp_path: Path) -> ReactingHost:
    tree.build(tmp_path / "host", tree.HostSpec([tree.Gpu("0000:41:00.0", driver="nvidia")], cmdline="intel_iommu=on"))
    return ReactingHost(str(tmp_path / "host"))


def test_the_driver_that_is_loaded_is_the_one_that_takes_the_function(host: ReactingHost) -> None:
    asked = []

    def load(driver: str) -> None:
        asked.append(driver)
        kernel_pci.load(Path(host.root), driver)

    assert rebinding(host, load).apply(CHANGES) == []
    assert asked == ["vfio-pci"]
    assert kernel_pci._function(host, "0000:41:00.0").driver == "vfio-pci"


@pytest.mark.parametrize("says_so", [True, False])
def test_a_driver_that_does_not_load_leaves_the_function_where_it_is(host: ReactingHost, says_so: bool) -> None:
    def load(driver: str) -> None:
        if says_so:
            raise HostError("/sbin/modprobe", "could not load it")

    blockers = rebinding(host, load).apply(CHANGES)
    assert [blocker.target for blocker in blockers][-1] == "0000:41:00.0"
    assert "no driver vfio-pci" in blockers[-1].problem
    assert host.written == [] and kernel_pci._function(host, "0000:41:00.0").driver == "nvidia"


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_modprobe_is_run_with_the_driver_s_name(host: ReactingHost, tmp_path: Path) -> None:
    _load.load(host, program(tmp_path / "modprobe", f'echo "$@" > {tmp_path}/said'), "vfio-pci", 10)
    assert (tmp_path / "said").read_text() == "-- vfio-pci\n"


@pytest.mark.parametrize(("lockdown", "words"), [("[none] integrity\n", "kernel log says why"), ("none [integrity]\n", "locked down")])
def test_a_modprobe_that_fails_says_why(host: ReactingHost, tmp_path: Path, lockdown: str, words: str) -> None:
    Path(host.root, "sys/kernel/security/lockdown").write_text(lockdown)
    with pytest.raises(HostError, match=f"could not load vfio-pci: .*{words}"):
        _load.load(host, program(tmp_path / "modprobe", "exit 1"), "vfio-pci", 10)


def test_a_modprobe_that_hangs_is_left(host: ReactingHost, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never")
    with pytest.raises(HostError, match="it may still load vfio-pci"):
        _load.load(host, program(tmp_path / "modprobe", f"cat {tmp_path}/never"), "vfio-pci", 0.2)
    with open(tmp_path / "never", "wb"):  # lets it end
        pass
