"""The doctor: looks for what is wrong with a store, and says what to do about it.

Each module is a topic: it reads facts from the catalog, statistics and index ends, in time that does not depend on
the size of the store, and judges them with one small function a check. Only `scan` looks at the events.
"""

from esx.store.doctor.finding import Finding, Severity

__all__ = ["Finding", "Severity"]
