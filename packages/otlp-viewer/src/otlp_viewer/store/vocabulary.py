"""Data that many records share: attribute names, and origins (a resource with a scope)."""

# ruff: noqa: S608 - statements contain only generated names; user input is bound.

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from typing import TypeVar

import duckdb
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otlp_viewer.model import column_name
from otlp_viewer.receive.repair import repair
from otlp_viewer.values import Type, any_value, as_text

M = TypeVar("M", bound=Message)
Pair = tuple[int, bytes]
"""The number of an attribute's name, and its value as text in UTF-8."""

MAX_CACHED_SIZE = 256  # bytes of an attribute
MAX_CACHED = 20_000


@dataclass(frozen=True, slots=True)
class Origin:
    number: int
    service: str
    scope_name: str
    scope_version: str
    attributes: Mapping[int, str]
    """Those of the resource and the scope. The scope's override the resource's."""


class Vocabulary:
    """The attribute names and origins of a signal, in the tables stored.<signal>_names and stored.<signal>_origins.

    A name has a number for each type of its values. `fields` are the names of fields that are not attributes.
    Callers must hold the store's lock.
    """

    def __init__(self, database: duckdb.DuckDBPyConnection, signal: str, fields: Collection[str]) -> None:
        self._signal = signal
        self._fields = fields
        self.pairs: dict[bytes, Pair | None] = {}
        """Cache of pairs by encoded attribute; None for an attribute without a value."""
        self.names: dict[int, tuple[str, Type]] = {}
        self.origins: dict[int, Origin] = {}
        self._by_digest: dict[bytes, Origin] = {}
        self._new_names: list[int] = []
        self._new_origins: list[tuple[int, bytes, bytes, bytes]] = []
        database.execute(
            f"CREATE TABLE IF NOT EXISTS stored.{signal}_names (number INTEGER, name VARCHAR, type VARCHAR);"
            f"CREATE TABLE IF NOT EXISTS stored.{signal}_origins (number INTEGER, digest BLOB, service VARCHAR,"
            " scope_name VARCHAR, scope_version VARCHAR, attributes MAP(INTEGER, VARCHAR), resource BLOB, scope BLOB)"
        )
        for number, name, type_ in database.execute(f"FROM stored.{signal}_names").fetchall():
            self.names[number] = name, type_
        for number, digest, service, scope_name, scope_version, attributes in database.execute(
            f"SELECT number, digest, service, scope_name, scope_version, attributes FROM stored.{signal}_origins"
        ).fetchall():
            self._by_digest[digest] = self.origins[number] = Origin(
                number, service, scope_name, scope_version, attributes
            )
        self._numbers = {name: number for number, name in self.names.items()}
        self._next_name = count(max(self.names, default=0) + 1)
        self._next_origin = count(max(self.origins, default=0) + 1)

    def pair(self, attribute: bytes) -> Pair | None:
        """Return the pair of an encoded KeyValue, or None if it has no value. Raises DecodeError."""
        if attribute in self.pairs:
            return self.pairs[attribute]
        decoded = self._decode(KeyValue.FromString(attribute))
        pair = None if decoded is None else (decoded[0], decoded[1].encode())
        if len(attribute) <= MAX_CACHED_SIZE:
            if len(self.pairs) >= MAX_CACHED:
                self.pairs.clear()
            self.pairs[attribute] = pair
        return pair

    def origin(self, resource: bytes, scope: bytes) -> Origin:
        """Return the origin of an encoded Resource and InstrumentationScope. Unreadable ones count as empty."""
        digest = blake2b(len(resource).to_bytes(8, "big") + resource + scope, digest_size=16).digest()
        if digest not in self._by_digest:
            resource, resource_message = _parse(resource, Resource)
            scope, scope_message = _parse(scope, InstrumentationScope)
            services = [pair for pair in resource_message.attributes if pair.key == "service.name"]
            service = any_value(services[-1].value) if services else None
            others = [pair for pair in resource_message.attributes if pair.key != "service.name"]
            number = next(self._next_origin)
            self._by_digest[digest] = self.origins[number] = Origin(
                number,
                "unknown_service" if service in (None, "") else as_text(service)[1],
                scope_message.name,
                scope_message.version,
                dict(filter(None, map(self._decode, [*others, *scope_message.attributes]))),
            )
            self._new_origins.append((number, digest, resource, scope))
        return self._by_digest[digest]

    def save(self, database: duckdb.DuckDBPyConnection) -> None:
        """Insert new names and origins in the caller's transaction. Call `mark_saved` after the commit."""
        for number in self._new_names:
            database.execute(f"INSERT INTO stored.{self._signal}_names VALUES (?, ?, ?)", [number, *self.names[number]])
        for number, digest, resource, scope in self._new_origins:
            origin = self.origins[number]
            database.execute(
                f"INSERT INTO stored.{self._signal}_origins"
                " VALUES (?, ?, ?, ?, ?, map(?::INTEGER[], ?::VARCHAR[]), ?, ?)",
                [
                    number,
                    digest,
                    origin.service,
                    origin.scope_name,
                    origin.scope_version,
                    list(origin.attributes),
                    list(origin.attributes.values()),
                    resource,
                    scope,
                ],
            )

    def mark_saved(self) -> None:
        self._new_names.clear()
        self._new_origins.clear()

    def prune(self, database: duckdb.DuckDBPyConnection, names: Collection[int], origins: Collection[int]) -> None:
        """Delete all origins except these, and all names except these and those of the origins.

        Call `save` first, in the same transaction or an earlier one.
        """
        used = {*names, *(name for number in origins for name in self.origins[number].attributes)}
        for table, numbers in (("names", used), ("origins", set(origins))):
            database.execute(
                f"DELETE FROM stored.{self._signal}_{table} WHERE number NOT IN (SELECT unnest(?::INTEGER[]))",
                [list(numbers)],
            )
        self.names = {number: name for number, name in self.names.items() if number in used}
        self._numbers = {name: number for number, name in self.names.items()}
        self.origins = {number: self.origins[number] for number in origins}
        self._by_digest = {
            digest: origin for digest, origin in self._by_digest.items() if origin.number in self.origins
        }
        self.pairs.clear()

    def _decode(self, attribute: KeyValue) -> tuple[int, str] | None:
        """Return the number of an attribute's name, new if necessary, and its value as text."""
        value = any_value(attribute.value)
        if value is None:
            return None
        type_, text = as_text(value)
        name = column_name(attribute.key, self._fields), type_
        if name not in self._numbers:
            number = self._numbers[name] = next(self._next_name)
            self.names[number] = name
            self._new_names.append(number)
        return self._numbers[name], text


def _parse(data: bytes, kind: type[M]) -> tuple[bytes, M]:
    """Return a message and its encoding: repaired if it is invalid, empty if that fails."""
    try:
        return data, kind.FromString(data)
    except DecodeError:
        try:
            data = repair(data, kind.DESCRIPTOR)
            return data, kind.FromString(data)
        except (DecodeError, ValueError):
            return b"", kind()
