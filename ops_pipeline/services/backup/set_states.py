"""What changes about a set after it was taken: checks, drills, holds, quarantine. `sets/<environment>/<id>.json`."""

from __future__ import annotations

from collections.abc import Callable

from ops_pipeline.core.backup.records import SetState
from ops_pipeline.errors import Conflict, StoreDamaged
from ops_pipeline.ports import Clock, Vault
from ops_pipeline.services.records import decode, encode
from ops_pipeline.services.retrying import retried

ATTEMPTS = 20


def state_key(environment: str, set_id: str) -> str:
    """Key in `vault.state`."""
    return f"sets/{environment}/{set_id}.json"


def read_state(vault: Vault, clock: Clock, environment: str, set_id: str) -> SetState:
    """State of a set; a set nothing happened to has an empty one. Raise StoreDamaged, Unavailable."""
    key = state_key(environment, set_id)
    blob = retried(clock, f"read {key}", lambda: vault.state.read(key))
    return SetState(environment, set_id) if blob is None else _decoded(blob.data, environment, set_id)


def trusted_state(data: bytes | None, environment: str, set_id: str) -> SetState:
    """The same from what was read, and without an error: a set whose state cannot be read is in quarantine.

    It may have been held or quarantined, so it must neither count as good nor be cleared away.
    """
    if data is None:
        return SetState(environment, set_id)
    try:
        return _decoded(data, environment, set_id)
    except StoreDamaged as error:
        return SetState(environment, set_id, quarantined=error.message)


def write_state(
    vault: Vault, clock: Clock, environment: str, set_id: str, change: Callable[[SetState], SetState]
) -> SetState:
    """Change a set's state and return the new one.

    `change` may be called several times: when somebody else wrote in between, it is applied to what they wrote.
    Raise StoreDamaged, Unavailable, Conflict when it changes all the time.
    """
    key = state_key(environment, set_id)

    def attempt() -> SetState | None:
        blob = vault.state.read(key)
        found = SetState(environment, set_id) if blob is None else _decoded(blob.data, environment, set_id)
        wanted = change(found)
        if wanted == found:
            return found
        try:
            if blob is None:
                vault.state.write(key, encode(wanted), if_absent=True)
            else:
                vault.state.write(key, encode(wanted), if_match=blob.etag)
        except Conflict:
            return None
        return wanted

    for _ in range(ATTEMPTS):
        written = retried(clock, f"write {key}", attempt)
        if written is not None:
            return written
        clock.sleep(0.05)
    raise Conflict(f"{key} changes all the time; try again")


def _decoded(data: bytes, environment: str, set_id: str) -> SetState:
    key = state_key(environment, set_id)
    state = decode(SetState, data, key)
    if (state.environment, state.id) != (environment, set_id):
        raise StoreDamaged(f"stored object {key} is damaged: it describes {state.environment}/{state.id}")
    return state
