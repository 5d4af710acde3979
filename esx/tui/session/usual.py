"""What the list of all events leaves out at first, and says so. Plain asyncio code, no screen."""

from esx.database_choice import Database
from esx.errors import EsxError
from esx.eventstore import EventStore
from esx.filters import Filter

WITHOUT_LOAD_TESTS = Filter(where="!exists($metadata.run_id)")
"""Each event of a load test names its run."""
_OF_LOAD_TESTS = "load-"


async def usual_filter(store: EventStore, database: Database) -> Filter:
    """Return the filter that all events are shown with at first: in the demo's own database, without load tests.

    There the thousands of events of a load test would hide the shop. It is empty where there is no such event, or no
    shop.
    """
    if not database.embedded:
        return Filter()
    try:
        if not (await store.streams_page(prefix=_OF_LOAD_TESTS, limit=1)).streams:
            return Filter()
        from esx.demo import is_there

        return WITHOUT_LOAD_TESTS if await is_there(store) else Filter()
    except EsxError:
        return Filter()
