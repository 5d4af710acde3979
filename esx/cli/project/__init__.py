"""esx project, and its commands."""
