"""One JSON object a line on standard output, each with the id of the request it belongs to."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime

request_id: ContextVar[str] = ContextVar("request_id", default="")

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Turns a record into one line; `hidden` are values that must never be shown, whoever put them there."""

    def __init__(self, hidden: Iterable[str] = ()) -> None:
        super().__init__()
        self._hidden = tuple(value for value in hidden if len(value) >= 4)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current := request_id.get():
            line["request_id"] = current
        line.update({key: value for key, value in vars(record).items() if key not in _PLAIN})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = json.dumps(line, default=str, ensure_ascii=False)
        for value in self._hidden:
            text = text.replace(value, "***")
        return text


def configure(level: str, hidden: Iterable[str] = ()) -> None:
    """Send all logging through the JSON formatter."""
    stream = logging.StreamHandler(sys.stdout)
    stream.setFormatter(JsonFormatter(hidden))
    logging.basicConfig(level=level, handlers=[stream], force=True)
    # aiohttp names a client that went away an error; the request line already tells it.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
