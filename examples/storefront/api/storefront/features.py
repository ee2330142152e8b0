"""Feature flags, asked through the OpenFeature SDK. flagd's provider reads the file that the control plane renews.

Without the file, with a damaged one or with a flag that nobody declared, every feature is off and nothing else happens;
a file that comes, changes or goes away while the process runs is noticed within half a second.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import uuid
from pathlib import Path

from aiohttp import web
from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent
from openfeature.provider.no_op_provider import NoOpProvider

log = logging.getLogger("storefront.features")
# The provider repeats its complaint with every look at the file; what changes is logged here, once.
logging.getLogger("openfeature").setLevel(logging.CRITICAL)

BADGES = "listing-badges"
ALL = (BADGES,)
COOKIE = "storefront_visitor"
EVERY_MILLISECONDS = 500
_YEAR = 365 * 24 * 3600
_VISITOR = re.compile(r"[0-9a-f]{32}")


class Features:
    """The flags of this process. `start` and `close` it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._domain = uuid.uuid4().hex  # the SDK's registry is global; several applications may share a process
        self._client = api.get_client(self._domain)
        self._trouble = False

    def start(self) -> None:
        """Read the file if there is one, and watch it from here on."""
        self._client.add_handler(ProviderEvent.PROVIDER_ERROR, self._failed)
        self._client.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, self._changed)
        provider = FlagdProvider(
            resolver_type=ResolverType.FILE,
            offline_flag_source_path=str(self._file),
            deadline_ms=EVERY_MILLISECONDS,
        )
        with contextlib.suppress(Exception):  # no narrower kind is promised; `_failed` is told about it too
            api.set_provider_and_wait(provider, self._domain)

    def close(self) -> None:
        """Stop watching the file; every feature is off."""
        api.set_provider(NoOpProvider(), self._domain)

    def on(self, feature: str, visitor: str) -> bool:
        """Whether a feature is on for a visitor."""
        return self._client.get_boolean_value(feature, False, EvaluationContext(targeting_key=visitor))

    def of(self, visitor: str) -> tuple[str, ...]:
        """All features that are on for a visitor."""
        return tuple(feature for feature in ALL if self.on(feature, visitor))

    def _failed(self, details: EventDetails) -> None:
        if not self._trouble:
            extra = {"file": str(self._file), "error": details.message or "not there"}
            log.warning("flags cannot be read, features stay as they are (off, at the start)", extra=extra)
        self._trouble = True

    def _changed(self, details: EventDetails) -> None:
        self._trouble = False
        if details.flags_changed:
            log.info("flags read", extra={"flags": sorted(details.flags_changed)})


VISITOR = web.RequestKey("visitor", tuple[str, bool])
"""Where a request carries what `visitor_of` found out."""


def visitor_of(request: web.Request) -> tuple[str, bool]:
    """Who asks, as far as shares of visitors are concerned, and whether that is somebody new."""
    given = request.cookies.get(COOKIE, "")
    return (given, False) if _VISITOR.fullmatch(given) else (secrets.token_hex(16), True)


def remember(response: web.Response, visitor: str) -> None:
    """Let the browser say next time who it is, so that a feature does not come and go."""
    response.set_cookie(COOKIE, visitor, max_age=_YEAR, httponly=True, samesite="Lax")
