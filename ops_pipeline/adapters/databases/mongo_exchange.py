"""Changing places between the live collections of a MongoDB database and restored ones, by renames in that database.

Renames within a database are instant and each is atomic, on MongoDB and on FerretDB; across databases MongoDB copies,
and FerretDB refuses. So what was restored lies in the same database as `ops_r_<token>_<collection>`, and what was live
as `ops_h_<token>_<collection>`. A journal (one document in `ops_s_<token>`) says what was wanted, and the names that
exist say how far it went, so every step can be repeated after a kill:

    phase "beside" → "swapping" → "live" → ("undoing" → "beside") or "released"

Each collection is away for the moment between two renames. What an application writes into it in that moment (MongoDB
makes the collection anew then) is added to what was live before, as if it had been written a moment earlier.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from ops_pipeline.adapters.databases.mongo_server import MongoServer, MongoSession, collections
from ops_pipeline.adapters.databases.mongo_tools import BESIDE, HOLD, STATE
from ops_pipeline.errors import NotFound, Permanent

ATTEMPTS = 20
_OWN = (BESIDE, HOLD, STATE)
_VIEW = ("viewOn", "pipeline", "collation")


class MongoExchange:
    """The journal and the renames of one database."""

    def __init__(self, server: MongoServer, database: str) -> None:
        self._server = server
        self._database = database

    def journals(self) -> dict[str, dict[str, Any]]:
        """Token → its journal."""
        with self._server.session() as session:
            return self._journals(session)

    def begin(self, token: str) -> None:
        """Note that something is restored beside."""
        with self._server.session() as session:
            self._write(session, token, {"phase": "beside"})

    def swap(self, token: str) -> None:
        """Live becomes the hold, beside becomes live. Raise NotFound when there is no beside."""
        with self._server.session() as session:
            journals = self._journals(session)
            journal = journals.get(token)
            if journal is None:
                raise NotFound(f"data source {self._server.source}: there is nothing restored under {token}")
            if journal["phase"] == "undoing":
                self._undo(session, token, journal)
                journal = self._journals(session)[token]
            if journal["phase"] == "beside":
                journal = self._planned(session, token, journals)
            if journal["phase"] == "swapping":
                self._exchange(session, journal, f"{BESIDE}{token}_", f"{HOLD}{token}_")
                if journal["before"]:
                    self._change(session, journal["before"], {"covered": token})
                self._change(session, token, {"phase": "live"})

    def unswap(self, token: str) -> None:
        """The hold becomes live again, what was live becomes beside. Raise NotFound when there is no hold any more."""
        with self._server.session() as session:
            journal = self._journals(session).get(token)
            if journal is not None and journal["phase"] == "swapping":
                self.swap(token)
                journal = self._journals(session)[token]
            if journal is None or journal["phase"] == "beside":
                return
            if journal["phase"] == "released":
                raise NotFound(f"data source {self._server.source}: there is no hold {token}")
            if journal.get("covered"):
                raise Permanent(
                    f"data source {self._server.source}: {journal['covered']} was swapped in after {token}",
                    hint=f"Undo {journal['covered']} first.",
                )
            if journal["phase"] == "live":
                found = collections(session, self._database)
                journal |= {"phase": "undoing", "old": _plain(found), "old_views": _views(found)}
                self._write(session, token, journal)
            self._undo(session, token, journal)

    def drop_hold(self, token: str) -> None:
        """Remove the hold; what is live stays."""
        with self._server.session() as session:
            journal = self._journals(session).get(token)
            if journal is not None and journal["phase"] == "live":
                self._change(session, token, {"phase": "released"})
                journal["phase"] = "released"
            if journal is not None and journal["phase"] == "released":
                self._drop(session, f"{HOLD}{token}_")

    def drop_beside(self, token: str) -> None:
        """Remove what was restored and is not live. Raise Permanent in the middle of an exchange."""
        with self._server.session() as session:
            journal = self._journals(session).get(token)
            if journal is not None and journal["phase"] in ("swapping", "undoing"):
                raise Permanent(
                    f"data source {self._server.source}: an exchange under {token} was broken off",
                    hint="Repeat the swap, or undo it.",
                )
            self._drop(session, f"{BESIDE}{token}_")
            if journal is not None and journal["phase"] == "beside":
                session.ask(self._database, {"drop": STATE + token})

    # ------------------------------------------------------------------------------------------- steps

    def _planned(self, session: MongoSession, token: str, journals: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        prefix = f"{BESIDE}{token}_"
        found = collections(session, self._database)
        series = sorted(name for name, each in found.items() if each.get("type") == "timeseries")
        if series:
            raise Permanent(
                f"data source {self._server.source}: time series cannot be renamed: {', '.join(series)}",
                hint="Restore into a new server, and point the application there.",
            )
        restored = {name.removeprefix(prefix): each for name, each in found.items() if name.startswith(prefix)}
        journal = {
            "phase": "swapping",
            "before": next((other for other, one in journals.items() if current(one)), ""),
            "old": _plain(found),
            "old_views": _views(found),
            "new": [name for name, each in restored.items() if each.get("type") != "view"],
            "new_views": {name: _view(each) for name, each in restored.items() if each.get("type") == "view"},
        }
        self._write(session, token, journal)
        return journal

    def _undo(self, session: MongoSession, token: str, journal: Mapping[str, Any]) -> None:
        held = {"old": journal["old"], "old_views": journal["old_views"]}
        prefix = f"{HOLD}{token}_"
        found = collections(session, self._database)
        views = {name: _view(each) for name, each in found.items() if name.startswith(prefix)
                 and each.get("type") == "view"}  # fmt: skip
        back = {
            **held,
            "new": [name.removeprefix(prefix) for name in found if name.startswith(prefix) and name not in views],
            "new_views": {name.removeprefix(prefix): view for name, view in views.items()},
        }
        self._exchange(session, back, prefix, f"{BESIDE}{token}_")
        if journal.get("before"):
            self._change(session, journal["before"], {"covered": ""})
        self._change(session, token, {"phase": "beside"})

    def _exchange(self, session: MongoSession, journal: Mapping[str, Any], incoming: str, outgoing: str) -> None:
        """Each collection of `old` goes to `outgoing`, each of `new` comes from `incoming`, unless it did already."""
        found = collections(session, self._database)
        # A name with a dot first: FerretDB cannot rename it, and refuses before anything has changed.
        for name in sorted({*journal["old"], *journal["new"]}, key=lambda one: ("." not in one, one)):
            if name in journal["old"] and name in found and outgoing + name not in found:
                self._rename(session, name, outgoing + name)
            if name in journal["new"] and incoming + name in found:
                self._bring(session, incoming + name, name, outgoing + name)
        for name, view in journal["old_views"].items():
            if outgoing + name not in found:
                session.ask(self._database, {"create": outgoing + name, **view})
                session.ask(self._database, {"drop": name})
        for name, view in journal["new_views"].items():
            if incoming + name in found:
                if name in collections(session, self._database):
                    session.ask(self._database, {"drop": name})
                session.ask(self._database, {"create": name, **view})
                session.ask(self._database, {"drop": incoming + name})

    def _bring(self, session: MongoSession, incoming: str, name: str, outgoing: str) -> None:
        for _ in range(ATTEMPTS):
            try:
                self._rename(session, incoming, name)
                return
            except Permanent:
                if name not in collections(session, self._database):
                    raise
            late = list(session.rows(self._database, {"find": name}))
            for document in late:
                with contextlib.suppress(Permanent):  # there already, from an attempt that was killed
                    session.ask(self._database, {"insert": outgoing, "documents": [document]})
            session.ask(self._database, {"drop": name})
        self._rename(session, incoming, name)

    def _rename(self, session: MongoSession, old: str, new: str) -> None:
        session.ask("admin", {"renameCollection": f"{self._database}.{old}", "to": f"{self._database}.{new}"})

    def _drop(self, session: MongoSession, prefix: str) -> None:
        for name in collections(session, self._database):
            if name.startswith(prefix):
                session.ask(self._database, {"drop": name})

    # ------------------------------------------------------------------------------------------- journal

    def _journals(self, session: MongoSession) -> dict[str, dict[str, Any]]:
        found = {}
        for name in collections(session, self._database):
            if name.startswith(STATE):
                rows = list(session.rows(self._database, {"find": name, "filter": {"_id": "journal"}}))
                if rows:
                    found[name.removeprefix(STATE)] = rows[0]
        return found

    def _write(self, session: MongoSession, token: str, journal: Mapping[str, Any]) -> None:
        update = {"q": {"_id": "journal"}, "u": {**journal, "_id": "journal"}, "upsert": True}
        session.ask(self._database, {"update": STATE + token, "updates": [update]})

    def _change(self, session: MongoSession, token: str, fields: Mapping[str, Any]) -> None:
        update = {"q": {"_id": "journal"}, "u": {"$set": dict(fields)}, "upsert": False}
        session.ask(self._database, {"update": STATE + token, "updates": [update]})


def current(journal: Mapping[str, Any]) -> bool:
    """Whether what this journal brought in is what is live now."""
    return journal["phase"] in ("live", "released") and not journal.get("covered")


def _plain(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [name for name, each in found.items() if not name.startswith(_OWN) and each.get("type") != "view"]


def _views(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        name: _view(each) for name, each in found.items() if not name.startswith(_OWN) and each.get("type") == "view"
    }


def _view(each: Mapping[str, Any]) -> dict[str, Any]:
    return {name: each["options"][name] for name in _VIEW if name in each["options"]}


__all__: Sequence[str] = ("MongoExchange", "current")
