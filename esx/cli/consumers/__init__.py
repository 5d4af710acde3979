"""esx consumers, and its commands."""
