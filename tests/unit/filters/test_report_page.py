# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report's page, JSON and verdict: whole, escaped and self-contained, and what ends a run is told in a few words."""

from __future__ import annotations

import html.parser
import json
import re
import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.filter.fleet_report_files import FilterModule as Files
from ansible_collections.gpufleet.kubevirt.plugins.filter.fleet_report_json import FilterModule as Json
from ansible_collections.gpufleet.kubevirt.plugins.filter.fleet_report_page import FilterModule as Page
from ansible_collections.gpufleet.kubevirt.plugins.filter.fleet_report_verdict import FilterModule as Verdict
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report._report import fleet_report
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report._text import fleet_report_text
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report._verdict import LIMIT, REASONS
from tests.report import fleets
from tests.report.fleets import cluster, gpu, host, intent, node, use, vgpu

files = Files().filters()["fleet_report_files"]
page = Page().filters()["fleet_report_page"]
to_json = Json().filters()["fleet_report_json"]
verdict = Verdict().filters()["fleet_report_verdict"]
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
Q4 = "nvidia.com/NVIDIA_A10-4Q"
Facts = dict[str, t.Any]


class Elements(html.parser.HTMLParser):
    """A page's elements, checked to be nested as they are opened."""

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
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]


def hostile() -> Facts:
    """A fleet in which everything that somebody else names is hostile."""
    holder = {"namespace": "ml", "pod": EVIL, "vmi": EVIL, "count": 1}
    held = {"parent": "p", "type": "NVIDIA A10-4Q", "users": [{"pid": 1, "comm": EVIL, "vm": f"ml_{EVIL}"}]}
    card = gpu(0, held, model=EVIL, driver=EVIL)
    log = [{"signature": EVIL, "count": 1, "line": EVIL}]
    found = node("n", "vm-vgpu", {Q4: 1, f"nvidia.com/{EVIL}": 1}, used={Q4: [holder]}, labels={"nvidia.com/vgpu.config": EVIL})
    return fleet_report(
        cluster(
            found,
            node(EVIL, EVIL),
            node("far", "container"),
            cluster_policy={"name": EVIL, "ready": False, "state": EVIL, "message": EVIL},
            release={"name": EVIL, "namespace": EVIL, "version": EVIL, "status": EVIL, "chart": EVIL, "values": {EVIL: EVIL}},
            kubevirt={"namespace": EVIL, "name": EVIL, "version": EVIL, "phase": EVIL, "permitted": {}},
        ),
        [intent("n", "vm-vgpu", [{"vgpu_type": "A10-4Q", "count": 6}]), intent("far", "container", host=EVIL)],
        verdicts={"n.example": {"rules": [{"problem": EVIL, "counts_as": "warn"}]}},
        facts={"n.example": host(card, kernel_log=log), EVIL: {"unreachable": True, "msg": EVIL}},
        wanted={"version": EVIL, "values": {EVIL: 1}},
        generated=EVIL,
    )


def small() -> Facts:
    return fleet_report(**fleets.large(8, 3).arguments())


