# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report's page in a headless Chromium: what is shown, what the filters leave, contrast in both schemes, keyboard, and no complaint."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report import _page
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report._report import fleet_report
from tests.report import chromium, fleets
from tests.unit.filters.test_report_page import EVIL, hostile

#: The least contrast of text that is not large (WCAG 2.2, 1.4.3).
CONTRAST = 4.5
#: Milliseconds from a key to the filtered page of 1 000 nodes, drawn.
FILTER = 200.0

#: The text nodes that can be seen, each with the contrast of its colour to what is behind it.
CONTRASTS = """
(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((value) => { value /= 255; return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) { return colour.slice(0, 3); }
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, words = walker.currentNode.textContent.trim();
    if (!words || ['SCRIPT', 'STYLE', 'TITLE', 'DESC', 'OPTION'].includes(element.tagName.toUpperCase())) { continue; }
    if (!element.checkVisibility()) { continue; }
    const style = getComputedStyle(element);
    let front, back;
    if (element.tagName === 'text') {
      front = parse(style.fill);
      const box = element.parentElement.querySelector('rect');
      const fill = box && !element.classList.contains('axis') ? getComputedStyle(box).fill : '';
      back = fill.startsWith('rgb') ? parse(fill) : behind(element.closest('svg').parentElement);
    } else {
      front = parse(style.color); back = behind(element);
    }
    const [a, b] = [light(front.slice(0, 3)), light(back.slice(0, 3))].sort((x, y) => y - x);
    found.push([words.slice(0, 40), (a + 0.05) / (b + 0.05)]);
  }
  return found;
})()
"""
SHOWN = "[...document.querySelectorAll('.node')].filter((node) => !node.hidden).map((node) => node.querySelector('h3').textContent)"
SAID = "document.getElementById('said').textContent"


@pytest.fixture(scope="session")
def tab() -> t.Iterator[chromium.Page]:
    program = chromium.find()
    assert program, "Testing the report's page: there is no Chromium here. Install chromium, or name it in GPUFLEET_CHROMIUM"
    with chromium.started(program) as found:
        yield found


def write(directory: Path, report: dict[str, t.Any]) -> Path:
    path = directory / "fleet.html"
    path.write_text(_page.page(report), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("few"), fleet_report(**fleets.large(9, 3).arguments()))


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("many"), fleet_report(**fleets.large(1000, 8).arguments()))


@pytest.fixture(autouse=True)
def without_complaint(tab: chromium.Page) -> t.Iterator[None]:
    """No page may write to the console, or ask for anything but itself."""
    tab.complaints.clear()
    tab.requests.clear()
    yield
    tab.run("1")
    assert tab.complaints == []
    assert all(url.startswith("file:///") and url.split("#")[0].endswith("fleet.html") for url in tab.requests), tab.requests


def find(tab: chromium.Page, text: str) -> None:
    tab.run(
        f"(() => {{ const at = document.getElementById('find'); at.value = {json.dumps(text)}; at.dispatchEvent(new Event('input')); }})()"
    )


def choose(tab: chromium.Page, number: int, value: str) -> None:
    script = f"const at = document.querySelectorAll('.tools select')[{number}]; at.value = {json.dumps(value)};"
    tab.run(f"(() => {{ {script} at.dispatchEvent(new Event('change')); }})()")


def test_all_nodes_are_shown_with_their_gpus(tab, few):
    tab.open(few)
    assert tab.run("document.title") == "GPU fleet: attention"
    assert tab.run(SHOWN) == [f"gpu-{number:04}" for number in range(9)]
    assert tab.run("document.querySelectorAll('.g tbody th').length") == 8 * 3  # one host cannot be reached
    assert tab.run("[...document.querySelectorAll('svg.r')].every((svg) => svg.getBBox().width > 0)")
    assert tab.run(SAID) == "9 nodes"


def test_the_search_leaves_what_it_names_and_says_how_many(tab, few):
    tab.open(few)
    holder = tab.run("document.querySelector('.g tbody tr td:last-child').textContent.split(',')[0]")
    find(tab, holder.upper())
    assert tab.run(SHOWN) == ["gpu-0000"] and tab.run(SAID) == "1 of 9 nodes shown"
    assert tab.run("document.querySelectorAll('tr.hit').length") == 1
    find(tab, "no such thing")
    assert tab.run(SHOWN) == [] and tab.run("document.querySelector('.none').checkVisibility()")
    find(tab, "")
    assert len(tab.run(SHOWN)) == 9 and not tab.run("document.querySelector('.none').checkVisibility()")


