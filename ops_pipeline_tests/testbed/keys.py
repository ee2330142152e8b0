"""Keys of one test: a folder with a signing key and an age identity, and sealings opened from it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ops_pipeline.adapters.backup_keys import NewIdentity, make_identity
from ops_pipeline.adapters.sealing import AgeSealing, open_sealing
from ops_pipeline.adapters.secrets import read_secret
from ops_pipeline.catalogue.backup_model import Backups

SIGNING = "file:keys/signing"


class Keys:
    """The secrets of one control plane below `root`. `sealing()` is what takes backups and opens them again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.identity = self.new_identity("identity")

    def new_identity(self, name: str) -> NewIdentity:
        """An identity, written to the file `name`."""
        made = make_identity(datetime.now(UTC))
        (self.root / name).write_text(made.text)
        return made

    def sealing(
        self,
        *,
        recipients: tuple[str, ...] | None = None,
        identity: str | None = "file:identity",
        signing_key: str = SIGNING,
        trusted_signers: tuple[str, ...] = (),
    ) -> AgeSealing:
        """As the catalogue would say it; a second one of the same folder is another process."""
        wanted = Backups(
            recipients=(self.identity.recipient,) if recipients is None else recipients,
            identity=identity,
            signing_key=signing_key,
            trusted_signers=trusted_signers,
        )
        return open_sealing(wanted, self.root, lambda reference: read_secret(reference, self.root))
