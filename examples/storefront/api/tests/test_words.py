"""Settings, faults, drafts, log lines and photo types: what is accepted and what is refused, in words."""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path

import pytest

from storefront import faults
from storefront.faults import BadFaults, Faults, FaultSwitch
from storefront.listings import BadListing, Draft
from storefront.logs import JsonFormatter, request_id
from storefront.metrics import Metrics
from storefront.photos import kind_of
from storefront.settings import BadSettings, load


def test_secret_from_file_is_read_anew_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "DATABASE_PASSWORD").write_text("first\n")
    settings = load({}, secrets=tmp_path)
    assert settings.database_password.read() == "first"
    (tmp_path / "DATABASE_PASSWORD").write_text("second")
    assert settings.database_password.read() == "second"
    assert "second" not in repr(settings)


def test_secret_file_wins_over_variable(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("from file")
    environ = {"DATABASE_PASSWORD": "from variable", "DATABASE_PASSWORD_FILE": str(elsewhere)}
    assert load(environ, secrets=tmp_path).database_password.read() == "from file"
    assert load({"DATABASE_PASSWORD": "from variable"}, secrets=tmp_path).database_password.read() == "from variable"


def test_all_bad_settings_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadSettings) as error:
        load({"STOREFRONT_PORT": "http", "DATABASE_PORT": "0", "LOG_LEVEL": "loud"}, secrets=tmp_path)
    text = str(error.value)
    assert all(name in text for name in ("STOREFRONT_PORT", "DATABASE_PORT", "LOG_LEVEL", "DATABASE_PASSWORD"))


@pytest.mark.parametrize("text", ["", "on", "1", " true "])
def test_fault_switch_can_be_on_without_a_fault(text: str) -> None:
    assert faults.parse(text) == Faults()


def test_faults_are_parsed() -> None:
    assert faults.parse("error_rate=0.1, latency=0.5,fail_health=1,crash_after=30") == Faults(0.1, 0.5, 1.0, 30.0)
    assert faults.parse("error_rate=0.1,after=20,with_flag=1") == Faults(error_rate=0.1, after=20, with_flag=1)


async def test_a_fault_can_wait_since_the_first_users_request() -> None:
    now = [100.0]
    switch = FaultSwitch("error_rate=1,after=10", clock=lambda: now[0])
    struck = []
    for moment in (500.0, 509.9, 510.0, 600.0):  # long after the start: nobody had asked
        now[0] = moment
        struck.append(await switch.strike(lambda: False))
    assert struck == [False, False, True, True]
    switch.switch(Faults(error_rate=1, after=5))
    assert not await switch.strike(lambda: False)


async def test_a_fault_can_meet_only_those_who_see_the_feature() -> None:
    switch = FaultSwitch("error_rate=1,with_flag=1")
    assert [await switch.strike(lambda on=on: on) for on in (True, False, True)] == [True, False, True]  # type: ignore[misc]
    assert await FaultSwitch("error_rate=1").strike(lambda: False)


@pytest.mark.parametrize("text", ["error_rate=2", "latency=-1", "error_rate", "eror_rate=0.1", "latency=nan"])
def test_bad_faults_are_refused(text: str) -> None:
    with pytest.raises(BadFaults):
        faults.parse(text)


def test_without_the_setting_nothing_can_be_switched_on() -> None:
    switch = FaultSwitch(None)
    switch.switch(Faults(error_rate=1.0))
    assert not switch.enabled
    assert switch.now == Faults()


def test_a_good_draft() -> None:
    assert Draft.parse({"title": " Chair ", "price_cents": 1999}) == Draft("Chair", "", 1999, None)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ([], {"body"}),
        ({}, {"title", "price_cents"}),
        ({"title": "x" * 121, "price_cents": 1}, {"title"}),
        ({"title": "a\x00b", "price_cents": 1}, {"title"}),
        ({"title": "\ud800", "price_cents": 1}, {"title"}),
        ({"title": "x", "price_cents": True}, {"price_cents"}),
        ({"title": "x", "price_cents": 1.5}, {"price_cents"}),
        ({"title": "x", "price_cents": 10**30}, {"price_cents"}),
        ({"title": "x", "price_cents": 1, "photo": "../../etc/passwd"}, {"photo"}),
        ({"title": "x", "price_cents": 1, "photo": "a" * 64 + ".svg"}, {"photo"}),
        ({"title": "x", "price_cents": 1, "colour": "red"}, {"colour"}),
    ],
)
def test_bad_drafts_name_every_field(body: object, fields: set[str]) -> None:
    with pytest.raises(BadListing) as error:
        Draft.parse(body)
    assert error.value.problems.keys() == fields


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\xff\xd8\xff\xe0", "jpg"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"RIFF\x00\x00\x00\x00WEBP", "webp"),
        (b"RIFF\x00\x00\x00\x00WAVE", None),
        (b"<svg xmlns=", None),
        (b"GIF89a", None),
        (b"", None),
    ],
)
def test_photo_types_by_content(head: bytes, kind: str | None) -> None:
    assert kind_of(head) == kind


def test_log_lines_are_json_with_request_id_and_without_secrets() -> None:
    formatter = JsonFormatter(hidden=["hunter22"])
    token = request_id.set("r-1")
    try:
        raise ValueError("password is hunter22")
    except ValueError:
        record = logging.getLogger("x").makeRecord("x", 40, "f", 1, "got %s", ("hunter22",), sys.exc_info())
    record.extra_field = {"a": "hunter22"}
    line = formatter.format(record)
    request_id.reset(token)
    parsed = json.loads(line)
    assert parsed["request_id"] == "r-1"
    assert parsed["message"] == "got ***"
    assert parsed["extra_field"] == {"a": "***"}
    assert "hunter22" not in line
    assert "\n" not in line


def test_duration_has_boundaries_at_exactly_one_and_two_seconds() -> None:
    metrics = Metrics()
    metrics.duration.labels("GET", "/x").observe(2.0)
    boundaries = re.findall(r'duration_seconds_bucket\{le="([^"]+)"', metrics.render().decode())
    assert {"1.0", "2.0", "+Inf"} <= set(boundaries)
