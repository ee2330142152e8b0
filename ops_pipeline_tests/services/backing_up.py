"""Taking sets on fakes, and what must hold of whatever is listed afterwards."""

from __future__ import annotations

from typing import Any

from ops_pipeline.core.backup.records import Manifest, SetKey, Trigger
from ops_pipeline.services.backup.inflight import in_flight
from ops_pipeline.services.backup.locks import TERM_SECONDS
from ops_pipeline.services.backup.sets import Listing, list_sets, whole_set
from ops_pipeline.services.backup.stream_reading import read_stream
from ops_pipeline.services.backup.structure import structure_problems
from ops_pipeline.services.backup.take import take_backup
from ops_pipeline.services.platform import Platform
from ops_pipeline_tests.fakes.data_source import END
from ops_pipeline_tests.fakes.platform import Bed, quiet

HOURS = 3600.0


def take(platform: Platform, environment: str = "prod", **more: Any) -> Manifest:
    """One set."""
    return take_backup(
        platform, environment, **{"trigger": Trigger.MANUAL, "run_id": "run-a", "progress": quiet, **more}
    )


def history(bed: Bed, count: int, hours: float = 6.0, **more: Any) -> list[Manifest]:
    """Several sets, `hours` apart, oldest first."""
    made = []
    for _ in range(count):
        bed.clock.advance(hours * HOURS)
        made.append(take(bed.platform(), **more))
    return made


def listing(bed: Bed, environment: str = "prod") -> Listing:
    """As somebody else sees it."""
    return list_sets(bed.platform("looking:1"), environment)


def assert_whole(bed: Bed, environment: str = "prod") -> Listing:
    """Whatever is listed is all there, opens, and is what the sources gave; nothing is damaged or gone."""
    platform, vault = bed.platform("looking:1"), bed.vault.vault()
    found = listing(bed, environment)
    assert found.damaged == () and found.chain == ()
    assert [one.id for one in found.sets] == sorted((one.id for one in found.sets), reverse=True)
    for short in found.sets:
        manifest = whole_set(platform, short).manifest
        assert structure_problems(vault, bed.clock, manifest) == ()
        for part in manifest.parts:
            data = b"".join(read_stream(vault.sets, vault.sealing, part.stream))
            assert len(data) == part.stream.plain_size
            assert data.endswith(END) or part.files is not None
    return found


def left_over(bed: Bed, environment: str = "prod") -> dict[str, str]:
    """Records of sets being taken: id → stage."""
    return {record.id: record.stage for record, _ in in_flight(bed.vault.vault(), bed.clock, environment)}


def parts_of(bed: Bed, key: SetKey) -> list[str]:
    """Keys of a set's objects that show."""
    return [name for name in bed.vault.sets.objects if name.startswith(key.prefix)]


def outlive_the_lock(bed: Bed) -> None:
    """Let the time pass after which a dead holder's lock is free."""
    bed.clock.advance(TERM_SECONDS + 1)
