# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files that GRUB's generators read: ``/etc/default/grub`` and, on Debian, ``/etc/default/grub.d/*.cfg``.

They are shell. They are not run here but read: assignments to the two variables that make the kernel's line, with references to
what stood before. Anything else about these two variables cannot be computed, and that is said.
"""

from __future__ import annotations

import re
import shlex
import typing as t

from . import _cmdline
from ._sysfs import Host

MAIN = "/etc/default/grub"
DIRECTORY = "/etc/default/grub.d"
#: Debian's generator, the only one that reads the directory.
GENERATOR = "/usr/sbin/update-grub"
#: The variables, in the order in which GRUB's generator puts them on the line.
VARIABLES = ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT")

_ASSIGNMENT = re.compile(r"""^\s*(?:export\s+)?(GRUB_CMDLINE_LINUX(?:_DEFAULT)?)=("(?:[^"\\]|\\.)*"|'[^']*'|[^\s#;"']*)\s*(?:#.*)?$""")
_MENTION = re.compile(r"\bGRUB_CMDLINE_LINUX(_DEFAULT)?\b")
# Inside of these, a line may or may not be run.
_OPENS = re.compile(r"^\s*(if|case|for|while|until)\b|[{(]\s*$")
_CLOSES = re.compile(r"(^|;)\s*(fi|esac|done|[})])\s*($|;|\|\||&&|#)")
_REFERENCE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class NotComputable(Exception):
    """A line about our variables that only a shell could work out, or a file that no shell can read: ``PATH line N: …``."""


def read(host: Host) -> t.Dict[str, str]:
    """The files that there are, text by path, in the order in which Debian's generator reads them."""
    paths = [MAIN, *(f"{DIRECTORY}/{name}" for name in host.names(DIRECTORY) if name.endswith(".cfg"))]
    return {path: host.read_text(path) or "" for path in paths if host.exists(path)}


def evaluate(texts: t.Mapping[str, str]) -> t.Dict[str, str]:
    """The values of the two variables after these files. Raises NotComputable."""
    values = dict.fromkeys(VARIABLES, "")
    for path, text in texts.items():
        _refuse_open_quotes(path, text)
        depth = 0
        for number, line in enumerate(text.splitlines(), 1):
            if line.lstrip().startswith("#"):
                continue
            depth = max(0, depth + bool(_OPENS.search(line)) - bool(_CLOSES.search(line)))
            if not _MENTION.search(line):
                continue
            where = f"{path} line {number}: {line.strip()}"
            match = _ASSIGNMENT.match(line)
            if match is None or depth:
                raise NotComputable(where)
            values[match.group(1)] = _expanded(match.group(2), values, where)
    return values


def _refuse_open_quotes(path: str, text: str) -> None:
    """A quote that is never closed swallows what follows, whatever line it stands on."""
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split = True
    start = 1
    try:
        while lexer.get_token() is not None:
            start = lexer.lineno
    except ValueError as error:
        raise NotComputable(f"{path} line {start}: {str(error)[:1].lower()}{str(error)[1:]}") from error


def _expanded(raw: str, values: t.Mapping[str, str], where: str) -> str:
    if raw.startswith("'"):
        return raw[1:-1]
    text = raw[1:-1] if raw.startswith('"') else raw
    if "`" in text or "$(" in text:
        raise NotComputable(where)

    def value(match: t.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        if name not in values:
            raise NotComputable(where)
        return values[name]

    text = _REFERENCE.sub(value, text)
    if "$" in text:
        raise NotComputable(where)
    return re.sub(r'\\(["\\`$])', r"\1", text)


def line_of(texts: t.Mapping[str, str]) -> t.List[str]:
    """The arguments that the generator would write for these files. Raises NotComputable."""
    values = evaluate(texts)
    return [token for name in VARIABLES for token in _cmdline.split(values[name])]


def removed(text: str, unwanted: t.Collection[str]) -> str:
    """A file's text without these arguments, wherever one of our two variables gets them literally."""
    lines = []
    for line in text.splitlines(keepends=True):
        match = None if line.lstrip().startswith("#") else _ASSIGNMENT.match(line.rstrip("\n"))
        if match is None:
            lines.append(line)
            continue
        start, end = match.span(2)
        quote = line[start] if line[start : start + 1] in ('"', "'") else ""
        inner = line[start + len(quote) : end - len(quote)]
        spelt = {*unwanted, *(_in_quotes(token) for token in unwanted)} if quote == '"' else unwanted
        lines.append(line[:start] + quote + _cmdline.without(inner, spelt) + quote + line[end:])
    return "".join(lines)


def appended(text: str, variable: str, arguments: t.Sequence[str]) -> str:
    """A file's text with these arguments at the end of the last assignment of a variable, or with an assignment at its end."""
    lines = text.splitlines(keepends=True)
    for index in range(len(lines) - 1, -1, -1):
        line = lines[index]
        match = None if line.lstrip().startswith("#") else _ASSIGNMENT.match(line.rstrip("\n"))
        if match is None or match.group(1) != variable:
            continue
        start, end = match.span(2)
        quote = line[start] if line[start : start + 1] in ('"', "'") else ""
        inner = line[start + len(quote) : end - len(quote)]
        quote = quote or '"'
        more = " ".join(_in_quotes(token) if quote == '"' else token for token in arguments)
        lines[index] = line[:start] + quote + (f"{inner} {more}" if inner else more) + quote + line[end:]
        return "".join(lines)
    ending = "" if not text or text.endswith("\n") else "\n"
    return f'{text}{ending}{variable}="{" ".join(_in_quotes(token) for token in arguments)}"\n'


def _in_quotes(token: str) -> str:
    return token.replace('"', '\\"')


def chosen(texts: t.Mapping[str, str], name: str) -> t.Optional[str]:
    """The last plain value that these files give a variable, without quotes; None if there is none."""
    found = re.findall(rf"^\s*{name}=(.*)$", "\n".join(texts.values()), re.MULTILINE)
    return found[-1].strip().strip("\"'") if found else None
