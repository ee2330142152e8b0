"""Signs of life over HTTP: what the other side says decides whether to try again, and the address is never said."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ops_pipeline.adapters.heartbeat import ping
from ops_pipeline.errors import OpsError, Permanent, Transient


class Answering(BaseHTTPRequestHandler):
    """`/<status>/<secret>` is answered with that status; `/cut/…` not at all."""

    asked: list[str] = []  # noqa: RUF012 - shared by all requests on purpose

    def do_GET(self) -> None:
        self.asked.append(self.path)
        word = self.path.split("/")[1]
        if word != "cut":
            self.send_response(int(word))
            self.send_header("Content-Length", "0")
            self.send_header("Location", "/200/elsewhere")
            self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None: ...


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_arrives(address: str) -> None:
    ping(f"{address}/200/s3cret-uuid")
    assert Answering.asked[-1] == "/200/s3cret-uuid"


ANSWERS = {"500": Transient, "503": Transient, "429": Transient, "404": Permanent, "302": Permanent, "cut": Transient}


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_went_wrong_is_said_without_the_address(address: str, answer: str) -> None:
    with pytest.raises(OpsError) as caught:
        ping(f"{address}/{answer}/s3cret-uuid")
    assert type(caught.value) is ANSWERS[answer]
    assert "s3cret-uuid" not in str(caught.value) and address not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://x/s3cret-uuid", "s3cret-uuid", "http://", "http://[::1/s3cret-uuid"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(Permanent) as caught:
        ping(url)
    assert "s3cret-uuid" not in str(caught.value)


def test_nobody_there() -> None:
    with pytest.raises(Transient) as caught:
        ping("http://127.0.0.1:1/s3cret-uuid")
    assert "s3cret-uuid" not in str(caught.value)
