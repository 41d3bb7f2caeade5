# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run ``ansible-test sanity`` on a copy of the checkout.

ansible-test wants to stand in a collection tree of its own and asks git what belongs to it, so the files that git would commit are copied
there. Its helper that installs pip comes from a host that need not be reachable: a shim that uses ``ensurepip`` takes its place.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.tools import env

SHIM = """import subprocess, sys
wanted = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
subprocess.check_call([sys.executable, "-m", "ensurepip", "--upgrade"])
subprocess.check_call([sys.executable, "-m", "pip", "install", *wanted]) if wanted else None
"""


def copy(destination: Path) -> None:
    """The files of the checkout that are, or would be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=env.CHECKOUT, check=True, capture_output=True, text=True
    )
    names = sorted({name for name in listed.stdout.split("\0") if name and (env.CHECKOUT / name).is_file()})
    for name in names:
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(env.CHECKOUT / name, destination / name)
    git = ["git", "-c", "user.name=sanity", "-c", "user.email=sanity@example.org", "-c", "init.defaultBranch=main"]
    for arguments in (["init", "-q"], ["add", "-A", "-f"], ["commit", "-q", "-m", "copy"]):
        subprocess.run([*git, *arguments], cwd=destination, check=True)


def shim_name() -> str:
    """The file name under which this ansible-core keeps its pip installer, such as ``get_pip_25_2.py``."""
    source = files("ansible_test").joinpath("_internal/python_requirements.py").read_text(encoding="utf-8")
    found = re.search(r"pip='([0-9.]+)'", source)
    if found is None:
        raise SystemExit("Preparing ansible-test sanity: this ansible-core names its pip in another way; mend tests/tools/sanity.py.")
    version = found.group(1)
    return f"get_pip_{version.replace('.', '_')}.py"


def main() -> int:
    scratch = env.cache() / f"sanity-{os.getpid()}"
    collection = scratch / "ansible_collections" / "gpufleet" / "kubevirt"
    collection.mkdir(parents=True)
    home = env.cache() / "sanity-home"
    try:
        copy(collection)
        (scratch / "ansible_collections" / "kubernetes").symlink_to(env.collections() / "ansible_collections" / "kubernetes")
        seeds = home / ".ansible" / "test" / "cache"
        seeds.mkdir(parents=True, exist_ok=True)
        (seeds / shim_name()).write_text(SHIM, encoding="utf-8")
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        command = ["ansible-test", "sanity", "--venv", "--python", version, "--color", "no", *sys.argv[1:]]
        environment = {
            key: value for key, value in os.environ.items() if key not in ("ANSIBLE_COLLECTIONS_PATH", "PYTHONPATH", "ANSIBLE_HOME")
        }
        done = subprocess.run(command, cwd=collection, env={**environment, "HOME": str(home)}, stdin=subprocess.DEVNULL, check=False)
        return done.returncode
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
