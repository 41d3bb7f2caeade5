# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of a host's own driver is removed, and what forbids it: on values. On hosts it is in test_host_driver."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _driver_seen, _host_driver
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Ended
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._driver_packages import Package
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._holders import Holder
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._initramfs import Image
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host
from tests.hosts import tree
from tests.hosts.commands import FakeCommands

APT, DNF = "/usr/bin/apt-get", "/usr/bin/dnf"
UTILS = Package("nvidia-utils-580", "amd64", "580.95.05", "installed", ())
DKMS = Package("nvidia-dkms-580", "amd64", "580.95.05", "installed", ())
IMAGE = Image("6.1.0", "/boot/initrd.img-6.1.0", 0.0, 0, frozenset({"nvidia"}), None)


def seen(**more: t.Any) -> _driver_seen.Seen:
    nothing: dict[str, t.Any] = dict.fromkeys(("manager", "unread", "refusal", "unseen", "running"))
    nothing |= dict.fromkeys(("packages", "side_effects", "dkms", "settings", "traces", "holders", "images", "obstacles"), ())
    return _driver_seen.Seen(**{**nothing, "has_manager": False, **more})


def steps(plan: Plan) -> list[tuple[str, str]]:
    assert not plan.blockers, plan.blockers
    return [(change.action, change.target) for change in plan.changes]


def stops(plan: Plan) -> list[str]:
    return [f"{blocker.target}: {blocker.problem}" for blocker in plan.blockers]


@pytest.mark.parametrize(
    ("comm", "unit"),
    [
        ("nvidia-persiste", "nvidia-persistenced.service"),
        ("nv-fabricmanage", "nvidia-fabricmanager.service"),
        ("nvidia-powerd", "nvidia-powerd.service"),
        ("nvidia-vgpud", "nvidia-vgpud.service"),
        ("nvidia-vgpu-mgr", "nvidia-vgpu-mgr.service"),
    ],
)
def test_each_daemon_of_the_driver_that_holds_a_gpu_is_stopped_by_its_unit(comm: str, unit: str) -> None:
    assert len(comm) <= 15  # what the kernel keeps of a name
    holders = (Holder(1, comm, "/dev/nvidia0"), Holder(2, comm, "/dev/nvidiactl"))
    plan = _host_driver.make_plan(seen(manager=APT, packages=(UTILS,), holders=holders), "operator", True)
    assert steps(plan) == [("stop", f"unit {unit}"), ("purge", "package nvidia-utils-580")]
    assert plan.changes[0].before == "running"


def test_who_else_holds_a_gpu_stops_it_and_a_daemon_does_not() -> None:
    holders = (Holder(1, "nvidia-powerd", "/dev/nvidia0"), Holder(2, "python3", "/dev/nvidia0"))
    plan = _host_driver.make_plan(seen(manager=APT, packages=(UTILS,), holders=holders), "operator", True)
    assert stops(plan) == ["process 2: process 2 (python3) has /dev/nvidia0 open"]


@pytest.mark.parametrize(
    ("more", "can_run", "expected"),
    [
        (
            {"manager": APT, "packages": (UTILS,), "dkms": ("nvidia/580",), "settings": ("/etc/modprobe.d/n.conf",), "images": (IMAGE,)},
            True,
            [
                ("purge", "package nvidia-utils-580"),
                ("remove", "dkms nvidia/580"),
                ("remove", "file /etc/modprobe.d/n.conf"),
                ("rebuild", "image /boot/initrd.img-6.1.0"),
            ],
        ),
        # The package of a module takes it away from DKMS itself.
        ({"manager": APT, "packages": (DKMS,), "dkms": ("nvidia/580",)}, True, [("purge", "package nvidia-dkms-580")]),
        ({"manager": DNF, "packages": (UTILS,)}, True, [("remove", "package nvidia-utils-580")]),
        (
            {"manager": APT, "packages": (UTILS,), "settings": ("/etc/modprobe.d/n.conf",), "images": (IMAGE,), "traces": ("/usr/bin/x",)},
            False,
            [("remove", "file /etc/modprobe.d/n.conf")],
        ),
        ({"traces": ("/usr/bin/nvidia-smi",)}, False, []),
        ({}, True, []),
        # A driver container's is none of the host's.
        ({"running": "580.95.05"}, True, []),
        ({"unread": "rpm failed"}, True, []),
    ],
)
def test_what_is_there_is_removed_in_this_order(more: dict[str, t.Any], can_run: bool, expected: list[tuple[str, str]]) -> None:
    assert steps(_host_driver.make_plan(seen(**more), "operator", can_run)) == expected


