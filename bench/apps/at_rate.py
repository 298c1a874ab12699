"""Asks at a steady rate, whether or not the answers come as fast, and prints as JSON how long they took.

    python at_rate.py URL RATE LEAD SECONDS

The first LEAD seconds do not count; when they are over, it prints an empty line.
A request's time begins when it is due, not when it is sent: waiting for a slow server counts.
"""

from __future__ import annotations

import http.client
import json
import statistics
import sys
import threading
import time
from urllib.parse import urlsplit

THREADS = 8


def main() -> None:
    url, rate, lead, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    parts = urlsplit(url)
    took: list[float] = []
    failed: list[object] = []
    began = time.monotonic() + 0.1

    def ask(first: int) -> None:
        connection = http.client.HTTPConnection(parts.netloc, timeout=20)
        for number in range(first, round(rate * (lead + seconds)), THREADS):
            due = began + number / rate
            time.sleep(max(0.0, due - time.monotonic()))
            for attempt in (1, 2):  # a connection that the server has ended for idleness is opened again
                try:
                    connection.request("GET", parts.path)
                    answer = connection.getresponse()
                    answer.read()
                    status: object = answer.status
                    break
                except (http.client.HTTPException, OSError) as error:
                    connection.close()
                    status = error if attempt == 2 else None
            if status != 200:
                failed.append(status)
            elif due >= began + lead:
                took.append((time.monotonic() - due) * 1e6)

    threads = [threading.Thread(target=ask, args=[number]) for number in range(THREADS)]
    for each in threads:
        each.start()
    time.sleep(max(0.0, began + lead - time.monotonic()))
    print(flush=True)
    for each in threads:
        each.join()
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    json.dump({"answered": len(took), "errors": len(failed), "p50": cuts[49], "p99": cuts[98]}, sys.stdout)


if __name__ == "__main__":
    main()
