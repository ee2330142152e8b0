"""Builds the image of a service, or finds that nothing has changed since it was built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ops_pipeline.catalogue.model import BuildSettings
from ops_pipeline.core.image import Image
from ops_pipeline.core.inputs import PROVENANCE_ARGS, BuildInputs, Outline, inputs_hash, outline
from ops_pipeline.core.version import tag_of, version_of
from ops_pipeline.errors import BadInput, Problem
from ops_pipeline.ports import BuildRequest, BuildSource, Progress
from ops_pipeline.services.images import image_of_inputs, latest_image, point_at, record_image
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried

LABELS = "org.opencontainers.image."


@dataclass(frozen=True)
class BuildOutcome:
    """The service's image, whether it was found instead of built, and why."""

    image: Image
    skipped: bool
    reason: str


@dataclass(frozen=True)
class _Plan:
    """A build that is ready to be compared with the ledger and run."""

    service: str
    settings: BuildSettings
    context: Path
    dockerfile: Path
    source: BuildSource
    outline: Outline
    test_target: str | None
    bases: Mapping[str, str]
    inputs_hash: str
    version: str


def build_image(
    platform: Platform, service: str, *, progress: Progress, run_id: str = "", force: bool = False
) -> BuildOutcome:
    """Make the ledger's latest image of `service` the one of the files as they lie there now.

    Skipped when an image of the same inputs is recorded and the registry still has it, unless `force`. Otherwise
    the test stage is built first, then the image, which is pushed and recorded by digest. `progress` gets the build's
    lines. Raise BadInput (unknown service, missing Dockerfile), Permanent (failing step with its last lines),
    Unavailable (Docker or registry down); nothing is recorded then.
    """
    plan = _plan(platform, service, progress)
    found, why = (None, "a build was asked for") if force else _already_built(platform, plan, progress)
    if found is not None:
        progress(f"{service} {found.version} is unchanged: {why}")
        return BuildOutcome(found, True, why)
    progress(f"building {service} {plan.version}: {why}")
    image = _build(platform, plan, run_id, progress)
    record_image(platform.store, image)
    size = image.config.size_bytes / 1_000_000
    progress(f"{service} {image.version} is {image.ref.digest}, {size:.0f} MB")
    return BuildOutcome(image, False, why)


def _plan(platform: Platform, service: str, progress: Progress) -> _Plan:
    if service not in platform.catalogue.services:
        known = ", ".join(sorted(platform.catalogue.services))
        raise BadInput([Problem(f"service {service}", f"is not in the catalogue, which has {known}")], subject="build")
    settings = platform.catalogue.services[service].build
    context = (platform.root / settings.context).resolve()
    dockerfile = context / settings.dockerfile
    source = platform.builder.source(str(context), str(dockerfile))
    declared = outline(source.dockerfile, settings.args)
    _check_stages(service, settings, declared)
    test_target = settings.test_target if (settings.test_target or "").lower() in declared.stages else None
    if settings.test_target and test_target is None:
        progress(f"{service}: its Dockerfile has no stage {settings.test_target!r}, so no tests run in the build")
    bases = platform.builder.base_digests(str(dockerfile), settings.args)
    inputs = BuildInputs(
        files=source.files,
        dockerfile=source.dockerfile,
        args=settings.args,
        target=settings.target,
        test_target=test_target,
        platforms=settings.platforms,
        secret_ids=tuple(settings.secrets),
        bases=bases,
    )
    return _Plan(
        service,
        settings,
        context,
        dockerfile,
        source,
        declared,
        test_target,
        bases,
        inputs_hash(inputs),
        version_of(source.revision),
    )


def _check_stages(service: str, settings: BuildSettings, declared: Outline) -> None:
    problems = [Problem(f"services.{service}.build", problem) for problem in declared.problems]
    if settings.target and settings.target.lower() not in declared.stages and not settings.target.isdigit():
        stages = ", ".join(declared.stages) or "no named stage"
        problems.append(
            Problem(f"services.{service}.build.target", f"the Dockerfile has no stage {settings.target!r}: {stages}")
        )
    if problems:
        raise BadInput(problems, subject="build")


