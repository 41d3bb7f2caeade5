# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _commands, _holders, _sriov, _sriov_host
from tests.hosts import kernel_vgpu, tree
from tests.hosts.vgpu_node import VF0, A, B, Node, build, gpu, said

Make = t.Callable[..., Node]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for in a real kernel is there or missing at once here."""
    monkeypatch.setattr(_sriov_host, "_SETTLE", 0.0)
    monkeypatch.setattr(_sriov_host, "_PAUSE", 0.0)


@pytest.fixture
def node(tmp_path: Path, reacting: t.Any, run_module: t.Any, monkeypatch: pytest.MonkeyPatch) -> Make:
    def make(**more: t.Any) -> Node:
        build(tmp_path / "host", **{"vfs": 0, **more})
        host = reacting("sriov_vfs", str(tmp_path / "host"))
        monkeypatch.setattr("ansible_collections.gpufleet.kubevirt.plugins.modules.mdev_create.Host", lambda root: host)
        return Node(host, run_module, tmp_path / "host")

    return make


class Program:
    """NVIDIA's sriov-manage on a host that runs programs; ``behave`` says what each call does (default: what it is told)."""

    def __init__(self, host: Node, behave: list[str]) -> None:
        self.host, self.behave, self.calls = host, behave, []  # type: ignore[var-annotated]

    def __call__(self, arguments: list[str], seconds: int) -> _commands.Ended:
        self.calls.append(arguments)
        path = self.host.host.resolve(f"/sys/bus/pci/devices/{arguments[2]}")
        act = self.behave.pop(0) if self.behave else "work"
        if act == "work":
            kernel_vgpu.set_functions(self.host.host, path, 0)
            kernel_vgpu.set_functions(self.host.host, path, 6 if arguments[1] == "-e" else 0)
        elif act == "unbind":
            os.unlink(f"{self.host.root}{path}/driver")
        elif act == "hang":
            return _commands.Ended(None, "", 99)
        elif act == "exhaust":
            kernel_vgpu.log(self.host.host, f"nvidia {arguments[2]}: not enough MMIO resources for SR-IOV")
        return _commands.Ended(0, "Enabling VFs on it\n", 99)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., Program]:
    def install(host: Node, *behave: str) -> Program:
        tree._write(host.root, _sriov.SRIOV_MANAGE[1:], "")
        made = Program(host, list(behave))
        monkeypatch.setattr(_commands.Commands, "__init__", lambda self, host: setattr(self, "can_run", True))
        monkeypatch.setattr(_commands.Commands, "run", made)
        return made

    return install


def enabled(host: Node, address: str = A) -> int:
    return len(kernel_vgpu.functions(host.host, host.host.resolve(f"/sys/bus/pci/devices/{address}")))


def test_virtual_functions_are_made_through_sysfs_and_a_second_run_changes_nothing(node: Make) -> None:
    host = node()
    wish = [{"address": A, "count": "4"}, {"address": B}]
    before = host.snapshot()
    checked = host.vfs(*wish, method="sysfs", check=True)
    assert host.snapshot() == before
    made = host.vfs(*wish, method="sysfs")
    assert not made["failed"], made
    assert checked["changes"] == made["changes"] and len(made["changes"]) == 2
    assert (enabled(host, A), enabled(host, B)) == (4, 6)
    assert [(f["address"], f["driver"], f["total"], f["count"]) for f in made["vfs"]] == [(A, "nvidia", 6, 4), (B, "nvidia", 6, 6)]
    assert made["vfs"][0]["virtual_functions"][0] == {"address": VF0, "driver": "nvidia"}
    assert checked["planned_vfs"] == made["planned_vfs"] and made["planned_vfs"][0]["virtual_functions"][0] == VF0
    writes = len(host.host.written)
    assert not host.vfs(*wish, method="sysfs")["changed"] and len(host.host.written) == writes


def test_another_number_is_reached_over_zero(node: Make) -> None:
    host = node()
    host.vfs({"address": A, "count": "4"}, method="sysfs")
    host.host.written.clear()
    changed = host.vfs({"address": A, "count": "2"}, method="sysfs")
    assert not changed["failed"], changed
    assert [text for _path, text in host.host.written] == ["0", "2"] and enabled(host) == 2
    assert not host.vfs({"address": A, "count": "0"}, method="sysfs")["failed"] and enabled(host) == 0


def test_the_double_refuses_what_the_kernel_refuses(node: Make) -> None:
    host = node(vfs=4)
    path = f"/sys/bus/pci/devices/{A}/sriov_numvfs"
    for text, number in (("2", errno.EBUSY), ("7", errno.ERANGE)):
        with pytest.raises(Exception, match=os.strerror(number)):
            host.host.write_kernel(path, text)
    assert enabled(host) == 4


