"""The sample store: the history of a small shop with accounts, and live traffic that carries it on."""

from esx.demo.history import FillResult, fill, is_there
from esx.demo.traffic import TrafficStats, run_traffic

__all__ = ["FillResult", "TrafficStats", "fill", "is_there", "run_traffic"]
