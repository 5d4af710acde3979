"""What a screen shows, as plain values: a command, a query and an export of the same rows come from each.

A new view is one class, a `View` (see `esx.store.views.view`).
"""

from esx.store.views.events import EventsView, EventView, FeedView, TrailView
from esx.store.views.overview import ConsumersView, SummaryView, TypesView
from esx.store.views.streams import StreamsView
from esx.store.views.view import View

__all__ = [
    "ConsumersView",
    "EventView",
    "EventsView",
    "FeedView",
    "StreamsView",
    "SummaryView",
    "TrailView",
    "TypesView",
    "View",
]
