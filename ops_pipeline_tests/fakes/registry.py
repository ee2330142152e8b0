"""A Registry in memory, and the place a fake builder pushes to."""

from __future__ import annotations

import json

from ops_pipeline.core.image import ImageRef
from ops_pipeline.errors import Permanent, Transient
from ops_pipeline.ports import Registry


class InMemoryRegistry(Registry):
    """Tags and digests by repository. `down` = that many further questions get no answer; `refuses` = credentials."""

    def __init__(self) -> None:
        self.tags: dict[str, dict[str, str]] = {}
        self.digests: dict[str, set[str]] = {}
        self.down = 0
        self.refuses = False
        self.asked: list[str] = []

    def put(self, repository: str, tag: str, digest: str) -> ImageRef:
        """What a push does."""
        self._answer(f"push {repository}:{tag}")
        self.tags.setdefault(repository, {})[tag] = digest
        self.digests.setdefault(repository, set()).add(digest)
        return ImageRef(repository, digest)

    def forget(self, image: ImageRef) -> None:
        """Act out a registry that was cleaned up."""
        self.digests.get(image.repository, set()).discard(image.digest)

    def digest(self, repository: str, tag: str) -> str | None:
        self._answer(f"digest {repository}:{tag}")
        return self.tags.get(repository, {}).get(tag)

    def exists(self, image: ImageRef) -> bool:
        self._answer(f"exists {image}")
        return image.digest in self.digests.get(image.repository, set())

    def _answer(self, question: str) -> None:
        self.asked.append(question)
        if self.down > 0:
            self.down -= 1
            raise Transient("the registry at fake does not answer", hint="Start it.")
        if self.refuses:
            raise Permanent(f"the registry refused the credentials for {json.dumps(question)}")
