"""The state of a store and its consumers, for Prometheus and whatever else reads OpenMetrics."""
