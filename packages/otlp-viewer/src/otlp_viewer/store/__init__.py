"""Stores spans and logs in DuckDB and queries them."""

from otlp_viewer.store.store import Store
from otlp_viewer.store.writer import AddResult

__all__ = ["AddResult", "Store"]
