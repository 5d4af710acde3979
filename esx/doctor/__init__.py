"""The doctor: looks for what is wrong with a store, and says what to do about it.

Each module is a topic: it reads facts from the catalog, statistics and index ends, in time that does not depend on
the size of the store, and checks them with one small function each. Only `scan` looks at the events.
"""

from esx.doctor.checked import Checked, CheckState
from esx.doctor.finding import Finding, Severity
from esx.doctor.target import Thresholds

__all__ = ["CheckState", "Checked", "Finding", "Severity", "Thresholds"]
