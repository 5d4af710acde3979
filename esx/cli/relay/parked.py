"""esx relay parked: the command of `esx consumers`, for relays."""

from esx.cli.consumers.parked import command

__all__ = ["command"]
