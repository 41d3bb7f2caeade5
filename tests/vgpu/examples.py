# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The examples of filters, rendered by Ansible itself: each task's arguments with its variables, as JSON, one list a filter.

    python -m tests.vgpu.examples vgpu_profile_calc vgpu_plan_page

In a process of its own, because Ansible loads its plugins once in a process.
"""

from __future__ import annotations

import json
import sys
import typing as t

import yaml

from tests.tools import env


def tasks(name: str) -> list[dict[str, t.Any]]:
    """The example tasks of a filter."""
    documented = yaml.safe_load((env.CHECKOUT / "plugins" / "filter" / f"{name}.yml").read_text(encoding="utf-8"))
    return yaml.safe_load(documented["EXAMPLES"])


def render(templates: t.Iterable[tuple[t.Any, dict[str, t.Any]]]) -> list[t.Any]:
    """Values with templates in them and the variables of each, rendered."""
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader
    from ansible.template import Templar, trust_as_template

    def trusted(value: t.Any) -> t.Any:
        if isinstance(value, str):
            return trust_as_template(value)
        if isinstance(value, dict):
            return {key: trusted(entry) for key, entry in value.items()}
        return [trusted(entry) for entry in value] if isinstance(value, list) else value

    init_plugin_loader([])
    return [Templar(DataLoader(), variables=trusted(variables)).template(trusted(value)) for value, variables in templates]


#: Keys of a task that are no action.
OTHER = ("name", "vars", "when", "register")


def _action(task: dict[str, t.Any]) -> dict[str, t.Any]:
    """The action of a task with its arguments; conditions as the templates that they are."""
    action = {key: value for key, value in task.items() if key not in OTHER}
    for options in action.values():
        if "that" in options:
            conditions = options["that"] if isinstance(options["that"], list) else [options["that"]]
            options["that"] = [f"{{{{ {condition} }}}}" for condition in conditions]
    return action


def main(names: list[str]) -> int:
    entries = [(name, task) for name in names for task in tasks(name)]
    rendered = render([(_action(task), task.get("vars", {})) for _name, task in entries])
    found: dict[str, list[t.Any]] = {name: [] for name in names}
    for (name, _task), action in zip(entries, rendered, strict=True):
        found[name].append(next(iter(action.values())))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
