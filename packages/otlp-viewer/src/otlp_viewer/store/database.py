"""Opens DuckDB and limits its memory."""

import contextlib
from collections.abc import Iterator

import duckdb

LAYOUT = 3  # version of the tables; increase it when they change
MEGABYTE = 1024 * 1024
MIN_MEMORY = 64 * MEGABYTE


class Database:
    """DuckDB with spans and logs in the attached database `stored`, in memory or in a file.

    Raises ValueError, with the reason, if the file cannot be opened or is not an otlp-viewer database.
    """

    def __init__(self, path: str, memory: int) -> None:
        memory = max(memory, MIN_MEMORY)
        self.capacity = memory // 2
        """Bytes for spans and logs; the rest is for queries."""
        self._memory = memory
        self.connection = duckdb.connect(
            config={
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "memory_limit": f"{memory // MEGABYTE}MiB",
                "temp_directory": "",
                "threads": "2",
            },
        )
        in_memory = path == ":memory:"
        self._used_sql = (
            "SELECT coalesce(sum(memory_usage_bytes), 0) FROM duckdb_memory()"
            " WHERE tag IN ('BASE_TABLE', 'IN_MEMORY_TABLE', 'OVERFLOW_STRINGS')"
            if in_memory
            else "SELECT block_size * used_blocks FROM pragma_database_size() WHERE database_name = 'stored'"
        )
        options = "ROW_GROUP_SIZE 30720" + (", COMPRESS" if in_memory else "")
        try:
            self.connection.execute(f"ATTACH '{path.replace(chr(39), chr(39) * 2)}' AS stored ({options})")
            # Queries must not access files or the network.
            self.connection.execute("SET enable_external_access = false")
            self._check_layout(path)
        except duckdb.Error as error:
            self.connection.close()
            raise ValueError(reason(error)) from error
        except ValueError:
            self.connection.close()
            raise

    def _check_layout(self, path: str) -> None:
        tables = self.connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'stored'"
        ).fetchall()
        if not tables:
            self.connection.execute(
                "CREATE TABLE stored.layout (version INTEGER);"
                "CREATE TABLE stored.chunks (signal VARCHAR, number INTEGER)"
            )
            self.connection.execute("INSERT INTO stored.layout VALUES (?)", [LAYOUT])
        elif ("layout",) not in tables:
            raise ValueError(f"{path} is not an otlp-viewer database")
        elif self.connection.execute("SELECT version FROM stored.layout").fetchall() != [(LAYOUT,)]:
            raise ValueError(f"{path} was written by another version of otlp-viewer; move or delete it")

    def used(self) -> int:
        """Return the size of spans and logs in bytes."""
        return int(self.connection.execute(self._used_sql).fetchall()[0][0])

    def compress(self) -> bool:
        """Compress new rows, and return whether that succeeded. It fails while a query is running.

        A checkpoint that runs out of memory invalidates the database, so this raises the limit until it ends.
        """
        self.connection.execute(f"SET memory_limit = '{4 * self._memory // MEGABYTE}MiB'")
        try:
            self.connection.execute("CHECKPOINT stored")
            return True
        except duckdb.TransactionException:
            return False
        finally:
            with contextlib.suppress(duckdb.Error):  # running queries use more than the limit, but end soon
                self.connection.execute(f"SET memory_limit = '{self._memory // MEGABYTE}MiB'")

    def close(self) -> None:
        with contextlib.suppress(duckdb.Error):
            self.connection.close()


@contextlib.contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit, or roll back after an exception. Raises duckdb.FatalException if the rollback fails."""
    connection.begin()
    try:
        yield
        connection.commit()
    except BaseException as error:
        try:
            connection.rollback()
        except duckdb.Error:
            raise duckdb.FatalException(str(error)) from error
        raise


def reason(error: BaseException) -> str:
    """Return the first line of an error message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
