"""The facets of an `EventStore`: each its methods for one purpose, on connections that they share."""
