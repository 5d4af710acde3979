"""JSON values with every digit, their differences, and the states that streams fold to."""
