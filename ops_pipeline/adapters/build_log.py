"""Reads Docker's build output as it comes: lines for people, and which step failed with its last words."""

from __future__ import annotations

import re
from collections import deque

STEP_LINES = 25
STEP_LENGTH = 200

_VERTEX = re.compile(r"#(?P<number>\d+) (?P<rest>.*)")
_OUTPUT = re.compile(r"(?P<seconds>\d+\.\d+) (?P<text>.*)")
_NOISE = re.compile(
    r"(sha256:[0-9a-f]{64}( .*)?|DONE \d.*|CACHED|transferring \S+: .*|\.\.\.|exporting .*|writing .*|naming .*)"
)
_CLASSIC_STEP = re.compile(r"Step \d+/\d+ : (?P<text>.*)")
_CLASSIC_NOISE = re.compile(r"( ---> .*|Removing intermediate container .*|Successfully .*|Sending build context .*)")
_TROUBLE = re.compile(
    r"(?P<what>failed to solve.*|failed to read dockerfile.*|dockerfile parse error.*|executor failed running.*"
    r"|The command .* returned a non-zero code.*|Error response from daemon: .*|ERROR: .*|error: .*|unable to .*"
    r"|failed to .*)",
    re.IGNORECASE,
)


class BuildLog:
    """Feed it every line with `take`; it returns what to show, None for noise."""

    def __init__(self) -> None:
        self._steps: dict[str, str] = {}
        self._output: dict[str, deque[str]] = {}
        self._failed: str | None = None
        self._newest = ""  # the step that spoke last
        self._trouble = ""
        self._classic = False

    def take(self, line: str) -> str | None:
        """Take one line of output and return it as people want to read it, or None."""
        if match := _VERTEX.fullmatch(line):
            return self._buildkit(match["number"], match["rest"])
        if match := _CLASSIC_STEP.fullmatch(line):
            self._classic = True
            self._failed = self._newest = f"{len(self._steps)}"
            self._steps[self._failed] = match["text"]
            self._output[self._failed] = deque(maxlen=STEP_LINES)
            return short(match["text"])
        if _TROUBLE.match(line):
            self._trouble = line.strip()
        elif self._classic and self._failed and not _CLASSIC_NOISE.fullmatch(line):
            self._output[self._failed].append(line)
            return f"  {line}"
        return None

    def failure(self) -> tuple[str, str, str]:
        """Failed step ("" when none was reached), its last output lines, and the builder's own last words."""
        step = short(self._steps.get(self._failed or "", ""))
        output = "\n".join(self._output.get(self._failed or "", ()))
        return step, output, self._trouble

    def newest_step(self) -> str:
        """The step that gave the last sign of life; "" before the first."""
        return short(self._steps.get(self._newest, ""))

    def _buildkit(self, number: str, rest: str) -> str | None:
        self._newest = number
        if number not in self._steps:
            self._steps[number] = rest
            self._output[number] = deque(maxlen=STEP_LINES)
            return None if rest.startswith(("[internal]", "exporting")) else short(rest)
        if rest.startswith("ERROR: "):
            self._failed = number
            self._trouble = rest.removeprefix("ERROR: ")
            return None
        if rest == self._steps[number] or _NOISE.fullmatch(rest):
            return _unchanged(self._steps[number]) if rest == "CACHED" else None
        output = _OUTPUT.fullmatch(rest)
        text = output["text"] if output else rest
        self._output[number].append(text)
        return f"  {text}"


def short(step: str) -> str:
    """A step on one line of bounded length."""
    line = " ".join(step.split())
    return line if len(line) <= STEP_LENGTH else f"{line[: STEP_LENGTH - 1]}…"


def _unchanged(step: str) -> str | None:
    """`[test 3/6] unchanged`, from the step's label."""
    label, bracket, _ = step.partition("]")
    return f"{label}] unchanged" if bracket and step.startswith("[") else None
