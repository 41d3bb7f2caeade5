# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""How the picture of a plan looks, and what its few controls do. Without the script the page is complete, only not filtered."""

from __future__ import annotations

#: How many colours demands have; more demands than that share them, their names tell them apart.
COLOURS = 8

STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f6f8fa; --line: #d0d7de; --text: #1f2328; --soft: #57606a; --link: #0550ae;
  --warn: #8a3600; --warn-bg: #fff1e0; --bad: #a40e26; --ok: #116329; --edge: #57606a;
  --c0: #cfe2ff; --c1: #ffe0bd; --c2: #cdeccd; --c3: #f2d4f2; --c4: #fff0a8; --c5: #c7edf0; --c6: #ded6ff; --c7: #ffd5d3;
  --vm: #dde3e9; --idle: #ffffff; --free: #ffffff; --hatch: #b9c0c8; --lost: #e9edf1;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0d1117; --card: #161b22; --line: #3a424c; --text: #e9eef4; --soft: #a9b4c0; --link: #79b8ff;
    --warn: #ffb570; --warn-bg: #33220f; --bad: #ff9a92; --ok: #7ee08f; --edge: #8d98a5;
    --c0: #1d4a86; --c1: #7b4312; --c2: #1f5c2c; --c3: #6b2f6b; --c4: #5f520c; --c5: #10575d; --c6: #47399a; --c7: #7d2a2c;
    --vm: #414b57; --idle: #0d1117; --free: #0d1117; --hatch: #5a6572; --lost: #20262e;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 4rem; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem 1.25rem 4rem; background: var(--page); color: var(--text);
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: .2rem 0 .6rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
a { color: var(--link); } :focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -999rem; } .skip:focus { position: static; }
.soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .6rem; margin: .8rem 0; padding: 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .5rem .8rem; }
.tiles dt { color: var(--soft); font-size: .85rem; } .tiles dd { margin: 0; font-size: 1.35rem; font-weight: 600; }
.tiles .bad dd { color: var(--bad); } .tiles .warn dd { color: var(--warn); }
.note { background: var(--warn-bg); border-left: 4px solid var(--warn); padding: .5rem .9rem; margin: .5rem 0; border-radius: 4px; }
.note ul, .plain { margin: .2rem 0; padding-left: 1.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; } caption { text-align: left; color: var(--soft); padding: .3rem 0; }
th, td { text-align: left; padding: .3rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; } td.n { text-align: right; }
.map { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .35rem 1.2rem; padding: 0; list-style: none; }
.map li { display: flex; gap: .5rem; align-items: center; min-width: 0; }
.map a { flex: 0 1 8rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; } .map svg { flex: none; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; padding: 0; list-style: none; font-size: .9rem; }
.legend li { display: flex; align-items: center; gap: .4rem; }
.tools { position: sticky; top: 0; z-index: 1; background: var(--page); border-bottom: 1px solid var(--line); padding: .5rem 0;
  display: flex; flex-wrap: wrap; gap: .5rem 1.1rem; align-items: center; }
.tools[hidden] { display: none; }
.tools input[type=search] { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--edge); border-radius: 6px;
  padding: .3rem .6rem; width: 16rem; max-width: 100%; }
.tools button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--edge); border-radius: 6px;
  padding: .3rem .7rem; cursor: pointer; }
.node { border: 1px solid var(--line); border-radius: 8px; margin: .7rem 0; background: var(--card); }
.node > summary { cursor: pointer; padding: .55rem .9rem; } .node > summary h3 { display: inline; font-size: 1.02rem; margin: 0 .6rem 0 0; }
.gpu { padding: .35rem .9rem .7rem; border-top: 1px solid var(--line); } .gpu[hidden], .node[hidden] { display: none; }
.head { display: flex; flex-wrap: wrap; gap: .1rem .8rem; align-items: baseline; font-size: .9rem; margin: 0 0 .25rem; }
.head b { font-size: .98rem; } .head .room { margin-left: auto; color: var(--soft); }
.tag { border: 1px solid var(--edge); border-radius: 999px; padding: 0 .55rem; font-size: .8rem; }
.tag.change { border-color: var(--warn); color: var(--warn); font-weight: 600; }
.hit { color: var(--warn); font-size: .88rem; margin: .25rem 0 0; overflow-wrap: anywhere; } .fault { color: var(--bad); }
.bar { display: block; width: 100%; min-width: 44rem; height: auto; }
svg text { fill: var(--text); font: 12px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; } svg .t { font-weight: 600; }
svg .axis { fill: var(--soft); font-size: 11px; } svg .k { stroke: var(--edge); stroke-width: 1; }
.c0 { fill: var(--c0); } .c1 { fill: var(--c1); } .c2 { fill: var(--c2); } .c3 { fill: var(--c3); }
.c4 { fill: var(--c4); } .c5 { fill: var(--c5); } .c6 { fill: var(--c6); } .c7 { fill: var(--c7); }
.vm { fill: var(--vm); } .idle { fill: var(--idle); stroke-dasharray: 5 3; } .free { fill: var(--free); stroke-dasharray: 1 3; }
.lost { fill: url(#hatch); } #hatch rect { fill: var(--lost); } #hatch path { stroke: var(--hatch); stroke-width: 2; }
.m-line { fill: var(--free); stroke: var(--edge); } .m-used { fill: var(--c0); } .m-idle { fill: var(--vm); } .m-mark { fill: var(--warn); }
@media print { .tools { display: none; } .gpu { break-inside: avoid; } }
"""

SCRIPT = """
(function () {
  var tools = document.querySelector('.tools'), find = document.getElementById('find'), said = document.getElementById('said');
  if (!tools) { return; }
  tools.hidden = false;
  var nodes = Array.prototype.slice.call(document.querySelectorAll('.node'));
  var boxes = Array.prototype.slice.call(tools.querySelectorAll('input[type=checkbox]'));
  function show() {
    var text = find.value.trim().toLowerCase(), on = boxes.filter(function (box) { return box.checked; }), shown = 0;
    nodes.forEach(function (node) {
      var some = 0;
      node.querySelectorAll('.gpu').forEach(function (gpu) {
        var fits = (!text || gpu.dataset.find.indexOf(text) >= 0) && on.every(function (box) {
          return gpu.dataset.is.split(' ').indexOf(box.value) >= 0;
        });
        gpu.hidden = !fits;
        some += fits ? 1 : 0;
      });
      node.hidden = !some;
      if (some && (text || on.length)) { node.open = true; }
      shown += some;
    });
    said.textContent = shown + (shown === 1 ? ' GPU shown' : ' GPUs shown');
  }
  function all(open) { return function () { nodes.forEach(function (node) { node.open = open; }); }; }
  function aim() {
    var at = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (at && at.classList.contains('node')) { at.open = true; at.scrollIntoView(); }
  }
  find.addEventListener('input', show);
  boxes.forEach(function (box) { box.addEventListener('change', show); });
  document.getElementById('open').addEventListener('click', all(true));
  document.getElementById('close').addEventListener('click', all(false));
  window.addEventListener('hashchange', aim);
  aim();
  show();
})();
"""
