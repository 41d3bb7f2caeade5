# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""MIG-backed vGPUs on one GPU: which GPU instances they need, and whether those can stand beside each other.

A vGPU type belongs to one GPU-instance profile (NVIDIA/open-gpu-kernel-modules, kernel_vgpu_mgr.c:2120-2195). An instance holds one vGPU, or,
where the driver shares instances by time (RTX PRO), several of one size: at most 12 (ctrla081.h:46-49). How many instances of a profile a GPU
has is the data's; where instances of different profiles may begin is general knowledge of ``nvidia-smi mig -lgipp`` and not proven: whatever
rests on it carries :data:`UNPROVEN`.
"""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu import Gpu, VgpuType

UNPROVEN = (
    "[U] Where GPU instances of different profiles may begin is general knowledge and not verified: "
    "compare with 'nvidia-smi mig -lgipp' on the host before you rely on it."
)
SHARED = "More than one vGPU on a GPU instance needs time-slicing of MIG instances switched on ('nvidia-smi vgpu -smts 1')."

#: Of GPUs with 7 compute and 8 memory slices: profile digit and most instances → memory slices covered, allowed first slices.
SEVEN_SLICES: dict[tuple[int, int], tuple[int, tuple[int, ...]]] = {
    (1, 7): (1, (0, 1, 2, 3, 4, 5, 6)),
    (1, 4): (2, (0, 2, 4, 6)),  # one compute slice with the memory of two
    (2, 3): (2, (0, 2, 4)),
    (3, 2): (4, (0, 4)),
    (4, 1): (4, (0,)),
    (7, 1): (8, (0,)),
}
#: The suffix of a profile whose instance has the media engines, of which a GPU has one set.
MEDIA = "+me"


@dataclasses.dataclass(frozen=True)
class Profile:
    """A GPU-instance profile: memory slices that an instance covers, where one may begin, and how many a GPU has at most."""

    name: str
    covers: int
    starts: tuple[int, ...]
    most: int


@dataclasses.dataclass(frozen=True)
class Instance:
    """A GPU instance and the vGPUs on it, by type name."""

    profile: str
    start: int
    vgpus: tuple[tuple[str, int], ...]


def per_instance(kind: VgpuType) -> int:
    """How many vGPUs of a type one GPU instance holds."""
    return kind.most // (kind.mig_instances or 1)


def profiles(gpu: Gpu) -> dict[str, Profile]:
    """The GPU-instance profiles that a GPU's types belong to, by name."""
    sliced: list[VgpuType] = [kind for kind in gpu.types if kind.slices]
    all_slices = max((kind.slices for kind in sliced), default=0)
    found = {}
    for kind in sliced:
        name, most = kind.mig_profile or "", kind.mig_instances or 1
        if all_slices == 7:
            covers, starts = SEVEN_SLICES[kind.slices, 7 if name.endswith(MEDIA) else most]
        else:
            covers, starts = kind.slices, tuple(range(0, all_slices, kind.slices))
        found[name] = Profile(name, covers, starts, most)
    return found


