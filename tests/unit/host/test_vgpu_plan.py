# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import errno
import json
import typing as t
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import KNOWN_AFTER_APPLY, Change, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _commands, _vgpu, _vgpu_backends, _vgpu_plan, _vgpu_wish
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._holders import Holder
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import KernelError
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._vgpu import Gpu, Vgpu, VgpuType, size_mib
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._vgpu_wish import TypeWish, Wish
from tests.hosts import kernel_vgpu, tree
from tests.hosts.vgpu_node import A, Node, build, gpu, said

SPACE = _vgpu_backends.namespace("0123456789abcdef0123456789abcdef")
RULES = _vgpu_plan.Rules(waits=False, asks_driver=True, space=SPACE)
PARENTS = tuple(f"0000:41:{number >> 3:02x}.{number & 7}" for number in range(4, 12))
TYPES = {name.partition(" ")[2]: VgpuType(f"nvidia-{n}", name, size_mib(name), most) for n, (name, most) in tree.A10_TYPES.items()}
QEMU = Holder(4711, "qemu-kvm", "/dev/vfio/28", "vm")


def made(vgpus: t.Sequence[Vgpu], backend: str = "mdev", types: t.Iterable[VgpuType] = TYPES.values()) -> Gpu:
    return Gpu(A, "10DE:2236", "nvidia", backend, None, PARENTS, True, tuple(types), tuple(vgpus))


def applied(state: Gpu, changes: t.Sequence[Change]) -> Gpu:
    """What the kernel makes of a plan; it refuses what breaks its own rules."""
    vgpus = {vgpu.device: vgpu for vgpu in state.vgpus}
    for change in changes:
        if change.action == "remove":
            gone = vgpus.pop(change.before["device"])
            assert not gone.held, "a held vGPU was removed"
            continue
        after = change.after
        kind = state.named(after["type"])
        assert kind is not None
        assert after["device"] not in vgpus, "a device exists twice"
        assert after["parent"] not in {vgpu.parent for vgpu in vgpus.values()}, "a virtual function has two"
        sizes = {state.named(vgpu.name or "").size_mib for vgpu in vgpus.values()}  # type: ignore[union-attr]
        assert sizes <= {kind.size_mib}, "two sizes on one GPU"
        assert (len(vgpus) + 1) * (kind.size_mib or 0) <= 24 * 1024, "more framebuffer than there is"
        vgpus[after["device"]] = Vgpu(after["device"], after["parent"], kind.id, kind.name)
    return dataclasses.replace(state, vgpus=tuple(vgpus.values()))


