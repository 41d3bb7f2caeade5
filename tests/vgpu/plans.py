# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans to draw: made up here, in the shape that the planner returns."""

from __future__ import annotations

import random
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _mixes, _placement
from tests.vgpu.gpus import gpus


def gpu(index: int, family: str, mode: str, types: dict[str, int], **more: t.Any) -> dict[str, t.Any]:
    return {
        "index": index,
        "address": f"0000:{0x21 + 16 * index:02x}:00.0",
        "gpu": family,
        "vendor_device": None,
        "subsystem": None,
        "mode": mode,
        "types": types,
        "before": None,
        "changed": False,
        "serves": [],
        "holds": [],
        "free": {},
        "disturbed": [],
        **more,
    }


def plan(nodes: list[dict[str, t.Any]], **more: t.Any) -> dict[str, t.Any]:
    served: dict[str, int] = {}
    for node in nodes:
        for entry in node["gpus"]:
            for serve in entry["serves"]:
                served[serve["demand"]] = served.get(serve["demand"], 0) + serve["count"]
    return {
        "version": 1,
        "nodes": nodes,
        "served": served,
        "unserved": [],
        "objectives": [
            {"name": "unserved", "value": 0, "bound": 0, "proven": True},
            {"name": "gpus", "value": 3, "bound": 3, "proven": True},
        ],
        "status": "optimal",
        "caveats": [],
        **more,
    }


def serve(demand: str, kind: str, count: int) -> dict[str, t.Any]:
    return {"demand": demand, "type": kind, "count": count}


def every_kind() -> dict[str, t.Any]:
    """One GPU of each kind that a picture has to show."""
    held = [{"vm": "cad/station-7", "type": "A10-8Q", "count": 1}, {"vm": "cad/station-9", "type": "A10-8Q", "count": 1}]
    first = [
        gpu(
            0,
            "A10",
            "equal",
            {"A10-4Q": 6},
            before={"A10-12Q": 2},
            changed=True,
            serves=[serve("web-desktops", "A10-4Q", 4), serve("kiosk", "A10-4Q", 1)],
            free={"A10-4Q": 1},
            disturbed=["cad/station-1", "cad/station-2"],
        ),
        gpu(1, "A10", "keep", {"A10-8Q": 3}, before={"A10-8Q": 3}, holds=held, free={"A10-8Q": 1}),
        gpu(2, "A10", "unused", {}, before={"A10-24Q": 1}, changed=True),
        gpu(3, "T4", "equal", {"T4-4Q": 3}, changed=True, serves=[serve("kiosk", "T4-4Q", 3)]),
    ]
    second = [
        gpu(
            0,
            "L40S",
            "mixed",
            {"L40S-24Q": 1, "L40S-8Q": 1, "L40S-4Q": 2, "L40S-1Q": 3},
            changed=True,
            serves=[
                serve("render", "L40S-24Q", 1),
                serve("cad", "L40S-8Q", 1),
                serve("kiosk", "L40S-4Q", 1),
                serve("vdi-1q", "L40S-1Q", 3),
            ],
            free={"L40S-4Q": 1},
        ),
        gpu(1, "L40S", "equal", {"L40S-1Q": 32}, changed=True, serves=[serve("vdi-1q", "L40S-1Q", 29)], free={"L40S-1Q": 3}),
        gpu(
            2,
            "DC-96",
            "mixed",
            {"DC-48Q": 1, "DC-32Q": 1, "DC-8Q": 1, "DC-6Q": 1},
            changed=True,
            placements=[
                {"id": 0, "size_gb": 48},
                {"id": 64, "size_gb": 32},
                {"id": 56, "size_gb": 8},
                {"id": 48, "size_gb": 6},
            ],
            serves=[serve("llm-large", "DC-48Q", 1), serve("llm-small", "DC-32Q", 1), serve("cad", "DC-8Q", 1), serve("cad", "DC-6Q", 1)],
        ),
        gpu(
            3,
            "DC-96",
            "equal",
            {"DC-1-2Q": 14, "DC-2-48Q": 1},
            changed=True,
            serves=[serve("kiosk", "DC-1-2Q", 14), serve("render", "DC-2-48Q", 1)],
        ),
    ]
    third = [
        gpu(
            0,
            "A100",
            "equal",
            {"A100-3-20C": 1, "A100-2-10C": 1, "A100-1-5C": 1},
            serves=[serve("train", "A100-3-20C", 1), serve("infer", "A100-2-10C", 1)],
        ),
        gpu(1, "H100L", "equal", {"H100L-23C": 3}, serves=[serve("infer", "H100L-23C", 3)]),
        gpu(2, "A10", "mixed", {"A10-8Q": 2, "A10-6Q": 1}, serves=[serve("cad", "A10-8Q", 2)]),
        gpu(3, "Z9000", "keep", {"Z9000-4Q": 2}, holds=[{"vm": "old/one", "type": "Z9000-4Q", "count": 1}]),
    ]
    return plan(
        [{"node": "gpu-a1", "gpus": first}, {"node": "gpu-b1", "gpus": second}, {"node": "gpu-c1.rack7.example", "gpus": third}],
        unserved=[{"demand": "llm-large", "count": 2, "why": "the 2 GPUs that could serve it are taken by other demands and running VMs"}],
        caveats=[
            "Mixed sizes need the mixed-size mode on the host before anything is made.",
            "Disturbed VMs lose their vGPU when their GPU changes.",
        ],
        status="time-limit",
    )


def fleet(number: int, seed: int = 1) -> dict[str, t.Any]:
    """A fleet of this many GPUs, four a node, some mixed, some kept, some empty."""
    chance = random.Random(seed)
    families = ["A10", "L40S", "A100D", "H100", "DC-96"]
    nodes: list[dict[str, t.Any]] = []
    for place in range(number):
        if place % 4 == 0:
            nodes.append({"node": f"node-{place // 4:03d}", "gpus": []})
            family = chance.choice(families)
        model = gpus()[family]
        kinds = [kind for kind in model.types if not kind.slices and kind.series in "QC"]
        series = kinds[-1].series
        region = _placement.region_of(model)
        mode = chance.choice(["equal", "equal", "mixed", "keep", "unused"])
        if mode == "mixed" and region is not None:
            counts = chance.choice([mix for mix in _mixes.mixes(region, region.sizes[:6]) if 1 < len(mix) < 5][:40])
            names = {kind.size_gb: kind.name for kind in kinds if kind.series == series}
            types = {names[size]: count for size, count in counts.items() if size in names}
        elif mode == "unused":
            types = {}
        else:
            kind = chance.choice([kind for kind in kinds if kind.series == series])
            types = {kind.name: chance.randint(1, kind.most)}
        serves = (
            [serve(f"demand-{chance.randint(1, 24)}", name, chance.randint(1, count)) for name, count in types.items()]
            if mode != "keep"
            else []
        )
        holds = [{"vm": f"team-{chance.randint(1, 9)}/vm-{place}", "type": name, "count": 1} for name in types] if mode == "keep" else []
        changed = mode not in ("keep", "unused")
        disturbed = [f"team-{chance.randint(1, 9)}/vm-{place}"] if changed and chance.random() < 0.2 else []
        nodes[-1]["gpus"].append(gpu(place % 4, family, mode, types, serves=serves, holds=holds, changed=changed, disturbed=disturbed))
    return plan(nodes)
