# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How rules are read and judged, with rules made for it. The collection's own rules are proved in test_rules.py."""

from __future__ import annotations

import json
import re

import pytest
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.filter.preflight_verdicts import FilterModule
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._preflight import _functions, _rules
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._preflight._verdicts import preflight_verdicts

INTENT = {"host": "gpu01", "node": "gpu01", "workload": "vm-vgpu"}
WORST = ("pass", "warn", "will_fix", "fail")
GPUS = "map(&hot, facts.gpus)"
NOT_ASKED = {"needs": ["facts.host.name"]}


def rule(**more):
    return {
        "id": "hot",
        "title": "No GPU is hot",
        "workloads": ["vm-vgpu"],
        "severity": "fail",
        "needs": ["facts.gpus"],
        "query": "facts.gpus[?hot].address",
        "problem": "GPU {offenders} is hot",
        "remedy": "Cool {facts.host.name}",
        **more,
    }


def facts(*hot, **more):
    return {"gpus": [{"address": f"gpu{number}", "hot": value} for number, value in enumerate(hot)], "host": {"name": "gpu01"}, **more}


def judge(data, *rules, intent=INTENT, **more):
    return preflight_verdicts(data, rules=rules, intent=intent, **more)


def always(**more):
    """A rule that finds something on every host that says its name."""
    return rule(**{"query": "facts.host.name != ''", "needs": ["facts.host.name"], **more})


# ------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("data", "more", "fixers", "verdict", "counts_as"),
    [
        (facts(False), {}, (), "pass", "pass"),
        (facts(True), {}, (), "fail", "fail"),
        (facts(True), {"severity": "warn"}, (), "warn", "warn"),
        (facts(True), {"fixed_by": "fan"}, ["fan"], "will_fix", "will_fix"),
        (facts(True), {"fixed_by": "fan"}, ["pump"], "fail", "fail"),
        (facts(True), {}, ["fan"], "fail", "fail"),
        (facts(False), {"fixed_by": "fan"}, ["fan"], "pass", "pass"),
        ({}, {}, (), "unknown", "fail"),
        ({}, {"severity": "warn"}, (), "unknown", "warn"),
        ({}, {"unknown": {"as": "warn", "because": "nobody is harmed"}}, (), "unknown", "warn"),
        ({}, {"unknown": {"as": "pass", "because": "nobody is harmed"}}, (), "unknown", "pass"),
        # What is not known is not repaired either.
        ({}, {"fixed_by": "fan"}, ["fan"], "unknown", "fail"),
        (facts(False, None), {"needs": [GPUS]}, (), "unknown", "fail"),
        ({}, {"needs": [GPUS]}, (), "unknown", "fail"),
        (facts(False), {"needs": [GPUS]}, (), "pass", "pass"),
        (facts(), {"needs": [GPUS]}, (), "pass", "pass"),
        # A query without an answer is none: null, or an error of JMESPath.
        (facts(False), {"query": "facts.gpus[0].age"}, (), "unknown", "fail"),
        (facts(False), {"query": "max(facts.gpus[].address) > length(facts.gpus[0].hot)"}, (), "unknown", "fail"),
        (facts(), {"query": "facts.host.name == 'gpu01'", **NOT_ASKED}, (), "fail", "fail"),
        (facts(), {"query": "facts.host.name == intent.node && node.name == 'n'", "needs": ["facts.host.name", "node.name"]}, (), "fail", "fail"),
        (facts(), {"query": "cluster.kubevirt.version == '1' && wanted.it", "needs": ["cluster.kubevirt.version"]}, (), "fail", "fail"),
    ],
)  # fmt: skip
def test_the_verdict_of_a_rule_is_that_of_the_host(data, more, fixers, verdict, counts_as):
    seen = {"node": {"name": "n"}, "cluster": {"kubevirt": {"version": "1"}}, "wanted": {"it": True}}
    found = judge(data, rule(**more), fixers=fixers, **seen)
    assert (found["rules"][0]["verdict"], found["rules"][0]["counts_as"], found["verdict"]) == (verdict, counts_as, counts_as)


