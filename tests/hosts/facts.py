# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``gpu_node_info`` says of a host, up to what a recording replaces or leaves out (``tools/record-host``, ``MANIFEST``)."""

from __future__ import annotations

import json
import re
import typing as t

from tests.hosts.recorder import recorder

Facts = t.Dict[str, t.Any]
#: What a module's result has beside facts.
_OF_THE_RESULT = ("changed", "failed", "invocation", "warnings", "seconds")


def up_to_pseudonyms(said: Facts) -> Facts:
    """The facts, a copy, without what differs between a host and its recording: nothing else may."""
    facts: Facts = {name: fact for name, fact in json.loads(json.dumps(said)).items() if name not in _OF_THE_RESULT}
    facts["host"]["boot_id"] = "replaced"
    facts["unknown"].pop("gpus.model", None)
    for gpu in facts["gpus"]:
        gpu["model"] = "left out"
        for vgpu in gpu["vgpu"]["active"]:
            if "uuid" in vgpu:
                vgpu["uuid"] = "replaced"
            _processes(vgpu.get("users"))
        _processes(gpu["users"])
    for entry in facts["kernel_log"]:
        entry["line"] = "written anew"
    for part in ("running", "configured", "pending"):
        if facts["boot"][part] is not None:
            facts["boot"][part] = [re.sub(r"^(root|BOOT_IMAGE)=.*", r"\1", word) for word in facts["boot"][part] if _is_kept(word)]
    return facts


def _is_kept(argument: str) -> bool:
    """Does a recording have this boot argument?"""
    key = argument.partition("=")[0]
    return key in ("root", "BOOT_IMAGE") or key in recorder.ARGUMENTS or key.replace("-", "_") in recorder.ARGUMENTS


def _processes(users: list[Facts] | None) -> None:
    for user in users or []:
        if not recorder.PROGRAMS.fullmatch(user["comm"]):
            user["comm"] = "replaced"
        if "vm" in user:
            user["vm"] = "replaced"
