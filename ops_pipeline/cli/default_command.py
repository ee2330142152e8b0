"""Groups whose first word may be left out: `ops backups prod` is `ops backups list prod`."""

from __future__ import annotations

from typing import Any, ClassVar

from typer.core import TyperGroup


class Defaulting(TyperGroup):
    """A group that takes words which name none of its commands as arguments of `default`."""

    default: ClassVar[str]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command first unless a command, or help, is asked for."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order they were defined."""
        return list(self.commands)


def defaulting(name: str) -> type[Defaulting]:
    """The class of a group whose default command is `name`."""
    return type(f"DefaultsTo{name.title()}", (Defaulting,), {"default": name})
