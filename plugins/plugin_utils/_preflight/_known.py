# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the catalogue knows of a GPU that a host shows."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue


def with_known(facts: t.Any) -> t.Any:
    """The same facts, each GPU with ``known``: ``{families, architecture, sriov, mig_capable}``, or None if the catalogue has none of its id.

    Several products can share an id; they are of one generation.
    """
    gpus = facts.get("gpus") if isinstance(facts, dict) else None
    if not isinstance(gpus, list):
        return facts
    return {**facts, "gpus": [{**gpu, "known": _known(gpu)} if isinstance(gpu, dict) else gpu for gpu in gpus]}


def _known(gpu: t.Mapping[str, t.Any]) -> dict[str, t.Any] | None:
    found = _catalogue.at(str(gpu.get("vendor_device") or ""), str(gpu.get("subsystem") or ""))
    if not found:
        return None
    return {
        "families": [family.family for family in found],
        "architecture": found[0].architecture,
        "sriov": any(family.sriov for family in found),
        "mig_capable": any(family.mig_capable for family in found),
    }