def _already_built(platform: Platform, plan: _Plan, progress: Progress) -> tuple[Image | None, str]:
    """The recorded image of the same inputs if the registry still has it, and why it can or cannot be used."""
    image = image_of_inputs(platform.store, plan.service, plan.inputs_hash)
    repository = platform.catalogue.repository(plan.service)
    if image is None:
        first = latest_image(platform.store, plan.service) is None
        return None, "there is no image yet" if first else "context, Dockerfile, arguments or base image changed"
    if image.ref.repository != repository:
        return None, f"the registry of the catalogue is now {repository}"
    ref = image.ref
    what = f"ask the registry for {ref.repository}"
    if not retried(platform.clock, what, lambda: platform.registry.exists(ref), progress=progress):
        return None, f"the registry no longer has {image.ref.digest}"
    latest = latest_image(platform.store, plan.service)
    if latest is None or latest.ref.digest != image.ref.digest:
        point_at(platform.store, image)
        return image, f"an earlier image was built from the same files, arguments and base image ({image.ref.short})"
    return image, f"same files, arguments and base image as {image.ref.short}, which the registry still has"


def _build(platform: Platform, plan: _Plan, run_id: str, progress: Progress) -> Image:
    settings, revision = plan.settings, plan.source.revision
    built_at = platform.clock.now()
    tag = f"{platform.catalogue.repository(plan.service)}:{tag_of(plan.version, revision, plan.inputs_hash)}"
    provenance = dict(
        zip(
            PROVENANCE_ARGS,
            (plan.version, revision.commit, platform.catalogue.source_url, built_at.strftime("%Y-%m-%dT%H:%M:%SZ")),
            strict=True,
        )
    )
    secrets = {id_: platform.secret(reference) for id_, reference in settings.secrets.items()}
    declared = {name: value for name, value in provenance.items() if name in plan.outline.args}

    def request(target: str | None, tag: str, labels: Mapping[str, str]) -> BuildRequest:
        return BuildRequest(
            context=str(plan.context),
            dockerfile=str(plan.dockerfile),
            tag=tag,
            labels=labels,
            args={**declared, **settings.args},
            secrets=secrets,
            target=target,
            platforms=settings.platforms if tag else settings.platforms[:1],
            timeout_seconds=settings.timeout_seconds,
        )

    if plan.test_target:
        progress(f"testing {plan.service}: stage {plan.test_target}")
        # Untagged: a test image is looked at by nobody. Without labels, which would change with every commit.
        platform.builder.build(request(plan.test_target, "", {}), progress)
        progress(f"tests of {plan.service} passed")
    labels = _labels(platform, plan, provenance)
    platform.builder.build(request(settings.target, tag, labels), progress)
    progress(f"pushing {tag}")
    ref = retried(platform.clock, f"push {tag}", lambda: platform.builder.push(tag, progress), progress=progress)
    latest = latest_image(platform.store, plan.service)
    previous = ""
    if latest is not None:
        # Built again into the very same digest: what came before it stays what came before it.
        previous = latest.previous if latest.ref.digest == ref.digest else latest.ref.digest
    return Image(
        service=plan.service,
        ref=ref,
        version=plan.version,
        commit=revision.commit,
        inputs_hash=plan.inputs_hash,
        built_at=built_at,
        config=platform.builder.inspect(tag if len(settings.platforms) < 2 else str(ref)),
        run_id=run_id,
        previous=previous,
    )


def _labels(platform: Platform, plan: _Plan, provenance: Mapping[str, str]) -> dict[str, str]:
    labels = {
        f"{LABELS}title": f"{platform.catalogue.project}/{plan.service}",
        f"{LABELS}version": provenance["VERSION"],
        f"{LABELS}revision": provenance["REVISION"] or "unknown",
        f"{LABELS}created": provenance["CREATED"],
        f"{LABELS}source": provenance["SOURCE"],
        f"{LABELS}description": platform.catalogue.services[plan.service].description,
        f"{LABELS}base.name": plan.outline.final_base,
        "ops.project": platform.catalogue.project,
        "ops.image.service": plan.service,
        "ops.image.inputs": plan.inputs_hash,
    }
    return {name: value for name, value in labels.items() if value}
