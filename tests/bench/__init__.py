"""Measurements, apart from the tests: ``python -m tests.bench.NAME``."""

import esx.tui  # noqa: F401 - as the command does: before anything else imports Textual
