#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _node
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError


def main() -> None:
    module = AnsibleModule(argument_spec={"host_root": {"type": "path", "default": "/"}}, supports_check_mode=True)
    try:
        facts = _node.read(Host(module.params["host_root"]))
    except HostError as error:
        module.fail_json(msg=f"Reading the host: {error}. Nothing was changed.")
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
