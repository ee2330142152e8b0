"""The order of the demonstration's acts, and which of them are left out the second time."""

from __future__ import annotations

import itertools
import threading

import pytest

from examples.demo import __main__ as demo
from examples.demo import programme
from examples.demo.commands import DemoFailed
from examples.demo.programme import Act

ONCE = [act.name for act in demo.programme((), with_later=False) if act.once]
CHOICES = [frozenset(choice) for size in range(len(ONCE) + 1) for choice in itertools.combinations(ONCE, size)]


@pytest.mark.parametrize("without", CHOICES, ids=lambda names: "+".join(sorted(names)) or "all")
def test_whatever_is_left_out_the_rest_can_be_played(without: frozenset[str]) -> None:
    acts = demo.programme(without, with_later=True)
    programme.check(acts)
    names = [act.name for act in acts]
    assert len(set(names)) == len(names)
    assert not without & set(names)
    # The main job is done in every run.
    assert {"first-built", "first-in-dev", "failing", "by-hand", "backup", "drill", "status"} <= set(names)


@pytest.mark.parametrize("without", CHOICES, ids=lambda names: "+".join(sorted(names)) or "all")
def test_what_must_not_meet_never_plays_side_by_side(without: frozenset[str]) -> None:
    acts = demo.programme(without, with_later=True)
    earlier = programme.before(acts)

    def apart(one: str, other: str) -> bool:
        absent = one not in earlier or other not in earlier
        return absent or one in earlier[other] or other in earlier[one]

    # Nobody may write to prod between the first look and the last.
    for writer in ("canary", "failing"):
        assert apart("disaster", writer)
    assert apart("disaster", "backup")
    assert apart("disaster", "drill")
    # What dev runs is what is promoted.
    assert apart("first-in-prod", "second-in-dev")
    # One release at a time per environment, and each act looks at what the one before it left.
    for one, other in itertools.combinations(("canary", "failing", "first-in-prod"), 2):
        assert apart(one, other)
    for one, other in itertools.combinations(("first-in-dev", "second-in-dev", "never-ready", "turns-bad"), 2):
        assert apart(one, other)
    # The project has one work tree.
    builds = [act.name for act in acts if act.name.endswith("-built")]
    assert all(apart(one, other) for one, other in itertools.combinations(builds, 2))


def test_a_version_is_built_only_for_an_act_that_is_played() -> None:
    names = {act.name for act in demo.programme(ONCE, with_later=False)}
    assert {name for name in names if name.endswith("-built")} == {"first-built", "v4.0.0-built"}


def test_only_what_passed_is_left_out_and_only_what_may_be() -> None:
    acts = demo.programme((), with_later=False)
    assert [act.name for act in programme.left_out(acts, ["canary", "failing", "status"])] == ["canary"]


def test_acts_wait_for_those_they_come_after_and_others_play_meanwhile() -> None:
    together, heard = threading.Barrier(2, timeout=20), list[str]()

    def meet(name: str) -> None:
        together.wait()
        heard.append(name)

    acts = [
        Act("first", "first", lambda: heard.append("first")),
        Act("left", "left", lambda: meet("left"), ("first",)),
        Act("right", "right", lambda: meet("right"), ("first",)),
        Act("last", "last", lambda: heard.append("last"), ("left", "right")),
    ]
    passed: list[str] = []
    programme.perform(acts, lambda act, seconds: passed.append(act.name))
    assert heard[0] == "first"
    assert heard[-1] == "last"
    assert sorted(passed) == ["first", "last", "left", "right"]
    assert [programme.has_the_stage(act, acts) for act in acts] == [True, False, False, True]


def test_a_bug_in_an_act_ends_the_demonstration_with_its_words(fresh_stop: None) -> None:
    def broken() -> None:
        raise ValueError("three is no colour")

    acts = [Act("one", "The first act", broken), Act("two", "two", lambda: None, ("one",))]
    passed: list[str] = []
    with pytest.raises(DemoFailed, match="The first act: ValueError: three is no colour"):
        programme.perform(acts, lambda act, seconds: passed.append(act.name))
    assert passed == []


def test_an_act_that_waits_for_nothing_known_is_refused() -> None:
    with pytest.raises(ValueError, match="waits for"):
        programme.check([Act("one", "one", lambda: None, ("other",))])
