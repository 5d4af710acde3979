"""The options of a load test, declared once for `esx load`, `locust` and sweeps."""

from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from esx.load.model import (
    APPENDERS,
    EXPECTED,
    GROUPING,
    NOTIFICATIONS,
    ON_CONFLICT,
    RECORDING,
    STRATEGIES,
    LoadOptions,
)

_HINTS = get_type_hints(LoadOptions)
_DEFAULT = LoadOptions()


@dataclass(frozen=True)
class Knob:
    """An option: a field of LoadOptions.

    `metavar` stands for its value, ``T`` for a duration. Locust itself has the `locusts` options, some under other
    names. `in_form` says whether it may be set in the form of Locust's page, `everywhere` that all commands have it
    anyway.
    """

    name: str
    metavar: str
    help: str
    choices: tuple[str, ...] = ()
    locusts: bool = False
    in_form: bool = True
    everywhere: bool = False

    @property
    def option(self) -> str:
        """The name on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def kind(self) -> type:
        """The type of its values: int, float or str."""
        hint = _HINTS[self.name]
        kind: type = (get_args(hint) or (hint,))[0]
        return kind

    @property
    def noun(self) -> str:
        """What the text of a value must be."""
        return "a whole number" if self.kind is int else "a number"

    @property
    def default(self) -> Any:
        """The value in `LoadOptions()`."""
        return getattr(_DEFAULT, self.name)


KNOBS = (
    Knob("users", "N", "Concurrent writers.", locusts=True),
    Knob("duration", "T", "How long it counts: 20s, 5m, 1h.", locusts=True),
    Knob("warm_up", "T", "How long it runs before it counts."),
    Knob("max_appends", "N", "End once so many appends have been stored."),
    Knob("spawn_rate", "R", "Writers started a second (default: all at once).", locusts=True),
    Knob("streams", "K", "Streams to append to."),
    Knob("hot_streams", "H", "How many of them are hot."),
    Knob("hot_share", "X", "The hot ones' share of appends, 0 to 1."),
    Knob("zipf", "S", "Or heat that falls from stream to stream: stream n in proportion to 1/(n+1)^S."),
    Knob("events_per_append", "N", "Events in each append, stored all or none."),
    Knob("payload_bytes", "N", "Bytes of data in each event (0: the smallest)."),
    Knob("expected", "", "exact: read the version, decide, append at it; none: the stream must be new.", EXPECTED),
    Knob("on_conflict", "", "Give up; retry at once or after growing pauses; queue; or take turns.", ON_CONFLICT),
    Knob("max_tries", "N", "How often an append is tried at most."),
    Knob("strategy", "", "Check the version in the insert, or lock the stream first.", STRATEGIES),
    Knob("notification", "", "How appends wake subscribers: one of many, every one, or none does.", NOTIFICATIONS),
    Knob("grouping", "", "on: the writers of a process append together; off: each by itself.", GROUPING),
    Knob("record_conflicts", "", "on: record a sample of the conflicts, and tell which types collided.", RECORDING),
    Knob("subscribers", "N", "Subscribers that follow the run's events meanwhile."),
    Knob("rate", "R", "Appends a second that are due over all writers (default: as fast as they can)."),
    Knob("think_time", "T", "How long a writer pauses between appends, jittered by half."),
    Knob("processes", "N", "Processes that share the writers, where one core is not enough.", locusts=True),
    Knob("seed", "N", "Make two runs draw the same."),
    Knob("run_id", "ID", "The run's name, part of its streams' ids (default: a new one)."),
    Knob(
        "yes_write_to",
        "HOST/DATABASE",
        "Write to this store although it is not local or holds other events.",
        in_form=False,
    ),
    Knob("appender", "", "Append as another tool does, by its function in the database.", APPENDERS, in_form=False),
    Knob("append_sql", "FILE", "Append by the statement in a file, which says what a conflict is.", in_form=False),
    Knob("like", "FILE", "Send what `esx load learn` has learned of a store's own traffic.", in_form=False),
    Knob("replay", "CAPSULE", "Send the appends of a capsule again, at their recorded times.", in_form=False),
    Knob("times", "X", "How many times as much as was learned, or as fast as was recorded.", in_form=False),
    Knob("store", "TABLE", "The table, view or kind of store to append to.", in_form=False, everywhere=True),
)
"""All options, in the order in which `--help` lists them."""
BY_NAME = {knob.name: knob for knob in KNOBS}
