"""Answers of the application's own questions, as a set keeps them: readable by everybody, so only what is harmless."""

from __future__ import annotations

import hashlib
import re

IMAGE = "image"
"""Under this `arrived.details` of a database's part holds the image of the server it was dumped from."""

QUESTION = "question "
"""Under this and a question's name `arrived.details` may hold its answer when the set was taken."""

_HASH = "sha256:"
_HARMLESS = re.compile(r"[-+0-9.,:TZ ]{1,40}")


def recorded_answer(answer: str) -> str:
    """What a manifest, which everybody reads, keeps of an answer: a number or a time as it is, all else as its hash."""
    if _HARMLESS.fullmatch(answer):
        return answer
    return _HASH + hashlib.sha256(answer.encode(errors="surrogateescape")).hexdigest()


def differs(recorded: str, answer: str) -> str:
    """How an answer differs from the one a set keeps, in words; "" when it does not."""
    if recorded in (answer, recorded_answer(answer)):
        return ""
    if recorded.startswith(_HASH):
        return "is answered otherwise than at backup time"
    return f"is answered {answer[:200]!r}, at backup time {recorded[:200]!r}"