def test_a_finding_names_offenders_and_what_to_do():
    found = judge(facts(True, False, True), rule(reference="thermodynamics"))
    assert (found["rules"][0]["problem"], found["rules"][0]["remedy"]) == ("GPU gpu0, gpu2 is hot", "Cool gpu01")
    assert found["rules"][0]["offenders"] == ["gpu0", "gpu2"]
    assert found["rules"][0]["reference"] == "thermodynamics"


def test_a_placeholder_without_a_value_reads_unknown():
    found = judge(facts(True), rule(problem="{facts.host.vendor} {facts.gpus[*].address} {facts.host.name}"))
    assert found["why"] == "unknown gpu0 gpu01"


def test_rules_of_other_workloads_are_not_asked():
    found = judge(facts(True), rule(workloads=["container"]))
    assert (found["verdict"], found["rules"]) == ("pass", [])


@pytest.mark.parametrize(("own", "before", "after"), [(None, "will_fix", "fail"), ("before", "will_fix", None), ("after", None, "fail")])
def test_repairs_excuse_before_them_only_and_a_rule_can_be_for_one_of_the_two(own, before, after):
    only = {} if own is None else {"when": own}
    for when, expected in (("before", before), ("after", after)):
        found = judge(facts(True), rule(fixed_by="fan", **only), fixers=["fan"], when=when)
        assert [entry["verdict"] for entry in found["rules"]] == ([expected] if expected else [])
        assert found["when"] == when


def test_a_host_is_judged_before_or_after_and_at_no_other_time():
    with pytest.raises(ValueError, match="before or after"):
        judge(facts(), rule(), when="now")


@pytest.mark.parametrize("intent", [None, {}, {"workload": None}, {"workload": "vm-magic"}])
def test_a_host_without_a_workload_is_an_error_and_no_pass(intent):
    with pytest.raises(ValueError, match="workload"):
        judge(facts(True), rule(), intent=intent)


@pytest.mark.parametrize(
    ("path", "reasons", "said"),
    [
        ("facts.gpus", {"gpus": "no sysfs"}, "facts.gpus (no sysfs)"),
        (GPUS, {"gpus.0000:41:00.0.hot": "asleep", "gpus.0000:41:00.0.mig": "other"}, "map(&hot, facts.gpus) (asleep)"),
        ("facts.gpus && facts.driver.present", {"host.present": "of the host"}, "known: facts.gpus && facts.driver.present"),
        ("facts.gpus && facts.gone", {}, "facts.gone"),
    ],
)
def test_an_unknown_rule_says_why_its_facts_are_not_known(path, reasons, said):
    found = judge({"gpus": None, "unknown": reasons}, rule(needs=[path]))
    assert found["rules"][0]["problem"].endswith(said)


def test_an_unknown_that_counts_for_less_says_why():
    found = judge({}, rule(unknown={"as": "pass", "because": "nobody is harmed"}))
    assert "nobody is harmed" in found["rules"][0]["problem"]
    assert "nobody is harmed" in found["text"]


SEVERITIES = st.lists(st.tuples(st.sampled_from(["fail", "warn"]), st.booleans(), st.booleans()), max_size=6)


@given(SEVERITIES)
def test_the_worst_rule_decides_and_repairs_never_excuse_a_failure(kinds):
    rules = [
        always(id=f"r{number}", severity=severity, query=f"`{str(bad).lower()}`", **({"fixed_by": "fan"} if fixed else {}))
        for number, (severity, bad, fixed) in enumerate(kinds)
    ]
    before, after = judge(facts(), *rules, fixers=["fan"]), judge(facts(), *rules)
    expected = ["will_fix" if fixed else severity for severity, bad, fixed in kinds if bad]
    assert before["verdict"] == max(expected, key=WORST.index, default="pass")
    assert after["verdict"] == max((severity for severity, bad, _ in kinds if bad), key=WORST.index, default="pass")
    for found in (before, after):
        assert bool(found["why"]) == (found["verdict"] == "fail") == ("refused" in found["text"])
        assert [entry["id"] for entry in found["rules"]] == [entry["id"] for entry in rules]


# ------------------------------------------------------------------ the text


