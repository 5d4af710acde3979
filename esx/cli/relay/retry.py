"""esx relay retry: the command of `esx consumers`, for relays."""

from esx.cli.consumers.retry import command

__all__ = ["command"]
