"""Queries in Honeycomb's format: parsing, compilation to SQL, execution."""
