"""Commands of `deploy/setup/run`; each is safe to repeat and does no work twice."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from deploy.setup import (
    application,
    base_image,
    browser,
    commands,
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
  demo [--all]     set-up, the stack, then the demonstration; --all repeats acts that passed unchanged
  test [PYTEST ARGUMENT…]
  down             stop and remove what the demo started
  purge            the same, and what `down` keeps"""


def main(arguments: Sequence[str]) -> int:
    """Run one command. Return the exit code."""
    # It holds for this process, whose Python is the system's. Those of .venv that it starts shall compile only once.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    name, rest = (arguments[0] if arguments else ""), tuple(arguments[1:])
    if name == "test":
        return run_tests.main(rest)
    known: dict[str, Callable[[], object]] = {
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
        "demo": lambda: _demo(rest),
        "down": down.down,
        "purge": lambda: down.down(purge=True),
    }
    if name not in known:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        known[name]()
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


def _demo(rest: Sequence[str]) -> None:
    if not set(rest) <= {"--all"}:
        raise SetupError(f"demo {' '.join(rest)}: only --all is known, which plays every act again")
    everything.set_up(for_demo=True)
    chosen = stack.demo_stack()
    later = everything.left_for_later()
    chosen.up(*([name for name in stack.services() if name not in later] if later else []))
    stack.report(chosen)
    say("demo", "set-up is done; the demonstration begins" + (f"; {', '.join(later)} will follow" if later else ""))
    os.environ["OPS_STACK_LABEL"] = chosen.environment["OPS_STACK_LABEL"]
    os.environ["OPS_DEMO_BEGAN"] = f"{commands.started:.1f}"
    os.execv(venv.PYTHON, [str(venv.PYTHON), "-m", "examples.demo", *rest])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
