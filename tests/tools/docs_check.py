# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check the documentation of plugins and roles, and the changelog fragments.

antsibull-docs looks at the place where it stands for the name of the collection, so it stands in the collection tree of this checkout.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.tools import env

COMMANDS = (
    ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs", "dependent", "--skip-rstcheck", "."],
    ["antsibull-changelog", "lint"],
)


def main() -> int:
    place = env.tree() / "ansible_collections" / "gpufleet" / "kubevirt"
    codes = [subprocess.run(command, cwd=place, stdin=subprocess.DEVNULL, check=False).returncode for command in COMMANDS]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
