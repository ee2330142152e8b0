"""Real components for tests: started on free loopback ports, labelled `ops.testbed=<id>`, always removed."""

from __future__ import annotations

import os
import socket
import uuid

_ID = os.environ.get("OPS_TESTBED") or uuid.uuid4().hex[:10]


def testbed_id() -> str:
    """Value of the label `ops.testbed` of everything this test process creates; OPS_TESTBED sets it from outside."""
    return _ID


# pytest collects functions of this name pattern where a test module imports it.
testbed_id.__test__ = False  # type: ignore[attr-defined]


def free_port() -> int:
    """A loopback port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
