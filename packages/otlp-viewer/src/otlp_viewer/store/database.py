"""Opens DuckDB, and bounds what it takes."""

import contextlib
from collections.abc import Iterator

import duckdb

LAYOUT = 3  # of the tables; raise it when they change
MEGABYTE = 1024 * 1024
SMALLEST_MEMORY = 64 * MEGABYTE


class Database:
    """DuckDB, with spans and logs in the attached database `stored`: in memory, or in a file.

    Raises ValueError when the file is not one of ours or cannot be opened, with the reason.
    """

    def __init__(self, path: str, memory: int) -> None:
        memory = max(memory, SMALLEST_MEMORY)
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
        self._used = (
            "SELECT coalesce(sum(memory_usage_bytes), 0) FROM duckdb_memory()"
            " WHERE tag IN ('BASE_TABLE', 'IN_MEMORY_TABLE', 'OVERFLOW_STRINGS')"
            if in_memory
            else "SELECT block_size * used_blocks FROM pragma_database_size() WHERE database_name = 'stored'"
        )
        options = "ROW_GROUP_SIZE 30720" + (", COMPRESS" if in_memory else "")
        try:
            self.connection.execute(f"ATTACH '{path.replace(chr(39), chr(39) * 2)}' AS stored ({options})")
            # Nothing that is asked may read or write files, or the network.
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
            raise ValueError(f"{path} is a database of something else")
        elif self.connection.execute("SELECT version FROM stored.layout").fetchall() != [(LAYOUT,)]:
            raise ValueError(f"another version of the viewer wrote {path}; move it away")

    def used(self) -> int:
        """Return the bytes that spans and logs take."""
        return int(self.connection.execute(self._used).fetchall()[0][0])

    def compress(self) -> bool:
        """Have DuckDB compress what came; return whether it did. It cannot while someone reads.

        A checkpoint that runs out of memory makes the database useless, so more is allowed meanwhile.
        """
        self.connection.execute(f"SET memory_limit = '{4 * self._memory // MEGABYTE}MiB'")
        try:
            self.connection.execute("CHECKPOINT stored")
            return True
        except duckdb.TransactionException:
            return False
        finally:
            with contextlib.suppress(duckdb.Error):  # queries that run have more than they may; they end soon
                self.connection.execute(f"SET memory_limit = '{self._memory // MEGABYTE}MiB'")

    def close(self) -> None:
        with contextlib.suppress(duckdb.Error):
            self.connection.close()


@contextlib.contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Do everything or nothing. Raises duckdb.FatalException where neither was possible."""
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
    """Return the first line of what DuckDB says."""
    return (str(error).splitlines() or [type(error).__name__])[0]
