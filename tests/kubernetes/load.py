"""Requests from inside the cluster, twenty a second, until standard input ends. Prints what came of them as JSON.

python load.py URL
"""

import json
import sys
import threading
import time
import urllib.error
import urllib.request

CLIENTS = 4
PAUSE = 0.2  # seconds between two requests of a client


def ask(url, stopping, traces, failures):
    while not stopping.is_set():
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                answer.read()
                traces[answer.headers["traceresponse"].split("-")[1]] = time.time()
        except (OSError, urllib.error.URLError, KeyError, AttributeError) as error:
            failures.append(repr(error))
        stopping.wait(PAUSE)


def main():
    stopping, traces, failures = threading.Event(), {}, []
    clients = [threading.Thread(target=ask, args=(sys.argv[1], stopping, traces, failures)) for _ in range(CLIENTS)]
    for each in clients:
        each.start()
    sys.stdin.read()
    stopping.set()
    for each in clients:
        each.join()
    print(json.dumps({"traces": traces, "failures": failures}))


if __name__ == "__main__":
    main()
