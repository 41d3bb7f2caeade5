# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""How the page of a report looks, and what its few controls do. Without the script the page is complete, only not filtered.

Colours and the look of GPU regions are those of a plan's page.
"""

from __future__ import annotations

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._picture_style import STYLE as PLAN

STYLE = (
    PLAN
    + """
body { max-width: 84rem; }
header { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: baseline; } header h1 { margin-bottom: 0; }
header p { margin: 0; width: 100%; overflow-wrap: anywhere; }
.badge { border: 1px solid currentColor; border-radius: 999px; padding: 0 .55rem; font-size: .82rem; font-weight: 600; white-space: nowrap; }
.badge.ok { color: var(--ok); } .badge.warn { color: var(--warn); } .badge.bad { color: var(--bad); } .badge.soft { color: var(--soft); }
.tiles .ok dd { color: var(--ok); } .tiles dd small { font-size: .85rem; font-weight: 400; color: var(--soft); }
.tools input[type=search] { width: 19rem; }
.tools select { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--edge); border-radius: 6px; padding: .3rem .4rem; }
.node { content-visibility: auto; contain-intrinsic-size: auto 2.6rem; margin: .4rem 0; }
.node > summary { display: flex; flex-wrap: wrap; gap: .1rem .7rem; align-items: baseline; padding: .45rem .9rem; }
.node > summary::before { content: "\\25B8"; color: var(--soft); width: .8rem; } .node[open] > summary::before { content: "\\25BE"; }
.node > summary::-webkit-details-marker { display: none; } .node > summary h3 { overflow-wrap: anywhere; margin: 0; }
.node > summary .end { margin-left: auto; } .in { border-top: 1px solid var(--line); padding: .2rem .9rem .7rem; }
.in ul { margin: .3rem 0; padding-left: 1.2rem; } .in li { overflow-wrap: anywhere; } .in .bad { color: var(--bad); }
.in .warn { color: var(--warn); } td { overflow-wrap: anywhere; }
.in p { margin: .35rem 0; overflow-wrap: anywhere; }
.g { width: 100%; } .g caption, .wide caption { font-weight: 600; color: var(--text); }
.g th, .g td { padding: .22rem .55rem; } .g tbody th { font-weight: 600; white-space: nowrap; } .g th i { font-style: normal; font-weight: 400; }
.g td:nth-last-child(n+3):nth-last-child(-n+8), .g thead th:nth-last-child(n+3):nth-last-child(-n+8) { text-align: right; }
.g td:last-child { min-width: 12rem; } .wide td { white-space: nowrap; } .g td:nth-last-child(2) { width: 170px; }
.g td.n { text-align: right; } .wide thead th.n { text-align: right; }
.g td:nth-last-child(n+9) { white-space: nowrap; }
.r { display: block; width: 160px; height: 18px; } .k { stroke: var(--edge); stroke-width: 1; }
tr.hit > * { background: var(--warn-bg); color: var(--text); }
.bars { margin-top: .5rem; } .bars p { margin: .5rem 0 .1rem; font-size: .9rem; }
.none { padding: .8rem; color: var(--soft); } .none[hidden] { display: none; } .scroll:focus-visible { outline-offset: -2px; }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: .6rem; color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  body { padding: .6rem .7rem 3rem; } .tools { position: static; } .tools label { width: 100%; } .tools input[type=search] { width: 100%; }
  .tools .box { width: auto; } .node > summary .end { margin-left: 1.4rem; width: 100%; }
  .g td:last-child { min-width: 9rem; } table:not(.g):not(.wide) td { min-width: 7rem; } .tiles { grid-template-columns: repeat(2, 1fr); }
}
"""
)

SCRIPT = """
(function () {
  var tools = document.querySelector('.tools');
  if (!tools) { return; }
  tools.hidden = false;
  var find = document.getElementById('find'), said = document.getElementById('said'), none = document.querySelector('.none');
  var choices = Array.prototype.slice.call(tools.querySelectorAll('select'));
  var boxes = Array.prototype.slice.call(tools.querySelectorAll('input[type=checkbox]'));
  var nodes = Array.prototype.slice.call(document.querySelectorAll('.node')), opened = [], marked = [];
  var texts = nodes.map(function (node) { return node.textContent.toLowerCase(); });
  // Of many nodes, what is closed is kept out of the document: hiding and showing it would take the browser a second.
  var bodies = nodes.map(function (node) { return node.querySelector('.in'); }), many = nodes.length > 100;
  function put(number) {
    var node = nodes[number], body = bodies[number];
    if (node.open && !body.parentNode) { node.appendChild(body); }
    if (!node.open && body.parentNode && many) { body.remove(); }
  }
  function turn(node, open) { node.open = open; put(nodes.indexOf(node)); }
  function mark(text, shown) {
    marked.forEach(function (row) { row.classList.remove('hit'); });
    opened.forEach(function (node) { turn(node, false); });
    marked = []; opened = [];
    if (!text || shown.length > 20) { return; }
    shown.forEach(function (node) {
      if (!node.open) { turn(node, true); opened.push(node); }
      node.querySelectorAll('tbody tr').forEach(function (row) {
        if (row.textContent.toLowerCase().indexOf(text) >= 0) { row.classList.add('hit'); marked.push(row); }
      });
    });
  }
  function show() {
    var text = find.value.trim().toLowerCase(), shown = [];
    var need = boxes.filter(function (box) { return box.checked; }).map(function (box) { return box.value; });
    choices.forEach(function (choice) { if (choice.value) { need.push(choice.value); } });
    nodes.forEach(function (node, number) {
      var is = ' ' + node.dataset.is + ' ';
      var fits = (!text || texts[number].indexOf(text) >= 0) && need.every(function (word) { return is.indexOf(' ' + word + ' ') >= 0; });
      if (node.hidden === fits) { node.hidden = !fits; }
      if (fits) { shown.push(node); }
    });
    mark(text, shown);
    none.hidden = shown.length > 0;
    said.textContent = shown.length + ' of ' + nodes.length + (nodes.length === 1 ? ' node shown' : ' nodes shown');
  }
  function all(open) {
    return function () { opened = []; nodes.forEach(function (node) { if (!node.hidden) { turn(node, open); } }); };
  }
  function aim() {
    var at = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (at && at.classList.contains('node')) { at.hidden = false; turn(at, true); at.scrollIntoView(); }
  }
  nodes.forEach(function (node, number) { put(number); node.addEventListener('toggle', function () { put(number); }); });
  find.addEventListener('input', show);
  choices.concat(boxes).forEach(function (control) { control.addEventListener('change', show); });
  document.getElementById('open').addEventListener('click', all(true));
  document.getElementById('close').addEventListener('click', all(false));
  window.addEventListener('hashchange', aim);
  said.textContent = nodes.length + (nodes.length === 1 ? ' node' : ' nodes');
  aim();
})();
"""
