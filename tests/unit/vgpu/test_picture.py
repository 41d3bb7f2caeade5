# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The picture of a plan: what a GPU's strip says, that a page is whole, escaped and self-contained, and what is refused."""

from __future__ import annotations

import copy
import html.parser
import re
import time
import typing as t

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _bars, _picture
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._strips import FREE, IDLE, LOST, USED, strip
from tests.vgpu import plans
from tests.vgpu.gpus import gpus

EVIL = "<script>alert(1)</script>\"'&"


def draw(plan: t.Any) -> str:
    return _picture.draw(plan, lambda entry: gpus().get(entry["gpu"]))


class Page(html.parser.HTMLParser):
    """A page's elements, checked to be nested as they are opened."""

    VOID = ("meta", "input", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]


def stretches(family: str, types: dict[str, int], **more: t.Any) -> list[tuple[float, float, str, str]]:
    found = strip(plans.gpu(0, family, "equal", types, **more), gpus()[family])
    assert found.size_gb == gpus()[family].framebuffer_gb
    assert sum(found.gb(what) for what in (USED, IDLE, FREE, LOST)) == found.size_gb
    return [(part.begin, part.end, part.what, part.who) for part in found.stretches]


@pytest.mark.parametrize(
    ("family", "types", "more", "wanted"),
    [
        ("A10", {}, {}, [(0, 24, FREE, "")]),
        (
            "A10",
            {"A10-8Q": 2},
            {"serves": [plans.serve("web", "A10-8Q", 1)]},
            [(0, 8, USED, "web"), (8, 16, IDLE, ""), (16, 24, FREE, "")],
        ),
        # 94 GB hold four of 23 GB: two GB are lost.
        (
            "H100L",
            {"H100L-23C": 3},
            {},
            [(0, 23, IDLE, ""), (23, 46, IDLE, ""), (46, 69, IDLE, ""), (69, 92, FREE, ""), (92, 94, LOST, "")],
        ),
        # Beside 8 GB at 0 and 6 GB at 12 and 18 there is room for 4 GB at 8.
        ("A10", {"A10-8Q": 1, "A10-6Q": 2}, {}, [(0, 8, IDLE, ""), (8, 12, FREE, ""), (12, 18, IDLE, ""), (18, 24, IDLE, "")]),
        # The places that a plan gives are taken, not found again.
        (
            "DC-96",
            {"DC-48Q": 1, "DC-8Q": 1},
            {"placements": [{"id": 48, "size_gb": 48}, {"id": 8, "size_gb": 8}]},
            [(0, 8, FREE, ""), (8, 16, IDLE, ""), (16, 48, FREE, ""), (48, 96, IDLE, "")],
        ),
        # Seven instances of one slice: the eighth memory slice is lost.
        ("A100", {"A100-1-5C": 7}, {}, [*((5.0 * n, 5.0 * n + 5, IDLE, "") for n in range(7)), (35, 40, LOST, "")]),
        # An instance of 24 GB shared by time: 12 of 2 GB.
        ("DC-96", {"DC-2-48Q": 1, "DC-1-12Q": 1}, {}, [(0, 48, IDLE, ""), (48, 60, IDLE, ""), (60, 96, FREE, "")]),
        (
            "A10",
            {"A10-12Q": 2},
            {"holds": [{"vm": "ns/vm", "type": "A10-12Q", "count": 1}]},
            [(0, 12, USED, "ns/vm"), (12, 24, IDLE, "")],
        ),
    ],
)
def test_a_strip_says_who_sits_where_what_is_free_and_what_is_lost(family, types, more, wanted):
    merged: list[tuple[float, float, str, str]] = []
    for part in stretches(family, types, **more):
        if merged and part[2] == merged[-1][2] == FREE:
            merged[-1] = (merged[-1][0], part[1], FREE, "")
        else:
            merged.append(part)
    assert merged == wanted


