"""Appending by the ways of other stores, for load tests: a protocol, and a file for each way."""

from esx.store.appenders.append_file import AppendFile, BadAppendFile, read_append_file
from esx.store.appenders.protocol import Conflict, StreamAppender
from esx.store.appenders.statement import StatementAppender

__all__ = ["AppendFile", "BadAppendFile", "Conflict", "StatementAppender", "StreamAppender", "read_append_file"]
