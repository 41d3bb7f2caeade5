# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which images are missing in the registry or were made of something else, and what was made of the right things after all."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import KNOWN_AFTER_APPLY, Blocker, Change, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._inputs import INPUT_LABEL, Inputs
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._registry import Image


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One tag of the repository and what its image is made of. Tags with equal inputs are one image."""

    os_tag: str
    tag: str
    reference: str
    inputs: Inputs


@dataclasses.dataclass(frozen=True)
class Observed:
    """The images in the registry, by tag; and what stands in the way of a build, if one is needed."""

    images: t.Mapping[str, t.Optional[Image]]
    obstacles: t.Tuple[Blocker, ...] = ()


def due(wanted: Wanted, image: Image | None, force: bool) -> t.Optional[str]:
    """Why this tag must be written, in words, or None where it is as wanted."""
    if image is None:
        return "the registry has none"
    if image.labels.get(INPUT_LABEL) != wanted.inputs.digest():
        return wanted.inputs.differs_from(image.labels)
    return "force: true" if force else None


def make_plan(wanted: t.Sequence[Wanted], seen: Observed, force: bool) -> Plan:
    """What to write, per tag. An image that we did not make is replaced only with ``force``."""
    plan = Plan()
    for entry in wanted:
        image = seen.images.get(entry.tag)
        reason = due(entry, image, force)
        if reason is None:
            continue
        if image is not None and INPUT_LABEL not in image.labels and not force:
            problem = f"an image is there ({image.digest}) that was not made by this module"
            plan.blockers.append(Blocker(entry.reference, problem, "Set force to replace it, or choose another registry path or name"))
            continue
        before, action = (image.digest, "replace") if image else (None, "push")
        plan.changes.append(Change(entry.reference, action, before, KNOWN_AFTER_APPLY, reason))
        if image:
            plan.warnings.append(
                f"{entry.reference} gets another image. A node that has pulled the tag keeps the old one: the operator's pull policy is IfNotPresent"
            )
    plan.blockers += seen.obstacles
    return plan


def groups(wanted: t.Iterable[Wanted], targets: t.Container[str]) -> t.List[t.Tuple[t.List[Wanted], t.List[Wanted]]]:
    """Tags that are one image: of each, those that must be written (one at least) and those that are right already."""
    by_inputs: t.Dict[Inputs, t.List[Wanted]] = {}
    for entry in wanted:
        by_inputs.setdefault(entry.inputs, []).append(entry)
    split = [([e for e in same if e.reference in targets], [e for e in same if e.reference not in targets]) for same in by_inputs.values()]
    return [(left, right) for left, right in split if left]


def not_taken(wanted: t.Iterable[Wanted], seen: Observed, pushed: t.Mapping[str, str]) -> t.List[Blocker]:
    """Of the tags that were written (reference to digest), those that the registry does not show so."""
    blockers = []
    for entry in wanted:
        if entry.reference not in pushed:
            continue
        image = seen.images.get(entry.tag)
        if image is None:
            problem = "it was pushed, and the registry has no such tag"
        elif image.labels.get(INPUT_LABEL) != entry.inputs.digest():
            problem = f"it was pushed, and the registry has an image there that was made of something else ({image.digest})"
        elif pushed[entry.reference] and image.digest != pushed[entry.reference]:
            problem = f"{pushed[entry.reference]} was pushed, and the registry has {image.digest}"
        else:
            continue
        blockers.append(Blocker(entry.reference, problem, "Look for another writer of this tag, and run again"))
    return blockers