def test_the_text_shows_what_matters_and_counts_the_rest():
    rules = [rule(id="meh", severity="warn", problem="Dusty"), rule(), rule(id="fine", query="`false`")]
    found = judge(facts(True), *rules, site_rules=[{"id": "fine", "silence": "we know"}, rule(id="good", query="`false`")])
    assert found["text"].splitlines() == [
        "Judging gpu01 as vm-vgpu: refused for 1 reason. Rules: 4, 1 passed, 1 silenced.",
        "- fail      hot  GPU gpu0 is hot. Cool gpu01.",
        "- warn      meh  Dusty. Cool gpu01.",
        "Nothing was changed on this host. The other hosts go on.",
    ]
    assert found["why"] == "GPU gpu0 is hot"


def test_after_repairs_the_text_does_not_say_that_nothing_was_changed():
    assert "Nothing was changed" not in judge(facts(True), rule(), when="after")["text"]


def test_a_good_host_gets_one_line():
    assert judge(facts(False), rule())["text"] == "Judging gpu01 as vm-vgpu: nothing stands in the way. Rules: 1, 1 passed, 0 silenced."


def test_the_result_can_be_stored_and_says_whom_it_is_about():
    found = judge(facts(True), rule())
    assert json.loads(json.dumps(found)) == found
    assert (found["host"], found["workload"], found["when"]) == ("gpu01", "vm-vgpu", "before")


# ------------------------------------------------------------------ rules of the site


def test_a_site_adds_replaces_and_silences():
    own = [rule(id="new", severity="warn"), rule(severity="warn"), {"id": "loud", "silence": "we know"}]
    found = judge(facts(True), rule(), rule(id="loud"), site_rules=own)
    assert {entry["id"]: entry["verdict"] for entry in found["rules"]} == {"hot": "warn", "loud": "silenced", "new": "warn"}
    assert found["verdict"] == "warn"
    assert "we know" in next(entry for entry in found["rules"] if entry["id"] == "loud")["problem"]


def test_a_rule_that_cannot_be_told_can_be_silenced():
    assert judge({}, rule(), site_rules=[{"id": "hot", "silence": "no sensors"}])["verdict"] == "pass"


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"id": "gone", "silence": "x"}, ["'gone'", "silence", "there is none"]),
        ({"id": "hot", "silence": " "}, ["'hot'", "silence", "not empty"]),
        ({"id": "hot", "silence": None}, ["'hot'", "silence", "not of type 'string'"]),
        ({"id": "hot", "silence": "x", "severity": "warn"}, ["'hot'", "severity is no field of a silence"]),
        (rule(id="mine", query="facts.gpus[?"), ["'mine'", "query", "JMESPath"]),
        (rule(id="mine", needs=["facts..gpus"]), ["'mine'", "needs", "JMESPath"]),
        (rule(id="mine", problem="{facts..gpus}"), ["'mine'", "problem", "JMESPath"]),
        (rule(id="mine", severity="maybe"), ["'mine'", "severity", "'maybe'"]),
        (rule(id="mine", when="later"), ["'mine'", "when", "'later'"]),
        (rule(id="mine", unknown="pass"), ["'mine'", "unknown", "not of type 'object'"]),
        (rule(id="mine", unknown={"as": "pass"}), ["'mine'", "because is missing"]),
        (rule(id="mine", unknown={"as": "pass", "because": "x"}), ["'mine'", "unknown.because", "Ten characters"]),
        (rule(id="mine", unknown={"as": "fail", "because": "better safe than sorry"}), ["'mine'", "unknown.as", "'fail'"]),
        (rule(id="mine", remedy=""), ["'mine'", "remedy"]),
        ({key: value for key, value in rule(id="mine").items() if key != "remedy"}, ["'mine'", "remedy is missing"]),
        ({key: value for key, value in rule(id="mine").items() if key != "needs"}, ["'mine'", "needs is missing"]),
        (rule(id="mine", check="x"), ["'mine'", "check is no field of a rule"]),
        (rule(id="mine", workloads="vm-vgpu"), ["'mine'", "workloads", "vm-vgpu"]),
        (rule(id="mine", workloads=["vm_vgpu"]), ["'mine'", "workloads", "vm_vgpu"]),
        (rule(id="mine", workloads=[]), ["'mine'", "workloads"]),
        (rule(id="mine", needs="facts.gpus"), ["'mine'", "needs", "not of type 'array'"]),
        (rule(id="mine", needs=[]), ["'mine'", "needs"]),
        ({"title": "nameless"}, ["(without id)", "id is missing"]),
        ("silence: everything", ["mapping", "silence: everything"]),
        (rule(id="Mine"), ["'Mine'", "id", "Lower case"]),
        # Who reads a fact must ask for it.
        (rule(id="mine", query="facts.host.age == `3`"), ["'mine'", "query", "reads facts.host.age", "needs"]),
        (rule(id="mine", query="facts.gpus[?hot] && node.labels.a == 'b'"), ["'mine'", "query", "reads node.labels.a"]),
        (rule(id="mine", query="facts.host.age == `3`", needs=["facts.host"]), ["'mine'", "reads facts.host.age"]),
        (rule(id="mine", query="gpus[?hot]"), ["'mine'", "query", "reads gpus", "facts, node, cluster, intent, wanted"]),
        (rule(id="mine", remedy="Ask {somebody.else}"), ["'mine'", "remedy", "reads somebody"]),
    ],
)
def test_a_wrong_rule_is_named_with_its_field_and_judges_nobody(site, words):
    with pytest.raises(ValueError) as caught:
        judge(facts(False), rule(), site_rules=[site])
    for word in words:
        assert word in str(caught.value)


