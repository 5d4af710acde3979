"""Checking what a load test is asked to do."""

import math
import re

from esx.load.errors import InvalidOptions
from esx.load.knobs import BY_NAME, KNOBS
from esx.load.model import LoadOptions

MOST_USERS = 10_000
LONGEST = 86_400.0
"""The longest duration in seconds: a day."""
MOST_APPENDS = 1_000_000_000
MOST_TIMES = 10_000
MOST_ZIPF_STREAMS = 1_000_000
_MOST_EVENTS = 1_000
_MOST_BYTES = 1_000_000
_MOST_SUBSCRIBERS = 100
_MOST_PROCESSES = 64
LEARNED = ("streams", "hot_streams", "hot_share", "zipf", "events_per_append", "payload_bytes")
"""What the file of `like` or `replay` says in place of these options."""
_RUN_ID = re.compile(r"[A-Za-z0-9_.]{1,64}")


def validate(options: LoadOptions) -> LoadOptions:
    """Return `options` if they are valid; raises InvalidOptions, which names the option and the remedy."""
    _range("--users", options.users, 1, MOST_USERS)
    if not (math.isfinite(options.duration) and 0 < options.duration <= LONGEST):
        raise InvalidOptions(f"--duration is {options.duration:g} s: use more than 0 and at most {LONGEST:g} seconds")
    if options.spawn_rate is not None and not (math.isfinite(options.spawn_rate) and options.spawn_rate > 0):
        raise InvalidOptions(f"--spawn-rate is {options.spawn_rate:g}: use a number of users a second above 0")
    _range("--processes", options.processes, 1, min(_MOST_PROCESSES, options.users))
    return check_workload(options)


def check_workload(options: LoadOptions) -> LoadOptions:
    """Check all options but the users and the duration, which plain Locust has options of its own for."""
    _check_streams(options.streams, options.hot_streams, options.hot_share, options.zipf)
    for knob in KNOBS:
        if knob.choices and (value := getattr(options, knob.name)) not in knob.choices:
            *most, last = knob.choices
            raise InvalidOptions(f"{knob.option} is {value!r}: use {', '.join(most)} or {last}")
    _range("--events-per-append", options.events_per_append, 1, _MOST_EVENTS)
    _range("--payload-bytes", options.payload_bytes, 0, _MOST_BYTES)
    _range("--max-tries", options.max_tries, 1, 1_000_000)
    _range("--max-appends", options.max_appends, 1, MOST_APPENDS)
    _range("--subscribers", options.subscribers, 0, _MOST_SUBSCRIBERS)
    if options.rate is not None and not (math.isfinite(options.rate) and options.rate > 0):
        raise InvalidOptions(f"--rate is {options.rate:g}: use a number of appends a second above 0, or leave it out")
    for option, seconds in (("--think-time", options.think_time), ("--warm-up", options.warm_up)):
        if not (math.isfinite(seconds) and 0 <= seconds <= LONGEST):
            raise InvalidOptions(f"{option} is {seconds:g} s: use from 0 to {LONGEST:g} seconds")
    if options.rate is not None and options.think_time:
        raise InvalidOptions("--think-time and --rate exclude each other: a rate says when commands are due")
    if options.expected == "none" and options.on_conflict != "give-up":
        raise InvalidOptions(
            f"--on-conflict is {options.on_conflict} with --expected none: a stream that exists stays, so use give-up"
        )
    if options.run_id is not None:
        check_run_id(options.run_id)
    _check_appender(options)
    _check_like(options)
    return options


def _check_like(options: LoadOptions) -> None:
    if not (math.isfinite(options.times) and 0 < options.times <= MOST_TIMES):
        raise InvalidOptions(f"--times is {options.times:g}: use a number above 0, up to {MOST_TIMES:,}")
    if options.like is None and options.replay is None:
        if options.times != 1:
            raise InvalidOptions(f"--times is {options.times:g}, but nothing says of what: add --like FILE")
        return
    if options.like is not None and options.replay is not None:
        raise InvalidOptions("--like and --replay exclude each other: leave one out")
    option = "--like" if options.replay is None else "--replay"
    for name in LEARNED:
        knob = BY_NAME[name]
        if getattr(options, name) != knob.default:
            raise InvalidOptions(f"{knob.option} and {option} exclude each other: the file says it")
    if options.think_time:
        raise InvalidOptions(f"--think-time and {option} exclude each other: the file says when appends are due")
    if options.expected == "none":
        raise InvalidOptions(f"--expected is none with {option}: use exact or any, as its streams have several appends")
    if options.processes > 1:
        raise InvalidOptions(f"--processes is {options.processes} with {option}, whose writers share streams: use 1")


def _check_appender(options: LoadOptions) -> None:
    if options.by_esx:
        return
    named = f"--appender {options.appender}"
    if options.append_sql is not None:
        if options.appender != "esx":
            raise InvalidOptions(f"{named} and --append-sql exclude each other: leave one out")
        named = "--append-sql"
    for option, value, usual in (
        ("--strategy", options.strategy, "conditional"),
        ("--notification", options.notification, "doorbell"),
        ("--grouping", options.grouping, "off"),
        ("--record-conflicts", options.record_conflicts, "off"),
    ):
        if value != usual:
            raise InvalidOptions(f"{option} {value} is for appends by esx, and {named} is given: leave one out")
    if options.on_conflict == "queue":
        raise InvalidOptions(f"--on-conflict queue is for appends by esx, and {named} is given: use retry or backoff")
    if options.appender == "marten" and options.expected != "any":
        raise InvalidOptions(
            f"{named} appends by mt_quick_append_events, which takes no expected version: add --expected any"
        )


def _check_streams(streams: int, hot_streams: int, hot_share: float, zipf: float) -> None:
    _range("--streams", streams, 1, 2**31 - 1)
    if hot_streams < 0:
        raise InvalidOptions(f"--hot-streams is {hot_streams}: use 0 for none, or a number up to --streams")
    if hot_streams > streams:
        raise InvalidOptions(f"--hot-streams is {hot_streams}, more than the --streams of {streams}: use fewer")
    if not (math.isfinite(hot_share) and 0 <= hot_share <= 1):
        raise InvalidOptions(f"--hot-share is {hot_share:g}: use a share from 0 to 1, e.g. 0.8 for 80 %")
    if hot_share > 0 and hot_streams == 0:
        raise InvalidOptions(f"--hot-share is {hot_share:g} but no stream is hot: add --hot-streams, e.g. 1")
    if hot_streams > 0 and hot_share == 0:
        raise InvalidOptions(f"--hot-streams is {hot_streams} but they have no share: add --hot-share, e.g. 0.8")
    if not (math.isfinite(zipf) and 0 <= zipf <= 10):
        raise InvalidOptions(f"--zipf is {zipf:g}: use an exponent from 0 (all alike) to 10, e.g. 1")
    if zipf and hot_streams:
        raise InvalidOptions("--zipf and --hot-streams exclude each other: leave one out")
    if zipf and streams > MOST_ZIPF_STREAMS:
        raise InvalidOptions(f"--streams is {streams} with --zipf: use at most {MOST_ZIPF_STREAMS}")


def check_run_id(run: str) -> str:
    """Return a run's id if it can be part of a stream id; raises InvalidOptions."""
    if not _RUN_ID.fullmatch(run) or not run.strip("."):  # that could not be the name of a file
        raise InvalidOptions(f"--run-id is {run!r}: use up to 64 letters, digits, _ or . (a dash would end it)")
    return run


def _range(option: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise InvalidOptions(f"{option} is {value}: use a number from {lowest} to {highest}")
