"""Take away what was not asked for, and say what to do next."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

PROMPTS = r"""{{ cookiecutter | tojson }}"""  # data, as in pre_gen_project.py


def quoted(path: str, windows: bool = os.name == "nt") -> str:
    """Write a path as a shell wants it."""
    return subprocess.list2cmdline([path]) if windows else shlex.quote(path)


def seen_from(start: str, folder: Path) -> str:
    """Name the folder as a person in `start` would, or in full when it is not below that."""
    try:
        return str(folder.relative_to(Path(start).resolve()))
    except ValueError:
        return str(folder)


def main() -> None:
    """Run in the rendered project."""
    # What running something in the template's own folder has left there.
    for cache in (*Path().glob(".*_cache"), *Path().rglob("__pycache__")):
        shutil.rmtree(cache, ignore_errors=True)
    if json.loads(PROMPTS)["local_viewer"] == "jaeger":
        shutil.rmtree("viewer", ignore_errors=True)
        for test in Path("tests").glob("test_viewer*.py"):
            test.unlink()
    # Hooks start inside the project; PWD is still where the person is. Where that is a project already, `cruft update`
    # renders it into folders of its own, to compare.
    if Path(os.environ.get("PWD", os.sep), ".cruft.json").exists():
        return
    print(f"\ncd {quoted(seen_from(os.environ.get('PWD', os.sep), Path.cwd()))}")
    print("make run")
    print("curl http://127.0.0.1:4567/api/activities/home")


if __name__ == "__main__":
    main()
