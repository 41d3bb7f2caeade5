# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What AWX gets: options that its modules know, surveys whose answers the roles take, and wrappers of playbooks that there are."""

from __future__ import annotations

import re
import subprocess
import typing as t
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
AWX = CHECKOUT / "awx"
KNOWN: dict[str, dict[str, list[t.Any]]] = yaml.safe_load((Path(__file__).parent / "options.yml").read_text(encoding="utf-8"))
PLAYBOOKS = {path.stem for path in (CHECKOUT / "playbooks").glob("*.yml")}
TYPES = {"str": str, "bool": bool, "int": int, "float": (int, float), "list": list, "dict": dict}
#: What a survey calls the type of an answer, and which types of a role's option take it.
ANSWERS = {"text": {"str"}, "multiplechoice": {"str"}, "multiselect": {"list", "raw"}, "integer": {"int", "float"}, "float": {"float"}}


def everything() -> dict[str, list[dict[str, t.Any]]]:
    found: dict[str, list[dict[str, t.Any]]] = {}
    for path in sorted((AWX / "variables").glob("*.yml")):
        found.update(yaml.safe_load(path.read_text(encoding="utf-8")))
    return found


LISTS = everything()
ENTRIES = [pytest.param(name, entry, id=f"{name}: {entry['name']}") for name, entries in LISTS.items() for entry in entries]
TEMPLATES = {entry["name"]: entry for entry in LISTS["controller_templates"]}
QUESTIONS = [
    pytest.param(question, id=f"{template['playbook']}: {question['variable']}")
    for template in TEMPLATES.values()
    for question in template.get("survey_spec", {}).get("spec", [])
]


def given_to(variable: str) -> set[str]:
    """The options of roles and filters that a default, a playbook or a call of a filter gives this variable of the inventory to."""
    places = [*CHECKOUT.glob("roles/*/defaults/main.yml"), *CHECKOUT.glob("playbooks/**/*.yml")]
    pattern = re.compile(rf"(\w+)(?:: \"\{{\{{ |=){variable}\b")
    return {name for place in places for name in pattern.findall(place.read_text(encoding="utf-8"))}


def documented() -> t.Iterator[tuple[str, dict[str, t.Any]]]:
    for path in CHECKOUT.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            yield from (entry.get("options") or {}).items()
    for path in CHECKOUT.glob("plugins/filter/*.yml"):
        yield from yaml.safe_load(path.read_text(encoding="utf-8"))["DOCUMENTATION"]["options"].items()


def asserted(variable: str) -> t.Iterator[dict[str, t.Any]]:
    """What a playbook itself asks of a variable: one of some words."""
    for place in CHECKOUT.glob("playbooks/**/*.yml"):
        for words in re.findall(rf"that: {variable} \| default\(''\) in \[(.*)\]", place.read_text(encoding="utf-8")):
            yield {"type": "str", "choices": re.findall(r"'(\w+)'", words)}


def options_of(variable: str) -> list[dict[str, t.Any]]:
    names = given_to(variable)
    return [*(option for name, option in documented() if name in names), *asserted(variable)]


@pytest.mark.parametrize(("name", "entry"), ENTRIES)
def test_awx_knows_every_option_and_value(name: str, entry: dict[str, t.Any]) -> None:
    for option, value in entry.items():
        kind, *choices = KNOWN[name][option]
        assert isinstance(value, TYPES[kind]), f"{option} is {value!r}, but AWX wants {kind}"
        assert isinstance(value, bool) is (kind == "bool"), option
        assert not choices or value in choices[0], option


def test_every_playbook_has_a_template_and_a_wrapper() -> None:
    wrappers = {path.stem for path in (AWX / "project").glob("*.yml")}
    assert {template["playbook"] for template in TEMPLATES.values()} == {f"{name}.yml" for name in PLAYBOOKS}
    assert wrappers == PLAYBOOKS
    for name in PLAYBOOKS:
        (play,) = yaml.safe_load((AWX / "project" / f"{name}.yml").read_text(encoding="utf-8"))
        assert play["ansible.builtin.import_playbook"] == f"gpufleet.kubevirt.{name}"