@pytest.mark.parametrize("made", [small(), hostile(), fleet_report(cluster()), fleet_report(**fleets.large(60, 1).arguments())])
def test_a_page_is_whole_and_fetches_nothing(made):
    text = page(made)
    found = Elements(text)
    assert not [tag for tag in ("link", "img", "iframe", "object", "audio", "video", "base", "form") if found.all(tag)]
    assert len(found.all("script")) == 1
    for _tag, attrs in found.found:
        assert not {"src", "srcset", "style", "action"} & attrs.keys() or attrs.get("style") == "position:absolute"
        assert not [name for name in attrs if name.startswith("on")]
        assert (attrs.get("href") or "#").startswith("#")
    [policy] = [attrs["content"] for attrs in found.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "script-src 'sha256-" in policy
    assert not re.search(r"@import|url\((?!#)", text)


def test_a_page_has_one_main_headings_labels_and_unique_ids():
    found = Elements(page(small()))
    assert [len(found.all(tag)) for tag in ("main", "header", "footer", "h1")] == [1, 1, 1, 1]
    ids = [attrs["id"] for _tag, attrs in found.found if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _tag, attrs in found.found:
        assert (attrs.get("href") or f"#{ids[0]}")[1:] in ids
    assert all(attrs.get("scope") for attrs in found.all("th"))
    assert len(found.all("caption")) == len(found.all("table"))
    assert all(attrs.get("aria-label") for _tag, attrs in found.found if attrs.get("role") == "region")


def test_what_others_have_named_is_text_and_nothing_else():
    text = page(hostile())
    assert "<img" not in text and "alert(1)</script>" not in text and text.count("</script>") == 1
    said = "".join(Elements(text).texts)
    assert said.count(EVIL) > 10


def test_figures_holders_and_problems_stand_on_the_page():
    made = small()
    said = " ".join(Elements(page(made)).texts)
    for entry in made["nodes"]:
        for word in [entry["name"], *entry["allocatable"], *(card["address"] for card in entry["gpus"] or ())]:
            assert word in said
        for held in (one for card in entry["gpus"] or () for one in card["used"] or ()):
            assert held["vm"] in said
        for text in [drift[key] for drift in entry["drift"] for key in ("where", "wanted", "found", "remedy")]:
            assert text in said
    assert "Connection timed out" in said and "it is not ready" in said


def test_what_is_not_known_is_said_and_never_0():
    unknown = fleet_report(
        cluster(node("n", "vm-vgpu", {Q4: 2}, used={Q4: [use("ml/a")]}), node("m", "vm-vgpu", {Q4: 2})),
        [intent("n", "vm-vgpu"), intent("m", "vm-vgpu")],
        facts={"n.example": host(gpu(0, vgpu("A10-4Q")), gpu(1, vgpu("A10-4Q")))},
    )
    text = page(unknown)
    said = " ".join(Elements(text).texts)
    assert text.count('<abbr title="not known">?</abbr>') == 2 * 2 + 2  # used and free of two GPUs, and of all
    assert "not known: ml/a has 1 of nvidia.com/NVIDIA_A10-4Q" in said
    assert "Its GPUs are not known: the host was not read in this run." in said


def test_equal_regions_are_drawn_once():
    found = Elements(page(fleet_report(**fleets.large(100, 8).arguments())))
    assert len(found.all("symbol")) < 40 < len(found.all("use"))
    names = {attrs["id"] for attrs in found.all("symbol")}
    assert {(attrs["href"] or "")[1:] for attrs in found.all("use")} <= names


# ------------------------------------------------------------------ JSON


@pytest.mark.parametrize("made", [small(), hostile(), fleet_report(cluster())])
def test_the_json_is_the_report_with_a_line_per_node(made):
    text = to_json(made)
    assert json.loads(text) == made
    assert [line for line in text.splitlines() if line.startswith("  {") and '"allocatable": {' in line] == [
        line for line in text.splitlines() if '"reading"' in line and '"schedulable"' in line
    ]
    assert sum('"schedulable"' in line for line in text.splitlines()) == len(made["nodes"])


# ------------------------------------------------------------------ verdict


SICK = fleet_report(
    cluster(node("a", "container", ready=False), node("b", "container", {"nvidia.com/gpu": 1}), node("c", "container"), node("d", None)),
    [
        intent("a", "container"),
        intent("b", "container", [{"resource": "nvidia.com/gpu", "count": 2}]),
        intent("c", "container", state="unread"),
    ],
    facts={"c.example": {"unreachable": True}},
)


@pytest.mark.parametrize(
    ("made", "fail_on", "failed", "named"),
    [
        (SICK, [], [], []),
        (SICK, ["drift"], ["drift"], ["drift: a, b, d. "]),
        (SICK, "unhealthy,unreachable", ["unhealthy", "unreachable"], ["unhealthy: a. ", "unreachable: c. "]),
        (SICK, list(REASONS), list(REASONS), ["drift: ", "unhealthy: ", "unreachable: "]),
        (fleet_report(cluster()), list(REASONS), [], []),
    ],
)
def test_what_ends_a_run_is_what_was_asked_for_and_found(made, fail_on, failed, named):
    found = verdict(made, fail_on=fail_on, path="/r")
    assert found["failed"] == failed == found["stats"]["failed"]
    assert all(f"- {words}" in found["text"] for words in named) and bool(found["text"]) == bool(named)
    assert not named or "the report is in /r" in found["text"]
    assert found["stats"]["path"] == "/r"


@pytest.mark.parametrize("wrong", ["drft", ["drift", "bad"], 1, {"drift": True}, [None], None])
def test_a_word_that_means_nothing_is_refused(wrong):
    with pytest.raises(AnsibleFilterError, match=r"gpufleet_report_fail_on (is|has) .*drift, unhealthy, unreachable"):
        verdict(SICK, fail_on=wrong)


def test_the_stats_of_a_large_fleet_keep_to_8_kib():
    arguments = fleets.large(300, 4).arguments()
    for entry in [*arguments["fleet"]["nodes"], *arguments["intents"]]:
        key = "name" if "name" in entry else "node"
        entry[key] = entry[key].ljust(253, "x")
    arguments["fleet"]["possible_gpu_nodes"] = []
    stats = verdict(fleet_report(**arguments), path="/r" * 200)["stats"]
    assert len(json.dumps(stats)) <= LIMIT
    assert stats["drift"]["count"] > 50 and 0 < len(stats["drift"]["names"]) < 20
    assert stats["nodes"] == 300 and stats["gpus"] > 1000


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 12), st.integers(1, 3), st.integers(0, 999), st.lists(st.sampled_from(REASONS)))
def test_a_verdict_agrees_with_the_report(nodes, gpus, seed, fail_on):
    made = fleet_report(**fleets.large(nodes, gpus, seed).arguments())
    found = verdict(made, fail_on=fail_on)
    assert (made["status"] == "ok") == (not any(found["stats"][reason]["count"] for reason in REASONS))
    assert set(found["failed"]) == {reason for reason in fail_on if found["stats"][reason]["count"]}


