"""A group of commands as its help shows it."""

import click


class InOrder(click.Group):
    """Lists its commands in the order they were added: the way they are used, not the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)
