"""The answers: any text in the texts, and names that work everywhere."""

import importlib.util
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT
from cookiecutter.exceptions import CookiecutterException, FailedHookException
from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config
from hypothesis import given, settings
from hypothesis import strategies as st

HOSTILE = {
    "quotes": """It's "quoted" ''' and \"\"\" and `ticked`""",
    "backslashes": r"C:\new\table \N{X} \u0041 \x \ \\",
    "ends with a backslash": "\\",
    "shell": "$(touch pwned) `touch pwned`; touch pwned && ${HOME} $$ %PATH% !!",
    "comment": "# no comment",
    "colon": "key: value, - item, [a, {b: c}]",
    "percent": "100% %s %(x)s %",
    "html": "</script><script>alert(1)</script> <!-- & &amp; -->",
    "emoji": "\U0001f680 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
    "scripts": "مرحبا 你好 Привет e\u0301 हिन्दी",
    "long": "x" * 200,
}
PLAIN_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="{}#"))


def answers(**given: str) -> dict[str, str]:
    """What cookiecutter makes of the answers before it writes anything."""
    context = generate_context(str(ROOT / "cookiecutter.json"), extra_context=given)
    return dict(prompt_for_config(context, no_input=True))


@pytest.fixture(scope="session")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hook", ROOT / "hooks" / "pre_gen_project.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_any_text_arrives_as_it_is_and_runs_nothing(
    text: str,
    render: Callable[..., Path],
    invalid_files: Callable[[Path], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = render(project_name=text, project="app", description=text, author=text)
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    assert (project["name"], project["description"]) == ("app", text)
    assert project["authors"] == [{"name": text}]
    assert json.loads((folder / ".devcontainer" / "devcontainer.json").read_text("utf-8"))["name"] == text
    assert invalid_files(folder) == []
    assert list(tmp_path.rglob("pwned")) == []


def test_braces_are_rendered_as_in_every_template(render: Callable[..., Path]) -> None:
    folder = render(description="{{ 6 * 7 }} routes of {{ cookiecutter.project_name }}")
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["description"] == "42 routes of Cruddur"


@settings(max_examples=100, deadline=None)
@given(name=PLAIN_TEXT)
def test_the_suggested_folder_is_valid_or_a_device_name(hook: ModuleType, name: str) -> None:
    assert [problem for problem in hook.problems(answers(project_name=name)) if "Windows" not in problem] == []


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("My First App", "my-first-app"),
        ("Привет, мир!", "privet-mir"),
        ("3D Chess", "3d-chess"),
        ("\U0001f680", "traced-app"),
        ("x" * 200, "x" * 63),
    ],
)
def test_the_folder_is_derived_from_the_name(name: str, offered: str) -> None:
    assert answers(project_name=name)["project"] == offered


@pytest.mark.parametrize("project", ["cruddur", "my-app", "my_app", "a--b", "3d", "con-app"])
@pytest.mark.parametrize("service_name", ["backend-flask", "Api.v2", "a_b", "x" * 63])
def test_valid_names_are_accepted(hook: ModuleType, project: str, service_name: str) -> None:
    given = answers(project=project, service_name=service_name)
    assert hook.problems(given) == []
    assert given["project"] == project


REFUSED = {
    "project": {
        **dict.fromkeys(["con", "nul", "com1", "lpt9"], "is the name of a device on Windows."),
        **dict.fromkeys(["a/b", "/a"], "cannot contain '/': use a to z, 0 to 9, - and _, and begin with"),
        **dict.fromkeys(["aux.txt", "app.", ".", "..", "../a"], "cannot contain '.': "),
        **dict.fromkeys(["app ", "my app"], "cannot contain ' ': "),
        **{"a\\b": r"contain '\\': ", "a:b": "contain ':': ", "a?": "contain '?': ", "a\n": r"contain '\n': "},
        **{"Cruddur": "contain 'C': ", "LPT9": "contain 'L': ", "пример": "contain '\\u043f': ", "a'": "contain"},
        **{"$(touch pwned)": "contain '$': "},
        **dict.fromkeys(["", "-a", "_a"], "must begin with a letter or digit."),
        **dict.fromkeys(["a-", "a_"], "Python distribution name"),
        "x" * 64: "64 characters",
        "x" * 300: "300 characters",
    },
    "service_name": {
        **dict.fromkeys(["profiles", "viewer", "Viewer", "jaeger", "collector"], "another service"),
        **dict.fromkeys(["", "-a", ".a", "my service", "a/b", "a\n", "é"], "letters"),
        "x" * 64: "64 characters",
    },
    "project_name": {"a\x00b": "U+0000", "x" * 501: "501 characters"},
    "description": {"\x1b[31m": "U+001B", "\x7f": "U+007F", "two\nlines": "U+000A", "x" * 501: "501 characters"},
    "author": {"\ud800": "U+D800", "\uffff": "U+FFFF", "x" * 501: "501 characters"},
    "python_version": {"3.12": "is not one of: 3.14, 3.13"},
    "honeycomb_region": {"eu": "is not one of: US, EU"},
    "local_viewer": {"built-in": "is not one of: otlp-viewer, jaeger"},
    "example": {"": "is not one of: activities, none"},
    "deployment": {"Kubernetes": "is not one of: one host, Kubernetes too"},
}


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [(name, value, wrong) for name in REFUSED for value, wrong in REFUSED[name].items()],
)
def test_an_invalid_answer_is_rejected_by_name(hook: ModuleType, name: str, value: str, wrong: str) -> None:
    (problem,) = hook.problems({**answers(), name: value})
    assert problem.startswith(f"  {name} ")
    assert wrong in problem
    assert name in hook.CHOICES or ". For example: " in problem


@pytest.mark.parametrize("project", ["con", "../a", "/a", ".", "x" * 200, "a\\b"])
def test_a_rejected_project_leaves_no_files(
    project: str, render: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new projects").mkdir()
    if project == "/a":
        project = str(tmp_path / "elsewhere")
    with pytest.raises(CookiecutterException):
        render(project=project)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("project", ["x/..", "x/../..", "a/../../x/..", "..", ".", "~/code", "x\\..", "c:x"])
def test_a_rejected_project_removes_no_existing_files(
    project: str, render: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """cookiecutter makes the folder before it asks the hook, and removes it afterwards."""
    (tmp_path / "new projects" / "another").mkdir(parents=True)
    (tmp_path / "new projects" / "another" / "file").touch()
    with pytest.raises(CookiecutterException):
        render(project=project)
    assert [path.name for path in tmp_path.iterdir()] == ["new projects"]
    assert [path.name for path in tmp_path.rglob("new projects/**/*")] == ["another", "file"]


def test_every_problem_is_named_at_once(render: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FailedHookException):
        render(project="My App", service_name="profiles", author="\x07", description="x" * 501)
    lines = capfd.readouterr().err.strip().splitlines()
    assert lines[0] == "Nothing was written, because:"
    assert [line.split()[0] for line in lines[1:5]] == ["project", "service_name", "description", "author"]
    assert lines[5:] == [
        "",
        "Try again with other answers. If a traceback follows, it is cookiecutter's and adds nothing.",
    ]


def test_the_example_in_an_error_is_a_valid_answer(hook: ModuleType) -> None:
    assert hook.problems(answers(**{name: example for name, example, _ in hook.CHECKS})) == []


def test_the_hook_knows_the_choices_of_the_prompts(hook: ModuleType) -> None:
    prompts = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))
    choices = {name: tuple(given) for name, given in prompts.items() if isinstance(given, list)}
    assert choices == hook.CHOICES
