# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""500 permits beside 500 of others: requests, and the processor's time of the module and of the small API server of the unit tests beside it."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import time
import typing as t
from pathlib import Path

from ansible.module_utils.testing import patch_module_args

from tests.benchmark.modules import RUNS, expect
from tests.benchmark.table import Row

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "cluster"))

from fake_api import FakeApi

PATH = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt"
NUMBER = 500


def entries(vendor: str, resource: str) -> list[dict[str, t.Any]]:
    return [
        {"pciVendorSelector": f"{vendor}:{number:04X}", "resourceName": f"{resource}{number}", "externalResourceProvider": True}
        for number in range(NUMBER)
    ]


def call(api: FakeApi, **params: t.Any) -> tuple[float, dict[str, t.Any]]:
    module = importlib.import_module("ansible_collections.gpufleet.kubevirt.plugins.modules.kubevirt_permit")
    printed = io.StringIO()
    with patch_module_args({**api.params, **params, "_ansible_remote_tmp": "/tmp"}), contextlib.redirect_stdout(printed):
        started = time.process_time()
        with contextlib.suppress(SystemExit):
            module.main()
        took = time.process_time() - started
    result = json.loads(printed.getvalue().strip().splitlines()[-1])
    if result.get("failed"):
        raise SystemExit(f"Measuring kubevirt_permit: it failed: {result['msg']}")
    return took, result


def rows() -> t.Iterator[Row]:
    first: list[float] = []
    second: list[float] = []
    requests: dict[bool, list[float]] = {True: [], False: []}
    for _run in range(RUNS):
        api = FakeApi()
        try:
            api.add(PATH, {"spec": {"configuration": {"permittedHostDevices": {"pciHostDevices": entries("8086", "example.com/nic")}}}})
            for samples, changes in ((first, NUMBER), (second, 0)):
                before = len(api.requests)
                took, result = call(api, pci_devices=entries("10DE", "nvidia.com/GPU"))
                expect("kubevirt_permit", len(result["changes"]), changes)
                samples.append(took)
                requests[changes > 0].append(len(api.requests) - before)
        finally:
            api.close()
    yield Row(f"kubevirt_permit, {NUMBER} permits beside {NUMBER}", first, "s", 0.5)
    yield Row("kubevirt_permit, converged", second, "s", 0.3)
    yield Row("requests of kubevirt_permit", requests[True], "", 2)
    yield Row("requests of kubevirt_permit, converged", requests[False], "", 1)
