"""Whether a load test may write to a store: a local one that holds nothing else, or one that the user has named."""

from esx.embedded import DATABASE, is_own
from esx.eventstore import EventStore
from esx.load.errors import LoadFailed
from esx.load.model import run_prefix
from esx.text import visible

_OURS = "load-"


async def check_may_write(store: EventStore, allowed: str | None) -> None:
    """Raise LoadFailed unless the store may be written to.

    It may if it is on this machine and holds only events of load tests; if it is the embedded one; or if `allowed` is
    its ``HOST/DATABASE``, where HOST may have a port, and a local one may be written as in the address. The message
    says what to give.
    """
    place = await store.place()
    hosts = _hosts(store.address, place.database)
    if place.local:
        hosts = ["localhost", *hosts]
    name = f"{hosts[0]}/{place.database}"
    if allowed in [f"{host}/{place.database}" for host in hosts]:
        return
    remedy = f"to write to it anyway, give --yes-write-to {visible(name, limit=200)}"
    if allowed is not None:
        raise LoadFailed(
            f"--yes-write-to names {visible(allowed, limit=200)}, but the store is {visible(name, limit=200)}: {remedy}"
        )
    if not place.local:
        raise LoadFailed(f"the store {visible(name, limit=200)} is not on this machine: {remedy}")
    if place.data_directory is not None and place.database == DATABASE and is_own(place.data_directory):
        return
    stream = await store.stream_outside(_OURS) or await _foreign_stream(store)
    if stream is not None:
        raise LoadFailed(
            f"the store {visible(name, limit=200)} holds events that are not a load test's, e.g. in stream "
            f"{visible(stream, limit=100)}: use another database, or {remedy}"
        )


async def _foreign_stream(store: EventStore) -> str | None:
    """Return a stream with the name of a load test's but other events; only the first and the last are checked."""
    for backwards in (False, True):
        page = await store.streams_page(prefix=_OURS, limit=1, backwards=backwards)
        for stream in page.streams:
            [event] = await store.read_page(stream.stream_id, limit=1)
            run = event.metadata.get("run_id") if isinstance(event.metadata, dict) else None
            if not isinstance(run, str) or not stream.stream_id.startswith(run_prefix(run)):
                return stream.stream_id
    return None


def _hosts(address: str, database: str) -> list[str]:
    """Return the host in ``user@host:port/database``, without and with its port."""
    host = address.rpartition("@")[2].removesuffix(f"/{database}")
    bare, colon, port = host.rpartition(":")
    return [bare, host] if colon and port.isdigit() else [host]
