"""What `make demo` builds ahead, beside the stack's images: the databases, and the layers below the sample's own code.

The layers are what each version of the sample application has in common: packages, pinned libraries, what its tests
need. `ops build` finds them in the build cache; the tests and the application's own code run there, not here.
"""

from __future__ import annotations

from deploy.setup.commands import ROOT
from deploy.setup.stack_images import StackImage

FOLDER = ROOT / "examples" / "storefront"
LAYERS = "tools"
"""Stage of each Dockerfile that holds all of its layers without the application's code."""


def _layers(service: str, *inputs: str) -> StackImage:
    return StackImage(
        f"sample-{service}",
        service,
        f"{service}/Dockerfile",
        tuple(f"{service}/{name}" for name in ("Dockerfile", *inputs)),
        serves=False,
        root=FOLDER,
        target=LAYERS,
    )


def _database(name: str) -> StackImage:
    folder = f"images/{name}"
    return StackImage(
        f"sample-{name}",
        folder,
        f"{folder}/Dockerfile",
        (folder,),
        serves=False,
        root=FOLDER,
        also=f"storefront-data/{name}",
    )


# The slowest first.
IMAGES = (
    _layers("api", "requirements.txt", "requirements-test.txt"),
    _database("postgres"),
    _layers("frontend"),
    _database("redis"),
)
