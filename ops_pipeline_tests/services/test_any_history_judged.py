"""Any history of rollouts by any strategy on one to three hosts, whatever is measured meanwhile, ends well."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ops_pipeline.core.judgement.verdict import Outcome
from ops_pipeline.core.quarantine import Quarantine
from ops_pipeline.core.release import Phase
from ops_pipeline.errors import DeployFailed, OpsError
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.ledger import releases
from ops_pipeline.services.reconcile import reconcile
from ops_pipeline.services.records import decode
from ops_pipeline.services.rollback import roll_back
from ops_pipeline.services.status import status
from ops_pipeline.services.watches import read_watch
from ops_pipeline_tests.fakes.platform import Bed, Killed, Lifeline, catalogue, healthy, quiet
from ops_pipeline_tests.fakes.runtime import Behaviour
from ops_pipeline_tests.services.shipping import settings_of_services

STEPS = [{"weight": 10, "min_seconds": 1, "max_seconds": 90}, {"weight": 60, "min_seconds": 1}, {"weight": 100}]
INNOCENT = {
    "good": Behaviour(),
    "never ready": Behaviour(never_ready=True),
    "unhealthy later": Behaviour(unhealthy_after=5),
}
GUILTY = {
    "half of it fails": Behaviour(errors=0.5),
    "a tenth fails, later": Behaviour(errors=0.1, bad_after=8),
    "crashes later": Behaviour(exits_after=6),
    "crashes at once": Behaviour(exits_after=0.4),  # never gets traffic: failed, but not blamed
}
MEASURED = {
    "well": (100.0, ""),
    "few users": (0.5, ""),
    "Prometheus is away": (100.0, "connection refused"),
}
deaths = st.one_of(st.none(), st.none(), st.integers(1, 400))


class AnyJudgedHistory(RuleBasedStateMachine):
    """One service. What users are sent to can serve, whoever is blamed is guilty, and everything converges."""

    def __init__(self) -> None:
        super().__init__()
        self.version = 0
        self.controllers = 0
        self.guilty: set[str] = set()
        self.unserved: list[str] = []
        self.users = 100.0

    @initialize(hosts=st.integers(1, 3))
    def first(self, hosts: int) -> None:
        self.environments = {
            "dev": {"hosts": [{"name": "h1"}], "url": "http://127.0.0.1:8081", "subnet": "10.9.4.0/24"},
            "prod": {
                "hosts": [{"name": f"h{number + 1}"} for number in range(hosts)],
                "url": "http://127.0.0.1:8080",
                "subnet": "10.9.5.0/24",
                "blind_seconds": 15,
                "hold_minutes": 2,
                "services": {"api": {"replicas": 2}},
            },
        }
        self.bed = Bed(self.book("blue_green"))
        self.bed.users(100)
        self.bed.image("0.0.0")
        deploy(self.bed.platform(), "prod", "api", progress=quiet)

    def book(self, strategy: str) -> object:
        services = settings_of_services()
        changed = {**services["api"], "strategy": strategy, "canary": STEPS, "verify": {"seconds": 5}}
        return catalogue(services={**services, "api": changed}, environments=self.environments)

    def watch(self, call: str) -> None:
        """Every user is sent to a release with a replica that is ready, unless it has just crashed by itself."""
        for runtime, edge in zip(self.bed.runtimes["prod"], self.bed.edges["prod"], strict=True):
            routing = edge.routings["api"]
            for name in {routing.live, routing.candidate if routing.weight else routing.live}:
                addresses = {server.address for server in routing.pools[str(name)].servers}
                digests = {
                    box.spec.labels["ops.digest"] for box in runtime.boxes.values() if box.spec.address in addresses
                }
                ready = any(runtime.answer(address, 8080, "/").ok for address in addresses)
                if not (ready or digests & self.guilty):
                    self.unserved.append(f"{call}: {runtime.host} {routing}")

    def attempt(self, die_at: int | None, verb: object, **arguments: object) -> None:
        self.controllers += 1
        before = read_journal(self.bed.platform(), "prod", "api")
        platform = self.bed.platform(f"c:{self.controllers}", lifeline=Lifeline(die_at, after_each=self.watch))
        try:
            verb(platform, "prod", "api", progress=quiet, **arguments)  # type: ignore[operator]
        except DeployFailed:
            after = read_journal(self.bed.platform(), "prod", "api")
            if before.work is None and not before.leaving and after.work is None:
                assert (after.live, after.standby) == (before.live, before.standby), "a failed one costs nobody"
        except OpsError as error:
            assert error.message
        except Killed:
            pass

    @rule(
        die_at=deaths,
        strategy=st.sampled_from(["blue_green", "rolling", "canary"]),
        kind=st.sampled_from([*INNOCENT, *GUILTY]),
    )
    def rolls_out(self, die_at: int | None, strategy: str, kind: str) -> None:
        self.bring(die_at, strategy, kind)

    @rule(strategy=st.sampled_from(["blue_green", "rolling", "canary"]), measured=st.sampled_from(list(MEASURED)))
    def rolls_out_a_good_one(self, strategy: str, measured: str) -> None:
        self.is_measured(measured)
        self.bring(None, strategy, "good")

    def bring(self, die_at: int | None, strategy: str, kind: str) -> None:
        """Deploy a new version that behaves as told."""
        self.bed.clock.advance(1)
        self.version += 1
        self.bed.catalogue = self.book(strategy)  # type: ignore[assignment]
        image = self.bed.image(f"{self.version}.0.0", {**INNOCENT, **GUILTY}[kind])
        if kind in GUILTY:
            self.guilty.add(image.ref.digest)
        self.attempt(die_at, deploy)

    @rule(kind=st.sampled_from(list(MEASURED)))
    def is_measured(self, kind: str) -> None:
        users, self.bed.metrics.down = MEASURED[kind]
        self.bed.metrics._users.clear()
        self.bed.users(users)

    @rule(die_at=deaths, automatic=st.booleans())
    def rolls_back(self, die_at: int | None, automatic: bool) -> None:
        self.attempt(die_at, roll_back, automatic=automatic)

    @rule(die_at=deaths)
    def reconciles(self, die_at: int | None) -> None:
        self.attempt(die_at, reconcile)

    @rule(seconds=st.sampled_from([1.0, 31.0]))
    def waits(self, seconds: float) -> None:
        self.bed.clock.advance(seconds)

    @invariant()
    def every_user_was_sent_to_something_that_serves(self) -> None:
        assert not self.unserved, self.unserved[:3]

    def teardown(self) -> None:
        if self.controllers == 0:
            return
        self.bed.metrics.down = ""
        self.bed.clock.advance(31)
        platform = self.bed.platform("last:1", lifeline=Lifeline(after_each=self.watch))
        live = read_journal(self.bed.platform(), "prod", "api").live
        assert live is not None
        report = reconcile(platform, "prod", "api", progress=quiet)
        sick = live.image.partition("@")[2] in self.guilty or "unhealthy" in str(report.problems)
        assert report.settled or sick, report
        journal = read_journal(self.bed.platform(), "prod", "api")
        assert journal.work is None and not journal.leaving and journal.live is not None
        owned = {str(place.containers) for place in journal.placements}
        assert {name.split("-")[3] for _, name, _ in self.bed.containers()} == owned
        known = releases(self.bed.store, "prod", "api")
        assert [release.number for release in known if release.phase is Phase.LIVE] == [journal.live.release]
        assert len({release.number for release in known}) == len(known)
        for key, data in self.bed.store.objects.items():
            if key.startswith("quarantine/"):
                record = decode(Quarantine, data, key)
                assert record.digest in self.guilty, "only what was bad is blamed"
                assert record.evidence is not None and record.evidence.outcome is Outcome.FAIL
        watch = read_watch(self.bed.platform(), "prod", "api")
        (serving,) = [release for release in known if release.number == journal.live.release]
        assert (watch is None) is (serving.restores is not None), "a roll-back is not watched, everything else is"
        assert watch is None or watch.release == journal.live.release
        if not sick:
            (seen,) = status(self.bed.platform(), "prod", "api")
            assert seen.healthy, seen
            assert healthy(self.bed.ask())
        self.every_user_was_sent_to_something_that_serves()


QUICK = settings(max_examples=20, stateful_step_count=12, suppress_health_check=list(HealthCheck))


class TestAnyJudgedHistory(AnyJudgedHistory.TestCase):  # type: ignore[name-defined,misc]
    """A few histories."""

    settings = QUICK


@pytest.mark.thorough
class TestManyJudgedHistories(AnyJudgedHistory.TestCase):  # type: ignore[name-defined,misc]
    """Many, and longer ones."""

    settings = settings(QUICK, max_examples=200, stateful_step_count=20)
