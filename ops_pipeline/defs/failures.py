"""Turns errors of this project into run failures whose words a person can act on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from ops_pipeline.errors import BadInput, OpsError, PolicyRefused


class Failure(dg.Failure):
    """A run failure in words.

    Dagster's page shows the exception's full name before its words; this one's is short.
    """

    __module__ = "builtins"


def failure(error: OpsError, more: Mapping[str, Any] | None = None) -> dg.Failure:
    """Given an error, return the run failure: same words, the class and exit code `ops` ends with, never retried.

    `more` is further metadata it shows, the evidence for instance.
    """
    metadata: dict[str, Any] = {
        "error": dg.MetadataValue.text(type(error).__name__),
        "exit_code": dg.MetadataValue.int(error.exit_code),
    }
    if error.hint:
        metadata["hint"] = dg.MetadataValue.text(error.hint)
    if isinstance(error, PolicyRefused):
        # Text stands in the run's page at once; Markdown hides behind a link.
        metadata["reasons"] = dg.MetadataValue.text("\n".join(error.reasons))
    if isinstance(error, BadInput):
        metadata["problems"] = dg.MetadataValue.text("\n".join(map(str, error.problems)))
    first, _, rest = error.message.partition("\n")
    if rest and not isinstance(error, BadInput):
        # A failed start carries the last lines of the container; they read best as they were written.
        metadata["log"] = dg.MetadataValue.text(rest.rstrip())
    metadata |= more or {}
    return Failure(description=str(error) if error.message else first, metadata=metadata, allow_retries=False)


@contextmanager
def in_plain_words(more: Callable[[OpsError], Mapping[str, Any]] | None = None) -> Iterator[None]:
    """Within, an OpsError becomes a run failure; everything else (a bug, a termination) passes unchanged.

    `more` says what else the failure shows.
    """
    try:
        yield
    except OpsError as error:
        raise failure(error, more(error) if more else None) from None
