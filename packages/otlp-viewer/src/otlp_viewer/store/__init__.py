"""What is stored: spans and logs in DuckDB, and what is asked about them."""

from otlp_viewer.store.store import Store
from otlp_viewer.store.writer import Added

__all__ = ["Added", "Store"]
