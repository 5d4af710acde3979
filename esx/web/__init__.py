"""Web servers of ours: the explorer in a browser, and who may ask a server."""