def test_what_no_further_vgpu_can_reach_is_lost():
    found = stretches("L40S", {"L40S-24Q": 1, "L40S-8Q": 1, "L40S-4Q": 2, "L40S-1Q": 3})
    assert [part[:2] for part in found if part[2] == LOST] == [(40, 41), (43, 47)]


def test_a_mix_that_cannot_be_and_a_gpu_that_is_not_known_are_drawn_and_marked():
    mix = strip(plans.gpu(0, "A10", "mixed", {"A10-8Q": 2, "A10-6Q": 1}), gpus()["A10"])
    unknown = strip(plans.gpu(0, "Z", "equal", {"Z-1Q": 2}), None)
    stray = strip(plans.gpu(0, "A10", "equal", {"A16-8Q": 1}), gpus()["A10"])
    assert "does not fit on one GPU" in mix.note and len(mix.stretches) == 3
    assert "catalogue does not have this GPU" in unknown.note and len(unknown.stretches) == 2
    assert "no vGPU type of A10" in stray.note and len(stray.stretches) == 1


def test_a_page_shows_every_gpu_its_demands_vms_and_what_is_not_served():
    plan = plans.every_kind()
    page = Page(draw(plan))
    text = " ".join(page.texts)
    bars = [attrs for attrs in page.all("svg") if attrs.get("role") == "img"]
    assert len(bars) == sum(len(node["gpus"]) for node in plan["nodes"])
    for word in (
        "web-desktops",
        "cad/station-1",
        "cad/station-7",
        "llm-large",
        "gpu-c1.rack7.example",
        "0000:51:00.0",
        f"2 {_bars.TIMES} A10-12Q → 6 {_bars.TIMES} A10-4Q",
    ):
        assert word in text
    assert "taken by other demands and running VMs" in text and "not proven to be the best" in text and plan["caveats"][0] in text
    assert "Disturbs 2 VMs: cad/station-1, cad/station-2" in text


def test_every_bar_has_a_name_and_a_description_and_ids_are_unique():
    page = Page(draw(plans.every_kind()))
    ids = [attrs["id"] for _tag, attrs in page.found if attrs.get("id")]
    assert len(ids) == len(set(ids))
    for attrs in page.all("svg"):
        named = (attrs.get("aria-labelledby") or "").split()
        assert attrs.get("aria-hidden") == "true" or (len(named) == 2 and set(named) <= set(ids))
    assert {attrs["href"] for attrs in page.all("a")} <= {f"#{name}" for name in ids}
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.all("th")) and page.all("caption")


