#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: redfish_bios
short_description: Have firmware settings on a host, through the Redfish service of its BMC
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Runs on the controller, or wherever the BMC can be reached. The host itself is not asked.
  - Compares what is asked for with what the settings will be after the host's next reset, pending ones included, and writes only what differs.
    A second run before the reset therefore changes nothing.
  - Never resets a host. RV(reboot_required) says that a setting waits for the next reset.
  - A name that the machine does not have is a failure that tells the nearest names. A value is checked against the service's attribute registry,
    if it offers one.
  - Everything is written in one request or nothing is, because a BMC may refuse a second one until the host has been reset.
  - A wrong password is tried once, because a BMC locks an account after a few.
attributes:
  check_mode:
    support: full
    description: Computes what it would write. It logs in to the BMC all the same.
  diff_mode:
    support: full
    description: Shows the settings that differ.
options:
  address:
    description: Name or IP address of the BMC, with a port if it is not 443. Only HTTPS is spoken.
    type: str
    required: true
  username:
    description: Account of the BMC. It needs the right to configure the system.
    type: str
    required: true
  password:
    description: Its password.
    type: str
    required: true
  auth:
    description: How to log in. V(auto) opens a session if the service offers them, and closes it in the end.
    type: str
    choices: [auto, session, basic]
    default: auto
  validate_certs:
    description: Whether the BMC must show a certificate of a trusted CA. V(false) gives the password to whoever answers at O(address).
    type: bool
    default: true
  ca_path:
    description: File with the CA certificates to trust, PEM, instead of those of the machine that this runs on.
    type: path
  timeout:
    description: Seconds to wait for one answer. A service that is busy and says so gets up to 90 seconds longer.
    type: int
    default: 30
  system_id:
    description:
      - Which system is meant, if there are several with BIOS settings behind one BMC.
      - It is the last part of the system's path, such as V(System.Embedded.1).
    type: str
  vendor:
    description: Whose names O(attributes) terms stand for. V(auto) asks the service.
    type: str
    choices: [auto, dell, hpe, lenovo, supermicro]
    default: auto
  attributes:
    description:
      - What must be set. A key is a term or the vendor's own name of a setting.
      - The terms are C(iommu), C(virtualization), C(sriov) and C(above_4g), with V(true) or V(false).
      - The name may lack the suffix that Supermicro's boards add, V(SR-IOVSupport) for C(SR-IOVSupport#0048).
      - YAML takes V(On), V(Off), V(Yes) and V(No) for true and false, so put such values of a vendor's own setting in quotes.
    type: dict
    required: true
notes:
  - The names behind the terms were taken from published Redfish trees of one machine per vendor. They count only where the machine has them.
seealso:
  - name: Redfish Specification
    description: DMTF's specification of what is spoken here, DSP0266.
    link: https://www.dmtf.org/dsp/DSP0266
"""

EXAMPLES = r"""
- name: Have the IOMMU and SR-IOV on after the next reboot
  gpufleet.kubevirt.redfish_bios:
    address: bmc-gpu03.example.com
    username: gpufleet
    password: "{{ vault_gpufleet_bmc_password }}"
    attributes:
      iommu: true
      sriov: true
      SysProfile: PerfOptimized
  delegate_to: localhost
  register: firmware

- name: Say that a reboot is due
  ansible.builtin.debug:
    msg: "{{ firmware.reboot_reasons }}"
  when: firmware.reboot_required
"""

RETURN = r"""
changes:
  description: What was written, or would be. C(before) is the value after the next reset as it was before.
  type: list
  elements: dict
  returned: always
  sample:
    - target: setting SriovGlobalEnable
      action: set
      before: Disabled
      after: Enabled
      reason: "sriov: true"
reboot_required:
  description: Whether a setting that was asked for is another now than after the next reset. In check mode after what would be written.
  type: bool
  returned: when the settings could be read
  sample: true
reboot_reasons:
  description: Which, in words.
  type: list
  elements: str
  returned: when the settings could be read
  sample: ["the firmware setting SriovGlobalEnable (sriov: true) changes from Disabled to Enabled"]
settings:
  description: The settings that were asked for.
  type: list
  elements: dict
  returned: when the settings could be read
  contains:
    name:
      description: The vendor's name.
      type: str
    asked:
      description: What was asked for.
      type: str
    current:
      description: The value now.
      type: raw
    pending:
      description: The value after the next reset.
      type: raw
  sample:
    - {name: SriovGlobalEnable, asked: "sriov: true", current: Disabled, pending: Enabled}
others_pending:
  description: Names of settings that wait for the next reset although they were not asked for.
  type: list
  elements: str
  returned: when the settings could be read
  sample: []
system:
  description: The machine.
  type: dict
  returned: when the settings could be read
  sample: {id: System.Embedded.1, vendor: dell, model: PowerEdge R750, bios_version: 1.8.2}
