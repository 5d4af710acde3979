"""What events change: JSON values with every digit, the difference of two, and the state that a stream folds to."""