def test_addresses_are_known_after_apply_where_the_kernel_does_not_say_them(node: Make) -> None:
    host = node()
    for name in ("sriov_offset", "sriov_stride"):
        (host.root / host.host.resolve(f"/sys/bus/pci/devices/{A}")[1:] / name).unlink()
    planned = host.vfs({"address": A, "count": "4"}, method="sysfs", check=True)["planned_vfs"]
    assert planned == [{"address": A, "count": 4, "virtual_functions": ["known after apply"] * 4}]


def test_nvidia_s_program_makes_all_of_them(node: Make, program: t.Callable[..., Program]) -> None:
    host = node()
    manage = program(host)
    checked = host.vfs({"address": A}, {"address": B}, check=True)
    assert not manage.calls
    made = host.vfs({"address": A}, {"address": B})
    assert not made["failed"] and made["changes"] == checked["changes"]
    assert manage.calls == [[_sriov.SRIOV_MANAGE, "-e", A], [_sriov.SRIOV_MANAGE, "-e", B]]
    assert not host.host.written and enabled(host) == 6
    assert not host.vfs({"address": A, "count": "0"})["failed"]
    assert manage.calls[-1] == [_sriov.SRIOV_MANAGE, "-d", A] and enabled(host) == 0


@pytest.mark.parametrize("first", ["nothing", "unbind"])
def test_a_program_that_reports_success_and_does_nothing_is_run_again(node: Make, program: t.Callable[..., Program], first: str) -> None:
    host = node()
    path, write, bound = host.host.resolve(f"/sys/bus/pci/devices/{A}"), host.host.write_kernel, []

    def bind(where: str, text: str, timeout: float = 30) -> None:
        if where != "/sys/bus/pci/drivers/nvidia/bind":
            write(where, text, timeout)
            return
        bound.append(text)
        tree._link(host.root, f"{path[1:]}/driver", "sys/bus/pci/drivers/nvidia")

    host.host.write_kernel = bind  # type: ignore[method-assign]
    manage = program(host, first, "work")
    made = host.vfs({"address": A})
    assert not made["failed"], made
    assert len(manage.calls) == 2 and made["vfs"][0]["driver"] == "nvidia" and enabled(host) == 6
    assert bound == ([A] if first == "unbind" else [])


def test_a_program_that_never_works_is_an_error_that_says_what_is_missing(node: Make, program: t.Callable[..., Program]) -> None:
    host = node()
    manage = program(host, "nothing", "nothing", "nothing", "work")
    failed = host.vfs({"address": A}, {"address": B})
    assert failed["failed"] and len(manage.calls) == 4
    assert "it has 0 virtual functions, not 6" in said(failed) and "ended with 0" in said(failed)
    assert (enabled(host, A), enabled(host, B)) == (0, 6) and [c["target"] for c in failed["changes"]] == [f"function {B}"]
    assert not host.vfs({"address": A}, {"address": B})["failed"]


def test_a_program_that_hangs_is_not_started_twice(node: Make, program: t.Callable[..., Program]) -> None:
    host = node()
    manage = program(host, "hang")
    failed = host.vfs({"address": A})
    assert failed["failed"] and len(manage.calls) == 1 and "still runs as process 99" in said(failed)


def test_exhausted_mmio_space_is_named(node: Make, program: t.Callable[..., Program]) -> None:
    host = node()
    program(host, *["exhaust"] * 3)
    failed = host.vfs({"address": A})
    assert "MMIO space is exhausted" in said(failed) and "Above-4G" in said(failed)


def test_an_old_line_of_the_kernel_log_is_not_the_cause(node: Make) -> None:
    host = node()
    kernel_vgpu.log(host.host, "nvidia 0000:41:00.0: not enough MMIO resources for SR-IOV")
    host.host.fault(r".*/sriov_numvfs", errno.EIO, times=1)
    assert "MMIO" not in said(host.vfs({"address": A}, method="sysfs"))


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.EBUSY, "who else changed their number"), (errno.ENOMEM, "mmio_exhausted"), (errno.ENOENT, "makes no virtual functions")],
)
def test_each_answer_of_the_kernel_has_its_own_remedy_and_other_functions_go_on(node: Make, number: int, expected: str) -> None:
    host = node()
    host.host.fault(r".*/0000:41:00\.0/sriov_numvfs", number, times=1)
    failed = host.vfs({"address": A}, {"address": B}, method="sysfs")
    assert failed["failed"] and expected in said(failed) and (enabled(host, A), enabled(host, B)) == (0, 6)
    assert not host.vfs({"address": A}, {"address": B}, method="sysfs")["failed"] and enabled(host, A) == 6


