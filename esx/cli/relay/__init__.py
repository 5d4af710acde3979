"""esx relay, and its commands."""
