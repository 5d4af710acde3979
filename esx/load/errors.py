"""The errors of load tests."""

from esx.errors import EsxError


class InvalidOptions(EsxError):
    """An option of a load test is not valid. The message names it and says what to give instead."""


class LoadFailed(EsxError):
    """The load test could not be run, or ended without its figures."""