def test_a_page_fetches_nothing_and_runs_only_its_own_script():
    text = draw(plans.every_kind())
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#hatch)", text.replace("<!DOCTYPE", ""))
    assert not any(name in attrs for _tag, attrs in Page(text).found for name in ("src", "onclick", "onload", "srcset"))
    policy = next(attrs["content"] for attrs in Page(text).all("meta") if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'") and "script-src 'sha256-" in policy
    assert text.count("<script") == 1


def poisoned(value: t.Any) -> t.Any:
    """Every text of a plan with markup in it."""
    if isinstance(value, str):
        return value + EVIL
    if isinstance(value, dict):
        return {key + EVIL if key not in KEYS else key: poisoned(entry) if key != "mode" else EVIL for key, entry in value.items()}
    return [poisoned(entry) for entry in value] if isinstance(value, list) else value


KEYS = {"version", "nodes", "served", "unserved", "objectives", "status", "caveats", "node", "gpus", "demand", "count", "why", "name", "value"} | {
    "bound", "proven", "placements", "id", "size_gb", "vm", "type", *plans.gpu(0, "", "", {})
}  # fmt: skip


def test_text_of_a_plan_is_never_markup():
    text = draw(poisoned(plans.every_kind()))
    page = Page(text)
    assert text.count("<script") == 1 and "alert(1)" in " ".join(page.texts)
    clean = Page(draw(plans.every_kind()))
    assert {tag for tag, _attrs in page.found} == {tag for tag, _attrs in clean.found}
    assert {name for _tag, attrs in page.found for name in attrs} <= {name for _tag, attrs in clean.found for name in attrs}


def test_hundreds_of_gpus_start_closed_and_a_few_open():
    few, many = Page(draw(plans.fleet(8))), Page(draw(plans.fleet(200)))
    nodes = [[attrs for attrs in page.all("details") if attrs.get("class") == "node"] for page in (few, many)]
    assert all("open" in attrs for attrs in nodes[0]) and len(nodes[0]) == 2
    assert not any("open" in attrs for attrs in nodes[1]) and len(nodes[1]) == 50


def test_the_same_plan_gives_the_same_page_in_little_time():
    plan = plans.fleet(200)
    first = draw(copy.deepcopy(plan))
    started = time.process_time()
    assert draw(plan) == first
    assert time.process_time() - started < 1 and len(first) < 1_000_000


def test_a_label_is_cut_to_its_box_or_left_out():
    assert [_bars.cut("web-desktops", width) for width in (200, 60, 30, 20)] == ["web-desktops", "web-de…", "we…", ""]
    assert [_bars.short(name) for name in ("A10-4Q", "RTX6000-Ada-2Q", "A100-1-5CME", "DC-1-2Q")] == ["4Q", "2Q", "1-5CME", "1-2Q"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda plan: plan.update(version=2), "version is 2; this release reads version 1"),
        (lambda plan: plan.pop("nodes"), "nodes is None; it is a list"),
        (lambda plan: plan["nodes"].append("n"), "nodes[3] is 'n'; it is a mapping"),
        (lambda plan: plan["nodes"].append(plan["nodes"][0]), "nodes is 'gpu-a1'; the node is there twice"),
        (lambda plan: plan["nodes"][0]["gpus"][1].update(index=0), "node gpu-a1, gpus[1], index is 0; another GPU of the node has it"),
        (lambda plan: plan["nodes"][0]["gpus"][1].update(index="0"), "node gpu-a1, gpus[1], index is '0'"),
        (lambda plan: plan["nodes"][0]["gpus"][0].update(types=["A10-4Q"]), "gpus[0], types is ['A10-4Q']; it maps a type"),
        (
            lambda plan: plan["nodes"][0]["gpus"][0].update(types={"A10-4Q": -1}),
            "gpus[0], types, A10-4Q is -1; it is a whole number from 0 on",
        ),
        (lambda plan: plan["nodes"][0]["gpus"][0].update(before=3), "gpus[0], before is 3"),
        (lambda plan: plan["nodes"][0]["gpus"][0].pop("mode"), "gpus[0], mode is None"),
        (lambda plan: plan["nodes"][0]["gpus"].append(None), "gpus[4] is None"),
        (lambda plan: plan["nodes"][0]["gpus"][0].update(serves=[{"demand": 3}]), "serves[0], demand is 3"),
        (lambda plan: plan["nodes"][0]["gpus"][0].update(disturbed="vm"), "gpus[0], disturbed is 'vm'"),
        (lambda plan: plan.update(objectives=[{"name": "gpus", "value": True}]), "objectives[0], value is True"),
        (lambda plan: plan.update(caveats="all well"), "caveats is 'all well'"),
        (lambda plan: plan.update(served=[1]), "served is [1]"),
    ],
)
def test_what_is_no_plan_is_refused_by_the_name_of_the_item(change, error):
    plan = plans.every_kind()
    change(plan)
    with pytest.raises(ValueError, match=r"^reading a plan: .*Give what vgpu_plan returned") as raised:
        draw(plan)
    assert error in str(raised.value)


def test_an_empty_plan_and_no_mapping():
    assert "0 of 0" in draw(plans.plan([]))
    with pytest.raises(ValueError, match="the plan is 3; it is a mapping"):
        draw(3)
