"""The terminal explorer: screens and widgets over the store's own queries."""

import os

# Textual draws at fixed instants, and misses the next one when drawing takes long: at its default of 60 a second, a key
# that is pressed while pages load waits twice as long for its frame. Textual reads this when it is first imported.
os.environ.setdefault("TEXTUAL_FPS", "120")
