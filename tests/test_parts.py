"""`make test` runs every part, says which one failed, and ends on Ctrl-C."""

from __future__ import annotations

import sys
from pathlib import Path

from conftest import ROOT
from processes import Running, alive, family
from receiver import eventually

PROGRAM = """
import sys
from pathlib import Path

sys.path.append(sys.argv[1])
import parts

parts.ROOT, parts.PACKAGES = Path.cwd(), ("one", "two")
parts.main()
"""


def run(folder: Path, **tests: str) -> Running:
    """Run `tests`, a body by the name of its part."""
    for name, body in {"one": "pass", "two": "pass", "template": "pass", **tests}.items():
        where = folder if name == "template" else folder / name
        where.mkdir(exist_ok=True)
        (where / "pytest.ini").write_text("[pytest]\npython_files = it.py\naddopts = -p no:cacheprovider\n")
        (where / "it.py").write_text(f"import time\n\ndef test_of_{name}():\n    {body}\n")
    (folder / "pytest.ini").write_text("[pytest]\npython_files = it.py\nnorecursedirs = one two\n")
    return Running([sys.executable, "-c", PROGRAM, str(ROOT / "tests")], folder, folder / "output")


def test_failed_parts_are_named_and_do_not_hide_others(tmp_path: Path) -> None:
    program = run(tmp_path, one="assert False", template="assert False")
    try:
        assert program.process.wait(60) == 1
    finally:
        program.kill()
    text = program.output()
    assert text.endswith("\nTests failed in: the template, one\n")
    assert text.index("test_of_template") < text.index("test_of_one") < text.index("1 passed")


def test_ctrl_c_ends_every_part_with_its_report(tmp_path: Path) -> None:
    waiting = "open('started', 'w').close(); time.sleep(600)"
    program = run(tmp_path, one=waiting, template=waiting)
    try:
        assert eventually(lambda: (tmp_path / "one/started").exists() and (tmp_path / "started").exists(), 60)
        everything = family(program.process.pid)
        assert len(everything) == 3
        program.interrupt(wait=60)
        assert not alive(everything)
    finally:
        program.kill()
    assert program.output().count("KeyboardInterrupt") >= 2
    assert program.output().endswith("\nTests failed in: the template, one\n")
    assert program.output().count("test session starts") == 2, "the next part does not start"
