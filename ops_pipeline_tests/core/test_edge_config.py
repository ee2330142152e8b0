"""The edge's configuration is a pure function; these texts are what HAProxy is given, word for word."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.core.edge_config import (
    frame_config,
    read_service,
    route_key,
    route_value,
    service_config,
    structure_hash,
    topology_problems,
)
from ops_pipeline.core.edge_live import parse_connections, parse_edge, parse_service
from ops_pipeline.core.routing import (
    EdgeService,
    EdgeTopology,
    Pool,
    RouteRule,
    Routing,
    Server,
    choose_pool,
    routing_problems,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "edge"
DEFAULT_FRAME = Path(__file__).parents[2] / "deploy" / "images" / "edge" / "frame.default.cfg"

API = EdgeService("api", RouteRule("/api", strip_prefix=True), 3, "/health/ready", 30.0)
FRONTEND = EdgeService("frontend", RouteRule("/"), 2, "/healthz")
TOPOLOGY = EdgeTopology("prod", (API, FRONTEND))
TWO = Pool(12, (Server("10.213.0.10", 8000), Server("10.213.0.11", 8000)))
ONE = Pool(13, (Server("10.213.0.12", 8000),))
SHIFTING = Routing("a", "b", 10, {"a": TWO, "b": ONE})


def golden(file: Path, text: str) -> None:
    """Compare with the stored text; OPS_UPDATE_GOLDEN=1 stores it instead, for `git diff` to show."""
    if os.environ.get("OPS_UPDATE_GOLDEN"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert file.read_text() == text


def test_frame_is_golden() -> None:
    golden(GOLDEN / "frame.cfg", frame_config(TOPOLOGY))


def test_frame_of_the_image_is_the_one_of_an_empty_structure() -> None:
    golden(DEFAULT_FRAME, frame_config(EdgeTopology("unset", ())))


@pytest.mark.parametrize(
    ("name", "service", "routing"),
    [
        ("api-shifting", API, SHIFTING),
        ("frontend-live", FRONTEND, Routing("c", pools={"c": Pool(4, TWO.servers), "a": Pool(3, ONE.servers)})),
        ("frontend-empty", FRONTEND, Routing()),
    ],
)
def test_service_file_is_golden(name: str, service: EdgeService, routing: Routing) -> None:
    golden(GOLDEN / f"{name}.cfg", service_config(service, routing))


servers = st.builds(Server, st.ip_addresses(v=4).map(str), st.integers(1, 65535))
pools = st.builds(Pool, st.integers(0, 10**6), st.lists(servers, min_size=1, max_size=3, unique=True).map(tuple))


@st.composite
def routings(draw: st.DrawFn) -> Routing:
    named = draw(st.dictionaries(st.sampled_from("abc"), pools, max_size=3))
    live = draw(st.sampled_from([None, *named])) if named else None
    others = [name for name in named if name != live]
    candidate = draw(st.sampled_from([None, *others])) if live and others else None
    return Routing(live, candidate, draw(st.integers(0, 100)) if candidate else 0, named)


@given(routings())
def test_a_service_file_reads_back_as_what_it_was_made_from(routing: Routing) -> None:
    assert routing_problems(routing, API.slots) == ()
    assert read_service(service_config(API, routing)) == (API, routing)


@given(routings())
def test_a_service_file_always_declares_the_same_slots(routing: Routing) -> None:
    text = service_config(API, routing)
    assert text.count("    server ") == 3 * API.slots
    used = sum(len(pool.servers) for pool in routing.pools.values())
    assert text.count(" disabled\n") == 3 * API.slots - used


@given(routings())
def test_the_candidate_gets_exactly_its_share_of_classes(routing: Routing) -> None:
    chosen = [choose_pool(routing, bucket) for bucket in range(100)]
    assert chosen.count(routing.candidate) == (routing.weight if routing.candidate else 100 * (routing.live is None))
    assert {choose_pool(routing, bucket, "stable") for bucket in range(100)} == {routing.live}


def test_route_values_and_keys() -> None:
    assert route_value(Routing()) == "-/-/0/-/-/-"
    assert route_value(SHIFTING) == "a/b/10/12/13/-"
    assert [route_key(r) for r in (RouteRule("/"), RouteRule("/api/"), RouteRule("/api", "shop.example"))] == [
        "/",
        "/api/",
        "shop.example/api/",
    ]


def test_structure_hash_ignores_order_and_sees_every_field() -> None:
    same = EdgeTopology("prod", (FRONTEND, API))
    assert structure_hash(same) == structure_hash(TOPOLOGY)
    others = [
        EdgeTopology("dev", TOPOLOGY.services),
        EdgeTopology("prod", (API,)),
        EdgeTopology("prod", (EdgeService("api", API.route, 4, "/health/ready", 30.0), FRONTEND)),
        EdgeTopology("prod", (EdgeService("api", API.route, 3, "/ready", 30.0), FRONTEND)),
        EdgeTopology("prod", (EdgeService("api", API.route, 3, "/health/ready", 31.0), FRONTEND)),
        EdgeTopology("prod", (EdgeService("api", RouteRule("/api"), 3, "/health/ready", 30.0), FRONTEND)),
    ]
    assert len({structure_hash(topology) for topology in [TOPOLOGY, *others]}) == 7


def test_every_problem_of_a_structure_is_named() -> None:
    bad = EdgeTopology(
        "Prod",
        (
            API,
            EdgeService("API!", RouteRule("/api/", host="A B"), 0, "health", 0),
            EdgeService("web", RouteRule("/api"), 1, "/ok"),
            EdgeService("web", RouteRule("/w w"), 1, "/ok"),
        ),
    )
    text = "\n".join(topology_problems(bad))
    for words in (
        "environment 'Prod'",
        "service API!: not a name",
        "host 'A B'",
        "health path 'health'",
        "0 slots",
        "time-out of 0 s",
        "service web: route /api/ already belongs to api",
        "service web: declared twice",
        "route path '/w w'",
    ):
        assert words in text
    assert topology_problems(TOPOLOGY) == ()


LIVE = """\
generation 7
{headers}
type=str, case=sensitive, found=yes, idx=tree, key="api", value="a/b/10/12/13/-", type="str"

