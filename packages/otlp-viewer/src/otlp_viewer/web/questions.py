"""The questions that the Query page offers, the first of them on the start page."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Question:
    name: str
    description: str
    query: dict[str, Any]
    """In Honeycomb's JSON."""


QUESTIONS = [Question(**one) for one in json.loads(Path(__file__).with_name("questions.json").read_text("utf-8"))]
