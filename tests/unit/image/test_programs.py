# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs on the machine that builds, and who the module is to a registry."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image import _inputs, _installer, _login, _plan, _programs, _registry
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._refused import Refused

SECRET = "geheim-42"


def failed(*command: str, limit: float = 10) -> _programs.Failed:
    with pytest.raises(_programs.Failed) as caught:
        _programs.run(command, limit)
    assert str(caught.value) == caught.value.end
    return caught.value


def test_a_program_that_is_not_there_is_said() -> None:
    assert failed("/nowhere/engine").end == "/nowhere/engine: No such file or directory"


def test_a_program_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    assert failed("sh", "-c", f"sleep 60 & echo $! >{tmp_path}/pid; wait", limit=0.5).end == "sh was stopped after 0.5 s"
    assert time.monotonic() - began < 30
    started = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    # A zombie is an orphan that nobody has asked for yet: it holds nothing.
    assert not started.exists() or started.read_text().rpartition(")")[2].split()[0] == "Z"


def test_of_a_failure_the_end_is_kept_of_both_streams() -> None:
    script = "for n in $(seq 25); do echo out $n; done; printf '%0500d\\n' 7 >&2; printf '\\377' >&2; exit 3"
    found = failed("sh", "-c", script)
    lines = found.end.splitlines()
    assert found.status == 3 and len(lines) == 20
    assert lines[0] == "out 8" and lines[-2] == "0" * 400 and lines[-1] == "\ufffd"
    assert failed("false").end == "it printed nothing"


def test_what_a_program_prints_is_in_english_and_need_not_be_text() -> None:
    assert _programs.run(["sh", "-c", "echo $LC_ALL $MORE; printf '\\377'"], 10, {"MORE": "more"}) == "C.UTF-8 more\n\ufffd"


@pytest.mark.parametrize("user", ["a:b", ":"])
def test_a_user_name_with_a_colon_would_be_another_one(user: str) -> None:
    with pytest.raises(Refused, match="cannot have a colon"):
        _login.of_password("r.example.com", user, SECRET)


@pytest.mark.parametrize(
    "auth", ["!", "", None, 3, "h\u00e9", base64.b64encode(b"nobody").decode(), base64.b64encode(b":only").decode(), "/w=="]
)
def test_an_entry_without_a_user_and_a_password_is_said(auth: object, tmp_path: Path) -> None:
    (tmp_path / "auth").write_text(json.dumps({"auths": {"r.example.com": {"auth": auth}}}))
    with pytest.raises(Refused, match="has no user name and password in it"):
        _login.of_file("r.example.com", str(tmp_path / "auth"))


def test_of_two_entries_the_one_for_the_repository_counts_and_none_is_shown(tmp_path: Path) -> None:
    auths = {key: {"auth": base64.b64encode(f"{user}:{SECRET}".encode()).decode()} for key, user in (("r.io", "all"), ("r.io/a/b", "own"))}
    (tmp_path / "auth").write_text(json.dumps({"auths": auths}))
    assert _login.of_file("r.io", str(tmp_path / "auth"), "a/b").username == "own"
    login = _login.of_file("r.io", str(tmp_path / "auth"))
    assert login.username == "all" and login.auths == auths
    assert SECRET not in repr(login) and auths["r.io"]["auth"] not in repr(login)


def test_an_image_of_others_is_no_change_of_the_plan() -> None:
    installer = _installer.of_name("/srv/NVIDIA-Linux-x86_64-580.95.02-vgpu-kvm.run")
    wanted = _plan.Wanted("rhel9", "1-rhel9", "r.io/x:1-rhel9", _inputs.Inputs("rhel9", "files:0", installer, ()))
    seen = _plan.Observed({"1-rhel9": _registry.Image("sha256:0", {}, ())})
    plan = _plan.make_plan([wanted], seen, False)
    assert plan.changes == [] and [blocker.target for blocker in plan.blockers] == [wanted.reference]
    assert [change.action for change in _plan.make_plan([wanted], seen, True).changes] == ["replace"]
    assert os.path.basename(installer.path) == installer.name_in_context
