# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Boot entries as files, one per entry: type 1 of the Boot Loader Specification (uapi-group.org/specifications)."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
import typing as t

from ._sysfs import Host

#: Where Fedora's GRUB has its entries, and its environment block.
GRUB_ENTRIES = "/boot/loader/entries"
GRUB_ENVIRONMENT = "/boot/grub2/grubenv"
#: Where the partition with systemd-boot's entries may be mounted.
ROOTS = ("/efi", "/boot/efi", "/boot")
_VARIABLES = "/sys/firmware/efi/efivars"
_VENDOR = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


@dataclasses.dataclass(frozen=True)
class Fragment:
    """One file: ``name`` without ``.conf`` and without a counter of boot attempts; paths as they are written in it."""

    name: str
    path: str
    text: str
    linux: str
    initrds: t.Tuple[str, ...]
    options: str
    version: t.Optional[str]
    title: str
    sort_key: str
    machine_id: str
    failed: bool  #: all its attempts to boot are used up

    def newest_first(self) -> t.Tuple[t.Any, ...]:
        """Sorts entries as systemd-boot does, read from the end: with a sort key before those without, newest version first."""
        return (
            not self.failed,
            bool(self.sort_key),
            _Reversed(self.sort_key),
            _Reversed(self.machine_id),
            version_key(self.version or self.name),
        )

    def by_name(self) -> t.Tuple[t.Any, ...]:
        """Sorts entries as GRUB's blscfg does, read from the end."""
        return version_key(self.name)


class _Reversed:
    """Text that sorts backwards."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reversed) and self.text == other.text

    def __lt__(self, other: _Reversed) -> bool:
        return other.text < self.text

    def __hash__(self) -> int:
        return hash(self.text)


def version_key(text: str) -> t.Tuple[t.Any, ...]:
    """Sorts versions: numbers by value, after letters; ``~`` before everything, even before the end."""
    parts: t.List[t.Tuple[int, int, str]] = []
    for part in re.findall(r"\d+|[A-Za-z]+|~", text):
        parts.append((3, int(part), "") if part.isdigit() else (0, 0, "") if part == "~" else (2, 0, part))
    return (*parts, (1, 0, ""))


def fragments(host: Host, directory: str) -> t.List[Fragment]:
    """The entries in a directory that boot a Linux kernel, sorted by file name. Raises HostError."""
    found = []
    for name in host.names(directory):
        text = host.read_text(f"{directory}/{name}") if name.endswith(".conf") else None
        fragment = None if text is None else parsed(f"{directory}/{name}", text)
        if fragment is not None:
            found.append(fragment)
    return found


def parsed(path: str, text: str) -> t.Optional[Fragment]:
    """One file's content, or None if it boots no Linux kernel."""
    fields: t.Dict[str, t.List[str]] = {}
    for line in text.splitlines():
        key, _blank, value = line.strip().replace("\t", " ").partition(" ")
        if key and not key.startswith("#"):
            fields.setdefault(key, []).append(value.strip())
    if not fields.get("linux"):
        return None
    name = path.rpartition("/")[2][: -len(".conf")]
    counter = re.search(r"\+(\d+)(?:-\d+)?$", name)
    return Fragment(
        name=name[: counter.start()] if counter else name,
        path=path,
        text=text,
        linux=fields["linux"][-1],
        initrds=tuple(word for value in fields.get("initrd", []) for word in value.split()),
        options=" ".join(fields.get("options", [])),
        version=fields["version"][-1] if fields.get("version") else None,
        title=(fields.get("title") or [""])[-1],
        sort_key=(fields.get("sort-key") or [""])[-1],
        machine_id=(fields.get("machine-id") or [""])[-1],
        failed=bool(counter and counter.group(1) == "0"),
    )


class Menu(t.NamedTuple):
    """The entries in the menu's order, and the name of the next boot's entry, None where only the boot loader can tell."""

    root: t.Optional[str]  #: of the file system with the entries
    fragments: t.Tuple[Fragment, ...]
    default: t.Optional[str]
    environment: t.Mapping[str, str]  #: GRUB's variables; none at all for a boot loader that knows none

    def options(self, fragment: Fragment) -> str:
        """An entry's arguments, with GRUB's variables filled in. Those that its own configuration sets are not known here: nothing then."""
        if not self.environment:
            return fragment.options
        return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: self.environment.get(match.group(1) or match.group(2), ""), fragment.options)


def grub_menu(host: Host) -> Menu:
    """The menu of a GRUB that reads these files (Fedora's blscfg). Raises HostError."""
    found = sorted(fragments(host, GRUB_ENTRIES), key=Fragment.by_name, reverse=True)
    environment = environment_block(host.read_text(GRUB_ENVIRONMENT) or "")
    return Menu("/boot", tuple(found), grub_default(found, environment.get("saved_entry")), {"": "", **environment})


def environment_block(text: str) -> t.Dict[str, str]:
    """GRUB's environment block as a mapping."""
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#") and "=" in line)
    return {name: value for name, _equals, value in pairs}


def grub_default(ordered: t.Sequence[Fragment], saved: t.Optional[str]) -> t.Optional[str]:
    """The entry that GRUB's environment block names, by name, title or number; the first one if it names none."""
    if not saved:
        return ordered[0].name if ordered else None
    named = [fragment.name for fragment in ordered if saved in (fragment.name, fragment.title)]
    if not named and saved.isdigit() and int(saved) < len(ordered):
        return ordered[int(saved)].name
    return named[0] if named else None


def systemd_menu(host: Host) -> Menu:
    """The menu of systemd-boot. Raises HostError."""
    root = next((root for root in ROOTS if host.names(f"{root}/loader/entries") or host.names(f"{root}/EFI/Linux")), None)
    found = sorted(fragments(host, f"{root}/loader/entries"), key=Fragment.newest_first, reverse=True) if root else []
    return Menu(root, tuple(found), systemd_default(found, _wishes(host, root)), {})


def _wishes(host: Host, root: t.Optional[str]) -> t.List[str]:
    """Who says which entry is next, the strongest first (systemd-boot(7), loader.conf(5))."""
    words = [line.split(None, 1) for line in (host.read_text(f"{root}/loader/loader.conf") or "").splitlines()]
    said = [word[1].strip() for word in words if word[:1] == ["default"] and len(word) > 1]
    wishes = [variable(host, "LoaderEntryOneShot"), variable(host, "LoaderEntryDefault"), *said[-1:]]
    return [variable(host, "LoaderEntryLastBooted") if wish == "@saved" else wish for wish in wishes if wish]


def variable(host: Host, name: str) -> str:
    """A variable of the Boot Loader Interface, empty if the firmware has none of that name."""
    content = host.read_bytes(f"{_VARIABLES}/{name}-{_VENDOR}") or b""
    return content[4:].decode("utf-16-le", "ignore").rstrip("\0")  # four bytes of attributes come first


def systemd_default(ordered: t.Sequence[Fragment], wishes: t.Sequence[str]) -> t.Optional[str]:
    """The entry of the next boot: the first that a wish (a pattern for file names) fits, else the first one.

    None if a wish names something else than an entry that boots this system, which only the boot loader can tell.
    """
    for wish in wishes:
        pattern = wish if wish.endswith(".conf") else f"{wish}.conf"
        fits = [fragment.name for fragment in ordered if fnmatch.fnmatchcase(f"{fragment.name}.conf".lower(), pattern.lower())]
        if fits:
            return fits[0]
        if wish.startswith(("auto-", "@")) or wish.endswith(".efi"):
            return None
    return ordered[0].name if ordered else None
