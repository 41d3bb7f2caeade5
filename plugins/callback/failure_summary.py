# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: failure_summary
type: aggregate
short_description: What failed, at the end of a run
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Prints, after the recap, every problem that ended a host's part of the run. Each with the step, what it stopped on, why, what to do,
    and what the step changed all the same.
  - A problem that is the same on several hosts is printed once, with their names. Nothing is printed if nothing failed.
  - Failures that a play ignores are left out, and so are those of a host that a play has rescued from all of them.
  - Results that C(no_log) hides stay hidden.
requirements:
  - Enable it in C(ansible.cfg), section C([defaults]), with C(callbacks_enabled = gpufleet.kubevirt.failure_summary).
"""

import typing as t

from ansible.plugins.callback import CallbackBase

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report import _failures

if t.TYPE_CHECKING:
    from ansible.executor.stats import AggregateStats
    from ansible.executor.task_result import CallbackTaskResult


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "gpufleet.kubevirt.failure_summary"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self._found: list[_failures.Failure] = []

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            self._found += _failures.failures(result.host.get_name(), result.task_name, result.result)

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        if not result.task.ignore_unreachable:
            self._found += _failures.failures(result.host.get_name(), result.task_name, result.result, unreachable=True)

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        # A host whose failures were all rescued has none in the end.
        lost = {host for host in stats.processed if stats.failures.get(host) or stats.dark.get(host)}
        text = _failures.text([failure for failure in self._found if failure.host in lost], len(stats.processed))
        if text:
            self._display.display(f"\n{text}", color="red")
