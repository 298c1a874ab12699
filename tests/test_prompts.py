"""What people may answer: any text in the texts, and names that work everywhere."""

import importlib.util
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from conftest import ROOT
from cookiecutter.exceptions import FailedHookException
from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

HOSTILE = {
    "quotes": """It's "quoted" ''' and \"\"\" and `ticked`""",
    "backslashes": r"C:\new\table \N{X} \u0041 \x \ \\",
    "ends with a backslash": "\\",
    "shell": "$(touch pwned) `touch pwned`; touch pwned && ${HOME} $$ %PATH% !!",
    "jinja expression": "{{ 7*7 }} {{ cookiecutter.__class__ }} {{ }} {{",
    "jinja statement": "{% if %} {% endraw %} {%",
    "jinja comment": "{# not closed",
    "line statement": "#% if cookiecutter",
    "comment": "# no comment",
    "colon": "key: value, - item, [a, {b: c}]",
    "percent": "100% %s %(x)s %",
    "separator": "---",
    "html": "</script><script>alert(1)</script> <!-- & &amp; -->",
    "markdown": "](http://example.com) **a** _b_ ![x](y) ~~~ ``` | # $x$",
    "emoji": "\U0001f680 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
    "scripts": "مرحبا 你好 Привет e\u0301 हिन्दी",
    "long": "x" * 200,
    "blanks": "  a\tb \n c  ",
}
PLAIN_TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff")
    | st.sampled_from("""{}%#"'\\`$<>&*_[]()!~|-: """),
    max_size=200,
)


def folded(text: str) -> str:
    return " ".join(text.split())


def answers(**prompts: str) -> dict[str, str]:
    """What cookiecutter makes of the prompts before it writes anything."""
    context = generate_context(str(ROOT / "cookiecutter.json"), extra_context=prompts)
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
    folder = render(project_name=text, description=text, author=text)
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["name"] == folder.name
    assert project["description"] == folded(text)
    assert project["authors"] == [{"name": folded(text)}]
    assert invalid_files(folder) == []
    assert list(tmp_path.rglob("pwned")) == []


@settings(max_examples=50, deadline=None)
@given(text=PLAIN_TEXT)
def test_quoted_forms_are_the_text_in_toml_yaml_and_json(text: str) -> None:
    prompts = answers(project_name=text, description=text, author=text)
    for prompt in ("project_name", "description", "author"):
        quoted = f'"{prompts[f"__{prompt}"]}"'
        assert prompts[prompt] == folded(text)
        assert tomllib.loads(f"x = {quoted}")["x"] == folded(text)
        assert yaml.safe_load(f"x: {quoted}")["x"] == folded(text)
        assert json.loads(quoted) == folded(text)


@settings(max_examples=50, deadline=None)
@given(text=PLAIN_TEXT)
def test_markdown_forms_are_nothing_but_the_text(text: str) -> None:
    prompts = answers(project_name=text, description=text)
    for prompt in ("__project_name_md", "__description_md"):
        tokens = MarkdownIt().parseInline(f"x{prompts[prompt]}x")[0].children or []
        assert {token.type for token in tokens} == {"text"}
        assert "".join(token.content for token in tokens) == f"x{folded(text)}x"


@settings(max_examples=50, deadline=None)
@given(name=PLAIN_TEXT | st.sampled_from(["", "CON", "Nul", "com1", "3D", "...", "ß" * 200]))
def test_the_folder_that_is_offered_is_always_a_good_one(hook: ModuleType, name: str) -> None:
    prompts = answers(project_name=name)
    assert hook.problems(prompts) == []
    assert prompts["project"] == prompts["__project"]


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("My First App", "my-first-app"),
        ("Привет, мир!", "privet-mir"),
        ("3D Chess", "3d-chess"),
        ("Con", "con-app"),
        ("\U0001f680", "traced-app"),
        ("x" * 200, "x" * 63),
    ],
)
def test_the_folder_is_made_of_the_name(name: str, offered: str) -> None:
    assert answers(project_name=name)["project"] == offered


@pytest.mark.parametrize("project", ["cruddur", "my-app", "my_app", "a--b", "3d", "con-app"])
@pytest.mark.parametrize("service_name", ["backend-flask", "Api.v2", "a_b", "x" * 63])
def test_good_names_are_taken(hook: ModuleType, project: str, service_name: str) -> None:
    prompts = answers(project=project, service_name=service_name)
    assert hook.problems(prompts) == []
    assert prompts["project"] == project


REFUSED = {
    "project": {
        **dict.fromkeys(["con", "nul", "com1", "LPT9", "aux.txt"], "device on Windows"),
        **dict.fromkeys(["app.", "app ", ".", ".."], "ends with a dot or a blank"),
        **dict.fromkeys(["a/b", "/a", "../a", "a\\b", "a:b", "a?"], "no folder can have"),
        **dict.fromkeys(["", "Cruddur", "my app", "-a", "_a", "пример"], "Compose project name"),
        **dict.fromkeys(["a\n", "$(touch pwned)", "{{ 7*7 }}", "a'"], "Compose project name"),
        **dict.fromkeys(["a-", "a_"], "Python distribution name"),
        "x" * 64: "64 characters",
        "x" * 300: "300 characters",
    },
    "service_name": {
        **dict.fromkeys(["profiles", "viewer", "Viewer", "jaeger"], "another service"),
        **dict.fromkeys(["", "-a", ".a", "my service", "a/b", "a\n", "é", "{{ 1 }}"], "letters"),
        "x" * 64: "64 characters",
    },
    "project_name": {"a\x00b": "U+0000", "x" * 501: "501 characters"},
    "description": {"\x1b[31m": "U+001B", "\x7f": "U+007F", "x" * 501: "501 characters"},
    "author": {"\ud800": "U+D800", "\uffff": "U+FFFF", "x" * 501: "501 characters"},
}


@pytest.mark.parametrize(
    ("prompt", "value", "wrong"),
    [(prompt, value, wrong) for prompt in REFUSED for value, wrong in REFUSED[prompt].items()],
)
def test_a_bad_answer_is_named_with_an_example(hook: ModuleType, prompt: str, value: str, wrong: str) -> None:
    prompts = answers(**{"project": "app", prompt: value})
    (problem,) = hook.problems({**prompts, "project": prompts["__project"]})
    assert problem.startswith(f"  {prompt} ")
    assert wrong in problem
    assert ". For example: " in problem


@pytest.mark.parametrize("project", ["con", "../a", "a/b", "/a", "", ".", "x" * 300, "{{ 7*7 }}", "a\\b", "a\x00b"])
def test_a_refused_project_leaves_nothing_on_disk(
    project: str,
    render: Callable[..., Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "new projects").mkdir()
    with pytest.raises(FailedHookException):
        render(project=project)
    assert [path.name for path in tmp_path.rglob("*")] == ["new projects"]
    assert f"project {project[:80]!r} " in capfd.readouterr().err


def test_every_problem_is_said_at_once(render: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FailedHookException):
        render(project="My App", service_name="profiles", author="\x07", description="x" * 501)
    said = capfd.readouterr().err.strip().splitlines()
    assert said[0] == "Nothing was made, because:"
    assert [line.split()[0] for line in said[1:]] == [*("project", "service_name", "description", "author")]


def test_an_example_that_is_given_is_a_good_answer(hook: ModuleType) -> None:
    prompts = {prompt: example for prompt, example, _ in hook.CHECKS}
    assert hook.problems(prompts) == []
