"""What the Docker SDK raises, in the project's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ops_pipeline.errors import NotFound, OpsError, Permanent, Transient, Unavailable
from ops_pipeline.ports import AddressInUse


@contextmanager
def docker_errors(host: str, url: str, doing: str) -> Iterator[None]:
    """Translate everything the SDK raises inside. `doing` completes «could not …» («start ops-prod-api-7-0»)."""
    import docker.errors
    import requests.exceptions
    import urllib3.exceptions

    try:
        yield
    except docker.errors.APIError as error:
        raise refusal(host, doing, error.status_code, str(error.explanation or error)) from error
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as error:
        raise Transient(f"the Docker engine of host {host} did not answer in time: could not {doing}") from error
    except (
        docker.errors.DockerException,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        OSError,
    ) as error:
        raise engine_down(host, url, str(error)) from error


def engine_down(host: str, url: str, why: str) -> Unavailable:
    """The error of an engine that cannot be reached, with what to do."""
    local = url.startswith(("unix://", "npipe://"))
    hint = (
        "Start it (`systemctl start docker`, or Docker Desktop) and see that this user may use its socket."
        if local
        else "See that the host is up and correct its `docker` address in the catalogue."
    )
    return Unavailable(f"the Docker engine of host {host} ({url}) does not answer: {_first_line(why)}", hint=hint)


def refusal(host: str, doing: str, status: int | None, words: str) -> OpsError | AddressInUse:
    """Given an engine's refusal, return the error a person or a retry can act on."""
    text, low = f"host {host} could not {doing}: {_first_line(words)}", words.lower()
    if "address already in use" in low and "port" not in low and "bind" not in low:
        return AddressInUse(text)
    if "port is already allocated" in low or ("bind" in low and "address already in use" in low):
        return Permanent(text, hint="Another program holds that port; stop it or give this one another.")
    if "no space left on device" in low:
        return Permanent(text, hint=f"The disk of host {host} is full: remove old images (`docker image prune -a`).")
    if "unauthorized" in low or "authentication required" in low or "access denied" in low:
        return Permanent(text, hint="Log in to the registry on this machine (`docker login`).")
    if "connection refused" in low or "i/o timeout" in low or "no such host" in low or "eof" in low:
        return Transient(text, hint="See that the registry answers and that the host can reach it.")
    if status == 404 or "manifest unknown" in low or "not found" in low:
        return NotFound(text)
    if "is already in progress" in low or status in {429, 503, 504}:
        return Transient(text)
    return Permanent(text)


def _first_line(words: str) -> str:
    return " ".join(words.strip().splitlines()[:1]) or "no reason given"
