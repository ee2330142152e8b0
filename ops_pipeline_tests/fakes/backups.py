"""A bed with data: environment `prod` has databases, `dev` has one, and what is live in `prod` is known."""

from __future__ import annotations

from typing import Any

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline_tests.fakes.data_source import FakeDatabase
from ops_pipeline_tests.fakes.file_tree import FakeFileTree
from ops_pipeline_tests.fakes.platform import Bed, catalogue


def backup_catalogue(**backups: Any) -> Catalogue:
    """The test catalogue with data sources: `listings` (postgres) and `cache` (redis) in prod, `listings` in dev.

    With `photos` also a directory `photos` in prod. Other keyword arguments go into `backups`; `policy={…}` and
    `backup={…}` into the environment `prod`.
    """
    document = catalogue().model_dump(exclude_none=True, warnings=False)
    policy, backup = backups.pop("policy", {}), backups.pop("backup", {})
    sources = {
        "listings": {"kind": "postgres", "container": "listings", "database": "listings"},
        "cache": {"kind": "redis", "container": "cache"},
    }
    files = {"photos": {"kind": "directory", "path": "photos"}} if backups.pop("photos", False) else {}
    prod, dev = document["environments"]["prod"], document["environments"]["dev"]
    prod["backup"] = {"sources": sources | files, **backup}
    dev["backup"] = {"sources": {"listings": sources["listings"]}}
    prod["policy"] = {**prod.get("policy", {}), **policy}
    document["backups"] = {"recipients": ["age1fake"], "workers": 2, **backups}
    return Catalogue.model_validate(document)


def backup_bed(book: Catalogue | None = None) -> Bed:
    """A bed whose `prod` has the databases `listings` and `cache` (and `photos`), whose `dev` has `listings`."""
    bed = Bed(book or backup_catalogue())
    settings = bed.catalogue.environments["prod"].backup
    bed.data["prod"] = [FakeDatabase("listings"), FakeDatabase("cache", "redis", {"0": ["a", "b"]})]
    if settings is not None and "photos" in settings.sources:
        tree = FakeFileTree("photos")
        for number in range(4):
            tree.put(f"{number}.jpg", f"photo {number}".encode() * 50)
        bed.data["prod"].append(tree)
    bed.data["dev"] = [FakeDatabase("listings")]
    return bed


def photos(bed: Bed) -> FakeFileTree:
    """The directory of a bed that has one."""
    found = next(source for source in bed.data["prod"] if source.name == "photos")
    assert isinstance(found, FakeFileTree)
    return found


def database(bed: Bed, name: str = "listings", environment: str = "prod") -> FakeDatabase:
    """One of a bed's databases."""
    found = next(source for source in bed.data[environment] if source.name == name)
    assert isinstance(found, FakeDatabase)
    return found
