"""Flags of an environment: overrides in the ledger, the file on every host, two people at once, a dead host."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.adapters.clock import SystemClock
from ops_pipeline.adapters.docker_runtime import DockerRuntime
from ops_pipeline.catalogue.model import Flag
from ops_pipeline.core.flags import FlagState
from ops_pipeline.errors import BadInput, StoreDamaged, Unavailable
from ops_pipeline.ports import ContainerSpec
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.flags import (
    clear_override,
    flag_book,
    flag_states,
    flags_key,
    guarding_flags,
    publish,
    set_flag,
    stale_flags,
    turn_off,
)
from ops_pipeline.services.platform import Platform
from ops_pipeline_tests.fakes.platform import Bed, Killed, Lifeline, catalogue, quiet
from ops_pipeline_tests.testbed.edge import DOCKER_URL, edge_bed
from ops_pipeline_tests.testbed.upstream import upstream_image

FLAGS = {
    "badges": {"on": True, "percent": 50, "guards": "api", "description": "Badges"},
    "fast-path": {"on": True, "guards": "api"},
    "dark": {"guards": "web"},
    "free": {"on": True},
}


def bed(flags: dict[str, Any] | None = None) -> Bed:
    """`prod` with two hosts and flags, `dev` with none."""
    book = catalogue()
    entries = {name: Flag.model_validate(entry) for name, entry in (FLAGS if flags is None else flags).items()}
    prod = book.environments["prod"].model_copy(update={"flags": entries})
    return Bed(book.model_copy(update={"environments": {**book.environments, "prod": prod}}))


def served(bed: Bed, environment: str = "prod") -> list[dict[str, str]]:
    """What each host's file says, flag by flag: on, off, or parts of 10,000."""
    found = []
    for edge in bed.edges[environment]:
        data = edge.flags()
        flags = {} if data is None else json.loads(data)["flags"]
        found.append(
            {
                name: str(flag["targeting"]["fractional"][0][1]) if "targeting" in flag else flag["defaultVariant"]
                for name, flag in flags.items()
            }
        )
    return found


def test_a_deploy_brings_the_flags_to_every_host_before_anything_starts() -> None:
    one = bed()
    one.image("1.0.0")
    deploy(one.platform(), "prod", "api", progress=quiet)
    expected = {"badges": "5000", "fast-path": "on", "dark": "off", "free": "on"}
    assert served(one) == [expected, expected]


def change(platform: Platform, flag: str, **wanted: Any) -> FlagState:
    return set_flag(platform, "prod", flag, who="ada", why="to see", progress=quiet, **wanted)


def test_publishing_brings_the_catalogues_word_to_every_host_and_only_where_it_is_missing() -> None:
    world, lines = bed(), []
    platform = world.platform()
    assert stale_flags(platform, "prod") == {"h1": "has no flags file", "h2": "has no flags file"}
    publish(platform, "prod", lines.append)
    assert served(world) == [{"badges": "5000", "dark": "off", "fast-path": "on", "free": "on"}] * 2
    assert lines == ["prod: host h1 has the flags", "prod: host h2 has the flags"]
    assert stale_flags(platform, "prod") == {}
    publish(platform, "prod", lines.append)
    assert len(lines) == 2
    world.edges["prod"][1].publish_flags(b"{}")
    assert stale_flags(platform, "prod") == {"h2": "has another flags file than catalogue and ledger say"}
    publish(platform, "prod", lines.append)
    assert lines[2:] == ["prod: host h2 has the flags"] and stale_flags(platform, "prod") == {}


def test_an_environment_without_flags_gets_no_file_and_an_old_one_is_emptied() -> None:
    world = bed()
    publish(world.platform(), "dev", quiet)
    assert world.edges["dev"][0].flags() is None and stale_flags(world.platform(), "dev") == {}
    world.edges["dev"][0].publish_flags(b'{"flags": {"gone": {}}}')
    assert stale_flags(world.platform(), "dev") == {"h1": "has another flags file than catalogue and ledger say"}
    publish(world.platform(), "dev", quiet)
    assert served(world, "dev") == [{}]


@pytest.mark.parametrize(
    ("steps", "shown"),
    [
        ([{"on": False}], "off"),
        ([{"percent": 10}], "on for 10 %"),
        ([{"percent": 100}], "on"),
        ([{"percent": 0}], "off"),
        ([{"on": False}, {"on": True}], "on for 50 %"),  # back to the share it had, not to everybody
        ([{"percent": 10}, {"percent": 0}, {"on": True}], "on for 10 %"),
        ([{"on": True, "percent": 20}], "on for 20 %"),
        ([{"on": False, "percent": 0}], "off"),
    ],
)
def test_what_a_person_sets_counts_on_every_host(steps: list[dict[str, Any]], shown: str) -> None:
    world = bed()
    for step in steps:
        state = change(world.platform(), "badges", **step)
    assert state.shown == shown
    (found,) = (state for state in flag_states(world.platform(), "prod") if state.name == "badges")
    assert found == state
    assert state.override is not None and (state.override.who, state.override.automatic) == ("ada", False)
    expected = {"off": "off", "on": "on", "on for 50 %": "5000", "on for 10 %": "1000", "on for 20 %": "2000"}[shown]
    assert [flags["badges"] for flags in served(world)] == [expected] * 2


