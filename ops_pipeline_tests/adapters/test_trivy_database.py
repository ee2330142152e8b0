"""Which database is used: the real one from a mirror, an old one, the sample, or none."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from ops_pipeline.adapters import bolt, trivy_sample
from ops_pipeline.adapters.trivy_database import ATTEMPT_FILE, TrivyDatabase, locked
from ops_pipeline.errors import BadInput, Unavailable
from ops_pipeline_tests.testbed import free_port
from ops_pipeline_tests.testbed.programs import write_program
from ops_pipeline_tests.testbed.registry import RunningRegistry

SAMPLE = Path(__file__).parents[2] / "deploy" / "sample-vulnerabilities"
NOW = datetime.now(UTC)


def quiet(line: str) -> None: ...


def real_database(cache: Path, *, age_hours: float, source: str = "somewhere") -> None:
    folder = cache / "real" / "db"
    folder.mkdir(parents=True)
    (folder / "trivy.db").write_bytes(bolt.encode({"vulnerability": {}}))
    at = NOW - timedelta(hours=age_hours)
    times = {"UpdatedAt": at, "DownloadedAt": at, "NextUpdate": at + timedelta(hours=24)}
    # Trivy writes nanoseconds.
    text = {name: moment.strftime("%Y-%m-%dT%H:%M:%S.123456789Z") for name, moment in times.items()}
    (folder / "metadata.json").write_text(json.dumps({"Version": 2, **text}))
    (cache / "real" / ATTEMPT_FILE).write_text(json.dumps({"source": source, "error": ""}))


def test_without_anything_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="could not scan: there is no vulnerability database") as caught:
        TrivyDatabase(tmp_path, offline=True).ensure(quiet)
    assert "scan.database_mirror" in caught.value.hint


def test_the_sample_is_used_only_when_named_and_is_marked(tmp_path: Path) -> None:
    lines: list[str] = []
    ready = TrivyDatabase(tmp_path, sample=SAMPLE, offline=True).ensure(lines.append)
    assert ready.info.sample
    assert ready.info.updated_at == datetime(2026, 11, 20, tzinfo=UTC)
    assert ready.cache == tmp_path / "sample"
    assert any("SAMPLE" in line for line in lines)


def test_a_real_database_is_preferred_to_the_sample(tmp_path: Path) -> None:
    real_database(tmp_path, age_hours=2)
    ready = TrivyDatabase(tmp_path, sample=SAMPLE, offline=True).ensure(quiet)
    assert not ready.info.sample
    assert ready.info.source == "somewhere"
    assert ready.info.updated_at == (NOW - timedelta(hours=2)).replace(microsecond=0)


def test_an_old_real_database_is_used_as_it_is_when_it_cannot_be_refreshed(tmp_path: Path) -> None:
    real_database(tmp_path, age_hours=100)
    lines: list[str] = []
    mirror = f"127.0.0.1:{free_port()}/trivy-db:2"
    ready = TrivyDatabase(tmp_path, mirror=mirror, sample=SAMPLE).ensure(lines.append)
    assert not ready.info.sample
    assert NOW - ready.info.updated_at > timedelta(hours=99)
    assert any("cannot be reached" in line for line in lines)


def test_a_failed_attempt_is_remembered_for_an_hour(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    program = write_program(tmp_path, "trivy", f"open({str(counter)!r}, 'a').write('x'); sys.exit('no such artifact')")

    def attempts(mirror: str, port: int = 0) -> int:
        database = TrivyDatabase(tmp_path / "c", mirror=mirror, sample=SAMPLE, trivy=str(program))
        database._unreachable = lambda repository: ""  # type: ignore[method-assign]
        database.ensure(quiet)
        return len(counter.read_text())

    assert [attempts("m/a:2"), attempts("m/a:2")] == [1, 1]
    assert attempts("m/b:2") == 2, "another mirror is tried at once"
    stamp = tmp_path / "c" / "real" / ATTEMPT_FILE
    old = json.loads(stamp.read_text()) | {"at": (datetime.now(UTC) - timedelta(minutes=61)).isoformat()}
    stamp.write_text(json.dumps(old))
    assert attempts("m/b:2") == 3
    stamp.write_text("damaged")
    assert attempts("m/b:2") == 4


@pytest.mark.real
def test_a_mirror_is_downloaded_for_real(tmp_path: Path, registry: RunningRegistry) -> None:
    """Real Trivy, real registry: an artifact of the shape the public mirrors serve."""
    source = tmp_path / "source"
    trivy_sample.write(SAMPLE, source)
    updated = NOW - timedelta(hours=3)
    times = {"UpdatedAt": updated, "NextUpdate": updated + timedelta(days=1), "DownloadedAt": updated}
    text = {name: moment.strftime("%Y-%m-%dT%H:%M:%SZ") for name, moment in times.items()}
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for name, content in {
            "trivy.db": (source / "db" / "trivy.db").read_bytes(),
            "metadata.json": json.dumps({"Version": 2, **text}).encode(),
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    mirror = registry.repository("trivy-db") + ":2"
    push_artifact(registry.address, "trivy-db", "2", gzip.compress(layer.getvalue()))
    lines: list[str] = []
    database = TrivyDatabase(tmp_path / "cache", mirror=mirror, sample=SAMPLE)
    ready = database.ensure(lines.append)
    assert not ready.info.sample
    assert ready.info.source == mirror
    assert ready.info.updated_at == updated.replace(microsecond=0)
    started = time.monotonic()
    again: list[str] = []
    assert database.ensure(again.append) == ready
    assert not again, "a fresh database is not asked for again"
    assert time.monotonic() - started < 1


def push_artifact(address: str, name: str, tag: str, layer: bytes) -> None:
    with httpx.Client(base_url=f"http://{address}/v2/{name}", trust_env=False) as client:

        def blob(content: bytes) -> dict[str, object]:
            digest = "sha256:" + hashlib.sha256(content).hexdigest()
            start = client.post("/blobs/uploads/")
            start.raise_for_status()
            url = httpx.URL(start.headers["location"]).copy_merge_params({"digest": digest})
            client.put(url, content=content).raise_for_status()
            return {"digest": digest, "size": len(content)}

        kind = "application/vnd.oci.image.manifest.v1+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {"mediaType": "application/vnd.aquasec.trivy.config.v1+json", **blob(b"{}")},
            "layers": [
                {
                    "mediaType": "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip",
                    "annotations": {"org.opencontainers.image.title": "db.tar.gz"},
                    **blob(layer),
                }
            ],
        }
        answer = client.put(f"/manifests/{tag}", content=json.dumps(manifest), headers={"Content-Type": kind})
        answer.raise_for_status()


def test_one_scan_at_a_time_on_a_machine(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path, 10, lambda line: order.append("told")):
            order.append("second")

    with locked(tmp_path, 10, quiet):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.5)
        order.append("first")
    thread.join(10)
    assert order == ["told", "first", "second"]


def test_waiting_for_another_scan_ends(tmp_path: Path) -> None:
    with (
        locked(tmp_path, 10, quiet),
        pytest.raises(Unavailable, match="another scan has held"),
        locked(tmp_path, 0.3, quiet),
    ):
        raise AssertionError("two held it at once")


# ------------------------------------------------------------------------------------------------- the sample


def test_the_sample_is_written_once_and_again_when_its_source_changes(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    text = (SAMPLE / "advisories.yaml").read_text()
    (folder / "advisories.yaml").write_text(text)
    trivy_sample.write(folder, tmp_path)
    database = tmp_path / "db" / "trivy.db"
    first = (database.stat().st_mtime_ns, database.read_bytes())
    trivy_sample.write(folder, tmp_path)
    assert (database.stat().st_mtime_ns, database.read_bytes()) == first
    (folder / "advisories.yaml").write_text(text.replace("2.20.0", "2.20.1"))
    trivy_sample.write(folder, tmp_path)
    assert database.read_bytes() != first[1]


def test_a_wrong_source_names_every_problem(tmp_path: Path) -> None:
    source = "updated: soon\nvulnerabilities:\n  - {id: CVE-1, severity: BAD, title: x, pip: {}, more: 1}\n"
    (tmp_path / "advisories.yaml").write_text(source)
    with pytest.raises(BadInput) as caught:
        trivy_sample.write(tmp_path, tmp_path / "cache")
    assert len(caught.value.problems) == 3
    assert "vulnerabilities.0.severity" in str(caught.value)
    with pytest.raises(BadInput, match="cannot be read"):
        trivy_sample.write(tmp_path / "nowhere", tmp_path / "cache")
    (tmp_path / "advisories.yaml").write_text("a: [")
    with pytest.raises(BadInput, match="is not YAML"):
        trivy_sample.write(tmp_path, tmp_path / "cache")


def test_bolt_file_is_laid_out_as_bbolt_wants_it() -> None:
    data = bolt.encode({"b": {"k": b"v", "inner": {"x": b"1"}}, "a": {}})
    assert len(data) % bolt.PAGE == 0
    for number in (0, 1):
        page = data[number * bolt.PAGE :]
        magic, version, size = struct.unpack_from("<III", page, 16)
        assert (magic, version, size) == (0xED0CDAED, 2, bolt.PAGE)
        (root,) = struct.unpack_from("<Q", page, 32)
        assert root * bolt.PAGE < len(data)
    _, flags, count, _ = struct.unpack_from("<QHHI", data, root * bolt.PAGE)
    assert (flags, count) == (2, 2)
    with pytest.raises(ValueError, match="buckets only"):
        bolt.encode({"a": b"1"})
    with pytest.raises(ValueError, match="more than 65535"):
        bolt.encode({"a": {str(number): b"" for number in range(65_536)}})
