"""The questions that the Query page offers, the first of them on the start page: those of queries.json."""

import json
from pathlib import Path
from typing import Any, NamedTuple


class Question(NamedTuple):
    name: str
    description: str
    query: dict[str, Any]


QUESTIONS = [
    Question(one["name"], one["description"], one["query"])
    for one in json.loads((Path(__file__).parent.parent / "queries.json").read_text("utf-8"))
]
