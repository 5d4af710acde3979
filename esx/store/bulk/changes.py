"""What an import makes of lines that do not fit into esx's own table as they are."""

from dataclasses import asdict, dataclass

from esx.text import counted


@dataclass(slots=True)
class Changes:
    """How many lines of an import were changed, stored now or before, each for one reason.

    `translated`: stream_seq counts from 0, as those of the line did from its ``first``. `renumbered`: it was counted
    anew, and differs from that. `ids_made`: made of the place and the contents, so that it is the same next time.
    `times_made`: the time of the import. `without_stream`: put into the stream named for such events. `without_type`:
    got the type named for such events. `prefixed`: a stream id that began with $. `linked`: ids of a trail that were
    beside the metadata are in it; `links_lost`: they are not, as the metadata are no object. `data_lost` and
    `metadata_lost`: stored as null, for the payload was no JSON. Of KurrentDB: `system` are left out, as they are its
    own; `resolved` came by a link, and are in their own stream; `positions` were in its log, and are not kept;
    `disordered` came after one with a higher position.
    """

    translated: int = 0
    renumbered: int = 0
    ids_made: int = 0
    times_made: int = 0
    without_stream: int = 0
    without_type: int = 0
    prefixed: int = 0
    linked: int = 0
    links_lost: int = 0
    data_lost: int = 0
    metadata_lost: int = 0
    system: int = 0
    resolved: int = 0
    positions: int = 0
    disordered: int = 0

    def counted(self) -> dict[str, int]:
        """Return those that are not 0."""
        return {name: count for name, count in asdict(self).items() if count}

    def told(self) -> list[str]:
        """Return a line about each of them that is not 0."""
        return [f"{counted(count, 'event')} {_TOLD[name]}" for name, count in self.counted().items()]

    @property
    def lost(self) -> int:
        """How many payloads are not stored."""
        return self.data_lost + self.metadata_lost


_TOLD = {
    "translated": "counted from another number: stream_seq counts from 0 now",
    "renumbered": "got another stream_seq, so that their streams have no hole",
    "ids_made": "had no event_id: it is made of the event, and the same in each import",
    "times_made": "had no time: created_at is the time of the import",
    "without_stream": "belonged to no stream: they are in the one of --no-stream",
    "without_type": "had no type: they have that of --no-type",
    "prefixed": "were in streams that begin with $: these begin with the text of --dollar-prefix now",
    "linked": "had a correlation or causation id beside the metadata: it is in the metadata now",
    "links_lost": "had a correlation or causation id, and metadata that are no object and have no place for it",
    "data_lost": "had data that are no JSON: null is stored",
    "metadata_lost": "had metadata that are no JSON: none are stored",
    "system": "belonged to KurrentDB itself, by a type or a stream that begins with $: left out",
    "resolved": "came by a link of another stream: stored in the stream of the event itself",
    "positions": "had a position in KurrentDB's log, which is not kept: global_seq is new",
    "disordered": "came after an event with a higher position: the global order is that of the lines",
}
