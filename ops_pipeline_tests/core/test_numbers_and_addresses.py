"""Timestamps, container names, addresses, redaction, precedence, roll-back targets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.adapters.docker_errors import refusal
from ops_pipeline.adapters.docker_secrets import plain_ids, user_ids
from ops_pipeline.core.addresses import candidate_addresses, dynamic_range
from ops_pipeline.core.numbering import release_timestamp
from ops_pipeline.core.precedence import TABLE, Attempt, Effect, Gate, Objection, weigh
from ops_pipeline.core.redaction import redact
from ops_pipeline.errors import NotFound, Permanent, Transient
from ops_pipeline.ports import AddressInUse

moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@given(st.lists(moments, min_size=1, max_size=20))
def test_timestamps_are_unique_and_in_the_order_they_were_given_out(times: list[datetime]) -> None:
    stamps = [""]
    for time in times:
        stamps.append(release_timestamp(time, stamps[-1]))
    assert stamps == sorted(set(stamps))


def test_a_timestamp_is_utc_with_milliseconds() -> None:
    moment = datetime(2026, 11, 21, 11, 15, 0, 123_999, tzinfo=timezone(timedelta(hours=1)))
    assert release_timestamp(moment) == "20261121T101500.123Z"
    assert release_timestamp(moment, "20261121T235959.999Z") == "20261122T000000.000Z"


@given(st.integers(0, 255), st.integers(20, 28), st.text(max_size=20), st.data())
def test_addresses_are_free_distinct_and_of_the_lower_half(
    third: int, bits: int, key: str, data: st.DataObject
) -> None:
    network = IPv4Network(f"10.9.{third}.0/{bits}", strict=False)
    lower, upper = network.subnets()
    everything = list(candidate_addresses(str(network), key, ()))
    assert everything == list(candidate_addresses(str(network), key, ()))
    assert len(set(everything)) == len(everything) == network.num_addresses // 2 - 2
    assert all(IPv4Address(address) in lower for address in everything)
    assert str(network.network_address + 1) not in everything, "the first one is the gateway's"
    used = data.draw(st.sets(st.sampled_from(everything)))
    assert set(candidate_addresses(str(network), key, used)) == set(everything) - used
    assert dynamic_range(str(network)) == str(upper)


def test_secrets_are_masked_longest_first_and_line_by_line() -> None:
    assert redact("a abcd-long abcd b", ["abcd", "abcd-long"]) == "a [secret] [secret] b"
    assert redact("key: line two\n", ["line one\nline two"]) == "key: [secret]\n"
    assert redact("yes 1", ["1", ""]) == "yes 1"


@given(st.text("ab \n"), st.lists(st.text("ab \n", min_size=4)))
def test_no_secret_survives(text: str, secrets: list[str]) -> None:
    left = redact(text + "".join(secrets), secrets)
    assert not any(secret in left.replace("[secret]", "#") for secret in secrets)


def test_precedence_as_a_table() -> None:
    assert list(Gate) == ["quarantine", "keep serving", "freeze", "approval", "image record", "scan", "restore drill"]
    assert set(TABLE) == set(Gate) and all(set(row) == set(Attempt) for row in TABLE.values())
    refuses = {attempt: [gate.value for gate in Gate if TABLE[gate][attempt] is Effect.REFUSE] for attempt in Attempt}
    assert refuses[Attempt.DEPLOY] == refuses[Attempt.PROMOTE] == [gate.value for gate in Gate]
    assert refuses[Attempt.ROLLBACK_ANEW] == ["quarantine", "keep serving", "scan"]
    assert refuses[Attempt.ROLLBACK_WARM] == ["quarantine", "keep serving"]
    assert refuses[Attempt.REPAIR] == ["quarantine"]


def test_the_strongest_objection_is_named_first_and_warnings_are_kept() -> None:
    objections = [Objection(Gate.SCAN, "CVE-1"), Objection(Gate.QUARANTINE, "leaks")]
    outcome = weigh(Attempt.DEPLOY, objections, ("sample database",))
    assert outcome.reasons == ("leaks", "CVE-1") and outcome.warnings == ("sample database",) and not outcome.allowed
    warm = weigh(Attempt.ROLLBACK_WARM, [objections[0]])
    assert warm.allowed and warm.warnings == ("CVE-1",)


@pytest.mark.parametrize(
    ("words", "status", "kind"),
    [
        ("Address already in use", 403, AddressInUse),
        ("driver failed programming external connectivity: Bind for 127.0.0.1:80 failed: port is already allocated",
         500, Permanent),
        ("listen tcp4 0.0.0.0:80: bind: address already in use", 500, Permanent),
        ("mkdir /var/lib/docker/x: no space left on device", 500, Permanent),
        ("manifest for r/x@sha256:0 not found: manifest unknown", 404, NotFound),
        ("Get http://127.0.0.1:5000/v2/: dial tcp 127.0.0.1:5000: connect: connection refused", 500, Transient),
        ("unauthorized: authentication required", 500, Permanent),
        ("removal of container 1 is already in progress", 409, Transient),
        ("OCI runtime create failed: exec: \"x\": not found in $PATH", 400, NotFound),
        ("something new", 500, Permanent),
    ],
)  # fmt: skip
def test_what_an_engine_refuses_is_sorted(words: str, status: int, kind: type[Exception]) -> None:
    error = refusal("h1", "start x", status, words)
    assert type(error) is kind
    assert "h1 could not start x" in str(error)


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("", (0, 0)),
        ("root", (0, 0)),
        ("app", (1001, 1002)),
        ("1001", (1001, 1002)),
        ("4711", (4711, 0)),
        ("4711:12", (4711, 12)),
        ("app:web", (1001, 33)),
    ],
)
def test_the_owner_of_secrets_is_the_images_user(user: str, ids: tuple[int, int]) -> None:
    passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1001:1002::/:/bin/sh\n"
    assert user_ids(user, passwd, "root:x:0:\nweb:x:33:app\n") == ids
    said_by_itself = user in ("", "root", "4711:12")
    assert plain_ids(user) == (ids if said_by_itself else None), "the image's files are read only where they matter"
    with pytest.raises(ValueError, match="no user 'nobody'"):
        user_ids("nobody", passwd, "")
    with pytest.raises(ValueError, match="no group 'nobody'"):
        user_ids("app:nobody", passwd, "")
