"""The Edge port in memory, held to the same contract suite as HAProxy (contracts/test_edge.py)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ops_pipeline.core.edge_config import route_key, structure_hash, topology_problems
from ops_pipeline.core.routing import EdgeService, EdgeTopology, Routing, Server, choose_pool, routing_problems
from ops_pipeline.errors import NotFound, Permanent, StaleGeneration, Unavailable
from ops_pipeline.ports import Answer, Probe


def always_healthy(address: str, port: int, path: str) -> Probe:
    """Every replica answers 200."""
    return Probe(200, "HTTP 200")


class FakeEdge:
    """An edge whose replicas answer as `answers` says. Switches for tests:

    `reachable = False` makes every call Unavailable; `open_connections[service, pool]` is what `connections` returns;
    `reloads` counts structure changes; `applied` lists every accepted (service, routing, generation). `replies`, where
    set, is what `ask` meets at a replica (address, port, path, method); otherwise what `answers` says.
    """

    def __init__(
        self,
        host: str = "local",
        environment: str = "test",
        answers: Callable[[str, int, str], Probe] = always_healthy,
    ) -> None:
        self._host = host
        self.environment = environment
        self.answers = answers
        self.topology = EdgeTopology(environment, ())
        self.routings: dict[str, Routing] = {}
        self.generations: dict[str, int] = {}
        self.open_connections: Counter[tuple[str, str]] = Counter()
        self.reachable = True
        self.reloads = 0
        self.flags_file: bytes | None = None
        self.applied: list[tuple[str, Routing, int]] = []
        self.replies: Callable[[str, int, str, str], Answer] | None = None

    @property
    def host(self) -> str:
        return self._host

    @property
    def _name(self) -> str:
        return f"the edge of {self.environment} on {self._host}"

    def check(self) -> None:
        if not self.reachable:
            raise Unavailable(f"{self._name} does not answer", hint="Set `reachable` again.")

    def ensure(self, topology: EdgeTopology) -> bool:
        self.check()
        problems = list(topology_problems(topology))
        for service in topology.services:
            routing = self.routings.get(service.name, Routing())
            problems += [f"service {service.name}: {text}" for text in routing_problems(routing, service.slots)]
        if problems:
            raise Permanent(f"{self._name} cannot have this structure: " + "; ".join(problems))
        if structure_hash(topology) == structure_hash(self.topology):
            return False
        self.topology = topology
        names = {service.name for service in topology.services}
        self.routings = {name: self.routings.get(name, Routing()) for name in names}
        self.reloads += 1
        return True

    def fence(self, service: str, generation: int) -> None:
        self.check()
        seen = self.generations.get(service, 0)
        if generation < seen:
            raise StaleGeneration(f"{self._name}: generation {generation} of {service} is stale, {seen} was seen")
        self.generations[service] = generation

    def apply(self, service: str, routing: Routing, generation: int) -> None:
        self.check()
        structure = self._structure(service)
        if problems := routing_problems(routing, structure.slots):
            raise Permanent(f"{self._name}, service {service}: " + "; ".join(problems))
        self.fence(service, generation)
        before = self.routings[service]
        for name in sorted(_serving(routing)):
            changed = name not in _serving(before) or before.pools[name].servers != routing.pools[name].servers
            if changed and not any(
                self.answers(server.address, server.port, structure.health_path).ok
                for server in routing.pools[name].servers
            ):
                raise Permanent(f"{self._name}: no replica of pool {name} answers 2xx; traffic was not moved")
        self.routings[service] = routing
        self.applied.append((service, routing, generation))

    def observe(self, service: str) -> Routing:
        self.check()
        self._structure(service)
        return self.routings[service]

    def connections(self, service: str, pool: str) -> int:
        self.check()
        self._structure(service)
        return self.open_connections[service, pool]

    def publish_flags(self, document: bytes) -> None:
        self.check()
        if not document:
            raise Permanent(f"{self._name} cannot publish an empty flags file")
        self.flags_file = document

    def flags(self) -> bytes | None:
        self.check()
        return self.flags_file

    def probe(self, address: str, port: int, path: str, timeout_seconds: float = 2.0) -> Probe:
        self.check()
        return self.answers(address, port, path)

    def probe_route(self, path: str, host: str = "", timeout_seconds: float = 2.0) -> Probe:
        self.check()
        status, _ = self.request(path, host)
        return Probe(status, f"HTTP {status}")

    def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        server: Server | None = None,
        host: str = "",
        timeout_seconds: float = 10.0,
    ) -> Answer:
        self.check()
        if server is not None:
            return self._asked(server, path, method)
        status, chosen, _ = self._chosen(path, host, 0, "")
        if chosen is None:
            return Answer(status)
        answer = self._asked(chosen, path, method)
        return answer if answer.status else Answer(502)

    def _asked(self, server: Server, path: str, method: str) -> Answer:
        if self.replies is not None:
            return self.replies(server.address, server.port, path, method)
        probe = self.answers(server.address, server.port, path)
        return Answer(probe.status, detail="" if probe.status else probe.detail)

    def request(self, path: str, host: str = "", bucket: int = 0, track: str = "") -> tuple[int, int | None]:
        """What a user gets: the status and the number of the release that answered, if any did."""
        status, server, release = self._chosen(path, host, bucket, track)
        if server is None:
            return status, None
        return self.answers(server.address, server.port, path).status or 502, release

    def _chosen(self, path: str, host: str, bucket: int, track: str) -> tuple[int, Server | None, int | None]:
        """The replica a user's request goes to and its release; without one, the edge's own status."""
        service = self._service_for(path, host)
        if service is None:
            return (404 if self.topology.services else 503), None, None
        routing = self.routings[service.name]
        pool = choose_pool(routing, bucket, track)
        if pool is not None:
            for server in routing.pools[pool].servers:
                if self.answers(server.address, server.port, service.health_path).ok:
                    return 200, server, routing.pools[pool].release
        return 503, None, None

    def _service_for(self, path: str, host: str) -> EdgeService | None:
        for prefix in (host.partition(":")[0].lower(), ""):
            fitting = [
                service
                for service in self.topology.services
                if service.route.host == prefix and f"{prefix}{path}/".startswith(route_key(service.route))
            ]
            if fitting:
                return max(fitting, key=lambda service: len(service.route.path))
        return None

    def _structure(self, service: str) -> EdgeService:
        for known in self.topology.services:
            if known.name == service:
                return known
        raise NotFound(f"{self._name}: the edge does not know a service {service}")


def _serving(routing: Routing) -> set[str]:
    """Pools that get traffic."""
    pools = {routing.live} if routing.live else set()
    return pools | ({routing.candidate} if routing.candidate and routing.weight else set())
