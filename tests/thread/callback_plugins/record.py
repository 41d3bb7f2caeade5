# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes one JSON line per task result to the file that ``GPUFLEET_RECORD`` names."""

from __future__ import annotations

import json
import os

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: record
type: notification
short_description: Record task results for the tests
description: One JSON line per result.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "record"
    CALLBACK_NEEDS_ENABLED = True

    def _write(self, result, outcome):
        task = result.task
        line = {
            "host": result.host.name,
            "task": task.get_name(),
            "action": task.resolved_action or task.action,
            "delegated": bool(task.delegate_to),
            "run_once": bool(task.run_once),
            "outcome": outcome,
            "changed": bool(result.result.get("changed")),
            "changes": result.result.get("changes", []),
            "blockers": result.result.get("blockers", []),
            "msg": str(result.result.get("msg", "")),
        }
        with open(os.environ["GPUFLEET_RECORD"], "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, default=str) + "\n")

    def v2_runner_on_ok(self, result):
        self._write(result, "ok")

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._write(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_unreachable(self, result):
        self._write(result, "unreachable")

    def v2_runner_on_skipped(self, result):
        self._write(result, "skipped")
