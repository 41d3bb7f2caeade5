# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Type-check the collection under its full name, strictly, where decisions are made: module_utils and plugin_utils; and the recorder, by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.tools import env

RECORDER = env.CHECKOUT / "tools" / "record-host"
COLLECTION = "ansible_collections.gpufleet.kubevirt.plugins"


def main() -> int:
    packages = [f"{COLLECTION}.{name}" for name in ("module_utils", "plugin_utils")]
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--cache-dir",
        str(env.cache() / "mypy"),
        "--config-file",
        str(env.CHECKOUT / "pyproject.toml"),
    ]
    directory = env.tree()
    environment = {**os.environ, "MYPYPATH": str(directory)}
    runs = (command + [part for package in packages for part in ("-p", package)], [*command, str(RECORDER)])
    return max([subprocess.run(run, cwd=directory, env=environment, check=False).returncode for run in runs])


if __name__ == "__main__":
    sys.exit(main())