def test_two_rules_of_the_site_with_one_name_are_refused():
    with pytest.raises(ValueError, match="two of this name"):
        judge(facts(False), rule(), site_rules=[rule(id="mine"), rule(id="mine")])


def test_a_rule_of_another_workload_is_checked_all_the_same():
    with pytest.raises(ValueError, match="'mine'"):
        _rules.rules(own=[rule(id="mine", workloads=["container"], query="[")])


# ------------------------------------------------------------------ what a query reads


@pytest.mark.parametrize(
    ("expression", "paths"),
    [
        ("facts.a.b", ["facts.a.b"]),
        ("facts.gpus[?hot && driver == 'x'].address", ["facts.gpus"]),
        ("facts.gpus[0].a.b", ["facts.gpus"]),
        ("facts.gpus[*].bars[]", ["facts.gpus"]),
        ("facts.gpus[].a | repeated(@)", ["facts.gpus"]),
        ("map(&bars, facts.gpus)", ["facts.gpus"]),
        ("values(facts.groups)[].blockers[] | [?foreign]", ["facts.groups"]),
        ("!(facts.a) && (node.b || 'c') != intent.d", ["facts.a", "intent.d", "node.b"]),
        ("facts.a && facts.a.b", ["facts.a", "facts.a.b"]),
        ("[facts.a, facts.b] | [?@]", ["facts.a", "facts.b"]),
        ("{x: facts.a, y: facts.b.c}", ["facts.a", "facts.b.c"]),
        ('node.labels."nvidia.com/x"', ["node.labels.nvidia.com/x"]),
        ("facts.a.*.b", ["facts.a"]),
        ("facts.a[1:2].b", ["facts.a"]),
        ("join(', ', facts.a) == cluster.b", ["cluster.b", "facts.a"]),
        ("`1`", []),
    ],
)
def test_what_an_expression_reads(expression, paths):
    assert sorted(".".join(path) for path in _functions.paths(_functions.compiled(expression))) == paths


# ------------------------------------------------------------------ functions


@pytest.mark.parametrize(
    ("left", "right", "older"),
    [
        ("5.15.0-119-generic", "6.0", True),
        ("5.9", "5.15", True),
        ("6.0.0-1", "6.0", False),
        ("6", "6.0", False),
        ("6.0", "6.0.1", True),
        ("5.14.0-427.el9_4.x86_64", "5.14", False),
        ("10.1", "9.9", False),
        ("v1.8.2", "1.9.0", True),
    ],
)
def test_versions_are_compared_as_numbers(left, right, older):
    assert judge(facts(), always(query=f"version_lt('{left}', '{right}')"))["verdict"] == ("fail" if older else "pass")


NUMBERS = st.lists(st.integers(0, 99), min_size=1, max_size=4).map(lambda numbers: ".".join(map(str, numbers)))


@given(NUMBERS, NUMBERS)
def test_of_two_versions_at_most_one_is_older_and_equal_ones_are_each_others(left, right):
    assert not (_functions.older(left, right) and _functions.older(right, left))
    assert not _functions.older(left, left)
    assert _functions.among(left, [right]) == (not _functions.older(left, right) and not _functions.older(right, left))
    assert _functions.among(left, [f"{left}.*"])


