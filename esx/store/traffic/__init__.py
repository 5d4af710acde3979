"""What a store's traffic was like, from a bounded sample of its history."""
