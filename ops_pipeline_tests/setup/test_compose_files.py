"""Compose files: accepted by the compose command at hand, and closed to the outside."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.setup import docker_cli, stack, stack_images, testbed

FILE = stack.FILE
SERVICES = yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_everything_is_published_on_loopback_only(name: str) -> None:
    assert SERVICES[name]["ports"], "a service nobody can reach would not be noticed when it is down"
    for port in SERVICES[name]["ports"]:
        assert re.fullmatch(r"127\.0\.0\.1:\$\{OPS_PORT_[A-Z_]+:-\d+\}:\d+", port), port


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["mem_limit"]


SERVING = [each for each in stack_images.IMAGES if each.serves]


@pytest.mark.parametrize("each", SERVING, ids=lambda each: each.name)
def test_every_image_has_a_user_and_a_health_check(each: stack_images.StackImage) -> None:
    text = (stack_images.DEPLOY / each.dockerfile).read_text(encoding="utf-8")
    assert re.search(r"^USER (?!0|root)", text, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", text, re.MULTILINE)
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert set(bases) == {"debian:bookworm-slim"}
    assert f"${{{each.variable}:-ops-stack/{each.name}:local}}" in FILE.read_text(encoding="utf-8")


def test_the_ports_shown_are_the_ones_published() -> None:
    text = FILE.read_text(encoding="utf-8")
    published = {name: int(port) for name, port in re.findall(r"\$\{(OPS_PORT_[A-Z_]+):-(\d+)\}:\d+", text)}
    assert published == stack.PORTS


def test_every_service_has_its_name_in_the_list_that_the_demonstration_starts() -> None:
    assert sorted(stack.services()) == sorted(SERVICES)


def test_a_second_stack_gets_its_addresses_from_the_upper_half() -> None:
    second = stack.Stack(project="x", variables={"OPS_SUBNET_DEV": "10.99.0.0/24", "OPS_IMAGE_EDGE": "mine"})
    assert second.upper_halves()["OPS_RANGE_DEV"] == "10.99.0.128/25"
    assert "OPS_RANGE_PROD" not in second.upper_halves()


@pytest.mark.real
def test_the_compose_command_accepts_the_file(tmp_path: Path) -> None:
    command = docker_cli.compose()
    assert command is not None
    argv = [*command, "--project-name", "ops-check", "--file", str(FILE), "config", "--quiet"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.real
@pytest.mark.parametrize(
    ("image", "entry", "arguments"),
    [
        ("prometheus", "promtool", ["check", "config", "/etc/prometheus/prometheus.yml"]),
        ("alertmanager", "amtool", ["check-config", "/etc/alertmanager/alertmanager.yml"]),
    ],
)
def test_monitoring_configuration_is_valid(image: str, entry: str, arguments: list[str]) -> None:
    docker = docker_cli.need_docker().path
    tag = stack_images.tag(stack_images.image(image))
    argv = [docker, "run", "--rm", "--network", "none", "--label", f"ops.testbed={testbed.new_id()}"]
    argv += ["--entrypoint", entry, tag, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