@functools.lru_cache(maxsize=256)
def _layouts(kinds: tuple[Profile, ...], counts: tuple[int, ...]) -> dict[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """All parts of these counts of instances that can stand beside each other; of each, one way: number of the profile and first slice."""
    media = [number for number, kind in enumerate(kinds) if kind.name.endswith(MEDIA)]
    found: dict[tuple[int, ...], tuple[tuple[int, int], ...]] = {}
    todo: list[tuple[tuple[int, ...], int, tuple[tuple[int, int], ...]]] = [((0,) * len(kinds), 0, ())]
    seen = set()
    while todo:
        have, taken, placed = todo.pop()
        found.setdefault(have, placed)
        # What is put on the stack last is tried first: the largest profile, at its first place.
        for number, kind in reversed(list(enumerate(kinds))):
            if have[number] == min(counts[number], kind.most) or (number in media and any(have[other] for other in media)):
                continue
            for start in reversed(kind.starts):
                cover = ((1 << kind.covers) - 1) << start
                state = ((*have[:number], have[number] + 1, *have[number + 1 :]), taken | cover)
                if not cover & taken and state not in seen:
                    seen.add(state)
                    todo.append((*state, (*placed, (number, start))))
    return found


def layouts(gpu: Gpu) -> list[dict[str, int]]:
    """The maximal sets of GPU instances of a GPU: to none of them one of any profile can be added. Rests on :data:`UNPROVEN`."""
    kinds = tuple(sorted(profiles(gpu).values(), key=lambda kind: (-kind.covers, kind.name)))
    found = _layouts(kinds, tuple(kind.most for kind in kinds))
    largest = [
        have for have in found if not any((*have[:number], have[number] + 1, *have[number + 1 :]) in found for number in range(len(kinds)))
    ]
    return [{kind.name: count for kind, count in zip(kinds, have, strict=True) if count} for have in sorted(largest, reverse=True)]


def _shares(mix: t.Mapping[str, int], types: t.Mapping[str, VgpuType]) -> dict[tuple[str, int], list[list[str]]]:
    """The vGPUs of each GPU instance that a mix needs, by profile and size: types of one size share an instance."""
    queues: dict[tuple[str, int], list[str]] = {}
    for name, count in mix.items():
        queues.setdefault((types[name].mig_profile or "", types[name].size_gb), []).extend([name] * count)
    shares = {}
    for key, names in queues.items():
        room = per_instance(types[names[0]])
        shares[key] = [names[first : first + room] for first in range(0, len(names), room)]
    return shares


@dataclasses.dataclass(frozen=True)
class SlicedFit:
    """Whether a mix of MIG-backed types fits: the instances with their vGPUs, or why not and the largest parts of the mix that do."""

    fits: bool
    instances: tuple[Instance, ...] = ()
    why: str = ""
    nearest: tuple[dict[str, int], ...] = ()


def _tally(names: t.Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return found


def fits(gpu: Gpu, mix: t.Mapping[str, int]) -> SlicedFit:
    """Does one GPU in MIG mode hold these vGPUs? ``mix`` has counts from 1 on by type name, all MIG-backed types of the GPU."""
    types = {kind.name: kind for kind in gpu.types}
    known, shares = profiles(gpu), _shares(mix, types)
    needed: dict[str, list[list[str]]] = {}
    for (profile, _size), names in shares.items():
        needed.setdefault(profile, []).extend(names)
    kinds = tuple(sorted((known[profile] for profile in needed), key=lambda kind: (-kind.covers, kind.name)))
    wanted = tuple(len(needed[kind.name]) for kind in kinds)
    found = _layouts(kinds, wanted)
    if wanted in found:
        waiting = {profile: iter(names) for profile, names in needed.items()}
        placed = sorted(found[wanted], key=lambda entry: entry[1])
        instances = (
            Instance(kinds[number].name, start, tuple(_tally(next(waiting[kinds[number].name])).items())) for number, start in placed
        )
        return SlicedFit(True, tuple(instances))
    text = " + ".join(f"{count} x {kind.name}" for kind, count in zip(kinds, wanted, strict=True))
    over = next((kind for kind, count in zip(kinds, wanted, strict=True) if count > kind.most), None)
    if over is not None:
        why = f"the mix needs the GPU instances {text}, and the GPU has at most {over.most} of {over.name}"
    elif sum(count for kind, count in zip(kinds, wanted, strict=True) if kind.name.endswith(MEDIA)) > 1:
        why = f"the mix needs the GPU instances {text}, and only one of those with {MEDIA} can exist"
    else:
        why = f"the mix needs the GPU instances {text}, and they do not fit beside each other"
    parts = [
        _tally(name for kind, count in zip(kinds, have, strict=True) for names in needed[kind.name][:count] for name in names)
        for have in found
        if any(have) and not any((*have[:number], have[number] + 1, *have[number + 1 :]) in found for number in range(len(kinds)))
    ]
    parts.sort(
        key=lambda part: (-sum(part.values()), -sum(types[name].size_gb * count for name, count in part.items()), sorted(part.items()))
    )
    return SlicedFit(False, why=why, nearest=tuple(parts[:3]))
