# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the unit tests of what runs on nodes under every Python from 3.9 on that this machine has, except our own.

Ansible's own part on a node, ``ansible.module_utils``, supports those Pythons too: it is taken from our environment. Properties are tried
with few examples here, since they were tried with many on our own Python.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.tools import env

OLDEST = (3, 9)
REQUIREMENTS = env.REQUIREMENTS / "target.txt"
TESTS = ("tests/unit/host", "tests/unit/test_change.py", "tests/unit/test_names.py")
_ASK = "import sys, ssl, venv, ensurepip; print('%d.%d' % sys.version_info[:2], sys.executable)"


def found() -> dict[tuple[int, int], str]:
    """The Pythons of this machine that really run, newest version last: version to program."""
    places = (str(Path.home() / ".pyenv/versions/*/bin/python3"), "/opt/python*/bin/python3")
    programs = [
        "python3",
        *(f"python3.{minor}" for minor in range(OLDEST[1], 20)),
        *(name for place in places for name in sorted(glob.glob(place))),
    ]
    pythons: dict[tuple[int, int], str] = {}
    for program in programs:
        done = subprocess.run([program, "-c", _ASK], capture_output=True, text=True, check=False) if shutil.which(program) else None
        if done is not None and done.returncode == 0:
            version, _blank, executable = done.stdout.strip().partition(" ")
            major, _dot, minor = version.partition(".")
            if (int(major), int(minor)) >= OLDEST:
                pythons.setdefault((int(major), int(minor)), executable)
    return dict(sorted(pythons.items()))


def environment(python: str) -> Path:
    """The interpreter of a virtual environment of this Python that has what the tests need."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + os.path.realpath(python).encode()).hexdigest()[:12]
    directory = env.cache() / f"target-{digest}"
    stamp = directory / "complete"
    with env.alone(directory):
        if not stamp.exists():
            shutil.rmtree(directory, ignore_errors=True)
            env.call("Making a virtual environment", python, "-m", "venv", directory)
            env.call(
                f"Installing {REQUIREMENTS.name}",
                directory / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", REQUIREMENTS,
            )  # fmt: skip
            stamp.touch()
    return directory / "bin" / "python"


def core() -> Path:
    """A directory that has Ansible and nothing else of our environment."""
    import ansible

    directory = env.cache() / f"target-core-{hashlib.sha256(ansible.__file__.encode()).hexdigest()[:12]}"
    directory.mkdir(exist_ok=True)
    with env.alone(directory / "ansible"):
        if not (directory / "ansible").exists():
            (directory / "ansible").symlink_to(Path(ansible.__file__).parent)
    return directory


def main() -> int:
    pythons = found()
    pythons.pop(sys.version_info[:2], None)
    ends: dict[str, int] = {}
    for version, python in pythons.items():
        name = "Python {}.{}".format(*version)
        print(f"--- {name}", flush=True)
        paths = [env.tree(), core(), env.CHECKOUT]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "GPUFLEET_HYPOTHESIS": "few"}
        command = [environment(python), "-m", "pytest", "-q", "-n", "2", *TESTS]
        ends[name] = subprocess.run(command, cwd=env.CHECKOUT, env=variables, stdin=subprocess.DEVNULL, check=False).returncode
    for name, code in ends.items():
        print(f"{'FAILED' if code else 'passed'}  {name}")
    if OLDEST not in pythons:
        print(f"not run: Python {OLDEST[0]}.{OLDEST[1]}, the oldest that a node may have: it is not on this machine")
    return 1 if any(ends.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
