"""A vault in memory: sets, media and state as fakes, and ports that die with the process that uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

from ops_pipeline.ports import BlobStore, DataSource, FileTree, ObjectStore, Sealing, Vault
from ops_pipeline_tests.fakes.data_source import FakeBeside, FakeDump
from ops_pipeline_tests.fakes.object_store import InMemoryObjectStore
from ops_pipeline_tests.fakes.sealing import FakeSealing
from ops_pipeline_tests.fakes.store import InMemoryStore

Beat = Callable[[str], Callable[[], None]]
"""Called with a call's name before it takes effect (may raise); what it returns is called when it has."""


class FakeVault:
    """What lies in the vault, shared by all controllers of a test. `vault()` is an open one.

    `sets`, `media`, `state` are the fakes themselves, for assertions and faults; `sealing` may be replaced.
    """

    def __init__(
        self,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sealing: Sealing | None = None,
        *,
        shows_puts: bool = False,
    ) -> None:
        self.sets = InMemoryObjectStore(now=now, shows_puts=shows_puts)
        self.media = InMemoryObjectStore(now=now, shows_puts=shows_puts)
        self.state = InMemoryStore(now=now)
        self.sealing: Sealing = sealing or FakeSealing()

    def vault(self, beat: Beat | None = None) -> Vault:
        """An open vault; with `beat` every call is announced and may be the process's last."""
        if beat is None:
            return Vault(self.sets, self.media, self.state, self.sealing)
        return Vault(
            sets=cast(ObjectStore, Announced(self.sets, "sets", beat)),
            media=cast(ObjectStore, Announced(self.media, "media", beat)),
            state=cast(BlobStore, Announced(self.state, "state", beat)),
            sealing=self.sealing,
        )


def announced(source: DataSource | FileTree, beat: Beat) -> DataSource | FileTree:
    """A data source every call of which is announced, on its dumps and places beside too."""
    return cast(DataSource, Announced(source, source.name, beat))


class Announced:
    """A port whose calls, and those on what it gives out, are announced: `sets.put sets/…/manifest.json`."""

    def __init__(self, port: object, name: str, beat: Beat) -> None:
        self._port = port
        self._name = name
        self._beat = beat

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._port, attribute)
        if not callable(value):
            return value

        def call(*arguments: Any, **named: Any) -> Any:
            key = f" {arguments[0]}" if arguments and isinstance(arguments[0], str | int) else ""
            name = f"{self._name}.{attribute}{key}"
            after = self._beat(name)
            try:
                return self._wrapped(value(*arguments, **named), name)
            finally:
                after()

        return call

    def _wrapped(self, result: Any, name: str) -> Any:
        if isinstance(result, FakeDump | FakeBeside) or hasattr(result, "abort"):
            return Announced(result, name, self._beat)
        if hasattr(result, "__enter__"):
            return self._entered(result, name)
        return result

    @contextmanager
    def _entered(self, manager: Any, name: str) -> Iterator[Any]:
        with manager as found:
            several = isinstance(found, list | tuple)
            yield [self._wrapped(one, name) for one in found] if several else self._wrapped(found, name)
