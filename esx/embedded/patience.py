"""How long to wait for what servers and other processes do, in seconds."""

POLL = 0.005
"""Between two looks."""
PATIENCE = 60.0
"""For another process to finish what it began, and for an orderly stop."""
RECOVERY_PATIENCE = 600.0
"""For a server to become ready: after a crash it replays its log first."""
