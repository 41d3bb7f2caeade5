# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The GPUs of the data, as placement wants them; made here from the table row by row, without the catalogue's rules."""

from __future__ import annotations

import dataclasses
import functools
import json
import typing as t
from pathlib import Path

TABLE = Path(__file__).parents[1] / "unit" / "vgpu" / "vgpu_types.json"


@dataclasses.dataclass(frozen=True)
class Type:
    name: str
    series: str
    size_gb: int
    most: int
    slices: int
    mig_profile: str | None
    mig_instances: int | None


@dataclasses.dataclass(frozen=True)
class Gpu:
    family: str
    product: str
    architecture: str
    framebuffer_gb: int
    sriov: bool
    mig_capable: bool
    mixed_rule: str | None
    equal_size_ids: bool
    types: tuple[Type, ...]


@functools.lru_cache(maxsize=1)
def table() -> dict[str, t.Any]:
    return json.loads(TABLE.read_text(encoding="utf-8"))


def _type(row: dict[str, t.Any]) -> Type:
    sliced = "max_per_gpu" in row
    return Type(
        row["name"],
        row["series"],
        row["framebuffer_gb"],
        row["max_per_gpu"] if sliced else row["max_equal_size"],
        int(row["name"].rpartition("-")[0].rpartition("-")[2]) if sliced else 0,
        row.get("gpu_instance_profile"),
        row.get("gpu_instances_per_gpu"),
    )


@functools.lru_cache(maxsize=1)
def gpus() -> dict[str, Gpu]:
    """By family."""
    return {
        row["family"]: Gpu(
            row["family"],
            row["product"],
            row["architecture"],
            row["framebuffer_gb"],
            row["sriov"],
            row["mig_capable"],
            row["mixed_size_rule"],
            row["equal_size_placement_ids"],
            tuple(_type(kind) for kind in row["types"]),
        )
        for row in table()["gpus"]
    }


@functools.lru_cache(maxsize=1)
def published_ids() -> dict[str, dict[int, list[int]]]:
    """The mixed-size placement ids that the data has, by family and placement size in GB."""
    return {row["family"]: {int(size): ids for size, ids in row["placement_ids_mixed"].items()} for row in table()["gpus"]}
