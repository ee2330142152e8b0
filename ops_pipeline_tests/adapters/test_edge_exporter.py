"""How the edge's exporter counts: what a line of the log means, what is kept, what is forgotten."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.images.edge.exporter.counting import BOUNDARIES, CODES, KEEP_SECONDS, Book, Key, expected_keys, read_line
from deploy.images.edge.exporter.files import RequestLog, RoutingFiles, load_state, store_state
from ops_pipeline.core.edge_config import frame_config, service_config
from ops_pipeline.core.measurement import BUCKETS
from ops_pipeline.core.routing import EdgeService, EdgeTopology, Pool, RouteRule, Routing, Server

STABLE = Key("prod", "api", "12", "stable")
CANARY = Key("prod", "api", "12", "canary")
API = EdgeService("api", RouteRule("/api"), 3, "/health/ready")
SERVERS = (Server("10.0.0.1", 80),)


def line(status: int = 200, end: str = "--", ms: tuple[int, int, int, int] = (0, 1, 5, 9), **changed: object) -> bytes:
    fields = {"time": 1.5, "env": "prod", "service": "api", "release": "12", "track": "stable", "status": status}
    fields |= {"end": end, **dict(zip(("queue_ms", "connect_ms", "response_ms", "active_ms"), ms, strict=True))}
    return json.dumps(fields | changed).encode()


def test_the_boundaries_are_those_a_catalogue_may_name() -> None:
    assert BOUNDARIES == BUCKETS


@pytest.mark.parametrize(
    ("status", "end", "code", "error"),
    [
        (200, "--", "2xx", False),
        (101, "--", "1xx", False),
        (101, "SD", "1xx", False),  # a tunnel has no end of its own
        (302, "--", "3xx", False),
        (404, "--", "4xx", False),
        (500, "--", "5xx", True),
        (502, "SH", "5xx", True),
        (503, "SC", "5xx", True),
        (504, "sH", "5xx", True),
        (200, "SD", "2xx", True),  # broken off by the server
        (200, "sD", "2xx", True),
        (206, "PD", "2xx", True),
        (200, "KD", "2xx", True),
        (200, "LR", "2xx", False),  # the edge answered
        (413, "SD", "4xx", False),  # refused an upload and closed
        (200, "CD", "aborted", False),
        (200, "cD", "aborted", False),
        (-1, "CH", "aborted", False),
        (-1, "cD", "aborted", False),
        (413, "CD", "4xx", False),
        (500, "CD", "5xx", True),
        (-1, "SH", "unanswered", True),
        (-1, "sH", "unanswered", True),
        (-1, "KH", "unanswered", True),
        (0, "--", "unanswered", True),
    ],
)
def test_how_a_request_ended(status: int, end: str, code: str, error: bool) -> None:
    request = read_line(line(status, end))
    assert request is not None
    assert (request.key, request.code, request.error) == (STABLE, code, error)


@pytest.mark.parametrize(
    ("milliseconds", "seconds"),
    [
        ((3, 4, 5, 900), 0.012),  # until the answer began, not until it ended
        ((0, 0, 0, 7), 0.0),
        ((2002, -1, -1, 4003), 4.003),  # no answer: until it was given up
        ((-1, -1, -1, 0), 0.0),
        ((0, 0, 2000, 2000), 2.0),
    ],
)
def test_duration_is_the_time_until_the_answer_began(milliseconds: tuple[int, int, int, int], seconds: float) -> None:
    request = read_line(line(ms=milliseconds))
    assert request is not None and request.seconds == pytest.approx(seconds)


@pytest.mark.parametrize("changed", [{"service": "-", "release": "-", "track": "-"}, {"release": "-"}, {"track": "-"}])
def test_what_reached_no_release_counts_for_none(changed: dict[str, str]) -> None:
    assert read_line(line(400, "PR", (-1, -1, -1, 0), **changed)) is None
    book = Book()
    book.add([line(400, "PR", **changed), line(503, "LR", **changed)], 0)
    assert (book.series, book.other) == ({}, {"4xx": 1, "5xx": 1})


@pytest.mark.parametrize(
    "text", [b"{", b"{}", b"[1]", b'{"service":1}', b'{"a":"\xff"}', line(end=""), line(status="x")]
)
def test_a_damaged_line_is_counted_as_such_and_harms_nothing(text: bytes) -> None:
    book = Book()
    book.add([line(), b"Proxy web__a started.", b"", text if text.startswith(b"{") else b"{" + text, line()], 0)
    assert book.unreadable == 1
    assert book.series[STABLE].codes["2xx"] == 2


def test_a_line_cut_short_does_not_hide_the_next() -> None:
    book = Book()
    book.add([line()[:-40] + line(500)], 0)
    assert (book.unreadable, book.series[STABLE].codes["5xx"], book.series[STABLE].codes["2xx"]) == (1, 1, 0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([-1, 101, 200, 304, 404, 500, 503]),
            st.sampled_from(["--", "CD", "SD", "sH", "PR", "LR", "cD", "KD"]),
            st.integers(-1, 60_000),
            st.sampled_from(["1", "2"]),
            st.sampled_from(["stable", "canary"]),
        )
    )
)
def test_every_request_is_in_exactly_one_code_and_one_bucket(
    requests: list[tuple[int, str, int, str, str]],
) -> None:
    book = Book()
    lines = [
        line(status, end, (0, 0, ms, 70_000), release=rel, track=track) for status, end, ms, rel, track in requests
    ]
    book.add(lines, 0)
    total = 0
    for counters in book.series.values():
        finished = sum(counters.codes.values())
        cumulated = counters.cumulated()
        assert cumulated[-1] == finished and cumulated == sorted(cumulated)
        assert counters.codes["5xx"] + counters.codes["unanswered"] <= counters.errors <= finished
        assert set(counters.codes) == set(CODES)
        total += finished
    assert total == len(requests)
    again = Book.from_document(json.loads(json.dumps(book.to_document())))
    assert again.series == book.series


def test_the_boundaries_are_inclusive_and_contain_one_and_two_seconds() -> None:
    assert {1.0, 2.0} <= set(BOUNDARIES) and list(BOUNDARIES) == sorted(BOUNDARIES)
    book = Book()
    book.add([line(ms=(0, 0, ms, ms)) for ms in (999, 1000, 1001, 2000, 2001)], 0)
    cumulated = dict(zip(BOUNDARIES, book.series[STABLE].cumulated(), strict=False))
    assert (cumulated[1.0], cumulated[2.0]) == (2, 4)


def test_every_release_of_the_routing_starts_at_zero_on_both_tracks() -> None:
    pools = {"a": Pool(11, SERVERS), "b": Pool(12, SERVERS)}
    text = service_config(API, Routing("a", "b", 0, pools))
    keys = expected_keys("prod", [text, "damaged", "#routing {", service_config(API, Routing())])
    assert keys == {Key("prod", "api", release, track) for release in ("11", "12") for track in ("stable", "canary")}
    book = Book()
    book.expect(keys, 0)
    assert {tuple(each.cumulated()) for each in book.series.values()} == {(0,) * (len(BOUNDARIES) + 1)}


def test_a_release_that_left_is_forgotten_an_hour_after_its_last_request() -> None:
    book = Book()
    book.expect({STABLE, CANARY}, 0)
    book.expect({STABLE}, 10)
    book.add([line(track="canary")], 50)
    book.expect({STABLE}, 50 + KEEP_SECONDS)
    assert book.series[CANARY].codes["2xx"] == 1
    book.expect({STABLE}, 51 + KEEP_SECONDS)
    assert set(book.series) == {STABLE}
    book.add([line(release="99")], 60)  # of nothing the routing knows
    book.expect({STABLE, CANARY}, 61 + KEEP_SECONDS)
    assert set(book.series) == {STABLE, CANARY}


def test_a_release_that_comes_back_within_the_hour_goes_on_counting() -> None:
    book = Book()
    book.expect({STABLE}, 0)
    book.add([line()], 0)
    book.expect(set(), 10)
    book.expect({STABLE}, 20)
    book.expect({STABLE}, 20 + 2 * KEEP_SECONDS)
    assert book.series[STABLE].codes["2xx"] == 1


def test_a_thousand_releases_leave_no_memory_behind() -> None:
    book = Book()
    for number in range(1000):
        keys = {Key("prod", "api", str(number + back), "stable") for back in range(2)}
        book.expect(keys, number * 600)
        book.add([line(release=str(number))], number * 600)
    assert len(book.series) < 12


# ------------------------------------------------------------------------------------------- files


def write(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def test_the_log_is_read_in_whole_lines_whenever_it_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = RequestLog(path, 0)
    assert log.read() == []
    write(path, b"one\ntwo\nthr")
    assert log.read() == [b"one", b"two"]
    assert (log.read(), log.backlog()) == ([], 3)
    write(path, b"ee\n")
    assert log.read() == [b"three"]
    assert RequestLog(path, 4).read() == [b"two", b"three"]
    assert RequestLog(path, 999).read() == [b"one", b"two", b"three"]  # a position in another file


def test_a_large_backlog_comes_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = [b"%07d " % number + b"x" * 500 for number in range(6000)]
    write(path, b"\n".join(lines) + b"\n")
    log, found = RequestLog(path, 0), []
    while piece := log.read():
        assert len(piece) < 3000
        found += piece
    assert found == lines


def test_what_was_read_gives_its_memory_back() -> None:
    shared = Path("/dev/shm")  # a memory file system, as in the edge's container
    if not os.access(shared, os.W_OK):
        shared = Path(os.environ.get("TMPDIR", "/tmp"))
    path = shared / f"ops-test-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        log = RequestLog(path, 0)
        for _ in range(20):
            write(path, b"y" * 99_999 + b"\n")
            assert len(log.read()) == 1
            log.forget()
        assert path.stat().st_size == 2_000_000
        assert path.stat().st_blocks * 512 < 200_000
        write(path, b"last\n")
        assert RequestLog(path, 2_000_000).read() == [b"last"]
        assert RequestLog(path, 0).read()[-1] == b"last"  # without its state: from the first that is not forgotten
    finally:
        path.unlink()


def test_counters_and_position_are_stored_together(tmp_path: Path) -> None:
    book = Book()
    book.expect({STABLE, CANARY}, 5)
    book.add([line(), line(500), line(track="canary"), b"{", line(service="-")], 7)
    store_state(tmp_path / "state", book, 123)
    loaded, offset = load_state(tmp_path / "state")
    assert (loaded.series, loaded.unreadable, loaded.other, offset) == (book.series, 1, {"2xx": 1}, 123)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"boundaries":[1],"offset":1}', None])
def test_a_damaged_or_older_state_is_as_good_as_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "state").write_text(text)
    book, offset = load_state(tmp_path / "state")
    assert (book.series, offset) == ({}, 0)


def test_the_routing_is_read_again_when_a_file_was_replaced(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()
    files = RoutingFiles(tmp_path)
    assert files.keys() == set()

    def put(name: str, text: str) -> None:
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").replace(tmp_path / name)

    put("frame.cfg", frame_config(EdgeTopology("prod", (API,))))
    for release in (1, 2, 3):
        put("services/api.cfg", service_config(API, Routing("a", pools={"a": Pool(release, SERVERS)})))
        found = files.keys()
        assert {(key.environment, key.release) for key in found} == {("prod", str(release))}
    (tmp_path / "services" / "api.cfg").unlink()
    assert files.keys() == set()