@pytest.mark.parametrize(
    ("call", "verdict"),
    [
        ('version_in(\'v0.58.0\', `["0.58.0", "0.58.1"]`)', "fail"),
        ("version_in('0.58', `[\"0.58.0\"]`)", "fail"),
        ('version_in(\'0.58.2\', `["0.58.0", "0.58.1"]`)', "pass"),
        ("version_in('1.6.3', `[\"1.6.*\"]`)", "fail"),
        ("version_in('1.60.3', `[\"1.6.*\"]`)", "pass"),
        ("version_in('1.7.3', `[\"1.6.*\"]`)", "pass"),
        ("version_in('none', `[\"1.6.*\"]`)", "unknown"),
        ("version_in(facts.gone, `[]`)", "unknown"),
        ("version_lt('none', '1')", "unknown"),
        ("version_lt(facts.gone, '1')", "unknown"),
        ("matches(facts.host.name, '^gpu[0-9]+$')", "fail"),
        ("matches(facts.host.name, '^cpu')", "pass"),
        ("matches(facts.host.name, '(')", "unknown"),
        ("matches(facts.gone, 'x')", "unknown"),
        ("hex('0x0302') == `770`", "fail"),
        ("hex('302') == hex('0X0302')", "fail"),
        ("hex('zz')", "unknown"),
        ("hex(facts.gone)", "unknown"),
        ('repeated(`[1, 2, 1, "a", "a"]`)', "fail"),
        ("repeated(`[1, 2, null, null]`)", "pass"),
        ("driver_misfits(facts.gpus, '580.1')", "pass"),
        ("driver_misfits(facts.gpus, 'none')", "unknown"),
        ("driver_misfits(facts.gone, '580.1')", "unknown"),
    ],
)
def test_what_the_functions_answer(call, verdict):
    needs = ["facts.host.name", "facts.gpus", "facts.gone || 'gone'"]
    assert judge(facts(False), rule(query=call, needs=needs))["rules"][0]["verdict"] == verdict


@pytest.mark.parametrize(
    ("architecture", "version", "fits"),
    [
        ("volta", "580.95.05", True),
        ("volta", "590.44.01", False),
        ("ada", "515.43.04", False),
        ("ada", "520.56.06", True),
        ("hopper", "515.105.01", False),
        ("blackwell", "565.77", False),
        ("blackwell", "570.86.15", True),
        ("blackwell", "999.1", True),
        ("ampere", "1.0", True),
        (None, "1.0", True),
    ],
)
def test_which_driver_knows_which_generation(architecture, version, fits):
    gpus = [{"address": "a", "known": architecture and {"architecture": architecture}}]
    assert _functions.misfits(gpus, version) == ([] if fits else ["a"])


# ------------------------------------------------------------------ as a filter


def test_the_filter_fails_with_a_sentence():
    run = FilterModule().filters()["preflight_verdicts"]
    with pytest.raises(AnsibleFilterError, match=re.escape("preflight_verdicts: preflight rule 'hot': query: '' ")):
        run(facts(), rules=[rule(query="")], intent=INTENT)


@pytest.mark.parametrize(("place", "package"), [(_functions, "jmespath"), (_rules, "jsonschema")])
def test_a_missing_package_is_named(monkeypatch, place, package):
    monkeypatch.setattr(place, "MISSING", f"No module named '{package}'")
    with pytest.raises(ValueError, match=f"Python package {package} is missing"):
        judge(facts(), rule())


def test_values_as_ansible_reads_them_from_files_are_judged(tmp_path):
    file = tmp_path / "facts.yml"
    written = {"gpus": [{"address": "gpu0", "bars": [16, 8]}], "host": {"name": "gpu01"}, "workload": "vm-vgpu"}
    written["rule"] = rule(query="facts.gpus[?max(bars) < `17`].join('', [address])")
    file.write_text(json.dumps(written), encoding="utf-8")
    read = DataLoader().load_from_file(str(file))
    assert type(read["workload"]) is not str, "the loader gives plain strings; this test proves nothing"
    found = preflight_verdicts(read, site_rules=[read["rule"]], rules=[], intent={**INTENT, "workload": read["workload"]})
    assert found["why"] == "GPU gpu0 is hot"
    assert type(found["why"]) is str
