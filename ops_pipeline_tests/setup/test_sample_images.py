"""What `make demo` builds ahead of the sample application: layers that all of its versions share."""

from __future__ import annotations

import re

import pytest

from deploy.setup import sample_images, stack_images
from deploy.setup.stack_images import StackImage

LAYERS = [each for each in sample_images.IMAGES if each.target]


@pytest.mark.parametrize("each", LAYERS, ids=lambda each: each.name)
def test_the_tag_changes_with_every_file_that_goes_into_the_layers(each: StackImage) -> None:
    text = (each.root / each.dockerfile).read_text(encoding="utf-8")
    ahead, found, _ = text.partition(f"FROM {sample_images.LAYERS} AS ")
    assert found, "tests begin where the layers end"
    copied = {name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", ahead, re.MULTILINE) for name in line.split()}
    assert {f"{each.context}/{name}" for name in copied} | {each.dockerfile} == set(each.inputs)


@pytest.mark.parametrize("each", LAYERS, ids=lambda each: each.name)
def test_tests_are_not_run_ahead(each: StackImage) -> None:
    text = (each.root / each.dockerfile).read_text(encoding="utf-8")
    ahead = text.partition(f"FROM {sample_images.LAYERS} AS ")[0]
    assert "pytest" not in ahead.replace("requirements-test", "")
    assert "node --" not in ahead


def test_databases_get_the_names_that_their_compose_file_looks_for() -> None:
    text = (sample_images.FOLDER / "data-services.compose.yml").read_text(encoding="utf-8")
    wanted = set(re.findall(r"^    image: (\S+)$", text, re.MULTILINE))
    assert {each.also for each in sample_images.IMAGES if each.also} == wanted


def test_nothing_of_the_sample_runs_as_a_part_of_the_stack() -> None:
    assert not any(each.serves for each in sample_images.IMAGES)
    assert not {each.name for each in sample_images.IMAGES} & {each.name for each in stack_images.IMAGES}
