"""Load tests: their options, running one, the verdict on its events, and reports."""
