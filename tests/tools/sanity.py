# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run ``ansible-test sanity`` on what the collection archive holds.

The files that git would commit are built into an archive, which is installed into a collection tree of its own: what is tested is what users
get. ansible-test's helper that installs pip comes from a host that need not be reachable: a shim that uses ``ensurepip`` takes its place.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
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
        # The checkout may belong to another user than the one who tests it.
        ["git", "-c", f"safe.directory={env.CHECKOUT}", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=env.CHECKOUT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    names = sorted({name for name in listed.stdout.split("\0") if name and (env.CHECKOUT / name).is_file()})
    for name in names:
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(env.CHECKOUT / name, destination / name)


def install(scratch: Path) -> Path:
    """Build the archive and install it below ``scratch``; where it lies then."""
    source = scratch / "source"
    copy(source)
    env.call("Building the collection archive", "ansible-galaxy", "collection", "build", "--output-path", scratch, source)
    archive = next(scratch.glob("gpufleet-kubevirt-*.tar.gz"))
    env.call("Installing the collection archive", "ansible-galaxy", "collection", "install", "--force", "--no-deps", "-p", scratch, archive)
    return scratch / "ansible_collections" / "gpufleet" / "kubevirt"


def shim_name() -> str:
    """The file name under which this ansible-core keeps its pip installer, such as ``get_pip_25_2.py``."""
    source = files("ansible_test").joinpath("_internal/python_requirements.py").read_text(encoding="utf-8")
    found = re.search(r"pip='([0-9.]+)'", source)
    if found is None:
        raise SystemExit("Preparing ansible-test sanity: this ansible-core names its pip in another way; mend tests/tools/sanity.py.")
    version = found.group(1)
    return f"get_pip_{version.replace('.', '_')}.py"


def main() -> int:
    home = env.cache() / "sanity-home"
    with tempfile.TemporaryDirectory(dir=env.cache(), prefix="sanity-") as scratch:
        collection = install(Path(scratch))
        (collection.parents[1] / "kubernetes").symlink_to(env.collections() / "ansible_collections" / "kubernetes")
        seeds = home / ".ansible" / "test" / "cache"
        seeds.mkdir(parents=True, exist_ok=True)
        (seeds / shim_name()).write_text(SHIM, encoding="utf-8")
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        command = ["ansible-test", "sanity", "--venv", "--python", version, "--color", "no", *sys.argv[1:]]
        environment = {
            key: value
            for key, value in os.environ.items()
            if key not in ("ANSIBLE_COLLECTIONS_PATH", "PYTHONPATH", "ANSIBLE_HOME", "LC_ALL")
        }
        return subprocess.run(
            command, cwd=collection, env={**environment, "HOME": str(home)}, stdin=subprocess.DEVNULL, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
