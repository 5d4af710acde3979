"""What can go wrong with a load test besides the database."""

from esx.store.errors import EsxError


class InvalidOptions(EsxError):
    """An option of a load test makes no sense. The message names it and says what to give instead."""


class LoadFailed(EsxError):
    """The load test could not be run, or ended without telling its figures."""