task:
  description: Path of the task that the service made of the change, or V(null).
  type: str
  returned: when the settings could be read
  sample: /redfish/v1/TaskService/Tasks/JID_000000000001
blockers:
  description: What stopped the module.
  type: list
  elements: dict
  returned: failure
  sample:
    - target: setting SriovGlobalEnabled
      problem: this machine has no such setting; the nearest are SriovGlobalEnable
      remedy: Correct the name
"""

import ssl

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._firmware import _bios, _failures, _plan, _redfish, _terms

DOING = "Setting the firmware"


class Firmware:
    """One run on one system."""

    def __init__(self, module, bios=None):
        self.module = module
        self.bios = bios
        self.wanted = module.params["attributes"]
        self.seen = None
        self.changes = []

    def observe(self):
        self.seen = self.bios.observe()
        self.module.no_log_values.update(_plan.passwords(self.wanted, self.seen))
        return self.seen

    def vendor(self, seen):
        return _terms.vendor_of(seen.names) if self.module.params["vendor"] == "auto" else self.module.params["vendor"]

    def plan(self, seen):
        return _plan.make_plan(self.wanted, seen, self.vendor(seen))

    def apply(self, changes):
        self.changes = changes
        self.bios.write(self.seen, {change.target[len("setting ") :]: change.after for change in changes})
        return []

    def verify(self, seen):
        return _plan.not_taken(self.changes, seen)

    def result(self, seen, plan):
        vendor = self.vendor(seen)
        wishes, _refused = _plan.wishes(self.wanted, seen, vendor)
        planned = {change.target: change.after for change in plan.changes} if self.module.check_mode and not plan.stopped else {}
        settings = [
            {
                "name": wish.name,
                "asked": wish.asked,
                "current": seen.current[wish.name],
                "pending": planned.get(_plan.target_of(wish.name), seen.due(wish.name)),
            }
            for wish in wishes
        ]
        reasons = [
            f"the firmware setting {entry['name']} ({entry['asked']}) changes from {_change.shown(entry['current'])} to "
            f"{_change.shown(entry['pending'])}"
            for entry in settings
            if entry["current"] != entry["pending"]
        ]
        return {
            "reboot_required": bool(reasons),
            "reboot_reasons": reasons,
            "settings": settings,
            "others_pending": _plan.others_pending(seen, wishes),
            "system": {"id": seen.system, "vendor": vendor, "model": seen.model, "bios_version": seen.bios_version},
            "task": self.bios.task,
        }

    def fail(self, error):
        """End after the conversation with the BMC has broken off."""
        blocker, done = error.blocker(), self.changes if self.bios and self.bios.accepted else []
        if self.bios and self.bios.sent and not done and error.status is None:
            problem = f"{blocker.problem}; whether it took the settings is not known"
            blocker = _change.Blocker(blocker.target, problem, f"{blocker.remedy}. Run again: what is pending is read first")
        self.module.fail_json(
            msg=_change.message(DOING, [blocker], done),
            blockers=[blocker.as_dict()],
            changed=bool(done),
            changes=[change.as_dict() for change in done],
            diff=_change.diff(done),
        )


def client_of(params):
    """A client as the module's arguments say. Raises RedfishError."""
    try:
        server = _redfish.server_of(params["address"])
    except ValueError as error:
        raise _failures.RedfishError("address", str(error), "Correct gpufleet_bmc_address (option address)") from None
    ca_path = params["ca_path"]
    try:
        if ca_path:
            ssl.create_default_context(cafile=ca_path)
    except OSError as error:
        problem = f"{ca_path} cannot be read as CA certificates: {error.strerror or error}"
        raise _failures.RedfishError("ca_path", problem, "Correct gpufleet_bmc_ca_path (option ca_path)") from None
    return _redfish.Client(
        server, params["username"], params["password"], params["validate_certs"], ca_path, params["timeout"], params["auth"]
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "username": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "auth": {"type": "str", "choices": ["auto", "session", "basic"], "default": "auto"},
            "validate_certs": {"type": "bool", "default": True},
            "ca_path": {"type": "path"},
            "timeout": {"type": "int", "default": 30},
            "system_id": {"type": "str"},
            "vendor": {"type": "str", "choices": ["auto", "dell", "hpe", "lenovo", "supermicro"], "default": "auto"},
            "attributes": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    firmware = Firmware(module)
    client = None
    try:
        client = client_of(module.params)
        firmware.bios = _bios.Bios(client, module.params["system_id"])
        client.open()
        _change.run(module, DOING, firmware.observe, firmware.plan, firmware.apply, firmware.result, firmware.verify)
    except _failures.RedfishError as error:
        firmware.fail(error)
    finally:
        if client is not None:
            client.close()


if __name__ == "__main__":
    main()