def test_on_for_a_flag_that_was_for_nobody_is_for_everybody() -> None:
    world = bed({"badges": {"on": True, "percent": 0}})
    assert flag_states(world.platform(), "prod")[0].shown == "off"
    assert change(world.platform(), "badges", on=True).shown == "on"


def test_clearing_lets_the_catalogue_speak_again() -> None:
    world = bed()
    platform = world.platform()
    change(platform, "badges", on=False)
    state = clear_override(platform, "prod", "badges", who="bob", why="seen", progress=quiet)
    assert (state.shown, state.override) == ("on for 50 %", None)
    assert served(world)[0]["badges"] == "5000"
    clear_override(platform, "prod", "badges", who="bob", why="twice", progress=quiet)
    assert [(line.who, line.why) for line in flag_book(platform, "prod").changes] == [
        ("ada", "to see"),
        ("bob", "seen"),
    ]


def test_a_verdict_turns_off_what_guards_the_service_and_it_stays_off() -> None:
    world, lines = bed(), []
    platform = world.platform()
    assert guarding_flags(platform, "prod", "api") == ("badges", "fast-path")
    assert guarding_flags(platform, "prod", "web") == ()  # `dark` guards it, and is off already
    reason = "errors 12 % of 500 requests"
    assert turn_off(platform, "prod", "badges", reason=reason, who="verdict", progress=lines.append)
    assert lines[0] == f"prod: flag badges is turned off: {reason}"
    assert guarding_flags(platform, "prod", "api") == ("fast-path",)
    assert [flags["badges"] for flags in served(world)] == ["off", "off"]
    state = next(state for state in flag_states(platform, "prod") if state.name == "badges")
    assert state.override is not None and state.override.automatic and state.override.why == reason
    assert not turn_off(platform, "prod", "badges", reason="again", who="verdict")
    publish(platform, "prod", quiet)  # what a later deploy does
    assert [flags["badges"] for flags in served(world)] == ["off", "off"]
    assert change(platform, "badges", on=True).shown == "on for 50 %"
    assert guarding_flags(platform, "prod", "api") == ("badges", "fast-path")


@pytest.mark.parametrize(
    ("environment", "flag", "wanted", "words"),
    [
        ("prod", "bages", {"on": True}, "prod has no flag `bages`; did you mean `badges`?"),
        ("dev", "badges", {"on": True}, "dev has no flag `badges`"),
        ("prdo", "badges", {"on": True}, "there is no environment `prdo`; did you mean `prod`?"),
        ("prod", "badges", {}, "say `on`, `off` or a percentage"),
        ("prod", "badges", {"percent": 101}, "must be from 0 to 100, not 101"),
        ("prod", "badges", {"percent": -1}, "must be from 0 to 100, not -1"),
        ("prod", "badges", {"percent": float("nan")}, "must be from 0 to 100, not nan"),
        ("prod", "badges", {"on": False, "percent": 5}, "5 and `off` contradict each other"),
        ("prod", "badges", {"on": True, "percent": 0}, "0 and `on` contradict each other"),
    ],
)
def test_what_cannot_be_is_named_and_changes_nothing(
    environment: str, flag: str, wanted: dict[str, Any], words: str
) -> None:
    world = bed()
    with pytest.raises(BadInput) as refused:
        set_flag(world.platform(), environment, flag, who="ada", why="", progress=quiet, **wanted)
    assert words in str(refused.value)
    assert list(world.store.list("flags/")) == [] and served(world) == [{}, {}]


def test_unknown_flags_are_refused_by_every_call() -> None:
    platform = bed().platform()
    with pytest.raises(BadInput, match="did you mean `badges`"):
        clear_override(platform, "prod", "bages", who="ada", why="x", progress=quiet)
    with pytest.raises(BadInput, match="did you mean `badges`"):
        turn_off(platform, "prod", "bages", reason="x", who="verdict")
    with pytest.raises(BadInput, match="did you mean `prod`"):
        publish(platform, "prdo", quiet)


def test_a_damaged_ledger_object_is_named_and_left_alone() -> None:
    world = bed()
    world.store.write(flags_key("prod"), b'{"environment": 7}')
    with pytest.raises(StoreDamaged, match=r"flags/prod\.json"):
        change(world.platform(), "badges", on=False)
    with pytest.raises(StoreDamaged, match=r"flags/prod\.json"):
        publish(world.platform(), "prod", quiet)
    assert served(world) == [{}, {}]