@pytest.mark.parametrize("filter_", [page, to_json, verdict])
def test_another_schema_is_refused_by_each_filter(filter_):
    with pytest.raises(AnsibleFilterError, match="its schema is 7, and this release reads 1"):
        filter_({"schema": 7, "nodes": []})


# ------------------------------------------------------------------ all at once


def test_the_files_are_what_the_filters_make_one_by_one():
    arguments = fleets.large(9, 2).arguments()
    made = fleet_report(**arguments)
    found = files(arguments.pop("fleet"), path="/r", fail_on=["drift"], **arguments)
    assert found["files"] == {"fleet.json": to_json(made), "fleet.txt": fleet_report_text(made), "fleet.html": page(made)}
    assert found["shown"] == found["files"]["fleet.txt"].splitlines()
    assert {key: found[key] for key in ("failed", "text", "stats")} == verdict(made, fail_on=["drift"], path="/r")


def test_of_a_long_text_the_first_lines_are_shown():
    arguments = fleets.large(20, 1).arguments()
    found = files(arguments.pop("fleet"), path="/r", shown=5, **arguments)
    total = len(found["files"]["fleet.txt"].splitlines())
    assert len(found["shown"]) == 6 and found["shown"][-1] == f"({total - 5} more lines in /r/fleet.txt)"


def test_a_word_that_means_nothing_fails_the_run_and_not_the_report():
    found = files(cluster(), fail_on="drft", path="/r")
    assert found["failed"] == ["fail_on"] and "'drft'. Use drift, unhealthy, unreachable. The report is in /r" in found["text"]
    assert set(found["files"]) == {"fleet.json", "fleet.txt", "fleet.html"}
    with pytest.raises(AnsibleFilterError, match="fleet_report_files: 'possible_gpu_nodes'"):
        files({"nodes": []})
