# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A directory for what must not stay behind, such as the engine's credentials: it goes away also where the module is told to stop."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._refused import Refused

#: What a lost connection and a stopped service send. By itself neither lets a program tidy up.
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def _stop(number: int, _frame: t.Any) -> t.NoReturn:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def directory() -> t.Iterator[str]:
    """Its path, 0700. Raises Refused where there is no room for one."""
    try:
        path = tempfile.mkdtemp(prefix="gpufleet-image-")
    except OSError as error:
        problem = f"no directory can be made: {error.strerror or error}"
        raise Refused(f"TMPDIR {tempfile.gettempdir()}", problem, "Make room in TMPDIR of the machine that builds") from None
    before = {number: signal.signal(number, _stop) for number in _SIGNALS}
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        for number, handler in before.items():
            signal.signal(number, handler)