1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_port srvrecord
3 api__a 1 s1 10.213.0.10 2 4 1 1 8000 -
3 api__a 2 s2 10.213.0.11 0 4 1 1 8000 -
3 api__a 3 s3 127.0.0.1 0 5 1 1 1 -

1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_port srvrecord
4 api__b 1 s1 10.213.0.12 2 0 1 1 8000 -
4 api__b 2 s2 10.9.9.9 0 1 1 1 8000 -
"""


def test_live_state_is_read_from_haproxys_answers() -> None:
    headers = "\n".join(service_config(API, SHIFTING).splitlines()[1:3])
    view = parse_service(LIVE.format(headers=headers))
    assert view.generation == 7
    assert (view.structure, view.wanted, view.live) == (API, SHIFTING, SHIFTING)
    assert view.up == {"a": (Server("10.213.0.10", 8000),), "b": ONE.servers, "c": ()}


def test_answers_that_make_no_sense_are_refused() -> None:
    for text in ("", "generation 3\n", 'key="api", value="a/b"\n'):
        with pytest.raises(ValueError):
            parse_service(text)
    with pytest.raises(ValueError):
        parse_edge("live x\n")
    with pytest.raises(ValueError):
        parse_connections("Unknown proxy\n")


def test_a_damaged_service_file_does_not_hide_the_others() -> None:
    lines = "\n".join(service_config(API, SHIFTING).splitlines()[1:3])
    view = parse_edge(f"etag e\ndisk d\nlive l\n#service {{oops\n#routing {{}}\n{lines}\n")
    assert view.services == {"api": (API, SHIFTING)}
    assert (view.etag, view.disk, view.live) == ("e", "d", "l")


def test_connections_of_all_workers_are_added() -> None:
    table = "# pxname,svname,qcur,qmax,scur,smax\napi__a,BACKEND,0,0,{},9\n\n"
    assert parse_connections(table.format(3) + table.format(4)) == 7