@pytest.mark.parametrize(("arch", "shown"), [("amd64", "580.95.05 amd64"), ("", "580.95.05")])
def test_a_package_is_shown_with_its_version(arch: str, shown: str) -> None:
    plan = _host_driver.make_plan(seen(manager=APT, packages=(UTILS._replace(arch=arch),)), "operator", True)
    assert plan.changes[0].before == shown and plan.changes[0].after is None


@pytest.mark.parametrize(
    ("more", "owner", "expected"),
    [
        ({"has_manager": True}, "host", ["host driver: it is a vGPU manager, and this host makes its own vGPUs with it"]),
        ({"has_manager": True}, "operator", []),
        ({"has_manager": False}, "host", []),
        ({"holders": None, "unseen": "hidepid"}, "operator", ["GPUs: who holds them is not known: hidepid"]),
        ({"refusal": "dpkg was interrupted"}, "operator", ["packages: dpkg was interrupted"]),
        ({"side_effects": ("remove cuda", "install x")}, "operator", ["packages: removing the driver would also remove cuda, install x"]),
        ({"obstacles": (Blocker("dpkg", "it is at work", "Wait"),)}, "operator", ["dpkg: it is at work"]),
    ],
)
@pytest.mark.parametrize("can_run", [True, False])
def test_what_forbids_a_removal_is_said(more: dict[str, t.Any], owner: str, expected: list[str], can_run: bool) -> None:
    found = stops(_host_driver.make_plan(seen(manager=APT, packages=(UTILS,), **more), owner, can_run))
    assert len(found) == len(expected) and all(problem.startswith(start) for problem, start in zip(found, expected))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"traces": ("/usr/bin/nvidia-smi",)}, "host driver: no package owns it (/usr/bin/nvidia-smi), so NVIDIA's installer"),
        (
            {"traces": ("/usr/bin/nvidia-smi",), "unread": "rpm failed"},
            "host driver: which packages it is made of is not known: rpm failed",
        ),
        ({"running": "580", "unread": "rpm failed"}, "host driver: which packages it is made of is not known: rpm failed"),
    ],
)
def test_a_driver_of_no_known_package_is_left_to_who_installed_it(more: dict[str, t.Any], expected: str) -> None:
    plan = _host_driver.make_plan(seen(**more), "operator", True)
    assert len(plan.blockers) == 1 and stops(plan)[0].startswith(expected) and not plan.changes


def test_what_is_still_there_is_named_with_what_to_do() -> None:
    found = _host_driver.left(
        seen(
            packages=(UTILS,), dkms=("nvidia/580",), settings=("/etc/modprobe.d/n.conf",), traces=("/usr/bin/nvidia-smi",), images=(IMAGE,)
        )
    )
    assert [(blocker.target, blocker.problem) for blocker in found] == [
        ("package nvidia-utils-580", "it is still there"),
        ("dkms nvidia/580", "it is still there"),
        ("file /etc/modprobe.d/n.conf", "it is still there"),
        ("file /usr/bin/nvidia-smi", "it is still there, and no package owned it"),
        ("image /boot/initrd.img-6.1.0", "the driver is still in it"),
    ]
    assert _host_driver.left(seen()) == []


