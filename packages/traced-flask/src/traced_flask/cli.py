"""The `traced-flask` command: checks that traces reach Honeycomb, and creates links, boards, markers and triggers.

Settings come from the environment, then `.env`, then `[tool.traced-flask]` in pyproject.toml, both in the current
directory. Errors do not repeat user input, which may contain a key.

Exit status: 0 success, 1 something must be changed, 2 invalid usage, 3 a retry later may help.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import quote

from traced_flask import regions, settings
from traced_flask.check import check
from traced_flask.honeycomb_api import KEYS_PAGE, PERMISSIONS, Account, HoneycombAPI, Problem
from traced_flask.key import NAME, Place, places, problem_with_key, read_variables

CONFIGURATION_KEY: Final = "HONEYCOMB_CONFIGURATION_KEY"
TIME_RANGE: Final = 7200  # seconds; the default of a query
BOARD_WIDTH: Final = 12  # columns


class Project:
    """The settings of the current directory. Loads `.env` and pyproject.toml into the environment."""

    def __init__(self) -> None:
        dotenv = Path(".env")
        try:
            variables = read_variables(dotenv)
        except ValueError as error:
            raise Problem(f".env {error}.") from None
        table = pyproject_table()
        is_pipe = dotenv.is_fifo()  # a pipe can only be read once
        if not is_pipe:
            variables.pop(NAME, None)
        variables.setdefault("OTEL_SERVICE_NAME", table.get("service-name", ""))
        variables.setdefault("HONEYCOMB_API_ENDPOINT", table.get("honeycomb-api-endpoint", ""))
        self._home = regions.region_of(table.get("honeycomb-api-endpoint", "").rstrip("/"))
        for name, value in variables.items():
            if value and not os.environ.get(name):
                os.environ[name] = value
        self.problems = list(dict.fromkeys([*settings.problems, *settings.prepare()]))  # the application logs them too
        self.keys: list[Place] = places(os.environ, None if is_pipe else dotenv)

    @property
    def key(self) -> str | None:
        """The key that the application uses."""
        return next((place.key for place in self.keys if place.key), None)

    @property
    def address(self) -> str:
        """The API's address."""
        address = regions.api_endpoint()
        if not re.fullmatch(r"https?://[^\s/?#@]+", address):
            raise Problem("HONEYCOMB_API_ENDPOINT is not the address of an API, such as https://api.honeycomb.io.")
        return address

    @property
    def service(self) -> str:
        service = settings.own("OTEL_SERVICE_NAME")
        if not service:
            raise Problem("The service has no name. Set OTEL_SERVICE_NAME, or service-name in [tool.traced-flask].")
        return service

    def page(self, account: Account, *parts: str) -> str:
        """Return a Honeycomb URL in the region of the API, or of pyproject.toml if the API is Refinery's."""
        known = [region for region in regions.REGIONS if region.api == self.address] or [self._home]
        return regions.page(known[0].pages, account.team, account.environment, *parts)

    def api_for(self, *permissions: str) -> tuple[HoneycombAPI, Account]:
        """Return the API with a key that has `permissions`. Raises Problem, which names what is missing."""
        names = " and ".join(dict.fromkeys(PERMISSIONS[name] for name in permissions))
        needed = f"Create a configuration key with {names}, and set {CONFIGURATION_KEY}: {KEYS_PAGE}"
        key = settings.own(CONFIGURATION_KEY) or self.key
        if not key:
            raise Problem(f"No key was found. {needed}")
        if problem := problem_with_key(key):
            raise Problem(f"The key in {CONFIGURATION_KEY} {problem}.")
        api = HoneycombAPI(self.address, key)
        account = api.account()
        if account.key_type == "ingest":
            raise Problem(f"An ingest key can only send telemetry. {needed}")
        if missing := list(dict.fromkeys(PERMISSIONS[name] for name in permissions if name not in account.access)):
            raise Problem(f"The key lacks the permission {' and '.join(missing)}. {needed}")
        return api, account


