"""Signs of life to an outside service (Healthchecks, Cronitor and the like): one GET, whose answer is 2xx."""

from __future__ import annotations

from ops_pipeline.errors import Permanent, Transient

SECONDS = 10.0


def ping(url: str) -> None:
    """Send one. The address is a secret and never appears in what is raised: Transient, Permanent."""
    import requests

    from ops_pipeline.adapters.bounded_http import BoundedSession, words_of

    if not url.startswith(("https://", "http://")):
        raise Permanent("the address for signs of life does not begin with https:// or http://")
    try:
        with BoundedSession(url, SECONDS) as session:
            status = session.get(url, allow_redirects=False).status_code
    except (requests.exceptions.Timeout, requests.exceptions.ConnectionError) as error:
        reason = words_of(error)
        raise Transient("the service for signs of life gave " + _without(url, reason)) from None
    except (requests.exceptions.RequestException, ValueError):
        raise Permanent("the address for signs of life is none that can be asked") from None
    if status in (408, 429) or status >= 500:
        raise Transient(f"the service for signs of life answered with status {status}")
    if not 200 <= status < 300:
        raise Permanent(f"the service for signs of life answered with status {status}")


def _without(url: str, words: str) -> str:
    """Words of a library may repeat the address, or the part of it that is the secret."""
    path = url.split("://", 1)[1].partition("/")[2]
    return "no answer" if url in words or (path and path in words) else words
