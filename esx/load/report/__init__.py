"""A load test's figures as text and as pages."""
