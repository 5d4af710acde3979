"""The settings of a Kafka client: where they come from, which are esx's own, and which are secrets."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from esx.errors import TargetFailed

PREFIX = "ESX_KAFKA_"
"""Variables of the environment that begin so are settings: ESX_KAFKA_SASL_PASSWORD is sasl.password."""
TRANSACTION_TIMEOUT_MS = 15_000
OWN = {
    "acks": "all",
    "enable.idempotence": True,
    "partitioner": "murmur2_random",
    "delivery.report.only.error": True,
    "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
    "message.timeout.ms": TRANSACTION_TIMEOUT_MS - 5_000,
}
"""What the promises of a relay need. murmur2 is how Java's clients choose a partition by its key."""
_ALSO_OWN = {
    *("transactional.id", "request.required.acks", "delivery.timeout.ms", "enable.gapless.guarantee", "retries"),
    *("message.send.max.retries", "isolation.level", "group.id", "dr_cb", "dr_msg_cb", "on_delivery"),
}
_SECRET = ("password", "secret", "jaas", "pem", "token", "oauthbearer.config")


class BadSettings(TargetFailed):
    """The settings of the client cannot be used as they are."""


def is_secret(key: str) -> bool:
    """Return whether the value of a setting must not be shown."""
    return any(part in key for part in _SECRET)


def read_properties(path: Path) -> tuple[dict[str, str], str | None]:
    """Return the settings of a file with lines ``key=value``, and a warning if others can read secrets in it.

    Raises BadSettings, and OSError if it cannot be read.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(("#", "!")):
            continue
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise BadSettings(f"line {number} of {path} is not key=value")
        found[key.strip()] = value.strip()
    warning = None
    if any(map(is_secret, found)) and os.name == "posix" and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        warning = f"others can read the secrets in {path}: chmod 600 {path}"
    return found, warning


def gather(
    given: Mapping[str, str], file: Mapping[str, str], environment: Mapping[str, str], brokers: str | None
) -> dict[str, str]:
    """Return all settings: those given on the command line, else of the environment, else of the file.

    Raises BadSettings for a secret on the command line, which other users of the machine can see, for a setting that
    is esx's own, and where no broker is named.
    """
    for key in given:
        if is_secret(key):
            variable = PREFIX + key.upper().replace(".", "_")
            raise BadSettings(f"{key} is a secret: put it into the properties file (-F), or into ${variable}")
    found = dict(file)
    for name, value in environment.items():
        if name.startswith(PREFIX):
            found[name.removeprefix(PREFIX).lower().replace("_", ".")] = value
    found |= given
    if brokers is not None:
        found["bootstrap.servers"] = brokers
    check(found)
    return found


def check(settings: Mapping[str, object]) -> None:
    """Raise BadSettings for settings that are esx's own, and where no broker is named."""
    for key in settings:
        if key in OWN or key in _ALSO_OWN:
            value = OWN.get(key)
            what = f"it is {value}" if isinstance(value, str | int) and value is not True else "esx sets it"
            raise BadSettings(f"{key} cannot be set, as the relay's promises need it: {what}; leave it out")
    if not settings.get("bootstrap.servers"):
        raise BadSettings("no broker is named: -b HOST:PORT, or bootstrap.servers in the properties file")


def hidden(text: str, settings: Mapping[str, object]) -> str:
    """Return a message with every secret in it hidden."""
    for key, value in settings.items():
        if is_secret(key) and isinstance(value, str) and value:
            text = text.replace(value, "***")
    return text
