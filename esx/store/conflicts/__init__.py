"""Why appends conflict: which types of events lose to which, recorded beside the store, and read back."""