# Acting


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tree.build(tmp_path, tree.HostSpec(tree.a10s()))
    return tmp_path


@pytest.mark.parametrize(
    ("fails", "ran"),
    [
        (None, ["/usr/bin/systemctl stop nvidia-powerd.service", f"{APT} --assume-yes", "/usr/sbin/dkms remove -m nvidia -v 580 --all"]),
        ("systemctl", ["/usr/bin/systemctl stop nvidia-powerd.service"]),
        ("apt-get", ["/usr/bin/systemctl stop nvidia-powerd.service", f"{APT} --assume-yes"]),
        ("dkms", ["/usr/bin/systemctl stop nvidia-powerd.service", f"{APT} --assume-yes", "/usr/sbin/dkms remove -m nvidia -v 580 --all"]),
    ],
)
def test_the_first_step_that_fails_is_the_last(root: Path, fails: str | None, ran: list[str]) -> None:
    commands = FakeCommands(root)
    for name in ("systemctl", "apt-get", "dkms"):
        commands.answers[name] = Ended(1 if name == fails else 0, "no", 1)
    setting = root / "etc/modprobe.d/nvidia-x.conf"
    setting.parent.mkdir(exist_ok=True)
    setting.write_text("options nvidia x=1\n")
    holders = (Holder(1, "nvidia-powerd", "/dev/nvidia0"),)
    was = seen(manager=APT, packages=(UTILS,), dkms=("nvidia/580",), settings=("/etc/modprobe.d/nvidia-x.conf",), holders=holders)
    plan = _host_driver.make_plan(was, "operator", True)
    found = _host_driver.apply(Host(str(root)), commands, was, plan.changes)  # type: ignore[arg-type]
    assert [" ".join(command).partition(" -o")[0] for command in commands.ran if command[0] != "/usr/bin/lsinitramfs"] == ran
    assert setting.exists() is (fails is not None)
    targets = {"systemctl": "unit nvidia-powerd.service", "apt-get": "packages", "dkms": "dkms nvidia/580"}
    assert [blocker.target for blocker in found] == ([targets[fails]] if fails else [])
    # The program and what it was to do, and not all of its arguments.
    assert [blocker.problem for blocker in found] == ([f"{' '.join(ran[-1].split()[:2])} ended with 1: no"] if fails else [])


@pytest.mark.parametrize(
    ("holding", "expected"),
    [
        (([Holder(7, "python3", "/dev/nvidia0")], None), "process 7: process 7 (python3) has /dev/nvidia0 open"),
        ((None, "it is a container's /proc"), "GPUs: who holds them is not known: it is a container's /proc"),
    ],
)
@pytest.mark.parametrize("what", [{"manager": APT, "packages": (UTILS,)}, {"dkms": ("nvidia/580",)}])
def test_who_holds_a_gpu_at_the_last_moment_keeps_the_driver(
    root: Path, monkeypatch: pytest.MonkeyPatch, what: dict[str, t.Any], holding: tuple[t.Any, t.Any], expected: str
) -> None:
    monkeypatch.setattr(_driver_seen, "holding", lambda host: holding)
    commands, was = FakeCommands(root), seen(**what)
    found = _host_driver.apply(Host(str(root)), commands, was, _host_driver.make_plan(was, "operator", True).changes)  # type: ignore[arg-type]
    assert [f"{blocker.target}: {blocker.problem}" for blocker in found] == [expected]
    assert commands.ran == []


def test_a_file_that_cannot_be_removed_is_named(root: Path) -> None:
    (root / "etc/modprobe.d/nvidia-x.conf").mkdir(parents=True)
    was = seen(settings=("/etc/modprobe.d/nvidia-x.conf",))
    plan = _host_driver.make_plan(was, "operator", True)
    found = _host_driver.apply(Host(str(root)), FakeCommands(root), was, plan.changes)  # type: ignore[arg-type]
    assert [blocker.target for blocker in found] == ["file /etc/modprobe.d/nvidia-x.conf"]