@st.composite
def states(draw: st.DrawFn) -> Gpu:
    size = draw(st.sampled_from(sorted({kind.size_mib for kind in TYPES.values()})))  # type: ignore[type-var]
    kinds = [kind for kind in TYPES.values() if kind.size_mib == size]
    count = draw(st.integers(0, min(len(PARENTS), 24 * 1024 // (size or 1))))
    parents = draw(st.permutations(PARENTS))[:count]
    vgpus = []
    for number, parent in enumerate(parents):
        kind = draw(st.sampled_from(kinds))
        holders = draw(st.sampled_from([(), (), (QEMU,), None]))
        vgpus.append(Vgpu(f"device-{number}", parent, kind.id, kind.name, holders))
    return made(vgpus, draw(st.sampled_from(["mdev", "vendor_vfio"])))


wishes = st.builds(
    lambda kinds, state: Wish(A, tuple(TypeWish(name, count) for name, count in kinds.items()), state),
    st.dictionaries(st.sampled_from(sorted(TYPES)), st.integers(0, 9), max_size=2),
    st.sampled_from(["exact", "present", "absent"]),
)


@settings(max_examples=400, deadline=None)
@given(states(), wishes)
def test_a_plan_that_is_applied_leaves_nothing_to_plan(state: Gpu, wish: Wish) -> None:
    plan = _vgpu_plan.plan(state, wish, RULES)
    assert not (plan.changes and plan.blockers)
    if plan.blockers:
        return
    after = applied(state, plan.changes)
    again = _vgpu_plan.plan(after, wish, RULES)
    assert not again.changes and not again.blockers
    have = {kind: sum(1 for vgpu in after.vgpus if vgpu.name == TYPES[kind].name) for kind in TYPES}
    wanted = {entry.type: entry.count for entry in wish.types}
    if wish.state == "exact":
        assert have == {**dict.fromkeys(TYPES, 0), **wanted}
    elif wish.state == "present":
        assert all(have[kind] >= count for kind, count in wanted.items())
        assert {vgpu.device for vgpu in state.vgpus} <= {vgpu.device for vgpu in after.vgpus}
    else:
        assert not any(have[kind] for kind in (wanted or have))


@settings(max_examples=200, deadline=None)
@given(states(), wishes, st.data())
def test_a_plan_that_was_cut_off_anywhere_is_finished_by_the_next_one(state: Gpu, wish: Wish, data: st.DataObject) -> None:
    plan = _vgpu_plan.plan(state, wish, RULES)
    cut = applied(state, plan.changes[: data.draw(st.integers(0, len(plan.changes)))])
    if not plan.blockers:
        rest = _vgpu_plan.plan(cut, wish, RULES)
        assert not rest.blockers
        assert not _vgpu_plan.plan(applied(cut, rest.changes), wish, RULES).changes


@given(states(), wishes)
def test_held_vgpus_are_never_in_a_plan_and_are_named_when_they_would_have_to_go(state: Gpu, wish: Wish) -> None:
    plan = _vgpu_plan.plan(state, wish, RULES)
    held = {vgpu.device for vgpu in state.vgpus if vgpu.held}
    assert not held & {change.before["device"] for change in plan.changes if change.action == "remove"}
    if wish.state == "absent" and not wish.types and held:
        assert all(any(device in blocker.problem for blocker in plan.blockers) for device in held)


def one(size: str = "4Q", **more: t.Any) -> Vgpu:
    return Vgpu(**{"device": "device-0", "parent": PARENTS[0], "type_id": "nvidia-593", "name": f"NVIDIA A10-{size}", **more})


def refusal(of: Gpu, *types: tuple[str, int], **more: t.Any) -> tuple[str, str]:
    """The only Blocker of a plan: problem and remedy."""
    wish = Wish(A, tuple(TypeWish(name, count) for name, count in types), **more)
    plan = _vgpu_plan.plan(of, wish, RULES)
    assert not plan.changes and len(plan.blockers) == 1 and plan.blockers[0].stops == "target"
    return plan.blockers[0].problem, plan.blockers[0].remedy


@pytest.mark.parametrize(
    ("vgpu", "problem", "remedy"),
    [
        (one(holders=(QEMU,)), f"NVIDIA A10-4Q (device-0) would have to go, and is in use: {QEMU}", "Stop that VM or process"),
        (one(name=None, holders=(QEMU,)), "the vGPU of type nvidia-593 (device-0) would have to go", "Stop that VM or process"),
        (one(holders=None), "and is in use: it cannot be told by whom", "Become root"),
    ],
)
def test_a_held_vgpu_is_named_with_what_to_do_about_it(vgpu: Vgpu, problem: str, remedy: str) -> None:
    said = refusal(made([vgpu]), state="absent")
    assert problem in said[0] and said[1].startswith(remedy)


@pytest.mark.parametrize("state", ["exact", "present"])
def test_nothing_is_made_beside_or_instead_of_a_vgpu_whose_type_cannot_be_named(state: str) -> None:
    problem, remedy = refusal(made([one(name=None)]), ("A10-4Q", 1), state=state)
    assert problem.startswith("device-0 has a vGPU of type nvidia-593, whose name cannot be read") and "state: absent" in remedy
    change = _vgpu_plan.plan(made([one(name=None)]), Wish(A, (), "absent"), RULES).changes[0]
    assert change.reason == "it shall be absent" and change.before == {
        "gpu": A,
        "parent": PARENTS[0],
        "device": "device-0",
        "type": "nvidia-593",
    }


@pytest.mark.parametrize(("there", "expected"), [("4B", ["create"]), ("8B", [])])
def test_a_vgpu_of_a_type_that_the_driver_lists_no_more_counts_with_the_size_in_its_name(there: str, expected: list[str]) -> None:
    plan = _vgpu_plan.plan(made([one(there)], types=[TYPES["A10-4Q"]]), Wish(A, (TypeWish("A10-4Q", 1),), "present"), RULES)
    assert [change.action for change in plan.changes] == expected
    assert bool(plan.blockers) is not bool(expected)


FULL = tuple(dataclasses.replace(kind, offered=False) for kind in TYPES.values())


@pytest.mark.parametrize(
    ("vgpus", "mixed", "wished", "words"),
    [
        ([], False, "A10-4Q", "the driver has no room for NVIDIA A10-4Q now, although it has no vGPU (is MIG on?)"),
        ([one("2B")], False, "A10-2Q", "the driver has no room for NVIDIA A10-2Q now"),
        ([one()], True, "A10-8Q", ""),  # of another size the driver lists only what its own placement leaves
    ],
)
def test_a_driver_without_room_is_believed_where_nothing_is_to_go(vgpus: list[Vgpu], mixed: bool, wished: str, words: str) -> None:
    full = dataclasses.replace(made(vgpus, types=FULL), mixed=mixed)
    if words:
        assert refusal(full, (wished, 1), state="present") == (words, "See what occupies it, or correct the type")
    else:
        plan = _vgpu_plan.plan(full, Wish(A, (TypeWish(wished, 1),), "present"), RULES)
        assert [change.action for change in plan.changes] == ["create"], plan
    freed = _vgpu_plan.plan(full, Wish(A, (TypeWish(wished, 1),)), RULES)
    assert [change.action for change in freed.changes] == (["remove", "create"] if vgpus else [])


# Names


@pytest.mark.parametrize(
    ("wished", "expected"),
    [("A10-4Q", "NVIDIA A10-4Q"), ("NVIDIA A10-4Q", "NVIDIA A10-4Q"), ("a10-4q", None), ("10-4Q", None), ("GRID A10-4Q", None), ("", None)],
)
def test_a_type_is_meant_by_its_full_or_plain_name_only(wished: str, expected: str | None) -> None:
    kind, blocker = _vgpu_wish.resolve(made([]), wished)
    assert (kind.name if kind else None) == expected and (blocker is None) is (expected is not None)


def test_a_plain_name_that_two_types_have_is_ambiguous() -> None:
    twice = made([], types=[VgpuType("1", "GRID A10-4Q", 4096), VgpuType("2", "NVIDIA A10-4Q", 4096)])
    _kind, blocker = _vgpu_wish.resolve(twice, "A10-4Q")
    assert blocker and "GRID A10-4Q, NVIDIA A10-4Q" in blocker.problem
    assert _vgpu_wish.resolve(twice, "NVIDIA A10-4Q")[0] == twice.types[1]


# Room


def test_the_number_of_equal_vgpus_is_that_of_nvidia_s_tables_for_every_type_on_virtual_functions() -> None:
    data = json.loads((Path(__file__).parents[1] / "vgpu" / "vgpu_types.json").read_text())
    checked = 0
    for family in data["gpus"]:
        sliced = [kind for kind in family["types"] if "max_equal_size" in kind]
        if not family["sriov"] or not sliced:
            continue
        types = [VgpuType(str(n), kind["name"], size_mib(kind["name"])) for n, kind in enumerate(family["types"])]
        empty = dataclasses.replace(made([], types=types), parents=tuple(map(str, range(48))))
        for kind in sliced:
            wanted = next(known for known in types if known.name == kind["name"])
            for count, fits in ((kind["max_equal_size"], True), (kind["max_equal_size"] + 1, False)):
                assert _vgpu.verdict(empty, [(wanted, None)] * count).fits is fits, (family["family"], kind["name"], count)
            checked += 1
    assert checked > 500


@pytest.mark.parametrize(
    ("mix", "fits"),
    [
        ([("A10-12Q", 0), ("A10-6Q", 12), ("A10-6Q", 18)], True),
        ([("A10-12Q", 0), ("A10-6Q", 11)], False),
        ([("A10-12Q", 0), ("A10-6Q", 20)], False),
        ([("A10-12Q", None), ("A10-6Q", None)], None),
        ([("A10-12Q", None), ("A10-6Q", None), ("A10-8Q", None)], False),
    ],
)
def test_a_mix_is_proven_by_its_places_only(mix: list[tuple[str, int | None]], fits: bool | None) -> None:
    assert _vgpu.verdict(made([]), [(TYPES[name], place) for name, place in mix]).fits is fits


def test_a_mix_whose_places_are_given_may_replace_what_is_there() -> None:
    state = made([Vgpu("device-0", PARENTS[0], "nvidia-593", "NVIDIA A10-4Q")], "vendor_vfio")
    state = dataclasses.replace(state, mixed=True)
    wish = Wish(A, (TypeWish("A10-12Q", 1, (0,)), TypeWish("A10-6Q", 2, (18, 12))), "exact", "on")
    plan = _vgpu_plan.plan(state, wish, RULES)
    assert [change.action for change in plan.changes] == ["remove", "create", "create", "create"]
    assert [(c.after["type"], c.after["placement_id"]) for c in plan.changes[1:]] == [
        ("NVIDIA A10-12Q", "0"),
        ("NVIDIA A10-6Q", "12"),
        ("NVIDIA A10-6Q", "18"),
    ]
    assert "before it is known" in str(
        _vgpu_plan.plan(state, dataclasses.replace(wish, types=(TypeWish("A10-12Q", 1), TypeWish("A10-6Q", 1))), RULES).blockers
    )


@pytest.mark.parametrize(("kept", "removed"), [(12, []), (None, []), (6, ["device-0"])])
def test_a_vgpu_elsewhere_than_wanted_is_made_again_unless_present_is_enough(kept: int | None, removed: list[str]) -> None:
    state = made([Vgpu("device-0", PARENTS[0], "nvidia-596", "NVIDIA A10-12Q", (), kept)], "vendor_vfio")
    wish = Wish(A, (TypeWish("A10-12Q", 1, (12,)),))
    plan = _vgpu_plan.plan(state, wish, RULES)
    assert [change.before["device"] for change in plan.changes if change.before] == removed
    assert not _vgpu_plan.plan(state, dataclasses.replace(wish, state="present"), RULES).changes


@pytest.mark.parametrize(
    ("have", "wanted", "removed", "made_at"),
    [
        ([0, 8], (0, 4, 8, 12), [], ["4", "12"]),
        ([8, 20], (0, 8), ["device-1"], ["0"]),
        ([None], (0, 4, 8), [], ["4", "8"]),  # where the driver does not say, the first place that is wanted is taken for it
        ([None, 4], (0, 4, 8), [], ["8"]),
        ([0, 4], (4,), ["device-0"], []),
    ],
)
def test_vgpus_stay_where_one_is_wanted_and_the_places_that_are_left_are_filled(
    have: list[int | None], wanted: tuple[int, ...], removed: list[str], made_at: list[str]
) -> None:
    vgpus = [Vgpu(f"device-{n}", PARENTS[n], "nvidia-593", "NVIDIA A10-4Q", (), place) for n, place in enumerate(have)]
    plan = _vgpu_plan.plan(made(vgpus, "vendor_vfio"), Wish(A, (TypeWish("A10-4Q", len(wanted), wanted),)), RULES)
    assert [(change.before["device"], change.reason) for change in plan.changes if change.before] == [
        (device, "it is not among what is wanted") for device in removed
    ]
    assert [change.after["placement_id"] for change in plan.changes if change.after] == made_at


@pytest.mark.parametrize("backend", ["mdev", "vendor_vfio"])
def test_each_new_vgpu_gets_the_next_free_function(backend: str) -> None:
    plan = _vgpu_plan.plan(made([one(parent=PARENTS[1], device=PARENTS[1])], backend), Wish(A, (TypeWish("A10-4Q", 4),)), RULES)
    afters = [change.after for change in plan.changes]
    assert [after["parent"] for after in afters] == [PARENTS[0], PARENTS[2], PARENTS[3]]
    devices = [
        after["parent"] if backend == "vendor_vfio" else _vgpu_backends.identity(SPACE, after["parent"], "NVIDIA A10-4Q", 0)
        for after in afters
    ]
    assert [after["device"] for after in afters] == devices and {change.action for change in plan.changes} == {"create"}
    assert {change.reason for change in plan.changes} == {"A10-4Q is wanted"}


# Mixed-size mode


@pytest.mark.parametrize(
    ("mode", "wished", "state", "there", "expected"),
    [
        (False, "on", "exact", False, ("off", "on")),
        (True, "off", "exact", False, ("on", "off")),
        (None, "on", "exact", False, (None, "on")),
        (True, "on", "exact", False, None),
        (False, "off", "exact", False, None),
        (True, "unmanaged", "exact", False, None),
        (None, "on", "exact", True, None),  # it cannot be asked, and what is there shows that it does
        (False, "on", "absent", True, None),
        (False, "on", "present", True, "mixed-size mode is off and can be changed only while the GPU has no vGPU; 1 stay"),
        (True, "off", "present", True, "mixed-size mode is on and can be changed only while the GPU has no vGPU; 1 stay"),
    ],
)
def test_the_mode_is_changed_where_it_is_wanted_and_nothing_stays(
    mode: bool | None, wished: str, state: str, there: bool, expected: tuple[str | None, str] | str | None
) -> None:
    gpu_ = dataclasses.replace(made([one()] if there else []), mixed=mode)
    plan = _vgpu_plan.plan(gpu_, Wish(A, (TypeWish("A10-4Q", 2),), state, wished), RULES)
    changes = [(change.before, change.after) for change in plan.changes if change.action == "set"]
    if isinstance(expected, str):
        assert [blocker.problem for blocker in plan.blockers] == [expected] and not plan.changes
    else:
        assert changes == ([(expected[0], {"gpu": A, "mixed_size": expected[1]})] if expected else []) and not plan.blockers


@pytest.mark.parametrize("there", [[], [one()]])
def test_a_mode_that_is_not_known_is_not_set_for_nothing(there: list[Vgpu]) -> None:
    assert not _vgpu_plan.plan(made(there), Wish(A, (TypeWish("A10-4Q", len(there)),), "exact", "on"), RULES).changes


# Mixed-size mode, on a host whose programs run


class Smi:
    """``nvidia-smi`` with a mode of its own, beside the double."""

    def __init__(self, host: Node, knows: bool = True) -> None:
        self.host, self.knows, self.calls, self.obeys = host, knows, 0, True

    def board(self) -> kernel_vgpu.Board:
        return kernel_vgpu.board(self.host.host, self.host.host.resolve(f"/sys/bus/pci/devices/{A}"))

    def __call__(self, arguments: t.Sequence[str], timeout: float) -> _commands.Ended:
        assert arguments[0] == "nvidia-smi" and A in arguments
        if arguments[1] == "-q":
            mode = "Enabled" if self.board().mixed else "Disabled"
            return _commands.Ended(0, f"GPU\n    vGPU Heterogeneous Mode           : {mode}\n" if self.knows else "GPU\n", 99)
        self.calls += 1
        if self.board().vgpus:
            return _commands.Ended(3, "In use by another client", 99)
        if self.obeys:
            self.board().mixed = arguments[-1] == "1"
        return _commands.Ended(0, "", 99)


@pytest.fixture
def smi(tmp_path: Path, reacting: t.Any, run_module: t.Any, monkeypatch: pytest.MonkeyPatch) -> Smi:
    build(tmp_path / "host")
    program = Smi(Node(reacting("mdev_create", str(tmp_path / "host")), run_module, tmp_path / "host"))
    monkeypatch.setattr(_commands.Commands, "__init__", lambda self, host: setattr(self, "can_run", True))
    monkeypatch.setattr(_commands.Commands, "run", program)
    return program


@pytest.mark.parametrize("knows", [True, False])
def test_the_mode_is_set_before_the_first_vgpu_and_only_once(smi: Smi, knows: bool) -> None:
    smi.knows = knows
    wish = gpu(("A10-4Q", 2), ("A10-8Q", 1))
    checked = smi.host.run(wish, mixed_size="on", check=True)
    assert not smi.calls
    made = smi.host.run(wish, mixed_size="on")
    assert not made["failed"], made
    assert made["changes"] == checked["changes"]
    assert [(c["action"], (c["after"] or {}).get("type")) for c in made["changes"]] == [
        ("set", None),
        ("create", "NVIDIA A10-8Q"),
        ("create", "NVIDIA A10-4Q"),
        ("create", "NVIDIA A10-4Q"),
    ]
    assert not smi.host.run(wish, mixed_size="on")["changed"] and smi.calls == 1


def test_a_mode_that_the_site_has_set_is_enough_for_a_mix(smi: Smi) -> None:
    wish = gpu(("A10-4Q", 2), ("A10-12Q", 1))
    assert "outside mixed-size mode" in said(smi.host.run(wish))
    smi.board().mixed = True
    assert not smi.host.run(wish)["failed"] and not smi.calls


def test_the_mode_is_changed_only_while_nothing_is_there(smi: Smi) -> None:
    smi.host.run(gpu(("A10-4Q", 2)))
    refused = smi.host.run(gpu(("A10-4Q", 2)), mixed_size="on")
    assert "only while the GPU has no vGPU" in said(refused) and not smi.calls


def test_a_mode_that_does_not_take_stops_the_gpu(smi: Smi) -> None:
    smi.obeys = False
    failed = smi.host.run(gpu(("A10-4Q", 1)), mixed_size="on")
    assert failed["failed"] and "still the other one" in said(failed) and not smi.host.host.written


def test_in_a_tree_the_mode_is_left_to_be_set(tmp_path: Path, reacting: t.Any, run_module: t.Any) -> None:
    build(tmp_path / "host")
    host = Node(reacting("mdev_create", str(tmp_path / "host")), run_module, tmp_path / "host")
    left = host.run(gpu(("A10-4Q", 1)), mixed_size="on")
    assert not left["failed"] and left["pending"] == [f"nvidia-smi vgpu -i {A} -shm 1"]
    assert host.run(gpu(("A10-4Q", 1)), mixed_size="on")["pending"] == []


# The test double itself


def test_the_double_answers_as_the_kernel_was_measured(tmp_path: Path, reacting: t.Any) -> None:
    build(tmp_path / "host")
    host = reacting("mdev_create", str(tmp_path / "host"))
    types = f"/sys/bus/pci/devices/{A}/virtfn0/mdev_supported_types"
    device = _vgpu_backends.identity(SPACE, "a", "b", 0)

    def available(number: int, kind: int) -> str:
        path = f"/sys/bus/pci/devices/{A}/virtfn{number}/mdev_supported_types/nvidia-{kind}/available_instances"
        return str(host.read_text(path)).strip()

    def answer(path: str, text: str) -> int:
        with pytest.raises(KernelError) as caught:
            host.write_kernel(path, text)
        return caught.value.errno

    assert answer(f"{types}/nvidia-593/create", "no uuid") == errno.EINVAL
    host.write_kernel(f"{types}/nvidia-593/create", device)
    assert answer(f"/sys/bus/pci/devices/{A}/virtfn1/mdev_supported_types/nvidia-593/create", device) == errno.EEXIST
    other = _vgpu_backends.identity(SPACE, "a", "b", 1)
    assert answer(f"{types}/nvidia-593/create", other) == errno.ENOSPC
    assert answer(f"/sys/bus/pci/devices/{A}/virtfn1/mdev_supported_types/nvidia-595/create", other) == errno.ENOSPC
    assert [available(0, 593), available(1, 593), available(1, 595)] == ["0", "1", "0"]
    host.write_kernel(f"/sys/bus/mdev/devices/{device}/remove", "1")
    assert [available(0, 593), available(1, 593), available(1, 595)] == ["1", "1", "1"]


@pytest.mark.parametrize(
    ("have", "places", "fitting", "other", "free"),
    [
        ([0, 8], (0, 8, 12), [0, 8], [], [12]),
        ([0, 20], (0, 8), [0], [20], [8]),
        ([8, 8], (8, 12), [8], [8], [12]),
        # One whose place the driver does not tell takes the first that is left.
        ([None, 8], (0, 8), [8, None], [], []),
        ([None, None, None], (0, 8), [None, None, None], [], []),
        ([None, 4], (), [None, 4], [], []),
    ],
)
def test_vgpus_are_told_by_their_places(
    have: list[t.Any], places: tuple[int, ...], fitting: list[t.Any], other: list[t.Any], free: list[int]
) -> None:
    found = _vgpu_plan._by_placement([one(device=f"device-{n}", placement_id=place) for n, place in enumerate(have)], places)
    assert ([vgpu.placement_id for vgpu in found[0]], [vgpu.placement_id for vgpu in found[1]], found[2]) == (fitting, other, free)


def wish(*types: tuple[str, int], state: str = "exact") -> Wish:
    return Wish("0000:41:00.0", tuple(TypeWish(name, count) for name, count in types), state)


def test_on_virtual_functions_that_are_only_planned_each_wish_is_one_vgpu() -> None:
    plan = _vgpu_plan.planned(wish(("A10-4Q", 1), ("A10-4C", 1)), 2)
    assert [(change.target, change.action, change.before, change.after, change.reason) for change in plan.changes] == [
        (
            f"vGPU {number} of GPU 0000:41:00.0",
            "create",
            None,
            {"gpu": "0000:41:00.0", "parent": KNOWN_AFTER_APPLY, "device": KNOWN_AFTER_APPLY, "type": name},
            f"{name} is wanted",
        )
        for number, name in ((1, "A10-4Q"), (2, "A10-4C"))
    ]
    assert not plan.blockers


@pytest.mark.parametrize(("given", "vfs"), [(wish(("A10-4Q", 9), state="absent"), 4), (wish(), 4), (wish(("A10-4Q", 0)), 0)])
def test_nothing_is_planned_where_nothing_is_wanted(given: Wish, vfs: int) -> None:
    assert _vgpu_plan.planned(given, vfs) == Plan()


def test_more_vgpus_than_planned_virtual_functions_stop_that_gpu() -> None:
    plan = _vgpu_plan.planned(wish(("A10-4Q", 3), ("A10-4C", 2)), 4)
    assert [(b.target, b.problem, b.stops) for b in plan.blockers] == [
        ("GPU 0000:41:00.0", "5 vGPUs are wanted, and 4 virtual functions are planned, which take one each", "target")
    ]
    assert not plan.changes
