"""esx relay skip: the command of `esx consumers`, for relays."""

from esx.cli.consumers.skip import command

__all__ = ["command"]
