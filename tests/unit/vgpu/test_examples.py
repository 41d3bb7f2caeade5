# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The examples of the filters about vGPUs do what they say, rendered by Ansible."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from tests.tools import env


@pytest.fixture(scope="module")
def rendered():
    command = [
        sys.executable,
        "-m",
        "tests.vgpu.examples",
        "vgpu_profile_calc",
        "vgpu_plan_page",
        "vgpu_device_config",
        "vgpu_device_config_lint",
    ]
    done = subprocess.run(command, cwd=env.CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_examples_of_the_profile_calculator(rendered):
    most, compute, five, mix, placed = rendered["vgpu_profile_calc"]
    assert most["msg"] == "6 of NVIDIA A10-4Q on one GPU, 4 beside other sizes, as nvidia.com/NVIDIA_A10-4Q"
    assert (compute["msg"], five["msg"]) == ("A16-8C", "L4-4Q")
    assert mix["that"] == [True] and mix["success_msg"].startswith("2 x 6 GB + 3 x 4 GB are 24 of 24 GB, but the places")
    assert sorted(placed["msg"][0]) == ["id", "size_gb", "type"] and len(placed["msg"]) == 4


def test_the_example_of_the_page(rendered):
    (kept,) = rendered["vgpu_plan_page"]
    assert kept["content"].startswith("<!DOCTYPE html>") and "A10-4Q for web" in kept["content"]


def test_the_example_of_the_device_config(rendered):
    assert yaml.safe_load(rendered["vgpu_device_config"][0]["msg"]) == {
        "version": "v1",
        "vgpu-configs": {"A10-4Q": [{"device-filter": "0x223610DE", "devices": "all", "vgpu-devices": {"A10-4Q": 6}}]},
    }


def test_the_example_of_the_check_of_a_device_config(rendered):
    text = rendered["vgpu_device_config_lint"][0]["msg"]
    assert "1 error, 0 warnings" in text and "The nearest that fit: 6 x A10-4Q" in text
