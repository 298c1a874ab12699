"""Assigns each service a color and a shape that are the same on every page."""

import zlib
from collections.abc import Iterable
from threading import Lock

SLOTS = 16


class Colors:
    """Slots from 0 to SLOTS - 1 by service: its preferred one, from a hash of its name, or the next free one."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._taken: set[int] = set()
        self._lock = Lock()

    def __getitem__(self, service: str) -> int:
        slot = self._slots.get(service)
        return self._assign(service) if slot is None else slot

    def of(self, services: Iterable[str]) -> dict[str, int]:
        return {service: self[service] for service in services}

    def _assign(self, service: str) -> int:
        with self._lock:
            if service in self._slots:
                return self._slots[service]
            preferred = zlib.crc32(service.encode("utf-8", "surrogatepass")) % SLOTS
            slot = next(
                (number % SLOTS for number in range(preferred, preferred + SLOTS) if number % SLOTS not in self._taken),
                preferred,
            )
            if len(self._slots) < 10_000:
                self._slots[service] = slot
                self._taken.add(slot)
            return slot