def test_a_host_that_is_away_is_named_and_gets_the_flags_when_it_is_back() -> None:
    world = bed()
    platform = world.platform()
    world.host_down("prod", "h1")
    with pytest.raises(Unavailable, match="host h1"):
        change(platform, "badges", on=False)
    assert [flags.get("badges") for flags in served_when_up(world)] == [None, "off"]
    assert flag_states(platform, "prod")[0].shown == "off"
    world.host_down("prod", "h1")
    assert set(stale_flags(platform, "prod")) == {"h1"}
    world.host_up("prod", "h1")
    publish(platform, "prod", quiet)
    assert [flags["badges"] for flags in served(world)] == ["off", "off"]


def served_when_up(world: Bed) -> list[dict[str, str]]:
    world.host_up("prod", "h1")
    return served(world)


def test_two_writers_at_once_lose_nothing_and_the_files_say_both() -> None:
    world = bed({f"flag-{number}": {} for number in range(8)})
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        change(world.platform(f"test:{number}"), f"flag-{number}", on=True)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {state.shown for state in flag_states(world.platform(), "prod")} == {"on"}
    assert served(world) == [{f"flag-{number}": "on" for number in range(8)}] * 2
    assert len(flag_book(world.platform(), "prod").changes) == 8


def test_a_slow_publisher_never_leaves_an_old_file() -> None:
    """Between reading the ledger and writing the file, somebody else changes both."""
    world = bed()
    edge = world.edges["prod"][0]
    plain, busy = edge.publish_flags, threading.Event()

    def publish_flags(document: bytes) -> None:
        if not busy.is_set():
            busy.set()
            change(world.platform("test:2"), "fast-path", on=False)
        plain(document)

    edge.publish_flags = publish_flags  # type: ignore[method-assign]
    change(world.platform("test:1"), "badges", on=False)
    assert [(flags["badges"], flags["fast-path"]) for flags in served(world)] == [("off", "off")] * 2


@given(st.integers(1, 30))
def test_killed_at_any_call_the_next_publish_ends_in_step(die_at: int) -> None:
    world = bed()
    publish(world.platform(), "prod", quiet)
    lifeline = Lifeline(die_at=die_at)
    done = False
    try:
        change(world.platform("test:1", lifeline=lifeline), "badges", on=False)
        done = True
    except Killed:
        pass
    publish(world.platform("test:2"), "prod", quiet)
    state = next(state for state in flag_states(world.platform(), "prod") if state.name == "badges")
    assert state.shown == "off" or not done
    expected = "off" if state.shown == "off" else "5000"
    assert [flags["badges"] for flags in served(world)] == [expected] * 2
    assert stale_flags(world.platform(), "prod") == {}


@pytest.mark.real
def test_a_service_reads_on_a_real_host_what_was_published_and_cannot_change_it() -> None:
    """The edge writes into the volume, the service's container mounts it read-only and sees every new file."""
    with edge_bed() as real:
        world = bed()
        host_edge = real.edge
        platform = replace(world.platform(), clock=SystemClock(), edges=lambda environment: [host_edge])
        real.container.reload()
        (volume,) = (m["Name"] for m in real.container.attrs["Mounts"] if m["Destination"] == "/var/lib/ops-flags")
        runtime = DockerRuntime(DOCKER_URL, "local", real.labels)
        spec = ContainerSpec(
            name=f"ops-testbed-reader-{real.id}",
            image=upstream_image(real.engine),
            labels={"ops.environment": real.id},
            network=real.network.name or "",
            address="",
            volumes={volume: "/run/flags:ro"},
        )
        container = runtime.create(spec)
        runtime.start(container)
        inside = real.engine.containers.get(container)

        def seen() -> tuple[int, str, float]:
            code, out = inside.exec_run(["sh", "-c", "cat /run/flags/flags.json && stat -c %.9Y /run/flags/flags.json"])
            text, _, moment = out.decode().rstrip().rpartition("\n")
            return code, text + "\n", float(moment) if code == 0 else 0.0

        one_host(world)
        assert host_edge.flags() is None and seen()[0] != 0
        publish(platform, "prod", quiet)
        code, text, first = seen()
        assert code == 0 and text.encode() == host_edge.flags()
        assert json.loads(text)["flags"]["badges"]["targeting"] == {"fractional": [["on", 5000], ["off", 5000]]}
        assert turn_off(platform, "prod", "badges", reason="errors", who="verdict")
        _, text, second = seen()
        assert json.loads(text)["flags"]["badges"]["defaultVariant"] == "off"
        assert second > first  # what tells a provider that the file is new
        assert stale_flags(platform, "prod") == {}
        assert inside.exec_run(["sh", "-c", "id -u; rm /run/flags/flags.json || touch /run/flags/x"]).exit_code != 0


def one_host(world: Bed) -> None:
    """Take the second host out of prod."""
    prod = world.catalogue.environments["prod"]
    hosts = (prod.hosts[0].model_copy(update={"name": "local"}),)
    world.catalogue.environments["prod"] = prod.model_copy(update={"hosts": hosts})
