"""What errors of a Kafka client mean for a relay."""

from collections.abc import Mapping

from confluent_kafka import KafkaError

from esx.errors import TargetFailed, TargetUnavailable
from esx.relay.kafka_settings import hidden

_FENCED = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
}
_FOR_GOOD = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
    KafkaError._INVALID_ARG,
    KafkaError._NOT_CONFIGURED,
}
_NO_TRANSACTIONS = {KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION}
REFUSALS = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.INVALID_MSG_SIZE,
    KafkaError.INVALID_RECORD,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.POLICY_VIOLATION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}
"""What a broker says of a message that it will never take."""
PURGED = {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}
"""What is said of messages of a transaction that failed because of another one."""


class FencedOff(TargetFailed):
    """A later instance of the relay is there, or a transaction took longer than Kafka waits for it."""

    fenced = True


def wrong_login(error: KafkaError) -> bool:
    """Return whether the broker has refused who we are."""
    return error.code() in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED)


def meaning(error: KafkaError, doing: str, settings: Mapping[str, object]) -> TargetFailed:
    """Return the relay's error for one of the client: TargetUnavailable if it may pass."""
    code, text = error.code(), hidden(error.str(), settings)
    if code in _FENCED:
        return FencedOff("another instance of this relay has taken over (this one was fenced off by Kafka)")
    if code in _NO_TRANSACTIONS:
        return TargetFailed(f"{doing}: {text}; a cluster without transactions needs delivery at least once")
    if code in _FOR_GOOD:
        return TargetFailed(f"{doing}: {text}")
    return TargetUnavailable(f"{doing}: {text}")
