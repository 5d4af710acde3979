"""Reading pages of events and streams, and finding a place in them."""
