"""A process that takes a backup into a real directory and waits to be killed: `python -m … ROOT RECIPIENT WORDS COUNT`.

It prints a line and stands still when the COUNT-th call to the vault with WORDS in its name has taken effect.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

from ops_pipeline.adapters.secrets import read_secret
from ops_pipeline.adapters.vaults import open_vault
from ops_pipeline.ports import BlobStore, ObjectStore, Vault
from ops_pipeline_tests.fakes.backups import backup_bed, backup_catalogue, database
from ops_pipeline_tests.fakes.platform import Bed
from ops_pipeline_tests.fakes.vault import Announced
from ops_pipeline_tests.services.backing_up import take


def bed_of(recipient: str) -> Bed:
    """The world of parent and child: a dump of some frames, so that blocks lie about when it is killed."""
    bed = backup_bed(backup_catalogue(photos=True, recipients=[recipient], store={"directory": "backups"}))
    database(bed).live.filler = 20_000_000
    return bed


def vault_of(bed: Bed, root: Path) -> Vault:
    """The real vault in a directory."""
    return open_vault(bed.catalogue.backups, root, lambda reference: read_secret(reference, root))


def main(root: Path, recipient: str, words: str, count: int) -> None:
    """Take a set, standing still after a call."""
    bed = bed_of(recipient)
    bed.clock.advance(3600)
    vault, made = vault_of(bed, root), [0]

    def beat(name: str) -> Callable[[], None]:
        def after() -> None:
            made[0] += words in name
            if made[0] == count:
                print(name, flush=True)
                time.sleep(600)

        return after

    watched = Vault(
        sets=cast(ObjectStore, Announced(vault.sets, "sets", beat)),
        media=cast(ObjectStore, Announced(vault.media, "media", beat)),
        state=cast(BlobStore, Announced(vault.state, "state", beat)),
        sealing=vault.sealing,
    )
    take(replace(bed.platform("doomed:1"), vault=lambda: watched))
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
