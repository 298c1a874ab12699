"""The preset questions of the Query page and the overview."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Question:
    name: str
    description: str
    query: dict[str, Any]
    """In Honeycomb's JSON format."""


QUESTIONS = [Question(**item) for item in json.loads(Path(__file__).with_name("questions.json").read_text("utf-8"))]