def test_a_kernel_that_does_not_answer_is_named(node: Make) -> None:
    host = node()
    host.host.fault(r".*/sriov_numvfs", "blocks")
    failed = host.vfs({"address": A}, method="sysfs", timeout=3)
    assert "no answer from the kernel within 3 s" in said(failed) and not failed["changed"]


def test_killed_between_zero_and_the_number_it_converges(node: Make) -> None:
    host = node(vfs=4)

    def killed(path: str, text: str) -> None:
        if text != "0":
            raise KeyboardInterrupt

    host.host.fault(r".*/sriov_numvfs", killed)
    with pytest.raises(KeyboardInterrupt):
        host.vfs({"address": A, "count": "2"}, method="sysfs")
    assert enabled(host) == 0
    host.host.faults.clear()
    assert not host.vfs({"address": A, "count": "2"}, method="sysfs")["failed"] and enabled(host) == 2


# Refusals


def no_driver(host: Node) -> None:
    os.unlink(host.root / f"{host.host.resolve(f'/sys/bus/pci/devices/{A}')[1:]}/driver")


def on_vfio(host: Node) -> None:
    no_driver(host)
    (host.root / "sys/bus/pci/drivers/vfio-pci").mkdir()
    tree._link(host.root, f"{host.host.resolve(f'/sys/bus/pci/devices/{A}')[1:]}/driver", "sys/bus/pci/drivers/vfio-pci")


def no_sriov(host: Node) -> None:
    path = host.host.resolve(f"/sys/bus/pci/devices/{A}")[1:]
    for name in ("sriov_totalvfs", "sriov_numvfs"):
        os.unlink(host.root / path / name)


def with_vgpu(host: Node) -> None:
    assert not host.run(gpu(("A10-4Q", 1)))["failed"]


def held_vf(host: Node) -> None:
    kernel_vgpu.hold(host.host, VF0, vm="train-3")


def held_pf(host: Node) -> None:
    kernel_vgpu.hold(host.host, A, vm="train-4")


def unseen(host: Node) -> None:
    (host.root / "proc/2/comm").write_text("pause\n")


def nothing(host: Node) -> None:
    pass


