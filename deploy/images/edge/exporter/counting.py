"""What one line of HAProxy's log means, and the counters it moves. Pure: no files, no clock, standard library only."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds of the duration's buckets in seconds, the ones that a catalogue may name as p95 limit."""

CODES = ("1xx", "2xx", "3xx", "4xx", "5xx", "aborted", "unanswered")
"""How a request ended: class of its status; the client broke it off; nobody answered though the client waited."""

TRACKS = ("stable", "canary")

KEEP_SECONDS = 3600.0
"""A release that left the routing keeps its counters this long, so that late requests and late scrapes find them."""


_BEGINNING = b'{"time":'


class Key(NamedTuple):
    """Labels of a set of counters. `release` is the number the containers carry."""

    environment: str
    service: str
    release: str
    track: str


class Request(NamedTuple):
    """One finished request."""

    key: Key
    code: str  # one of CODES
    error: bool
    seconds: float  # until the answer began; until it was given up when none did


def read_line(line: bytes) -> Request | None:
    """Given a line of the log, return its request, or None when it belongs to no release.

    Raise ValueError for a line that is none of ours. What HAProxy 2.6 writes in which case was found by experiment:
    ops_pipeline_tests/adapters/test_edge_exporter_semantics.py keeps the table.
    """
    try:
        fields = json.loads(line)
        service, release, track = fields["service"], fields["release"], fields["track"]
        # HAProxy writes `-` for what is empty: no such service, or nothing deployed.
        if service == "-" or not release.isdigit() or track not in TRACKS:
            return None
        status, ended = fields["status"], fields["end"]
        waited, connected, answered = fields["queue_ms"], fields["connect_ms"], fields["response_ms"]
        code = code_of(status, ended)
        # -1 stands for a phase that was not finished.
        milliseconds = max(waited, 0) + max(connected, 0) + answered if answered >= 0 else max(fields["active_ms"], 0)
        return Request(
            Key(fields["env"], service, release, track), code, is_error(status, ended, code), milliseconds / 1000
        )
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"not a line of the edge's log: {error!r}") from error


def code_of(status: int, ended: str) -> str:
    """Given the status sent (below 100: none) and HAProxy's termination state, return one of CODES.

    The first letter of the state says who ended the request: C or c the client (c: its time-out), `-` nobody, any
    other the server, the edge itself or a time-out of the server.
    """
    by_client = ended[0] in "Cc"
    if not 100 <= status <= 599:
        return "aborted" if by_client else "unanswered"
    # A tunnel (WebSocket) has no end of its own: one side closes it. A 4xx or 5xx was bad news before the client left.
    if by_client and 200 <= status < 400:
        return "aborted"
    return f"{status // 100}xx"


def is_error(status: int, ended: str, code: str) -> bool:
    """Whether it was a fault of the service: 5xx from anybody, no answer, or an answer broken off by the server.

    Broken off means 2xx and 3xx only: a server that refuses an upload (413) and closes without reading it to its end
    looks the same in the log, and is right to do so.
    """
    if code in {"5xx", "unanswered"}:
        return True
    if code not in {"2xx", "3xx"}:
        return False
    # Second letter D or L: while the answer was on its way to the client. L first: the edge answered by itself.
    return ended[0] not in "-L" and ended[1] in "DL"


@dataclass
class Counters:
    """Everything counted for one set of labels. `absent_since`: when the release left the routing (seconds)."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDARIES) + 1))  # not cumulated, +Inf last
    seconds: float = 0.0
    errors: int = 0
    codes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CODES, 0))
    absent_since: float | None = None

    def cumulated(self) -> list[int]:
        """Finished requests per boundary, slower ones left out; the last (+Inf) are all."""
        total, sums = 0, []
        for count in self.buckets:
            total += count
            sums.append(total)
        return sums


@dataclass
class Book:
    """All counters of one edge. `version` changes with anything a scrape would show."""

    series: dict[Key, Counters] = field(default_factory=dict)
    unreadable: int = 0
    other: dict[str, int] = field(default_factory=dict)
    version: int = 0

    def add(self, lines: Iterable[bytes], now: float) -> None:
        """Count lines of the log. `now` in seconds, from any start that outlives a restart of this process."""
        for line in lines:
            if not line.startswith(b"{"):
                continue  # HAProxy's own messages
            self.version += 1
            try:
                request = read_line(line)
            except ValueError:
                self.unreadable += 1
                # A full file system cuts a line short; the next one follows on the same line.
                whole = line.rfind(_BEGINNING)
                if whole > 0:
                    self.add([line[whole:]], now)
                continue
            if request is None:
                self._elsewhere(line)
                continue
            counters = self.series.get(request.key)
            if counters is None:
                counters = self.series[request.key] = Counters(absent_since=now)
            elif counters.absent_since is not None:
                counters.absent_since = now
            counters.buckets[bisect_left(BOUNDARIES, request.seconds)] += 1
            counters.seconds += request.seconds
            counters.errors += request.error
            counters.codes[request.code] += 1

    def _elsewhere(self, line: bytes) -> None:
        fields = json.loads(line)
        code = code_of(fields["status"], fields["end"])
        self.other[code] = self.other.get(code, 0) + 1

    def expect(self, keys: Iterable[Key], now: float) -> None:
        """Make counters at 0 for every release of the routing, before it gets its first request.

        `increase()` does not see a counter that is born at 1. What left the routing long ago is dropped.
        """
        wanted = set(keys)
        for key in sorted(wanted - self.series.keys()):
            self.series[key] = Counters()
            self.version += 1
        for key in wanted:
            self.series[key].absent_since = None
        for key, counters in list(self.series.items()):
            if key in wanted:
                continue
            if counters.absent_since is None:
                counters.absent_since = now
            elif now - counters.absent_since > KEEP_SECONDS:
                del self.series[key]
                self.version += 1

    def to_document(self) -> dict[str, object]:
        """All of it for a JSON file."""
        return {
            "boundaries": list(BOUNDARIES),
            "unreadable": self.unreadable,
            "other": self.other,
            "series": [
                [*key, each.buckets, each.seconds, each.errors, each.codes, each.absent_since]
                for key, each in self.series.items()
            ],
        }

    @staticmethod
    def from_document(document: Mapping[str, object]) -> Book:
        """What `to_document` gave. Raise ValueError when it is something else, or of another version."""
        try:
            if document["boundaries"] != list(BOUNDARIES):
                raise ValueError("other boundaries")
            book = Book(unreadable=int(document["unreadable"]), other=dict(document["other"]))  # type: ignore[call-overload]
            for *labels, buckets, seconds, errors, codes, absent_since in document["series"]:  # type: ignore[attr-defined]
                book.series[Key(*labels)] = Counters(list(buckets), seconds, errors, dict(codes), absent_since)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the counters' state: {error!r}") from error
        return book


def expected_keys(environment: str, service_files: Iterable[str]) -> set[Key]:
    """Given the texts of the edge's `services/*.cfg`, return the labels of every release in a pool, on both tracks.

    A damaged file counts for nothing: HAProxy does not serve it either.
    """
    keys: set[Key] = set()
    for text in service_files:
        found = {}
        for line in text.splitlines():
            keyword, _, rest = line.partition(" ")
            if keyword in {"#service", "#routing"}:
                found[keyword] = rest
        try:
            service = json.loads(found["#service"])["name"]
            for pool in json.loads(found["#routing"])["pools"].values():
                keys |= {Key(environment, service, str(pool["release"]), track) for track in TRACKS}
        except (KeyError, TypeError, AttributeError, ValueError):
            continue
    return keys
