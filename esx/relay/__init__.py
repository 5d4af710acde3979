"""Targets of relays that come with esx: Kafka. Each needs its extra, e.g. ``pip install 'esx-eventstore[kafka]'``."""
