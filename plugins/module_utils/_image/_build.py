# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""One run: what is wanted, what the registry has, and the build and push of what is missing."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image import _engine, _inputs, _installer, _source, _tags
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image import _plan as plans
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._login import Login
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._refused import Refused
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._registry import Registry


class Build:
    """``scratch`` is a directory of ours, 0700, that goes away with the run. ``options`` are the module's."""

    def __init__(self, options: t.Mapping[str, t.Any], installer: _installer.Installer, source: _source.Source, scratch: str) -> None:
        self.options, self.installer, self.source, self._scratch = options, installer, source, scratch
        self._fetched = source.where if source.commit is None else None
        self._files: dict[str, list[str]] = {}
        self._changes: t.Sequence[Change] = ()
        #: References that this run has written, each with the digest that was pushed ("" where the engine did not say it).
        self.pushed: dict[str, str] = {}

    @property
    def done(self) -> list[Change]:
        """Those of the changes that were made."""
        return [change for change in self._changes if change.target in self.pushed]

    def wanted(self, repository: _tags.Repository, arguments: t.Mapping[str, str]) -> list[plans.Wanted]:
        """One entry per tag, in the order of ``os_tags``. Of a directory the files are read here. Raises Refused."""
        found = []
        for os_tag in dict.fromkeys(self.options["os_tags"]):
            directory = _tags.source_directory(os_tag)
            if self.source.commit is None:
                content = _source.digest_of(self.source.target, self.source.where, directory, self.files(directory))
                from_where = f"files:{content}"
            else:
                from_where = f"git:{self.source.commit}"
            all_arguments = _inputs.arguments_of(self.installer, self.source.commit, arguments)
            inputs = _inputs.Inputs(directory, from_where, self.installer, all_arguments)
            tag = _tags.image_tag(self.installer.version, os_tag)
            found.append(plans.Wanted(os_tag, tag, repository.reference(tag), inputs))
        return found

    def tree(self) -> str:
        """The directory of the sources; a commit is fetched first, once. Raises Refused."""
        self._fetched = self._fetched or _source.fetch(self.source, self._scratch, self.options["timeout"])
        return self._fetched

    def files(self, directory: str) -> list[str]:
        """Those of the context of one operating system. Raises Refused."""
        if directory not in self._files:
            self._files[directory] = _source.files_of(self.source.target, self.tree(), directory)
        return self._files[directory]

    def observe(self, registry: Registry, wanted: t.Sequence[plans.Wanted]) -> plans.Observed:
        """What the registry has; where something is to be built, also whether that can be. Raises Refused."""
        registry.log_in(push=True)
        images = {entry.tag: registry.image(entry.tag, self.installer.arch) for entry in wanted}
        force = self.options["force"]
        due = {entry.reference for entry in wanted if plans.due(entry, images[entry.tag], force)}
        obstacles = []
        for left, right in plans.groups(wanted, due):
            if not right:
                obstacles += self._obstacles(left[0].inputs.directory)
        return plans.Observed(images, tuple(dict.fromkeys(obstacles)))

    def _obstacles(self, directory: str) -> list[Blocker]:
        """What keeps an image from being built from a directory of the sources."""
        obstacles = []
        checks: list[t.Callable[[], t.Any]] = [self._find_engine, lambda: self.files(directory)]
        for check in checks:
            try:
                check()
            except Refused as error:
                obstacles.append(error.blocker())
        return obstacles

    def _find_engine(self) -> tuple[str, str]:
        return _engine.find(self.options["engine"])

    def apply(self, registry: Registry, login: Login, wanted: t.Sequence[plans.Wanted], changes: t.Sequence[Change]) -> list[Blocker]:
        """Build each image once and give it all its tags. One that fails does not stop the others."""
        self._changes = changes
        blockers = []
        engine = None
        for left, right in plans.groups(wanted, {change.target for change in changes}):
            try:
                if not right:
                    engine = engine or self._start_engine(login)
                    self._build(engine, left[0])
                self._tag(registry, (right or left)[0], left if right else left[1:])
            except Refused as error:
                blockers += [Blocker(entry.reference, error.problem, error.remedy) for entry in left if entry.reference not in self.pushed]
        return blockers

    def _start_engine(self, login: Login) -> _engine.Engine:
        return _engine.Engine(*self._find_engine(), self._scratch, login, self.options["ca_cert"], self.options["timeout"])

    def _build(self, engine: _engine.Engine, entry: plans.Wanted) -> None:
        directory = entry.inputs.directory
        files = self.files(directory)
        context = os.path.join(self._scratch, f"context-{directory}")
        _source.make_context(context, self.tree(), directory, files, self.installer)
        engine.build(context, entry.reference, entry.inputs.arguments, entry.inputs.labels(), self.options["force"])
        self.pushed[entry.reference] = engine.push(entry.reference) or ""

    def _tag(self, registry: Registry, image: plans.Wanted, others: t.Sequence[plans.Wanted]) -> None:
        """Give an image that is in the registry further tags: one manifest, so one digest."""
        if not others:
            return
        registry.log_in(push=True)  # a token of before the build may have expired
        manifest = registry.manifest(image.tag)
        if manifest is None:
            raise Refused(image.reference, "it was pushed, and the registry has no such tag", "Look for another writer of this tag")
        for entry in others:
            registry.tag(manifest, entry.tag)
            self.pushed[entry.reference] = manifest.digest
