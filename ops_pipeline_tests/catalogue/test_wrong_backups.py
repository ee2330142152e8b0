"""What people get told about backups: one row per mistake, with the exact words."""
# ruff: noqa: E501 - rows of a table stay whole

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from ops_pipeline.catalogue.check import check
from ops_pipeline.catalogue.load import load
from ops_pipeline_tests.catalogue.test_wrong_catalogues import GOOD, problems

AGE = "age1" + "q" * 58
BACKUPS = f"""\
backups:
  recipients: [{AGE}]
  store: {{directory: .ops/backups}}
"""
SOURCES = """\
    backup:
      sources:
        shop: {kind: postgres, container: db, database: shop, questions: {open: SELECT count(*) FROM listings}}
        cache: {kind: redis, container: "role=cache,app=shop"}
        photos: {kind: directory, path: data/photos, exclude: ["*.tmp"]}
        more: {kind: volume, volume: shop-more}
"""
ALL = (
    GOOD.replace("    services:\n      api: {replicas: 2}\n", f"    services:\n      api: {{replicas: 2}}\n{SOURCES}")
    + BACKUPS
)
S = "environments.prod.backup.sources"
AZURE = "{azure: {sets: {container: backups, sas_url: env:A}, media: {container: backups-media, sas_url: env:B}, state: {container: backups-state, sas_url: env:C}}}"
DIRECTORY = "{directory: .ops/backups}"


