"""Commands of `deploy/setup/run`; each is safe to repeat and does no work twice."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from deploy.setup import (
    application,
    base_image,
    browser,
    database_images,
    docker_cli,
    down,
    engine,
    everything,
    run_tests,
    stack,
    stack_images,
    venv,
)
from deploy.setup.commands import SetupError, fail, say

USAGE = """\
usage: deploy/setup/run COMMAND
  setup            everything below: venv, engine, base, images
  venv             .venv with the pinned packages
  engine           the Docker Engine and a compose command
  base             the base image debian:bookworm-slim
  images [NAME…]   the local stack's images
  application      the sample application's images, tests included
  scan             Trivy over the application's images
  browser          Chromium for the tests
  databases [NAME…]  database servers for the tests
  stack [up|down|status] [SERVICE…]
  demo             set-up, the stack, then the demonstration
  test [PYTEST ARGUMENT…]
  down             stop and remove what the demo started
  purge            the same, and what `down` keeps"""


def main(arguments: Sequence[str]) -> int:
    """Run one command. Return the exit code."""
    name, rest = (arguments[0] if arguments else ""), tuple(arguments[1:])
    if name == "test":
        return run_tests.main(rest)
    commands: dict[str, Callable[[], object]] = {
        "setup": everything.set_up,
        "venv": venv.ensure,
        "engine": _engine,
        "base": base_image.ensure,
        "images": lambda: _images(rest),
        "application": application.build,
        "scan": application.scan,
        "browser": browser.ensure,
        "databases": lambda: _databases(rest),
        "stack": lambda: _stack(rest),
        "demo": _demo,
        "down": down.down,
        "purge": lambda: down.down(purge=True),
    }
    if name not in commands:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        commands[name]()
    except SetupError as error:
        return fail(error)
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


def _engine() -> None:
    engine.ensure()
    say("compose", f"using {' '.join(docker_cli.ensure_compose())}")


def _images(names: tuple[str, ...]) -> None:
    engine.ensure()
    base_image.ensure()
    stack_images.ensure(names)


def _databases(names: tuple[str, ...]) -> None:
    engine.ensure()
    base_image.ensure()
    database_images.ensure(names)


def _stack(rest: Sequence[str]) -> None:
    verb, services = (rest[0] if rest else "up"), rest[1:]
    chosen = stack.plain_stack()
    if verb == "up":
        everything.set_up()
        chosen.up(*services)
        stack.report(chosen)
    elif verb == "down":
        chosen.down()
    elif verb == "status":
        for service, state in sorted(chosen.health().items()):
            print(f"{service:14} {state}")
    else:
        raise SetupError(f"stack {verb}: up, down or status")


def _demo() -> None:
    everything.set_up()
    chosen = stack.demo_stack()
    chosen.up()
    stack.report(chosen)
    say("demo", "set-up is done; the demonstration begins")
    os.environ["OPS_STACK_LABEL"] = chosen.environment["OPS_STACK_LABEL"]
    os.execv(venv.PYTHON, [str(venv.PYTHON), "-m", "examples.demo"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