def test_wrappers_are_playbooks() -> None:
    command = ["ansible-playbook", "--syntax-check", "-i", str(CHECKOUT / "inventories/example")]
    done = subprocess.run([*command, *sorted(map(str, (AWX / "project").glob("*.yml")))], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_names_of_other_objects_are_theirs() -> None:
    names = {name: {entry["name"] for entry in entries} for name, entries in LISTS.items()}
    for template in TEMPLATES.values():
        assert template["project"] in names["controller_projects"]
        assert template["inventory"] in names["controller_inventories"]
        assert template["execution_environment"] in names["controller_execution_environments"]
    assert {schedule["unified_job_template"] for schedule in LISTS["controller_schedules"]} <= set(TEMPLATES)
    for source in LISTS["controller_inventory_sources"]:
        assert source["inventory"] in names["controller_inventories"] and source["source_project"] in names["controller_projects"]


def test_whoever_decides_for_the_fleet_runs_alone_and_whole() -> None:
    for template in TEMPLATES.values():
        assert template["job_slice_count"] == 1 and template["allow_simultaneous"] is False
    assert {name for name, template in TEMPLATES.items() if not template["ask_limit_on_launch"]} == {"gpufleet site", "gpufleet image"}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_role_takes_every_answer_of_a_survey(question: dict[str, t.Any]) -> None:
    options = options_of(question["variable"])
    assert options, f"no role takes {question['variable']}"
    assert question["required"] is (question["type"] != "multiselect"), (
        "no answer is none of them; of all else there is a default to be seen"
    )
    for option in options:
        assert option["type"] in ANSWERS[question["type"]]
        if "choices" in question:
            assert set(question["choices"]) == set(option.get("choices", question["choices"]))
            assert question["default"] in ([""] if question["type"] == "multiselect" else question["choices"])
        elif question["type"] in ("integer", "float"):
            assert question["min"] <= question["default"] <= question["max"]


def test_no_survey_asks_for_a_secret_and_no_secret_is_shown() -> None:
    assert not [q.values[0]["variable"] for q in QUESTIONS if re.search("password|token|secret|key", q.values[0]["variable"])]
    for entry in LISTS["controller_credential_types"]:
        fields = {field["id"]: field.get("secret", False) for field in entry["inputs"]["fields"]}
        assert {name for name, secret in fields.items() if secret} == {name for name in fields if name in ("password", "token")}
        given = set(re.findall(r"\{\{ (\w+) \}\}", str(entry["injectors"])))
        assert given == set(fields) == set(entry["inputs"]["required"])
        for variable in entry["injectors"]["extra_vars"]:
            assert options_of(variable) or variable in (CHECKOUT / "README.md").read_text(encoding="utf-8"), variable


def test_nothing_is_changed_before_a_person_has_approved() -> None:
    (workflow,) = LISTS["controller_workflows"]
    nodes = {node["identifier"]: node for node in workflow["simplified_workflow_nodes"]}
    assert {node["unified_job_template"] for node in nodes.values() if "unified_job_template" in node} <= set(TEMPLATES)
    after = {name: node.get("success_nodes", []) for name, node in nodes.items()}
    order, following = [], [name for name in nodes if name not in {n for names in after.values() for n in names}]
    while following:
        order += following
        following = [name for last in following for name in after[last]]
    assert sorted(order) == sorted(nodes), "each node is reached, once"
    approval = next(index for index, name in enumerate(order) if "approval_node" in nodes[name])
    assert [nodes[name]["unified_job_template"] for name in order[:approval]] == ["gpufleet preflight"]


def test_a_schedule_changes_nothing() -> None:
    for schedule in LISTS["controller_schedules"]:
        harmless = schedule["unified_job_template"] in ("gpufleet report", "gpufleet preflight", "gpufleet validate")
        assert harmless or schedule["job_type"] == "check"
        assert re.fullmatch(r"DTSTART:\d{8}T\d{6}Z RRULE:FREQ=(HOURLY|DAILY);INTERVAL=\d+", schedule["rrule"])