def test_the_good_one_is_good(tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    path.write_text(ALL)
    backup = load(path).environments["prod"].backup
    assert backup is not None
    assert list(backup.sources) == ["shop", "cache", "photos", "more"]
    path.write_text(ALL.replace(DIRECTORY, AZURE))
    assert load(path).backups.store.azure is not None


SHAPE = [
    ("kind: postgres", "kind: postgre", [
        f"20 {S}.shop: kind must be one of `postgres`, `mysql`, `mariadb`, `mongodb`, `redis`, `volume`, `directory`; found `postgre`; did you mean `postgres`?",
    ]),
    ("kind: redis, ", "", [
        f"21 {S}.cache: kind is missing: what it is, one of `postgres`, `mysql`, `mariadb`, `mongodb`, `redis`, `volume`, `directory`",
    ]),
    (", database: shop,", ",", [f"20 {S}.shop.database: is missing"]),
    ("volume: shop-more", "volum: shop-more", [
        f"23 {S}.more.volume: is missing",
        f"23 {S}.more.volum: unknown key; did you mean `volume`?",
    ]),
    ("container: db", "container: db, password: hunter2", [
        f"20 {S}.shop.password: must be a reference, `env:NAME` or `file:PATH`, never the secret itself",
    ]),
    ("container: db", "container: db, fresh_hours: 7", [
        f"20 {S}.shop.fresh_hours: unknown key; it belongs to environments.prod.backup",
    ]),
    ("        more: {kind: volume, volume: shop-more}", "        More: {kind: volume, volume: shop-more}", [
        f"23 {S}.More: must be lower-case letters, digits and hyphens, start with a letter and have at most 31 characters; found `More`",
    ]),
    (f"recipients: [{AGE}]", f"recipients: [{AGE}]\n  signing_key: hunter2", [
        "40 backups.signing_key: must be a reference, `env:NAME` or `file:PATH`, never the secret itself",
    ]),
]  # fmt: skip

STORES = [
    (DIRECTORY, "{}", ["40 backups.store: needs exactly one of `directory` and `azure`; it has neither"]),
    (DIRECTORY, "{directory: ' '}", ["40 backups.store.directory: is empty"]),
    (DIRECTORY, "{directory: .ops/store/backups}", [
        "40 backups.store.directory: overlaps `.ops/store`, where the ledger is kept",
    ]),
    (DIRECTORY, AZURE.replace("{azure", "{directory: x, azure"), [
        "40 backups.store: needs exactly one of `directory` and `azure`; it has both",
    ]),
    (DIRECTORY, AZURE.replace("container: backups,", "container: Backups,").replace(", sas_url: env:B", ""), [
        "40 backups.store.azure.sets.container: must be 3 to 63 lower-case letters, digits and single hyphens",
        "40 backups.store.azure.media: needs exactly one of `account_url`, `connection_string` and `sas_url`; it has none",
    ]),
    (DIRECTORY, AZURE.replace("backups-media, sas_url: env:B", "backups, sas_url: env:A"), [
        "40 backups.store.azure.media: is the same place as backups.store.azure.sets; give each its own container",
    ]),
    (DIRECTORY, AZURE.replace("state: {", "prune: {container: other, sas_url: env:D}, prune_media: {container: backups-media, sas_url: env:B}, state: {"), [
        "40 backups.store.azure.prune: must be container and prefix of `sets`, `backups`: only the credential differs",
        "40 backups.store.azure.prune_media: has the credential of `media`: leave it out, or give `media` one that may not delete",
    ]),
    (DIRECTORY, AZURE.replace("env:C}", "env:C}, immutability_days: 31"), [
        "40 backups.store.azure.immutability_days: must be at most `backups.retention.keep_days`, 30: nothing older could be pruned",
    ]),
    (DIRECTORY, AZURE.replace("backups-state, sas_url: env:C}", "backups, prefix: s, sas_url: env:A}, immutability_days: 25"), [
        "40 backups.store.azure.state: `backups` is immutable and locks could not be written; give `state` its own",
    ]),
]  # fmt: skip

KEYS = [
    (AGE, "age1x", ["39 backups.recipients[0]: must be an age recipient: `age1` and 58 lower-case letters and digits"]),
    (AGE, "AGE-SECRET-KEY-1" + "Q" * 58, [
        "39 backups.recipients[0]: is an identity, the SECRET key: it opens every backup. Put its recipient (age1…) here, and make a new pair with `ops backup keys`, because this one has been seen",
    ]),
    (AGE, f"{AGE}, {AGE}", ["39 backups.recipients[1]: stands there already, backups.recipients[0]"]),
    (f"  recipients: [{AGE}]\n", "  workers: 2\n", [
        "38 backups: has no `recipients`: nobody could ever open a backup of `prod`; `ops backup keys` makes a pair",
    ]),
    (f"recipients: [{AGE}]", f"recipients: [{AGE}]\n  trusted_signers: [YWJj]\n  courier_image: 'a b'", [
        "40 backups.trusted_signers[0]: must be a public key: base64 of 32 bytes",
        "41 backups.courier_image: must be the name of an image, such as `ops-stack/courier:local`",
    ]),
    (f"recipients: [{AGE}]", f"recipients: [{AGE}]\n  signing_key: env:K\n  identity: env:K\n  recipients_file: ' '", [
        "41 backups.identity: is the same secret as `signing_key`; they are different keys",
        "42 backups.recipients_file: is empty",
    ]),
]  # fmt: skip

POLICIES = [
    ("    promote_from: dev", "    promote_from: dev\n    policy: {require_backup_minutes: 30, require_drill_days: 7}", []),
    ("    subnet: 10.1.0.0/24", "    subnet: 10.1.0.0/24\n    policy: {require_backup_minutes: 30, require_drill_days: 7}", [
        "10 environments.dev.policy.require_backup_minutes: asks for backups, but `dev` has no `backup` section: nothing could ever be deployed",
        "10 environments.dev.policy.require_drill_days: asks for backups, but `dev` has no `backup` section: nothing could ever be deployed",
    ]),
]  # fmt: skip

DATA = [
    ("container: db,", "container: db, host: two,", [f"20 {S}.shop.host: `prod` has no host `two`; known: one"]),
    ("container: db,", "container: 'a b',", [
        f"20 {S}.shop.container: must be a container's name, or labels `key=value,key=value`",
    ]),
    ('"role=cache,app=shop"', '"role=cache,app"', [
        f"21 {S}.cache.container: must be a container's name, or labels `key=value,key=value`",
    ]),
    ("container: db,", "container: db, remote: 'postgres://x:1',", [
        f"20 {S}.shop.remote: must be host:port, without scheme, user and password",
    ]),
    ("container: db,", "container: db, remote: 'x:70000',", [
        f"20 {S}.shop.remote: must be host:port, without scheme, user and password",
    ]),
    ("container: db,", "container: db, user: '-h evil',", [
        f"20 {S}.shop.user: must be a user's name, without control characters and not starting with `-`",
    ]),
    ("database: shop", "database: ''", [
        f"20 {S}.shop.database: must have 1 to 46 bytes: a restore makes `x…_r20261121` beside it",
    ]),
    ("database: shop", "database: " + "x" * 47, [
        f"20 {S}.shop.database: must have 1 to 46 bytes: a restore makes `{'x' * 20}…_r20261121` beside it",
    ]),
    ("database: shop", "database: template1", [
        f"20 {S}.shop.database: `template1` is the engine's own; name the application's database",
    ]),
    ("postgres, container: db, database: shop", "mariadb, container: db, database: mysql", [
        f"20 {S}.shop.database: `mysql` is the engine's own; name the application's database",
    ]),
    ("database: shop", "database: --shop", [
        f"20 {S}.shop.database: must not start with `-`, nor hold control characters or blanks at its ends",
    ]),
    ("database: shop", "database: 'host=evil'", [
        f"20 {S}.shop.database: holds a character that database names of this kind cannot have safely",
    ]),
    ("postgres, container: db, database: shop, questions: {open: SELECT count(*) FROM listings}", "mongodb, container: db, database: a.b, password: env:X", [
        f"20 {S}.shop.password: needs a `user` beside it",
        f"20 {S}.shop.database: holds a character that database names of this kind cannot have safely",
    ]),
    ("SELECT count(*) FROM listings", "DROP TABLE listings", [
        f"20 {S}.shop.questions.open: must be one reading query: SELECT …, WITH … SELECT …, VALUES …, TABLE …, SHOW …",
    ]),
    ("SELECT count(*) FROM listings", "SELECT 1; DROP TABLE listings", [
        f"20 {S}.shop.questions.open: must be one reading query: SELECT …, WITH … SELECT …, VALUES …, TABLE …, SHOW …",
    ]),
    ("SELECT count(*) FROM listings", "\"SELECT 'a;b';\"", []),
    ('"role=cache,app=shop"', "c, questions: {size: DBSIZE, gone: FLUSHALL}", [
        f"21 {S}.cache.questions.gone: must be one reading Redis command, such as `GET key`, `DBSIZE`, `HLEN key`",
    ]),
    ("kind: postgres, container", "kind: mongodb, container", [
        f"20 {S}.shop.questions.open: must be one reading call, such as `db.listings.count({{}})`",
    ]),
    ("volume: shop-more", "volume: 'shop-{environment}'", [
        f"23 {S}.more.volume: must be the name of a Docker volume: letters, digits and `_ . -`; write out what `{{environment}}` stands for",
    ]),
    ("volume: shop-more", "volume: /srv/more", [
        f"23 {S}.more.volume: must be the name of a Docker volume: letters, digits and `_ . -`; a folder is a source of kind `directory`",
    ]),
    ('exclude: ["*.tmp"]', 'exclude: ["*.tmp", "../x"]', [
        f"22 {S}.photos.exclude[1]: not a pattern of names below the tree: '../x'",
    ]),
    ("path: data/photos", "path: ''", [
        f"22 {S}.photos.path: must be a folder's path, absolute or relative to the project folder",
    ]),
    ("path: data/photos", "path: /", [
        f"22 {S}.photos.path: is the root of the file system: a restore could not put anything beside it",
    ]),
    ("path: data/photos", "path: .ops", [
        f"22 {S}.photos.path: overlaps `.ops/backups`, where the backups are kept",
        f"22 {S}.photos.path: overlaps `.ops/store`, where the ledger is kept",
    ]),
    ("path: data/photos", "path: ./data/../.", [
        f"22 {S}.photos.path: overlaps `.ops/backups`, where the backups are kept",
        f"22 {S}.photos.path: overlaps `.ops/store`, where the ledger is kept",
    ]),
    ("path: data/photos", "path: ../photos", []),
    ("        more: {kind: volume, volume: shop-more}", "        more: {kind: directory, path: data/photos/large}", [
        f"23 {S}.more.path: overlaps `data/photos` of source `photos` of `prod`: restoring one would change the other",
    ]),
    ("        more: {kind: volume, volume: shop-more}", "        more: {kind: directory, path: data/photos-large}", []),
    ("        more: {kind: volume, volume: shop-more}", "        more: {kind: postgres, container: db, database: shop}", [
        f"23 {S}.more: is the same database as source `shop` of `prod`: restoring one would change the other",
    ]),
    ("        more: {kind: volume, volume: shop-more}", "        more: {kind: redis, container: 'app=shop, role=cache'}", [
        f"23 {S}.more: is the same server as source `cache` of `prod`: restoring one would change the other",
    ]),
    ("        more: {kind: volume, volume: shop-more}", "        more: {kind: postgres, container: db, database: other}", []),
    ("    subnet: 10.1.0.0/24", "    subnet: 10.1.0.0/24\n    backup: {sources: {v: {kind: volume, volume: shop-more}}}", [
        f"24 {S}.more: is the same volume as source `v` of `dev`: restoring one would change the other",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), SHAPE + STORES + KEYS + POLICIES + DATA)
def test_each_mistake_is_named(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    assert ALL.count(old) == 1, "the row changes one place"
    text = ALL.replace(old, new)
    if expected:
        assert problems(tmp_path, text) == expected
    else:
        path = tmp_path / "services.yaml"
        path.write_text(text)
        load(path)


def test_what_is_wrong_together_is_said_together(tmp_path: Path) -> None:
    text = ALL.replace(AGE, "age1x").replace("kind: redis", "kind: rediss").replace("path: data/photos", "path: /")
    assert [problem.split(": ")[0] for problem in problems(tmp_path, text)] == [
        f"21 {S}.cache",
        f"22 {S}.photos.path",
        "39 backups.recipients[0]",
    ]


def said(tmp_path: Path, text: str) -> tuple[list[str], list[str]]:
    path = tmp_path / "services.yaml"
    path.write_text(text)
    report = check(path, root=tmp_path, today=date(2026, 11, 21))
    ours = ("backup", "overlaps")
    return (
        [problem.text for problem in report.problems if any(word in str(problem) for word in ours)],
        [str(warning).removeprefix(f"{path}:") for warning in report.warnings if "backup" in str(warning)],
    )


def test_folders_are_compared_as_they_lie_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / ".ops").mkdir()
    (tmp_path / ".ops/backups").write_text("")
    problems_found, _ = said(tmp_path, ALL.replace("path: data/photos", f"path: {tmp_path}/.ops"))
    assert sorted(problems_found) == [
        f"{tmp_path}/.ops/backups is a file, not a folder",
        "overlaps `.ops/backups`, where the backups are kept",
        "overlaps `.ops/store`, where the ledger is kept",
    ]


def test_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ABC":
        monkeypatch.setenv(name, "x")
    assert said(tmp_path, ALL) == ([], [])
    azure = AZURE.replace("sas_url: env:A", "connection_string: env:A").replace(
        "state: {", "prune: {container: backups, sas_url: env:GONE}, state: {"
    )
    text = ALL.replace(DIRECTORY, azure).replace("      sources:", "      fresh_hours: 6\n      sources:")
    text = text.replace(f"recipients: [{AGE}]", "recipients_file: keys/backups.txt")
    assert said(tmp_path, text.replace("container: db,", "container: db, password: file:gone,")) == (
        [],
        [
            "19 environments.prod.backup.fresh_hours: a set is taken every 6 hours, and it takes a while: an alert will be raised each time",
            f"21 {S}.shop.password: file:gone: {tmp_path}/gone: No such file or directory",
            f"40 backups.recipients_file: there is no file {tmp_path}/keys/backups.txt: no backup can be taken here; `ops backup keys` makes a pair",
            "41 backups.store.azure.sets.connection_string: an account key may delete and overwrite every backup: give the machine that takes them a SAS that may only create and read",
            "41 backups.store.azure.prune: `prune_media` is missing: there the credential that writes must be able to delete",
            "41 backups.store.azure.prune.sas_url: env:GONE: this variable is not set here",
        ],
    )
    scheduled = ALL.replace("      sources:", "      scheduled: false\n      sources:")
    assert said(tmp_path, scheduled) == (
        [],
        ["19 environments.prod.backup.scheduled: no schedule takes backups of it: only people and deploys do"],
    )
