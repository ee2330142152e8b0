"""Taking known secrets out of text before people see it."""

from __future__ import annotations

from collections.abc import Iterable

MASK = "[secret]"


def redact(text: str, secrets: Iterable[str]) -> str:
    """Given text and secret values, return the text with every value masked.

    Longest first, so that a secret inside another one does not leave a piece of it. Values of fewer than four
    characters are left alone: masking them would only make the text unreadable and tell their value by its absence.
    A secret of several lines is also masked line by line.
    """
    values = {value for value in secrets if len(value) >= 4}
    values |= {line.strip() for value in values for line in value.splitlines() if len(line.strip()) >= 4}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, MASK)
    return text