@pytest.mark.parametrize(
    ("prepare", "vfs", "device", "more", "expected"),
    [
        (nothing, 0, {"address": "0000:99:00.0"}, {}, "no PCI function at this address"),
        (nothing, 0, {"address": "99:00.0"}, {}, "no PCI address"),
        (nothing, 0, {"address": A, "count": "many"}, {}, "entry 1 of devices: the count 'many' is no number"),
        (nothing, 0, {"address": A, "count": "-1"}, {}, "'-1' is no number"),
        (nothing, 0, {"address": A, "count": "7"}, {}, "it can have 6"),
        (nothing, 4, {"address": VF0}, {}, f"virtual function of {A}"),
        (nothing, 0, {"address": A, "count": "2"}, {"method": "sriov_manage"}, "makes all 6 or none"),
        (nothing, 0, {"address": A}, {"method": "auto"}, "no /usr/lib/nvidia/sriov-manage"),
        (no_driver, 0, {"address": A}, {}, "it has no driver"),
        (on_vfio, 0, {"address": A}, {}, "it is on vfio-pci"),
        (on_vfio, 0, {"address": A}, {"method": "auto"}, "it is on vfio-pci"),
        (no_sriov, 0, {"address": A}, {}, "off in the firmware"),
        (with_vgpu, 4, {"address": A, "count": "2"}, {}, "has the vGPU"),
        (held_vf, 4, {"address": A, "count": "2"}, {}, "VM train-3"),
        (held_pf, 4, {"address": A, "count": "0"}, {}, "VM train-4"),
        (unseen, 4, {"address": A, "count": "0"}, {}, "cannot be told"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_what_cannot_be_is_refused_before_anything_is_written(
    node: Make,
    prepare: t.Callable[[Node], None],
    vfs: int,
    device: dict[str, str],
    more: dict[str, str],
    expected: str,
    check: bool,
) -> None:
    host = node(vfs=vfs)
    prepare(host)
    before, writes = host.snapshot(), len(host.host.written)
    refused = host.vfs(device, **{"method": "sysfs", "check": check, **more})
    assert refused["failed"] and not refused.get("changed") and expected in said(refused)
    assert all(all(blocker.values()) for blocker in refused["blockers"])
    assert host.snapshot() == before and len(host.host.written) == writes


def test_none_on_a_function_that_has_none_is_nothing_to_do(node: Make) -> None:
    host = node()
    no_sriov(host)
    made = host.vfs({"address": A, "count": "0"}, method="sysfs")
    assert not made["failed"] and not made["changed"]


def test_a_function_twice_is_refused(node: Make) -> None:
    assert "listed more than once" in said(node().vfs({"address": A}, {"address": A.upper()}))


def test_what_is_in_use_and_as_wanted_is_left_in_peace(node: Make) -> None:
    host = node(vfs=4)
    held_vf(host)
    assert not host.vfs({"address": A, "count": "4"}, method="sysfs")["failed"]


def test_a_function_taken_between_plan_and_write_is_left_alone(node: Make) -> None:
    host = node(vfs=4)
    host.host.fault(r".*/0000:41:00\.0/sriov_numvfs", lambda path, text: kernel_vgpu.hold(host.host, "0000:a1:00.4"), times=1)
    failed = host.vfs({"address": A, "count": "0"}, {"address": B, "count": "0"}, method="sysfs")
    assert failed["failed"] and "0000:a1:00.4 is in use" in said(failed) and (enabled(host, A), enabled(host, B)) == (0, 4)


def test_in_a_tree_nvidia_s_program_is_left_to_be_run(node: Make) -> None:
    host = node()
    tree._write(host.root, _sriov.SRIOV_MANAGE[1:], "")
    left = host.vfs({"address": A})
    assert not left["failed"] and not left["changed"]
    assert left["pending"] == [f"/usr/lib/nvidia/sriov-manage -e {A}"]


def test_vgpus_on_virtual_functions_that_are_only_planned(node: Make) -> None:
    host = node()
    checked = host.vfs({"address": A}, method="sysfs", check=True)
    planned = host.run(gpu(("A10-4Q", 6)), planned_vfs=checked["planned_vfs"], check=True)
    assert not planned["failed"] and len(planned["changes"]) == 6
    assert planned["changes"][0]["after"] == {"gpu": A, "parent": "known after apply", "device": "known after apply", "type": "A10-4Q"}
    assert "6 virtual functions are planned" in said(host.run(gpu(("A10-1Q", 7)), planned_vfs=checked["planned_vfs"], check=True))
    assert host.run(gpu(("A10-4Q", 6)), planned_vfs=checked["planned_vfs"])["failed"]  # not in check mode: there are none
    host.vfs({"address": A}, method="sysfs")
    made = host.run(gpu(("A10-4Q", 6)), planned_vfs=checked["planned_vfs"])
    assert not made["failed"] and len(made["changes"]) == 6


def test_a_function_that_is_refused_does_not_stop_the_others(node: Make) -> None:
    host = node()
    made = host.vfs({"address": A, "count": "99"}, {"address": B}, method="sysfs")
    assert made["failed"] and "99 virtual functions are wanted" in said(made)
    assert (enabled(host, A), enabled(host, B)) == (0, 6)


@pytest.mark.parametrize("count", ["0", "max"])
def test_a_virtual_function_has_none_of_its_own(node: Make, count: str) -> None:
    host = node(vfs=4)
    made = host.vfs({"address": VF0, "count": count}, method="sysfs")
    assert made["failed"] and f"Name {A}" in said(made)
    assert enabled(host, A) == 4


# The decisions, on values


def physical(**more: t.Any) -> _sriov.Physical:
    values: dict[str, t.Any] = {
        "address": A,
        "vendor": "10de",
        "device": "2236",
        "is_gpu": True,
        "driver": "nvidia",
        "total": 6,
        "enabled": 0,
    }
    values |= {"virtual": (), "holders": (), "vgpu": None, "parent": None, "first": 4, "stride": 1}
    return _sriov.Physical(**{**values, **more})


def virtuals(count: int, **more: t.Any) -> tuple[_sriov.Virtual, ...]:
    return tuple(_sriov.Virtual(f"0000:41:00.{4 + n}", **{"driver": "nvidia", "vgpu": None, "holders": (), **more}) for n in range(count))


@pytest.mark.parametrize("there", [None, physical(driver=None), physical(total=None), physical(holders=None)])
def test_what_stops_one_function_does_not_stop_the_others(there: _sriov.Physical | None) -> None:
    plan = _sriov.plan(there, _sriov.Wish(A, 6, "sysfs"), False)
    assert [blocker.stops for blocker in plan.blockers] == ["target"] and not plan.changes


def test_a_change_says_how_many_there_were_and_how_they_are_made() -> None:
    change = _sriov.plan(physical(enabled=2), _sriov.Wish(A, 4, "sysfs"), False).changes[0]
    assert (change.target, change.action, change.before) == (f"function {A}", "set", {"count": 2})
    assert change.after == {"count": 4, "method": "sysfs"} and change.reason.startswith("4 virtual functions")
    assert _sriov.plan(physical(), _sriov.Wish(A, None, "auto"), True).changes[0].reason.startswith("all virtual functions")


@pytest.mark.parametrize(
    ("vendor", "is_gpu", "asked", "method"),
    [
        ("10de", True, "auto", "sriov_manage"),
        ("10de", True, "sysfs", "sysfs"),
        ("10de", False, "auto", "sysfs"),  # a network function of a DPU
        ("8086", True, "auto", "sysfs"),
        ("15b3", False, "auto", "sysfs"),
        ("15b3", False, "sriov_manage", "sriov_manage"),
    ],
)
def test_nvidia_s_program_is_chosen_for_its_gpus_only(vendor: str, is_gpu: bool, asked: str, method: str) -> None:
    assert _sriov.method_of(physical(vendor=vendor, is_gpu=is_gpu), _sriov.Wish(A, 1, asked)) == method


@pytest.mark.parametrize(
    ("function", "number", "expected"),
    [
        ({}, 0, "0000:41:00.4"),
        ({}, 5, "0000:41:01.1"),
        ({"first": 1, "stride": 2}, 3, "0000:41:00.7"),
        ({"address": "0000:41:00.1", "first": 8}, 0, "0000:41:01.1"),
        ({"address": "0000:41:1f.7", "first": 1}, 0, "0000:42:00.0"),
        ({"address": "0001:41:02.0", "first": 0x101}, 15, "0001:42:04.0"),
        ({"first": None}, 0, None),
        ({"stride": None}, 0, None),
    ],
)
def test_virtual_functions_will_be_where_the_specification_says(function: dict[str, t.Any], number: int, expected: str | None) -> None:
    assert _sriov.place(physical(**function), number) == expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (None, ["it is gone from the bus"]),
        (physical(enabled=2, virtual=virtuals(2)), []),
        (physical(enabled=2, virtual=virtuals(2), driver=None), ["its driver is none, and was nvidia"]),
        (physical(enabled=3, virtual=virtuals(3)), ["it has 3 virtual functions, not 2"]),
        (physical(enabled=2, virtual=virtuals(1)), ["1 of its 2 virtual functions are on the bus"]),
        (physical(enabled=2, virtual=virtuals(2, driver=None)), ["2 virtual functions have no driver (0000:41:00.4 first)"]),
    ],
)
def test_what_is_not_as_it_must_be_afterwards_is_said(now: _sriov.Physical | None, expected: list[str]) -> None:
    assert _sriov.unfinished(now, physical(), 2) == expected


def test_virtual_functions_of_other_drivers_may_be_left_without_one() -> None:
    network = physical(driver="mlx5_core", enabled=2, virtual=virtuals(2, driver=None))
    assert _sriov.unfinished(network, network, 2) == []


def test_all_that_is_in_use_is_named_or_that_it_cannot_be_told() -> None:
    holder = _holders.Holder(4711, "qemu-kvm", "/dev/vfio/28", "vm")
    free, held = virtuals(2)[:1], virtuals(2, holders=(holder,), vgpu="of type 593")[1:]
    blockers = _sriov.in_use(physical(virtual=(*free, *held), holders=(holder, holder), vgpu="x"))
    assert [blocker.problem for blocker in blockers] == [
        f"it is in use by {holder}, {holder}",
        f"its 0000:41:00.5 is in use by {holder}",
        "it has the vGPU x",
        "its 0000:41:00.5 has the vGPU of type 593",
    ]
    unknown = _sriov.in_use(physical(holders=None, virtual=virtuals(2, holders=None)))
    assert [blocker.problem for blocker in unknown] == ["who holds it cannot be told"]


@pytest.mark.parametrize(
    ("count", "virtual"), [(None, ["0000:41:00.4"]), (1, ["0000:41:00.4"]), (2, ["0000:41:00.4", "0000:41:00.5"]), (0, [])]
)
def test_a_result_has_the_functions_that_are_there_or_will_be(count: int | None, virtual: list[str]) -> None:
    found = _sriov.after(physical(enabled=1, virtual=virtuals(1)), count)
    assert found == {"address": A, "count": 1 if count is None else count, "virtual_functions": virtual}
