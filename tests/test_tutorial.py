"""The tutorial, done as a reader does it: page after page, in one folder, from a clone of the template."""

from __future__ import annotations

import itertools
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from conftest import ROOT
from containers import engine  # noqa: F401
from reader import KEY, Reader
from receiver import eventually

sys.path.insert(0, str(ROOT / "packages" / "traced-flask" / "tests"))
from honeycomb_stand_in import Honeycomb, Key, honeycomb  # type: ignore[import-not-found]

PAGES = sorted((ROOT / "docs" / "tutorial").glob("*.md"))
CONTAINERS = "05-containers.md"


@pytest.fixture(scope="module")
def account() -> Iterator[Honeycomb]:
    with honeycomb() as account:
        account.keys[KEY] = Key("ingest", {"events", "createDatasets"})
        yield account


@pytest.fixture(scope="module")
def reader(
    template: Path, config_file: str, account: Honeycomb, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("a tutorial")
    clone = folder / "cookiecutter-traced-flask"
    shutil.copytree(template, clone)
    for name in ("Makefile", "demo.py", "requirements.txt"):
        shutil.copy(ROOT / name, clone)
    reader = Reader(folder, COOKIECUTTER_CONFIG=config_file, HONEYCOMB_API_ENDPOINT=account.url)
    reader.replaced = {"https://api.honeycomb.io": account.url}
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def done(reader: Reader) -> list[str]:
    return []


MARKED = [pytest.param(each, marks=[pytest.mark.docker] if each.name == CONTAINERS else []) for each in PAGES]


@pytest.mark.parametrize("page", MARKED, ids=[page.stem for page in PAGES])
def test_the_commands_of_a_tutorial_page_work(
    page: Path, reader: Reader, done: list[str], request: pytest.FixtureRequest
) -> None:
    missing = {each.name for each in PAGES if each < page} - {*done, CONTAINERS}
    assert not missing, "an earlier page failed"
    if page.name == CONTAINERS:
        request.getfixturevalue("engine")
        reader.docker, reader.folder = True, reader.where()
    reader.follow(page)
    done.append(page.name)


def test_the_spans_of_the_tutorial_reach_the_viewer_and_honeycomb(reader: Reader, account: Honeycomb) -> None:
    reader.type("make run", "0")
    response = requests.get(reader.here("http://127.0.0.1:4567/api/activities/home"), timeout=10)
    trace_id = response.headers["traceresponse"].split("-")[1]
    url = reader.here(f"http://127.0.0.1:4318/api/traces/{trace_id}")
    assert eventually(lambda: requests.get(url, headers={"Accept": "text/plain"}, timeout=10).text.count("\n") >= 5)
    assert eventually(lambda: len([each for each in account.events if each.get("trace.trace_id") == trace_id]) >= 5)


def test_each_page_links_to_the_next() -> None:
    assert len(PAGES) == 8
    for page, following in itertools.pairwise(PAGES):
        title = following.read_text("utf-8").partition("\n")[0]
        last = page.read_text("utf-8").splitlines()[-1]
        assert last == f"Next: [{re.sub(r'# [0-9]. ', '', title)}]({following.name})"
