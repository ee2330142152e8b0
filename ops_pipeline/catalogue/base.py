"""What all catalogue models are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
SecretReference = Annotated[
    str,
    Field(
        pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$",
        description="Where the control plane reads the secret: `env:NAME` or `file:PATH`. Never the value itself.",
    ),
]


class Model(BaseModel):
    """Base of all catalogue models: immutable, unknown keys refused."""

    # Built when first used: most of them only ever as a part of the catalogue's own schema.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class AzureStore(Model):
    """A container in Azure Blob Storage."""

    container: str = Field(description="Container name")
    account_url: str | None = Field(None, description="https://ACCOUNT.blob.core.windows.net: managed identity")
    connection_string: SecretReference | None = Field(
        None, description="Connection string (Azurite, or an account key)"
    )
    sas_url: SecretReference | None = Field(None, description="Container URL with a SAS token")
    prefix: str = Field("", description="Prefix of every key")
