# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What templates of roles and playbooks must not say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = sorted(path for folder in ("roles", "playbooks") for path in (ROOT / folder).rglob("*.yml") if path.parent.name != "meta")
METHOD = re.compile(r"""\[['"](values|items|keys|get|pop|copy|update|clear)['"]\]|\.(values|items|keys|pop|copy|update|clear)\b(?!\()""")


@pytest.mark.parametrize("text", ["x['values'] | default({})", "x.values | default({})", 'x["items"]'])
def test_a_key_that_a_method_answers_for_is_seen(text: str) -> None:
    assert METHOD.search(text)


def test_no_template_takes_a_method_for_a_key() -> None:
    """Where a dictionary has no key of that name, Jinja gives its method, and ``default`` never comes."""
    said = {
        f"{path.relative_to(ROOT)}: {found.group()}"
        for path in FILES
        for template in re.findall(r"\{\{.*?\}\}", path.read_text(encoding="utf-8"), re.DOTALL)
        if (found := METHOD.search(template))
    }
    assert not said
