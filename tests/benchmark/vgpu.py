# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What questions about vGPUs cost on the controller, in seconds of the processor.

``fits`` and ``mixes`` are measured on every GPU that has a mixed-size mode, and the GPU that costs most is shown. Mixes are asked for that lie at
what a GPU can just hold or just not hold, because these take the longest search.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import (
    _calc,
    _catalogue,
    _device_config,
    _fits,
    _lint,
    _mixes,
    _picture,
    _placement,
    _types,
)
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._placement import Region
from tests.benchmark.table import Row
from tests.tools import env
from tests.vgpu import plans

CALLS, MIXES, RUNS = 1000, 60, 3
TEMPLATE = (
    "{% set kinds = ['A10-4Q', 'A10-8C', 'A10-2B', 'A10-24Q'] %}"
    "{% for n in range(calls) %}{{ ('A10' | gpufleet.kubevirt.vgpu_profile_calc(type=kinds[n % 4])).max.equal }},{% endfor %}"
)


def timed(call: t.Callable[[], t.Any]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def regions() -> dict[str, Region]:
    """One GPU family for every region that there is."""
    found = {region: gpu.family for gpu in _catalogue.gpus() if (region := _placement.region_of(gpu)) is not None}
    return {family: region for region, family in found.items()}


def forget() -> None:
    """Have the next question start from nothing."""
    for cached in (_mixes.steps, _mixes.feasible, _mixes._maximal, _placement.ids):
        cached.cache_clear()


def near(region: Region, chance: random.Random) -> list[dict[int, int]]:
    """Mixes of a region at its limit: maximal ones, and the same with one vGPU more."""
    known = _mixes.mixes(region)
    chosen = []
    for number in range(MIXES):
        mix = dict(chance.choice(known))
        if number % 2:
            size = chance.choice(region.sizes)
            mix[size] = mix.get(size, 0) + 1
        chosen.append(mix)
    return chosen


def through_ansible(calls: int) -> float:
    """Seconds of one template with that many calls, rendered by Ansible in a process of its own."""
    script = (
        "import json, sys, time\nfrom tests.vgpu.examples import render\n"
        "render([('{{ 1 }}', {})])\ntemplate, calls = json.loads(sys.stdin.read())\n"
        "started = time.process_time()\n(text,) = render([(template, {'calls': calls})])\n"
        "print(json.dumps([time.process_time() - started, str(text).count(',')]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps([TEMPLATE, calls]), cwd=env.CHECKOUT, capture_output=True, text=True, check=True
    )
    took, answers = json.loads(done.stdout.splitlines()[-1])
    if answers != calls:
        raise SystemExit(f"Measuring vgpu_profile_calc: {answers} answers, but {calls} were expected.")
    return float(took)


def loaded() -> float:
    """Milliseconds in which a new process has the catalogue, import included."""
    script = (
        "import time\nstarted = time.process_time()\n"
        "from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue\n"
        "_catalogue.find('A10')\nprint(time.process_time() - started)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=env.CHECKOUT, capture_output=True, text=True, check=True)
    return float(done.stdout) * 1e3


def of_one_type(gpus: int) -> dict[str, t.Any]:
    """A plan with eight GPUs of one model a node, each node of another type."""
    kinds = [(gpu, kind) for gpu in _catalogue.gpus() if gpu.stock for kind in gpu.types if not kind.name.endswith("B4")]
    nodes = []
    for number in range(gpus // 8):
        gpu, kind = kinds[number * 7 % len(kinds)]
        pci = gpu.pci[0]
        head = {"gpu": gpu.family, "vendor_device": f"10DE:{pci.device}", "subsystem": next(iter(pci.subsystems), ("",))[0]}
        made = {"mode": "equal", "types": {kind.name: kind.most}}
        nodes.append({"node": f"n{number}", "gpus": [{"index": i, "address": f"0000:{i + 16:02x}:00.0", **head, **made} for i in range(8)]})
    return {"version": 1, "nodes": nodes}


def catalogue_rows() -> t.Iterator[Row]:
    yield Row("vGPU catalogue, import and load", [loaded() for _run in range(5)], "ms", 50)
    for name in ("10DE:2236", "RTX 6000 Ada"):
        yield Row(f"find {name}", [timed(lambda name=name: _catalogue.find(name)) * 1e6 for _call in range(CALLS)], "us", 50)  # type: ignore[misc]
    spelled = "nvidia.com/NVIDIA_A10-4Q"
    yield Row(f"resolve {spelled}", [timed(lambda: _types.resolve(spelled)) * 1e6 for _call in range(CALLS)], "us", 50)
    plan = of_one_type(1000)
    yield Row("vgpu_device_config, 1 000 GPUs", [timed(lambda: _device_config.device_config(plan)) for _run in range(RUNS)], "s", 1)
    stock = {kind.name: kind.most for gpu in _catalogue.gpus() for kind in gpu.types if kind.name in _catalogue.known_profiles()}
    config = {"version": "v1", "vgpu-configs": {name: [{"devices": "all", "vgpu-devices": {name: most}}] for name, most in stock.items()}}
    yield Row(f"vgpu_device_config_lint, {len(stock)} entries", [timed(lambda: _lint.lint(config)) for _run in range(RUNS)], "s", 1)


def rows() -> t.Iterator[Row]:
    yield from catalogue_rows()
    _calc.profile_calc("A10", type="A10-4Q")
    questions: list[tuple[str, dict[str, t.Any]]] = [
        ("A10", {"type": "A10-4Q"}),
        ("A100", {"vms": 3}),
        ("L40S", {"mix": {"L40S-24Q": 1, "L40S-8Q": 2, "L40S-4Q": 2}}),
    ]
    for gpu, question in questions:
        samples = [timed(lambda gpu=gpu, question=question: _calc.profile_calc(gpu, **question)) * 1e6 for _call in range(CALLS)]  # type: ignore[misc]
        yield Row(f"vgpu_profile_calc {gpu}, {next(iter(question))}", samples, "us", 1000)
    yield Row("vgpu_profile_calc, 10 000 in a template", [through_ansible(10_000) for _run in range(RUNS)], "s", 5)

    chance, slowest, longest = random.Random(1), ("", [0.0]), ("", [0.0])
    for family, region in regions().items():
        samples = [timed(lambda region=region, mix=mix: (forget(), _fits.fits(region, mix))) * 1e3 for mix in near(region, chance)]  # type: ignore[misc]
        slowest = max(slowest, (family, samples), key=lambda entry: max(entry[1]))
        samples = [timed(lambda region=region: (forget(), _mixes.mixes(region))) for _run in range(RUNS)]  # type: ignore[misc]
        longest = max(longest, (family, samples), key=lambda entry: max(entry[1]))
    yield Row(f"fits, the slowest of all mixes tried ({slowest[0]})", [max(slowest[1])], "ms", 10)
    yield Row(f"mixes, the slowest of all GPUs ({longest[0]})", longest[1], "s", 3)

    plan = plans.fleet(512)
    yield Row("vgpu_plan_page, 512 GPUs", [timed(lambda: _picture.page(plan)) for _run in range(RUNS)], "s", 2)
