"""The Edge port over HAProxy in a container, changed only by the fenced script inside it (deploy/images/edge/edge)."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Callable
from enum import IntEnum
from typing import TypeVar

from ops_pipeline.adapters.docker_exec import ContainerExec, ExecResult
from ops_pipeline.adapters.docker_session import ContainerSessions
from ops_pipeline.core.edge_config import (
    frame_config,
    service_config,
    structure_hash,
    topology_problems,
)
from ops_pipeline.core.edge_frame import LISTEN_PORT
from ops_pipeline.core.edge_live import (
    EdgeView,
    ServiceView,
    parse_connections,
    parse_edge,
    parse_service,
)
from ops_pipeline.core.routing import EdgeService, EdgeTopology, Routing, Server, routing_problems
from ops_pipeline.errors import NotFound, OpsError, Permanent, StaleGeneration, Transient, Unavailable
from ops_pipeline.ports import ANSWER_BYTES, Answer, Probe

T = TypeVar("T")


class _Exit(IntEnum):
    """Exit codes of the script that mean something to a caller."""

    STALE = 10
    UNKNOWN = 11
    OTHER_STRUCTURE = 12
    NOT_READY = 13
    LOCKED = 14
    SILENT = 15
    CHANGED = 18
    RELOAD_FAILED = 19
    NO_FLAGS = 20


_ASK_SECONDS = 15.0
_CHANGE_SECONDS = 75.0  # waiting for a lock (2 x 20 s) and for replicas (22 s), all bounded inside
_RELOAD_SECONDS = 120.0  # waiting for the lock (20 s) and for workers to come up (2 x 30 s)
_ATTEMPTS = 3


class HaproxyEdge:
    """The edge of one environment on one host. Contacts nothing before the first call; safe to share by threads."""

    def __init__(self, docker_url: str, host: str, environment: str, container: str) -> None:
        """`container` is the name of the edge's container on the engine at `docker_url`."""
        self._host = host
        self._environment = environment
        self._container = container
        self._hint = (
            f"Start it: the container {container} of environment {environment} (`make demo` starts all of them)."
        )
        self._sessions = ContainerSessions(ContainerExec(docker_url, host, container, self._hint), "edge")
        # What `ensure` declared. May be out of date: the script refuses a change made from another structure.
        self._structures: dict[str, EdgeService] = {}

    @property
    def host(self) -> str:
        """Name of the host."""
        return self._host

    def check(self) -> None:
        """Raise Unavailable, with what to do, when the edge does not answer."""
        try:
            self._run("check", timeout=_ASK_SECONDS)
        except Transient as error:
            raise Unavailable(error.message, hint=self._hint) from error

    def ensure(self, topology: EdgeTopology) -> bool:
        """Declare routes, pools and slots, keeping every service's routing. Return whether a reload was needed.

        Raise Permanent when the structure is impossible or HAProxy refuses it: everything stays as it was.
        """
        if problems := topology_problems(topology):
            raise Permanent(f"{self._name} cannot have this structure: " + "; ".join(problems))
        digest = structure_hash(topology)
        for _ in range(_ATTEMPTS):
            view = self._view()
            if _has(view, topology, digest):
                self._structures = {service.name: service for service in topology.services}
                return False
            payload = self._files(topology, view)
            result = self._run(
                "ensure", view.etag, digest, payload=payload, timeout=_RELOAD_SECONDS, allow={_Exit.CHANGED}
            )
            if result.code == 0:
                self._structures = {service.name: service for service in topology.services}
                return True
        raise Transient(f"{self._name}: its files kept changing while its structure was to be changed")

    def fence(self, service: str, generation: int) -> None:
        """From now on refuse changes to `service` by any lower generation. Raise StaleGeneration if we are lower."""
        self._run("fence", service, str(generation), timeout=_CHANGE_SECONDS)

    def apply(self, service: str, routing: Routing, generation: int) -> None:
        """Make the live state and the configuration on disk equal `routing`, read back and compared.

        A pool that is to get traffic it did not have must have a replica that answers its health path, asked from
        the edge, before anything is changed: otherwise Permanent. Raise also StaleGeneration, NotFound (no such
        service), Transient.
        """
        different: ServiceView | None = None
        for attempt in range(_ATTEMPTS):
            structure = self._structure(service, fresh=attempt > 0)
            if problems := routing_problems(routing, structure.slots):
                raise Permanent(f"{self._name}, service {service}: " + "; ".join(problems))
            payload = service_config(structure, routing).encode()
            result = self._run(
                "apply",
                service,
                str(generation),
                payload=payload,
                timeout=_CHANGE_SECONDS,
                allow={_Exit.OTHER_STRUCTURE},
            )
            if result.code == 0:
                different = self._parsed(parse_service, result.out)
                if different.live == routing and different.wanted == routing:
                    return
        if different is None:
            raise Transient(f"{self._name}: the structure of {service} keeps changing")
        raise Permanent(f"{self._name}, service {service}: wanted {routing}, but the running edge has {different.live}")

    def observe(self, service: str) -> Routing:
        """Live routing, read from the Runtime API. Raise NotFound when the edge does not know the service."""
        return self.view(service).live

    def view(self, service: str) -> ServiceView:
        """All the edge knows of a service: generation, structure, wanted and live routing, healthy servers."""
        found = self._parsed(parse_service, self._run("observe", service, timeout=_ASK_SECONDS).out)
        self._structures[service] = found.structure
        return found

    def connections(self, service: str, pool: str) -> int:
        """Connections (requests and WebSockets) open to the pool's servers now, in replaced workers too."""
        return self._parsed(parse_connections, self._run("connections", service, pool, timeout=_ASK_SECONDS).out)

    def probe(self, address: str, port: int, path: str, timeout_seconds: float = 2.0) -> Probe:
        """GET from where the edge stands, straight to a replica."""
        return self._probe(f"http://{address}:{port}{path}", "", timeout_seconds)

    def probe_route(self, path: str, host: str = "", timeout_seconds: float = 2.0) -> Probe:
        """GET through the edge's own listener, as a user would."""
        return self._probe(f"http://127.0.0.1:{LISTEN_PORT}{path}", host, timeout_seconds)

    def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        server: Server | None = None,
        host: str = "",
        timeout_seconds: float = 10.0,
    ) -> Answer:
        """Send one request without a body, to a replica or through the edge's own listener, and return the answer."""
        address = f"127.0.0.1:{LISTEN_PORT}" if server is None else f"{server.address}:{server.port}"
        arguments = (f"{timeout_seconds:.3f}", method, f"http://{address}{path}", str(ANSWER_BYTES), host)
        result = self._run("ask", *arguments, timeout=_ASK_SECONDS + timeout_seconds)
        status, _, rest = result.out.partition("\n")
        detail, _, rest = rest.partition("\n")
        size, _, body = rest.partition("\n")
        try:
            cut = int(size) > ANSWER_BYTES
            if int(status) == 0:
                return Answer(0, detail=detail.strip() or "no answer")
        except ValueError as error:
            raise Transient(f"{self._name} gave an answer that cannot be understood: {error}") from error
        return Answer(int(status), body, cut, "" if cut else detail.strip())

    def publish_flags(self, document: bytes) -> None:
        """Replace the flags file that the environment's services read on this host, atomically.

        Raise Transient, and Permanent when the edge's volume cannot be written.
        """
        if not document:
            raise Permanent(f"{self._name} cannot publish an empty flags file")
        self._run("publish-flags", payload=document, timeout=_ASK_SECONDS + 20)

    def flags(self) -> bytes | None:
        """The flags file as it stands, None when there is none."""
        result = self._run("flags", timeout=_ASK_SECONDS, allow={_Exit.NO_FLAGS})
        if result.code == _Exit.NO_FLAGS:
            return None
        return self._parsed(lambda text: base64.b64decode(text, validate=True), result.out)

    def _probe(self, url: str, host: str, timeout_seconds: float) -> Probe:
        result = self._run("probe", f"{timeout_seconds:.3f}", url, host, timeout=_ASK_SECONDS + timeout_seconds)
        status, _, detail = result.out.partition("\n")
        if status.strip().isdigit() and int(status) > 0:
            return Probe(status=int(status), detail=f"HTTP {status.strip()}")
        return Probe(status=0, detail=detail.strip() or "no answer")

    @property
    def _name(self) -> str:
        return f"the edge of {self._environment} on {self._host}"

    def _structure(self, service: str, *, fresh: bool) -> EdgeService:
        if fresh or service not in self._structures:
            self.view(service)
        return self._structures[service]

    def _view(self) -> EdgeView:
        return self._parsed(parse_edge, self._run("read", timeout=_ASK_SECONDS).out)

    def _files(self, topology: EdgeTopology, view: EdgeView) -> bytes:
        problems: list[str] = []
        files = {"frame.cfg": frame_config(topology)}
        for service in topology.services:
            routing = view.services[service.name][1] if service.name in view.services else Routing()
            problems += [f"service {service.name}: {text}" for text in routing_problems(routing, service.slots)]
            files[f"services/{service.name}.cfg"] = service_config(service, routing)
        if problems:
            raise Permanent(f"{self._name} cannot have this structure while it serves: " + "; ".join(problems))
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name, text in files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(text.encode()), 0o600
                archive.addfile(entry, io.BytesIO(text.encode()))
        return stream.getvalue()

    def _parsed(self, parse: Callable[[str], T], text: str) -> T:
        try:
            return parse(text)
        except (ValueError, KeyError, IndexError) as error:
            raise Transient(f"{self._name} gave an answer that cannot be understood: {error}") from error

    def _run(
        self,
        verb: str,
        *arguments: str,
        payload: bytes = b"\n",
        timeout: float,
        allow: frozenset[int] | set[int] = frozenset(),
    ) -> ExecResult:
        result = self._sessions.run([verb, str(len(payload)), *arguments], payload, timeout)
        if result.code == 0 or result.code in allow:
            return result
        raise self._error(result, arguments)

    def _error(self, result: ExecResult, arguments: tuple[str, ...]) -> OpsError:
        words = " ".join(result.err.split()) or f"the edge's script ended with code {result.code}"
        match result.code:
            case _Exit.STALE:
                seen = result.out.strip()
                return StaleGeneration(
                    f"{self._name}: generation {arguments[1]} of {arguments[0]} is stale, {seen} was seen",
                    hint="A newer controller has taken over; this one must not act any more.",
                )
            case _Exit.UNKNOWN:
                return NotFound(f"{self._name}: {words}", hint="`ensure` declares services; the next deploy runs it.")
            case _Exit.NOT_READY:
                return Permanent(f"{self._name}: {words}; traffic was not moved")
            case _Exit.LOCKED | _Exit.SILENT | _Exit.CHANGED | _Exit.RELOAD_FAILED:
                return Transient(f"{self._name}: {words}")
            case 126 | 127:
                return Permanent(
                    f"{self._name}: container {self._container} is not made from the edge's image", hint=self._hint
                )
            case _:
                return Permanent(f"{self._name}: {words}")


def _has(view: EdgeView, topology: EdgeTopology, digest: str) -> bool:
    declared = {service.name: service for service in topology.services}
    return view.disk == view.live == digest and declared == {name: entry[0] for name, entry in view.services.items()}
