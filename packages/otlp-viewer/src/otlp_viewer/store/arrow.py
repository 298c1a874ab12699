"""Passes columns of Python values to DuckDB as Arrow arrays, by far the fastest way to insert rows."""

from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import nanoarrow as na  # type: ignore[import-untyped]

Column = tuple[str, Any]
"""A name and an Arrow array."""


def numbers(name: str, typecode: str, values: Sequence[float]) -> Column:
    """Return a column of numbers. `typecode` is a type code of the array module: B, i, q or d."""
    type_ = {"B": na.uint8, "i": na.int32, "q": na.int64, "d": na.float64}[typecode]()
    return name, na.c_array_from_buffers(type_, len(values), [None, array(typecode, values)])


def strings(name: str, values: Sequence[bytes]) -> Column:
    """Return a column of strings, encoded in UTF-8."""
    return name, na.c_array_from_buffers(na.large_string(), len(values), [None, *_offsets_and_data(values)])


def blobs(name: str, values: Sequence[bytes]) -> Column:
    return name, na.c_array_from_buffers(na.large_binary(), len(values), [None, *_offsets_and_data(values)])


def maps(name: str, lengths: Sequence[int], keys: Sequence[int], values: Sequence[bytes]) -> Column:
    """Return a column of maps from numbers to strings. `lengths` has the number of keys in each row."""
    children = [numbers("key", "i", keys)[1], strings("value", values)[1]]
    entries = na.struct({"key": na.int32(), "value": na.large_string()})
    pairs = na.c_array_from_buffers(entries, len(keys), [None], children=children)
    offsets = array("i", accumulate(lengths, initial=0))
    return name, na.c_array_from_buffers(
        na.map_(na.int32(), na.large_string()), len(lengths), [None, offsets], children=[pairs]
    )


def lists(name: str, values: Sequence[Sequence[int]]) -> Column:
    """Return a column of lists of integers."""
    child = numbers("item", "q", [item for row in values for item in row])[1]
    offsets = array("i", accumulate(map(len, values), initial=0))
    return name, na.c_array_from_buffers(na.list_(na.int64()), len(values), [None, offsets], children=[child])


def _offsets_and_data(values: Sequence[bytes]) -> tuple["array[int]", bytes]:
    return array("q", accumulate(map(len, values), initial=0)), b"".join(values)


class Table:
    """Columns of equal length. DuckDB can register this as a view and read it any number of times."""

    def __init__(self, columns: Sequence[Column]) -> None:
        types = na.struct({name: na.Schema(na.c_schema(column.schema)) for name, column in columns})
        arrays = [column for _, column in columns]
        self._rows = na.c_array_from_buffers(types, len(arrays[0]), [None], children=arrays)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return na.c_array_stream(self._rows).__arrow_c_stream__()