def pyproject_table() -> dict[str, str]:
    """Return `[tool.traced-flask]` of the current directory's pyproject.toml; empty without it."""
    try:
        table = tomllib.loads(Path("pyproject.toml").read_text("utf-8")).get("tool", {}).get("traced-flask", {})
        return {name: str(value) for name, value in table.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise Problem(f"pyproject.toml cannot be read ({type(error).__name__}).") from None


def load_queries(file: str) -> list[dict[str, Any]]:
    """Load queries from a file, each with name, description and query: https://docs.honeycomb.io/api/queries"""
    try:
        content = json.loads(Path(file).read_text("utf-8"))
        return [
            {**item, "description": item.get("description", ""), "query": {"time_range": TIME_RANGE, **item["query"]}}
            for item in content
            if item["name"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Problem(f"The file of queries cannot be read ({type(error).__name__}). Set it with --queries.") from None


def queries(arguments: argparse.Namespace, project: Project) -> None:
    if arguments.team:
        account = Account(arguments.team, arguments.environment, "", frozenset())
    elif project.key:
        account = HoneycombAPI(project.address, project.key).account()
    else:
        raise Problem("The team is not known. Add --team TEAM (and --environment, if it is not test), or set a key.")
    page = project.page(account, "datasets", arguments.dataset or regions.dataset_slug(project.service))
    links = [
        {**item, "url": f"{page}?query={quote(json.dumps(item['query'], separators=(',', ':')), safe='')}"}
        for item in load_queries(arguments.queries)
    ]
    print(json.dumps(links, indent=2) if arguments.json else "\n".join(f"{e['name']}\n  {e['url']}" for e in links))


def require_columns(api: HoneycombAPI, dataset: str, queries: list[dict[str, Any]]) -> None:
    """Raise Problem unless the dataset has every column that the queries use."""
    response = api.request("GET", f"/1/columns/{dataset}")
    if response.status == 404:
        raise Problem(
            f"The dataset {dataset} does not exist yet. Its first span creates it: send one, or use --dataset."
        )
    api.check(response)
    columns = set()
    for query in queries:
        terms = [*query.get("calculations", []), *query.get("filters", [])]
        columns |= {*query.get("breakdowns", []), *(term["column"] for term in terms if "column" in term)}
    if missing := sorted(columns - {column.get("key_name") for column in response.body or []}):
        raise Problem(
            f"The dataset {dataset} has no column {', '.join(missing)} yet. The first span with such an attribute"
            " creates it: send one, or change the queries."
        )


def board(arguments: argparse.Namespace, project: Project) -> None:
    """Create the board or update its queries. Keeps other panels and all positions."""
    api, account = project.api_for("boards", "queries")
    dataset = arguments.dataset or regions.dataset_slug(project.service)
    name = arguments.name or f"{project.service}: requests"
    items = load_queries(arguments.queries)
    require_columns(api, dataset, [query["query"] for query in items])
    existing = next((board for board in api.get("/1/boards") if board.get("name") == name), None)
    notes = {note["id"]: note for note in api.get(f"/1/query_annotations/{dataset}")}
    panels = (existing or {}).get("panels") or []
    panels_by_name: dict[str, Any] = {}
    for panel in panels:
        query_panel = panel.get("query_panel") or {}
        query_panel.pop("dataset", None)  # read-only
        if note := notes.get(query_panel.get("query_annotation_id")):
            panels_by_name.setdefault(note["name"], panel)
    changed = False
    for item in items:
        panel = panels_by_name.get(item["name"])
        if panel and _is_current(api, panel["query_panel"], notes, item, dataset):
            continue
        changed = True
        query_id = api.call("POST", f"/1/queries/{dataset}", item["query"])["id"]
        note = {"name": item["name"], "description": item["description"], "query_id": query_id}
        note_id = api.call("POST", f"/1/query_annotations/{dataset}", note)["id"]
        ids = {"query_id": query_id, "query_annotation_id": note_id}
        if panel:
            panel["query_panel"] |= ids
        else:
            panels.append({"type": "query", "position": _below(panels), "query_panel": {**ids, "query_style": "combo"}})
    body = {
        "name": name,
        "description": f"Created by traced-flask board from {Path(arguments.queries).name}.",
        "type": "flexible",
        "panels": panels,
        "layout_generation": "manual",
        **({"tags": existing["tags"]} if existing and existing.get("tags") else {}),
    }
    if existing is None:
        existing = api.call("POST", "/1/boards", body)
        action = "Created"
    elif changed:
        api.call("PUT", f"/1/boards/{existing['id']}", body)
        action = "Updated"
    else:
        action = "Already up to date"
    url = (existing.get("links") or {}).get("board_url") or project.page(account, "board", existing["id"])
    print(f"{action}: {api.readable(url)}")


def _is_current(
    api: HoneycombAPI, panel: dict[str, Any], notes: dict[str, Any], item: dict[str, Any], dataset: str
) -> bool:
    """Return whether a panel shows the query. Honeycomb adds its own fields to a query."""
    if notes[panel["query_annotation_id"]].get("description") != item["description"]:
        return False
    query = api.request("GET", f"/1/queries/{dataset}/{panel['query_id']}").body
    return isinstance(query, dict) and all(query.get(name) == value for name, value in item["query"].items())


def _below(panels: list[dict[str, Any]]) -> dict[str, int]:
    """Return a position below all panels."""
    positions = [panel.get("position") or {} for panel in panels]
    bottom = max((place.get("y_coordinate", 0) + place.get("height", 0) for place in positions), default=0)
    return {"x_coordinate": 0, "y_coordinate": bottom, "width": BOARD_WIDTH, "height": 6}


def marker(arguments: argparse.Namespace, project: Project) -> None:
    api, account = project.api_for("markers")
    dataset = arguments.dataset or ("__all__" if account.environment else regions.dataset_slug(project.service))
    body = {"message": arguments.message, "type": arguments.type, **({"url": arguments.url} if arguments.url else {})}
    api.call("POST", f"/1/markers/{dataset}", body)
    where = f"all datasets of environment {account.environment}" if dataset == "__all__" else f"dataset {dataset}"
    print(f"Added a marker to {where}, team {account.team}.")


def trigger(arguments: argparse.Namespace, project: Project) -> None:
    api, account = project.api_for("triggers", "queries")
    dataset = arguments.dataset or regions.dataset_slug(project.service)
    route = {"column": "http.route", "op": "=", "value": arguments.route}
    query = {
        "calculations": [{"op": "P90", "column": "duration_ms"}],
        "breakdowns": ["http.route"],
        "filters": [{"column": "trace.parent_id", "op": "does-not-exist"}, *([route] if arguments.route else [])],
        "time_range": arguments.minutes * 60,
    }
    body = {
        "name": f"Slow: {arguments.route or 'any route'}"[:120],
        "description": f"P90 of duration_ms over {arguments.minutes} minutes. Created by traced-flask trigger.",
        "query": query,
        "threshold": {"op": ">", "value": arguments.over},
        "frequency": arguments.minutes * 60,
        "recipients": [{"id": recipient} for recipient in arguments.recipient],
    }
    require_columns(api, dataset, [query])
    same = (item["id"] for item in api.get(f"/1/triggers/{dataset}") if item.get("name") == body["name"])
    if existing := next(same, None):
        api.call("PUT", f"/1/triggers/{dataset}/{existing}", body)
    else:
        existing = api.call("POST", f"/1/triggers/{dataset}", body)["id"]
    page = project.page(account, "datasets", dataset, "triggers", api.readable(existing))
    print(f"{body['name']}: fires when P90 is over {arguments.over:g} ms. {page}")
    if not arguments.recipient:
        print("It notifies nobody yet. Add a recipient on that page, or pass its ID with --recipient.")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{usage_problem(message)}\n\n{self.format_help()}")


def usage_problem(message: str) -> str:
    """Return argparse's message without the user's input. Only the names of arguments are repeated."""
    if missing := re.fullmatch(r"the following arguments are required: ([A-Z]+|--[a-z]+)", message):
        return "No command given." if missing[1] == "COMMAND" else f"{missing[1]} is required."
    if invalid := re.match(r"argument ([A-Z]+|--[a-z]+): ", message):
        return "Unknown command." if invalid[1] == "COMMAND" else f"The value of {invalid[1]} is missing or invalid."
    return "Unknown argument." if message.startswith(("unrecognized", "ambiguous")) else "Invalid usage."


def slug(text: str) -> str:
    """Parse a name as it appears in Honeycomb's URLs."""
    if not re.fullmatch(r"[\w.~-]+", text):
        raise ValueError
    return text


def milliseconds(text: str) -> float:
    if not 0 < float(text) < float("inf"):
        raise ValueError
    return float(text)


def minutes(text: str) -> int:
    """Parse a number of minutes that the query of a trigger may cover."""
    if not 1 <= int(text) <= 1440:
        raise ValueError
    return int(text)


def command_line() -> Parser:
    parser = Parser(prog="traced-flask", description="Check that traces reach Honeycomb, and set up its pages.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    file = Parser(add_help=False)
    file.add_argument("--queries", metavar="FILE", default="queries.json", help="default: queries.json")

    def add(run: Any, description: str, *parents: Parser) -> Parser:
        command: Parser = commands.add_parser(
            run.__name__, help=description, description=f"{description[0].upper()}{description[1:]}.", parents=parents
        )
        command.set_defaults(run=run)
        if run is not check:
            default = "all datasets" if run is marker else "the dataset of the service"
            command.add_argument("--dataset", type=slug, help=f"default: {default}")
        return command

    command = add(check, "send a test span and explain what to do if it does not arrive")
    command.add_argument("--json", action="store_true", help="print JSON")
    command = add(queries, "print links that open the queries of a file in Honeycomb", file)
    command.add_argument("--team", type=slug, help="as in Honeycomb's URLs; default: the key's team")
    command.add_argument("--environment", type=slug, default="test", help="with --team; default: test")
    command.add_argument("--json", action="store_true", help="print JSON")
    command = add(board, "create or update a board with the queries of a file", file)
    command.add_argument("--name", help='default: "SERVICE: requests"')
    command = add(marker, "mark this moment, such as a deploy, in all graphs")
    command.add_argument("message", metavar="MESSAGE")
    command.add_argument("--type", default="deploy", help="default: deploy")
    command.add_argument("--url", help="URL to open when the marker is clicked")
    command = add(trigger, "alert when the P90 of a route's duration is too high")
    command.add_argument("--over", type=milliseconds, required=True, metavar="MS", help="threshold in milliseconds")
    command.add_argument("--route", help="an http.route; default: every route")
    command.add_argument("--minutes", type=minutes, default=15, help="how often, and over what period; default: 15")
    command.add_argument("--recipient", action="append", default=[], metavar="ID", help="a recipient; may be repeated")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line (default: sys.argv) and return the exit status."""
    parsed = command_line().parse_args(arguments)
    try:
        return int(parsed.run(parsed, Project()) or 0)
    except Problem as problem:
        print(f"traced-flask: {problem}", file=sys.stderr)
        return problem.status
    except KeyboardInterrupt:
        return 130