@pytest.mark.parametrize(
    ("select", "value", "left"),
    [
        (0, "w-vm-passthrough", ["gpu-0002", "gpu-0006"]),
        (0, "w-container", ["gpu-0003", "gpu-0007"]),
        (1, "unreachable", ["gpu-0007"]),
        (1, "unhealthy", ["gpu-0005"]),
    ],
)
def test_the_choices_leave_what_they_name(tab, few, select, value, left):
    tab.open(few)
    choose(tab, select, value)
    assert tab.run(SHOWN) == left
    choose(tab, select, "")
    assert len(tab.run(SHOWN)) == 9


def test_the_boxes_leave_nodes_with_free_devices(tab, few):
    tab.open(few)
    tab.run("document.querySelector('input[value=has-free]').click()")
    left = tab.run(SHOWN)
    assert 0 < len(left) < 9 and all(
        "has-free" in words for words in tab.run("[...document.querySelectorAll('.node:not([hidden])')].map((n) => n.dataset.is)")
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_text_can_be_read_and_nothing_is_wider_than_the_screen(tab, few, scheme, width):
    tab.open(few, width=width, scheme=scheme)
    find(tab, "team-")
    found = tab.run(CONTRASTS)
    assert len(found) > 200
    assert [entry for entry in found if entry[1] < CONTRAST] == []
    assert tab.run("document.documentElement.scrollWidth") <= width


def test_the_scheme_is_followed(tab, few):
    colours = set()
    for scheme in ("light", "dark"):
        tab.open(few, scheme=scheme)
        colours.add(tab.run("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


def test_the_page_can_be_used_with_the_keyboard(tab, many):
    tab.open(many)
    tab.press("Tab")
    assert tab.run("document.activeElement.textContent") == "Skip to the nodes"
    order = []
    for _press in range(60):
        tab.press("Tab")
        order.append(tab.run("document.activeElement.id || document.activeElement.tagName"))
        if order[-1] == "SUMMARY" and tab.run("!!document.activeElement.closest('.node')"):
            break
    assert "find" in order and "open" in order and order[-1] == "SUMMARY"
    assert not tab.run("document.querySelector('.node').open")
    tab.press("Enter")
    assert tab.run("document.querySelector('.node').open")
    assert tab.run("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_a_screen_reader_is_told_landmarks_names_and_changes(tab, few):
    tab.open(few)
    tree = tab.accessible()
    roles = [entry["role"]["value"] for entry in tree if not entry.get("ignored")]
    assert roles.count("main") == 1 and roles.count("banner") == 1 and roles.count("contentinfo") == 1 and roles.count("search") == 1
    assert roles.count("status") == 1 and "columnheader" in roles and "rowheader" in roles
    for entry in tree:
        if not entry.get("ignored") and entry["role"]["value"] in ("searchbox", "combobox", "checkbox", "button", "region", "img", "link"):
            assert entry["name"]["value"], entry


def test_a_link_of_the_list_opens_its_node(tab, many):
    tab.open(many)
    target = tab.run("(() => { const at = document.querySelector('#attention ~ .scroll a'); at.click(); return at.hash.slice(1); })()")
    tab.run("new Promise((done) => setTimeout(done, 50))")
    assert tab.run(f"document.getElementById({json.dumps(target)}).open")


def test_without_its_script_the_page_is_complete(tab, few):
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(few)
        text = json.dumps(tab.call("DOM.getOuterHTML", nodeId=tab.call("DOM.getDocument")["root"]["nodeId"])["outerHTML"])
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
    assert all(f"gpu-{number:04}" in text for number in range(9)) and 'role=\\"search\\"' in text and " hidden" in text


def test_hostile_names_are_shown_as_they_are(tab, tmp_path):
    tab.open(write(tmp_path, hostile()))
    assert EVIL in tab.run("document.body.innerText")
    assert tab.run("document.images.length") == 0 and tab.run("document.scripts.length") == 1
    find(tab, "alert(1)")
    assert len(tab.run(SHOWN)) == 3


@pytest.mark.parametrize("text", ["gpu-0123", "desk-0", "team-7/", "nothing of this name"])
def test_the_filter_of_a_thousand_nodes_is_quick(tab, many, text):
    tab.open(many)
    took = tab.run(
        f"""(async () => {{
          const at = document.getElementById('find'), drawn = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
          const all = [];
          for (const words of {json.dumps([text, "", text])}) {{
            await drawn();
            const begun = performance.now();
            at.value = words; at.dispatchEvent(new Event('input')); await drawn();
            all.push(performance.now() - begun);
          }}
          return all;
        }})()"""
    )
    print(f"{text!r}: {', '.join(f'{ms:.0f}' for ms in took)} ms")
    assert max(took) <= FILTER
