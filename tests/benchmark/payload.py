# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many bytes Ansible sends to a node for each module that runs there, as this ansible-core packs it.

``python -m tests.benchmark.payload`` prints a table. A task with pipelining sends the payload each time it runs, so what a module imports is
what every node pays for.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

MODULES = Path(__file__).resolve().parents[2] / "plugins/modules"
#: A module may be this much larger than ``ansible.builtin.ping``, in KiB.
ROOM = 60
#: Modules that are larger than that, how large they may be, and why that is what they run.
LARGER = {
    # Both frameworks, the plan that proves what fits before anything is removed, and (13 KiB) the programs that make the devices again at
    # boot, which a host gets as they were sent.
    "mdev_create": 69,
}
PING = "ansible.builtin.ping"


def node_modules() -> list[str]:
    """The modules that run on a node: those that read or write a host."""
    return sorted(path.stem for path in MODULES.glob("*.py") if "module_utils._host" in path.read_text())


def sizes() -> dict[str, int]:
    """Bytes by module, with ping under its full name. Loads Ansible's plugin loader, which can be done once in a process."""
    from ansible.executor import module_common
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader, module_loader
    from ansible.template import Templar

    init_plugin_loader([])
    found = {}
    for name in (PING, *node_modules()):
        full = name if "." in name else f"gpufleet.kubevirt.{name}"
        context = module_loader.find_plugin_with_context(full)
        built = module_common.modify_module(
            module_name=context.resolved_fqcn,
            module_path=context.plugin_resolved_path,
            module_args={},
            templar=Templar(loader=DataLoader()),
            task_vars={"ansible_python_interpreter": "/usr/bin/python3"},
            module_compression="ZIP_DEFLATED",
        )
        found[name] = len(built.b_module_data)
    return found


def too_large(found: dict[str, int]) -> dict[str, float]:
    """The modules that are larger than they may be, and by how many KiB."""
    over = {name: (size - found[PING]) / 1024 - LARGER.get(name, ROOM) for name, size in found.items()}
    return {name: round(excess, 1) for name, excess in over.items() if excess > 0}


def main(arguments: list[str]) -> int:
    found = sizes()
    if arguments == ["--json"]:
        print(json.dumps(found))
        return 0
    for name, size in found.items():
        print(f"{name:32} {size:8} bytes  {(size - found[PING]) / 1024:+7.1f} KiB")
    return 1 if too_large(found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
