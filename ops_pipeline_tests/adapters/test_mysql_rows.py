"""Rows are counted in the text of a dump as MariaDB and MySQL write it; scripts of events can be switched off."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.adapters.databases.mysql_contents import granted_on
from ops_pipeline.adapters.databases.mysql_dump import RowCounter
from ops_pipeline.adapters.databases.mysql_programs import Program, as_text, switched_off
from ops_pipeline.adapters.databases.mysql_server import split_row

_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\0": "\\0", '"': '\\"'}
cell = st.one_of(
    st.just("NULL"),
    st.integers().map(str),
    st.text(st.sampled_from("ab'\"\\\n(),;`☃\0"), max_size=12).map(
        lambda text: "'" + "".join(_ESCAPES.get(letter, letter) for letter in text) + "'"
    ),
)
rows = st.lists(st.lists(cell, min_size=1, max_size=3).map(lambda cells: "(" + ",".join(cells) + ")"), max_size=6)
tables = st.dictionaries(st.sampled_from(["a", "we`ird (t", "INSERT INTO"]), rows, max_size=3)


@given(tables, st.booleans(), st.integers(1, 50))
def test_rows_are_counted_whatever_their_texts_hold(content: dict[str, list[str]], one_line: bool, size: int) -> None:
    text = ""
    for name, lines in content.items():
        quoted = "`" + name.replace("`", "``") + "`"
        text += f"--\n-- Table structure for table {quoted}\n--\nCREATE TABLE {quoted} (\n  `i` int\n);\n"
        if lines:
            text += f"INSERT INTO {quoted} VALUES{' ' if one_line else chr(10)}"
            text += ("," if one_line else ",\n").join(lines) + ";\n"
    data = (text + "-- Dump completed\n").encode()
    counter = RowCounter()
    for begin in range(0, len(data), size):
        counter.feed(data[begin : begin + size])
    assert counter.counts == {name: len(lines) for name, lines in content.items()}


def test_events_are_switched_off_and_remembered_and_nothing_else_changes() -> None:
    body = "CREATE DEFINER=`r`@`h` EVENT `e` ON SCHEDULE EVERY 1 DAY ON COMPLETION NOT PRESERVE {} DO SELECT 'ENABLE'"
    programs = [
        Program("trigger", "t", "CREATE TRIGGER `t` BEFORE INSERT ON `a` FOR EACH ROW SET @a = 'ENABLE'"),
        Program("event", "e", body.format("ENABLE"), enabled=True),
        Program("event", "off", body.format("DISABLE")),
    ]
    text = as_text(programs, "-- ops_pipeline: end").decode()
    changed, names = switched_off(text)
    assert names == ["e"]
    assert changed == text.replace("PRESERVE ENABLE", "PRESERVE DISABLE")
    assert switched_off("-- ops_pipeline: end\n") == ("-- ops_pipeline: end\n", [])


def test_grants_on_single_things_are_told_from_wider_ones() -> None:
    table = {
        "GRANT SELECT ON `shop`.`house` TO `u`@`%`": "shop",
        "GRANT SELECT (`a`), UPDATE (`b`) ON `sh``op`.`house` TO `u`@`%`": "sh`op",
        "GRANT EXECUTE ON PROCEDURE `shop`.`p` TO `u`@`%`": "shop",
        "GRANT SELECT ON `shop`.* TO `u`@`%`": None,
        "GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION": None,
        "GRANT `role` TO `u`@`%`": None,
        "CREATE USER `u`@`%`": None,
    }
    assert {statement: granted_on(statement) for statement in table} == table


@given(st.lists(st.text(st.sampled_from("a\\\n\t\0nt0☃"), max_size=6), min_size=1, max_size=4))
def test_the_clients_rows_are_read_as_they_were(cells: list[str]) -> None:
    escaped = [
        re.sub(r"[\\\n\t\0]", lambda m: {"\\": r"\\", "\n": r"\n", "\t": r"\t", "\0": r"\0"}[m[0]], c) for c in cells
    ]
    assert split_row("\t".join(escaped)) == cells
