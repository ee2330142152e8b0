"""Any history of deploys, roll-backs, deaths, failing hosts and broken containers ends well after one reconcile."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ops_pipeline.core.release import Phase
from ops_pipeline.errors import OpsError
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.ledger import releases
from ops_pipeline.services.reconcile import reconcile
from ops_pipeline.services.rollback import roll_back
from ops_pipeline.services.status import status
from ops_pipeline_tests.fakes.platform import Bed, Killed, Lifeline, healthy, quiet
from ops_pipeline_tests.fakes.runtime import Behaviour

GOOD = Behaviour()
BAD = [Behaviour(never_ready=True), Behaviour(exits_after=0.4), Behaviour(unhealthy_after=0.0)]
deaths = st.one_of(st.none(), st.integers(1, 160))


class AnyHistory(RuleBasedStateMachine):
    """One service on two hosts. While both hosts are reachable its users are served at every single moment."""

    def __init__(self) -> None:
        super().__init__()
        self.bed = Bed()
        self.version = 0
        self.controllers = 0
        self.away = ""
        self.unserved: list[str] = []

    @initialize()
    def first(self) -> None:
        self.bed.image("0.0.0", GOOD)
        deploy(self.bed.platform(), "prod", "api", progress=quiet)

    def controller(self, die_at: int | None) -> Lifeline:
        return Lifeline(die_at, after_each=self.watch)

    def watch(self, call: str) -> None:
        answers = {
            runtime.host: edge.request("/api")
            for runtime, edge in zip(self.bed.runtimes["prod"], self.bed.edges["prod"], strict=True)
        }
        if not healthy(answers):
            self.unserved.append(f"{call}: {answers}")

    def attempt(self, die_at: int | None, verb: object, **arguments: object) -> None:
        self.controllers += 1
        platform = self.bed.platform(f"c:{self.controllers}", lifeline=self.controller(die_at))
        try:
            verb(platform, "prod", "api", progress=quiet, **arguments)  # type: ignore[operator]
        except OpsError as error:
            assert error.message
        except Killed:
            pass

    @rule(die_at=deaths)
    def deploys_a_good_one(self, die_at: int | None) -> None:
        self.version += 1
        self.bed.image(f"{self.version}.0.0", GOOD)
        self.attempt(die_at, deploy)

    @rule(die_at=deaths, behaviour=st.sampled_from(BAD))
    def deploys_a_bad_one(self, die_at: int | None, behaviour: Behaviour) -> None:
        self.version += 1
        self.bed.image(f"{self.version}.0.0", behaviour)
        self.attempt(die_at, deploy)

    @rule(die_at=deaths, to=st.one_of(st.none(), st.integers(1, 8)))
    def rolls_back(self, die_at: int | None, to: int | None) -> None:
        self.attempt(die_at, roll_back, to=to)

    @rule(die_at=deaths)
    def reconciles(self, die_at: int | None) -> None:
        self.attempt(die_at, reconcile)

    @rule(seconds=st.sampled_from([1.0, 31.0, 2000.0]))
    def waits(self, seconds: float) -> None:
        self.bed.clock.advance(seconds)

    @precondition(lambda self: not self.away)
    @rule(host=st.sampled_from(["h1", "h2"]))
    def loses_touch_with_a_host(self, host: str) -> None:
        self.away = host
        self.bed.host_down("prod", host)

    @precondition(lambda self: self.away)
    @rule()
    def finds_the_host_again(self) -> None:
        self.bed.host_up("prod", self.away)
        self.away = ""

    @precondition(lambda self: not self.away)
    @rule(host=st.sampled_from(["h1", "h2"]))
    def loses_one_replica(self, host: str) -> None:
        """One of two live replicas crashes; the other one goes on, so nobody is unserved."""
        journal = read_journal(self.bed.platform(), "prod", "api")
        assert journal.live is not None
        self.bed.clock.advance(31)
        self.attempt(None, reconcile)
        journal = read_journal(self.bed.platform(), "prod", "api")
        assert journal.live is not None
        runtime = next(one for one in self.bed.runtimes["prod"] if one.host == host)
        runtime.breaks(f"ops-prod-api-{journal.live.containers}-0", "exited")
        self.attempt(None, reconcile)

    @invariant()
    def every_user_was_served_all_the_time(self) -> None:
        assert not self.unserved, self.unserved[:3]

    @invariant()
    def at_most_one_release_is_live_and_numbers_are_unique(self) -> None:
        known = releases(self.bed.store, "prod", "api")
        assert len({release.number for release in known}) == len(known)
        assert sum(release.phase is Phase.LIVE for release in known) <= 2  # two only between a switch and its record

    def teardown(self) -> None:
        if self.version == 0 and self.controllers == 0:
            return
        if self.away:
            self.finds_the_host_again()
        self.bed.clock.advance(31)
        report = reconcile(self.bed.platform("last:1", lifeline=self.controller(None)), "prod", "api", progress=quiet)
        assert report.settled, report
        journal = read_journal(self.bed.platform(), "prod", "api")
        assert journal.work is None and not journal.leaving and journal.live is not None
        owned = {str(place.containers) for place in journal.placements}
        assert {name.split("-")[3] for _, name, _ in self.bed.containers()} == owned
        (seen,) = status(self.bed.platform(), "prod", "api")
        assert seen.healthy, seen
        known = releases(self.bed.store, "prod", "api")
        assert [release.number for release in known if release.phase is Phase.LIVE] == [journal.live.release]
        self.every_user_was_served_all_the_time()


AnyHistory.TestCase.settings = settings(
    max_examples=60, stateful_step_count=12, suppress_health_check=list(HealthCheck)
)
TestAnyHistory = AnyHistory.TestCase
