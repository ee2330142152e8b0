"""The acts about releases: build, deploy, promote by verdict, refuse, roll back."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

from examples.demo import project
from examples.demo.commands import (
    DemoFailed,
    console,
    go_on,
    newest_release,
    ops,
    ops_json,
    ops_together,
)
from examples.demo.traffic import Traffic

ROLLED_BACK, REFUSED = 6, 3
"""Exit codes of `ops`."""
GONE_SECONDS = 60.0
"""So long the sensor may take; the rule needs some ten seconds for a release that fails half of all requests."""
FIRST, GOOD, NEVER_READY, FAILING, TURNING = "v1.0.0", "v2.0.0", "v3.0.0", "v4.0.0", "v5.0.0"
PROMOTED_SECONDS = 60.0

# Of what a build prints: not each layer and each package, but what it decided and what its tests said.
LAYER = re.compile(r"^\d\d:\d\d:\d\d (\[|  )")
TESTED = re.compile(r"\[test (\d+)/\1\]|\d+ passed|# (tests|pass|fail) \d|test is successful|already formatted")


def worth_showing(line: str) -> bool:
    """Whether a line of a build is shown; the page of its run has them all."""
    return LAYER.match(line) is None or TESTED.search(line) is not None


@dataclass
class Delivery:
    """Acts, and what they must know of each other: digests by service and version."""

    digests: dict[tuple[str, str], str] = field(default_factory=dict)

    def build_first(self) -> None:
        """Version 1 of both services."""
        project.checkout(FIRST)
        services = ("api", "frontend")
        outputs = ops_together(*(("build", service) for service in services), only=worth_showing)
        for service, said in zip(services, outputs, strict=True):
            self._take_digest(service, FIRST, said)

    def build(self, version: str) -> None:
        """A later version of the API; the project has one work tree, so one at a time."""
        project.checkout(version)
        self._take_digest("api", version, ops("build", "api", only=worth_showing))

    def _take_digest(self, service: str, version: str, said: str) -> None:
        made = re.search(rf"^{service} \S+\s+(sha256:[0-9a-f]{{64}})$", said, re.MULTILINE)
        if made is None:
            raise DemoFailed(f"`ops build {service}` does not say which image it made")
        if f"tests of {service} passed" not in said and f"{service} {version[1:]}" not in said:
            raise DemoFailed(f"`ops build {service}` says neither that tests passed nor that nothing changed")
        if "check passed: vulnerability_policy" not in said:
            raise DemoFailed(f"the image of {service} {version} was not scanned")
        self.digests[service, version] = made[1]

    def first_in_dev(self) -> None:
        """Version 1 live in dev, whatever runs there."""
        ops_together(
            *(("deploy", service, "dev", "--digest", self.digests[service, FIRST]) for service in ("api", "frontend"))
        )

    def first_again_in_dev(self) -> None:
        """A deploy for real, of version 1 once more: beside what runs, verified, switched."""
        ops("deploy", "api", "dev", "--digest", self.digests["api", FIRST], "--force", "--why", "demonstration")
        if not healthy(standing(), "frontend", "dev", self.digests["frontend", FIRST]):
            ops("deploy", "frontend", "dev", "--digest", self.digests["frontend", FIRST])

    def promote_first(self) -> None:
        """The digests of dev, in prod."""
        self._first_in_prod(lambda service: ("promote", service, "prod"))
        found = standing()
        for service in ("api", "frontend"):
            digests = {digest_of(found, service, environment) for environment in ("dev", "prod")}
            if digests != {self.digests[service, FIRST]}:
                raise DemoFailed(f"dev and prod do not run the digest of {service} that was built: {digests}")
            console.print(f"{service}: dev and prod run {self.digests[service, FIRST][:19]}, built once")

    def first_in_prod(self) -> None:
        """Version 1 in prod, where it is since an earlier demonstration unless somebody changed or removed it."""
        self._first_in_prod(lambda service: ("deploy", service, "prod", "--digest", self.digests[service, FIRST]))

    def _first_in_prod(self, how: Any) -> None:
        found, commands = standing(), []
        for service in ("api", "frontend"):
            wanted, there = self.digests[service, FIRST], digest_of(found, service, "prod")
            if healthy(found, service, "prod", wanted):
                console.print(f"prod runs {service} {FIRST[1:]} already, as an earlier demonstration left it")
            elif there in ("", wanted):
                commands.append(how(service))
            else:
                # Not a canary nobody would use, but the way back, if there is one.
                earlier = ops_json("releases", service, "prod", "--limit", "1000")
                left = [one for one in earlier if one["digest"] == wanted and one["phase"] in ("retired", "standby")]
                numbers = [one["number"] for one in left]
                commands.append(("rollback", service, "prod", "--to", str(max(numbers))) if numbers else how(service))
        if commands:
            ops_together(*commands)

    def next_in_dev(self) -> None:
        """Version 2 in dev."""
        ops("deploy", "api", "dev", "--digest", self.digests["api", GOOD])

    def canary(self) -> None:
        """A good canary: 10 %, 50 %, everybody, each step upward by verdict."""
        with Traffic("prod", 150, "during the upgrade"):
            said = ops("promote", "api", "prod")
        for share in ("10 % of the users get", "50 % of the users get", "switch to pool"):
            if share not in said:
                raise DemoFailed(f"the canary was promoted without a step: {share!r} is not in what `ops` said")
        if digest_of(standing(), "api", "prod") != self.digests["api", GOOD]:
            raise DemoFailed("version 2 is not live in prod")

    def refuse(self) -> None:
        """A version that never becomes ready."""
        there = digest_of(standing(), "api", "dev")
        with Traffic("dev", 40, "during the failed deploy"):
            ops("deploy", "api", "dev", "--digest", self.digests["api", NEVER_READY], "--why", "hurry", expect=1)
        if (now := digest_of(standing(), "api", "dev")) != there:
            raise DemoFailed(f"dev does not run what it ran before: {now[:19]}, not {there[:19]}")

    def take_back_a_canary(self) -> None:
        """A canary that fails one request in ten."""
        there = digest_of(standing(), "api", "prod")
        bad, digest = newest_release("api", "prod") + 1, self.digests["api", FAILING]
        with Traffic("prod", 150, "during the canary", bad):
            said = ops("deploy", "api", "prod", "--digest", digest, "--why", "it worked here", expect=ROLLED_BACK)
        if f"prod/api #{bad}: FAIL" not in said:
            raise DemoFailed("it was rolled back, but no evidence was printed")
        run = re.search(r"http\S+/runs/\S+", said)
        console.print(f"the same evidence in the UI: {run[0] if run else 'the page of the run'}", soft_wrap=True)
        if digest_of(standing(), "api", "prod") != there or not in_quarantine(digest):
            raise DemoFailed("prod does not run what it ran before, or the bad digest is not in quarantine")

    def back_by_hand(self, environment: str) -> None:
        """Back to what ran before."""
        before = newest_release("api", environment)
        with Traffic(environment, 100, "during the roll-back"):
            ops("rollback", "api", environment, "--why", "demonstration")
            time.sleep(1)
        newest = ops_json("releases", "api", environment, "--limit", "1")[0]
        if newest["number"] != before + 1 or newest["action"] != "rollback" or newest["phase"] != "live":
            raise DemoFailed(f"{environment}/api was not rolled back: {newest}")

    def take_back_a_live_release(self, *, after_promotion: bool) -> None:
        """A release that passes everything and goes wrong ten seconds later."""
        if after_promotion:
            self._until_promoted()
        bad = newest_release("api", "dev") + 1
        with Traffic("dev", 60, "around the roll-back", bad):
            ops("deploy", "api", "dev", "--digest", self.digests["api", TURNING])
            console.print("live; now nobody does anything …")
            began = time.monotonic()
            while newest_release("api", "dev") == bad or ops_json("status", "api", "dev")[0]["working"]:
                go_on()
                if time.monotonic() - began > GONE_SECONDS:
                    raise DemoFailed(f"#{bad} was not rolled back within {GONE_SECONDS:.0f} s")
                time.sleep(1)
            console.print(f"rolled back {time.monotonic() - began:.0f} s after it went live")
            ops("verdict", "api", "dev", "--release", str(bad))
            ops("releases", "api", "dev", "--limit", "3")
        if not in_quarantine(self.digests["api", TURNING]):
            raise DemoFailed("what the sensor rolled back is not in quarantine")

    def _until_promoted(self) -> None:
        """Wait until prod has taken from dev what it promotes: the next deploy to dev must not be promoted instead."""
        deadline = time.monotonic() + PROMOTED_SECONDS
        while not any(
            one["digest"] == self.digests["api", GOOD] for one in ops_json("releases", "api", "prod", "--limit", "1")
        ):
            go_on()
            if time.monotonic() > deadline:
                raise DemoFailed(f"prod did not begin to promote version 2 within {PROMOTED_SECONDS:.0f} s")
            time.sleep(1)

    def quarantined(self) -> None:
        """What was judged bad is deployed by nobody until a person lifts it."""
        ops("quarantine", "list")
        ops("deploy", "api", "dev", "--digest", self.digests["api", FAILING], expect=REFUSED)
        forget_quarantines()


def standing() -> list[dict[str, Any]]:
    """What runs where, as `ops status` says."""
    found: list[dict[str, Any]] = ops_json("status")
    return found


def _entry(found: list[dict[str, Any]], service: str, environment: str) -> dict[str, Any]:
    return next((one for one in found if (one["environment"], one["service"]) == (environment, service)), {})


def digest_of(found: list[dict[str, Any]], service: str, environment: str) -> str:
    """Digest that is live, empty when none is."""
    return str((_entry(found, service, environment).get("live") or {}).get("digest", ""))


def healthy(found: list[dict[str, Any]], service: str, environment: str, digest: str) -> bool:
    """Whether this digest is live and all of its containers are ready."""
    return digest_of(found, service, environment) == digest and bool(_entry(found, service, environment)["healthy"])


def bring_back_what_is_gone() -> None:
    """After `make down` the ledger says what ran, and nothing does: let `reconcile` start it again.

    Before any deploy: the edge refuses a routing in which the release that is live has no replica that answers.
    """
    gone = [f"{one['environment']}/{one['service']}" for one in standing() if one["live"] and not one["ready"]]
    if gone:
        console.print(f"the ledger says what ran before `make down`: {', '.join(gone)}; reconcile brings it back")
        ops("reconcile")


def in_quarantine(digest: str) -> bool:
    """Whether this digest was judged bad."""
    return any(record["digest"] == digest for record in ops_json("quarantine", "list"))


def forget_quarantines() -> None:
    """Lift what this or an earlier demonstration put into quarantine, so that it can be repeated."""
    for record in ops_json("quarantine", "list"):
        ops("quarantine", "lift", record["digest"], "--why", "the demonstration goes on")
