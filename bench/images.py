"""Size and rebuild times of both images, beside the plain image of one stage and `pip install`.

The three are built from the same rendered project in turn: with nothing built before, again, after an edit of the
code, and after a change of the locked dependencies.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from first_trace import BASE, base_images, docker, engine, from_base, new_to_the_engine, stand_ins, temporary
from report import COLOURS, plot, save, table
from subjects import project

from conftest import LEFTOVERS  # isort: skip  # in tests/, which subjects adds to the path

Figures = dict[str, Any]

PLAIN: Final = f"""
FROM {BASE}
WORKDIR /app
COPY . .
RUN pip install -r requirements.txt
CMD ["gunicorn", "--bind", "0.0.0.0:4567", "backend.app:create_app()"]
"""
NAMES: Final = {"plain": "the plain image", "production": "production", "development": "development"}
FILES: Final = {"plain": "Dockerfile.plain", "production": "Dockerfile", "development": "Dockerfile.dev"}

# Everything that is not of the base image, by what it is; and the largest of the packages.
INSIDE: Final = """
import collections, json, os, sys, sysconfig
kinds, packages = collections.Counter(), collections.Counter()
site = sysconfig.get_path("purelib")
tops = [os.environ.get("INSTALLED_IN") or (sys.prefix if sys.prefix != sys.base_prefix else site), os.getcwd()]
downloads = {"/root/.cache": "what pip downloaded", "/var/cache/apt/archives": "what apt downloaded"}
tops += downloads
for top in tops:
    for folder, _, files in os.walk(top):
        for name in files:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                continue
            size, parts = os.path.getsize(path), path.split("/")
            if top in downloads:
                kind = downloads[top]
            elif top == os.getcwd():
                kind = "the project"
            elif {"pip", "setuptools"} & {*parts}:
                kind = "pip and setuptools"
            elif {"test", "tests"} & {*parts[:-1]}:
                kind = "packages' own tests"
            elif name.endswith(".pyc"):
                kind = "bytecode"
            elif name.endswith((".c", ".h", ".cpp", ".hpp", ".pyx", ".pxd")):
                kind = "C sources"
            elif ".so" in name:
                kind = "extension modules"
            else:
                kind = "Python and data"
            kinds[kind] += size
            if path.startswith(site):
                packages[path[len(site) + 1:].split("/")[0].split(".")[0].split("-")[0]] += size
tools = [name for name in ("pip", "ensurepip", "setuptools") if __import__("importlib.util").util.find_spec(name)]
print(json.dumps({"kinds": kinds, "packages": packages.most_common(8), "tools": tools, "user": os.getuid()}))
"""


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# Building.


def folders(mark: str) -> dict[str, Path]:
    """For each image a copy of the rendered project; the plain one copies all of it into the image."""
    found = {}
    for name, file in FILES.items():
        folder = temporary(name)
        found[name] = folder / "project"
        shutil.copytree(project(), found[name], ignore=LEFTOVERS)
        if name == "plain":
            for path in (found[name] / ".dockerignore", *found[name].glob("Dockerfile*")):
                path.unlink()
            # Debian's pip, which stand-ins have, brings packages that it cannot replace.
            flag = "install --ignore-installed " if stand_ins() else "install "
            (found[name] / file).write_text(PLAIN.replace("install ", flag))
        new_to_the_engine(found[name], f"{mark}-{name}")
    return found


def edit_code(folder: Path) -> None:
    with (folder / "backend" / "activities.py").open("a") as file:
        file.write(f"# edited: {uuid.uuid4()}\n")


def edit_dependencies(folder: Path) -> None:
    """A changed lock file that names the same packages, so that what is downloaded changes nothing."""
    for name in ("requirements.txt", "requirements-dev.txt"):
        with (folder / name).open("a") as file:
            file.write(f"# edited: {uuid.uuid4()}\n")


CHANGES: Final[dict[str, Callable[[Path], object]]] = {
    "nothing built": lambda folder: None,
    "no change": lambda folder: None,
    "code changed": edit_code,
    "dependencies changed": edit_dependencies,
}


def build(folder: Path, file: str, image: str) -> float:
    began = time.monotonic()
    docker("build", "--quiet", "--file", file, "--tag", image, ".", cwd=folder)
    return time.monotonic() - began


def contents(image: str, base: str) -> Figures:
    about = json.loads(docker("image", "inspect", image))[0]
    base_layers = len(json.loads(docker("image", "inspect", base))[0]["RootFS"]["Layers"])
    lines = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image).splitlines()
    layers = [(int(size), short(command)) for size, _, command in (line.partition(" ") for line in lines)]
    mine = [layer for layer in layers[: len(lines) - history_length(base)] if layer[0] > 10_000]
    inside = docker("run", "--rm", "--entrypoint", "python", image, "-c", INSIDE)
    return {
        "bytes": about["Size"],
        "base": base,
        "layers": len(about["RootFS"]["Layers"]) - base_layers,
        "largest_layers": sorted(mine, key=lambda layer: -layer[0])[:5],
        **json.loads(inside.splitlines()[-1]),
    }


def history_length(image: str) -> int:
    return len(docker("history", "--quiet", image).splitlines())


def short(command: str) -> str:
    """The instruction of a layer, without what BuildKit puts around it."""
    command = re.sub(r"^RUN (?:\|\d+ \S+ )?/bin/sh -c |\s*# buildkit$", "", re.sub(r"\s+", " ", command)).strip()
    return command[:60]


def measure(quick: bool, pieces: Sequence[str] = ()) -> Figures:
    if missing := engine():
        return {"not_measured": missing}
    bases = base_images()
    images = {name: file for name, file in FILES.items() if not (quick and name == "development")}
    seconds: dict[str, dict[str, list[float]]] = {case: {name: [] for name in images} for case in CHANGES}
    found: Figures = {"bases": bases, "stand_ins": stand_ins(), "seconds": seconds, "images": {}}
    rounds = 1 if quick else 2
    for number in range(rounds):
        mark = f"bench-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        tags = {name: f"{mark}-{name}" for name in images}
        where = folders(mark)
        turn = list(images) if number % 2 else list(reversed(images))
        try:
            for case in list(CHANGES)[: 3 if quick else None]:
                progress(f"Images, {case}: {number + 1} of {rounds}")
                for name in turn:
                    CHANGES[case](where[name])
                    before = docker("images", "--quiet", "--no-trunc", tags[name])
                    for _ in range(5 if case == "no change" else 1):
                        seconds[case][name].append(build(where[name], images[name], tags[name]))
                    if before and before != docker("images", "--quiet", "--no-trunc", tags[name]):
                        docker("image", "rm", before)  # what has lost its name
            if number == rounds - 1:
                found["images"] = {
                    name: contents(tags[name], from_base(where[name] / file)) for name, file in images.items()
                }
        finally:
            docker("image", "rm", "--force", *tags.values(), check=False)
    found["seconds"] = {case: each for case, each in seconds.items() if all(each.values())}
    return found


# The report.


def own(figures: Figures, name: str) -> int:
    """The bytes that an image adds to its base."""
    image = figures["images"][name]
    return int(image["bytes"] - figures["bases"][image["base"]])


def headline(figures: Figures) -> list[list[str]]:
    if "images" not in figures:
        return []
    ratio = own(figures, "production") / own(figures, "plain")
    edited = figures["seconds"]["code changed"]
    again = statistics.median(edited["production"]) / statistics.median(edited["plain"])
    return [
        ["Production image, over its base", f"{ratio:.2f}", f"{megabytes(own(figures, 'production'))}"],
        ["Production image, rebuilt after an edit", f"{again:.2f}", f"{statistics.median(edited['production']):.1f} s"],
    ]


def megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"


def spread(values: Sequence[float]) -> str:
    """The median, and in brackets the least and the most."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def report(figures: Figures, plots: Path) -> str:
    lines = ["## Images", ""]
    if "images" not in figures:
        return "\n".join([*lines, f"Not measured: {figures['not_measured']}."])
    kind = (
        "a stand-in for the published one: only what is added to it counts"
        if figures["stand_ins"]
        else "the published one"
    )
    lines += [
        "The plain image is of one stage: `FROM`, `COPY . .`, `pip install -r requirements.txt`, `gunicorn`; from the"
        f" same lock file. The base image is {kind}. The development image is another thing, with tools for a person;"
        " it stands beside the same baseline.",
        "",
        sizes(figures),
        in_words(figures),
        "",
        rebuilds(figures),
        "With nothing built pip's cache was empty too, and the base image there. The changed dependencies are the same"
        " packages again, in a lock file with another last line. The development image holds no code. "
        + bought(figures),
        "",
    ]
    draw(figures, plots / "images.svg")
    lines += ["![What each image adds to its base, and seconds to build it](plots/images.svg)", ""]
    lines += [layers(figures)]
    return "\n".join(lines)


def sizes(figures: Figures) -> str:
    rows = []
    for name, image in figures["images"].items():
        tools = ", ".join(image["tools"]) or "nothing"
        rows.append(
            [
                NAMES[name],
                megabytes(image["bytes"]),
                megabytes(own(figures, name)),
                f"{own(figures, name) / own(figures, 'plain'):.2f}",
                str(image["layers"]),
                f"{tools}, {'root' if image['user'] == 0 else 'nobody in particular'}",
            ]
        )
    header = ["Image", "Size", "Over its base", "Ratio", "Layers over its base", "Installs with, runs as"]
    return table(header, rows)


def in_words(figures: Figures) -> str:
    """What the images hold besides their base: where it could be less, it is seen here."""
    sentences = []
    for name, image in figures["images"].items():
        total = sum(image["kinds"].values())
        kinds = [(kind, size) for kind, size in largest_first(image["kinds"]) if size > total / 200]
        held = ", ".join(f"{kind} {megabytes(size)}" for kind, size in kinds)
        packages = ", ".join(f"{package} {megabytes(size)}" for package, size in image["packages"][:4])
        sentences.append(f"- {NAMES[name]}: {held}. The largest packages: {packages}.")
    return "\n".join(["What they hold in the project's folder, the packages' and those of downloads:", "", *sentences])


def largest_first(kinds: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(kinds.items(), key=lambda one: -one[1])


def bought(figures: Figures) -> str:
    """What production's longer builds are for, where there are any; and where they are shorter."""
    median = {
        case: {name: statistics.median(each) for name, each in seconds.items()}
        for case, seconds in figures["seconds"].items()
    }
    slower = {case: each["production"] - each["plain"] for case, each in median.items()}
    longer = [f"{more:.1f} s ({case})" for case, more in slower.items() if more > 0.05 * median[case]["plain"]]
    shorter = [f"{-more:.1f} s ({case})" for case, more in slower.items() if more < -0.05 * median[case]["plain"]]
    text = ""
    if longer:
        text += (
            f"Production takes {', '.join(longer)} longer than the plain image: it installs in a stage of its own and"
            " copies the result, so that the image has no means to install anything; and it compiles what a container"
            " on a read-only file system could not keep."
        )
    if shorter:
        text += f" It takes {', '.join(shorter)} less: the packages come before the code."
    return text.strip()


def rebuilds(figures: Figures) -> str:
    rows = []
    for case, seconds in figures["seconds"].items():
        plain = statistics.median(seconds["plain"])
        row = [case, spread(seconds["plain"])]
        for name in figures["images"]:
            if name != "plain":
                row += [spread(seconds[name]), f"{statistics.median(seconds[name]) / plain:.2f}"]
        rows.append(row)
    header = ["Seconds to build", NAMES["plain"]]
    for name in figures["images"]:
        header += [] if name == "plain" else [NAMES[name], "ratio"]
    return table(header, rows)


def layers(figures: Figures) -> str:
    rows = [
        [NAMES[name], megabytes(size), f"`{command}`"]
        for name, image in figures["images"].items()
        for size, command in image["largest_layers"][:3]
    ]
    return table(
        ["The largest layers", "Made by", ""], [[row[0], row[2].replace("|", "\\|"), row[1]] for row in rows], 2
    )


def draw(figures: Figures, path: Path) -> None:
    figure, (left, right) = plot(width=9, columns=2)
    colours = {"plain": COLOURS["plain"], "production": COLOURS["ours"], "development": "#56B4E9"}
    names = list(figures["images"])
    for place, name in enumerate(names):
        left.bar(place, own(figures, name) / 1e6, color=colours[name])
        left.text(place, own(figures, name) / 1e6, megabytes(own(figures, name)), ha="center", va="bottom", fontsize=8)
    left.set_xticks(range(len(names)), [NAMES[name] for name in names])
    left.set_title("Megabytes over the base image")
    cases, width = list(figures["seconds"]), 0.8 / len(names)
    for place, name in enumerate(names):
        heights = [statistics.median(figures["seconds"][case][name]) for case in cases]
        at = [number + place * width for number in range(len(cases))]
        right.bar(at, heights, width=width, color=colours[name], label=NAMES[name])
        for x, height in zip(at, heights, strict=True):
            right.text(x, height, f"{height:.1f}", ha="center", va="bottom", fontsize=7)
    middles = [number + width * (len(names) - 1) / 2 for number in range(len(cases))]
    right.set_xticks(middles, [case.replace(" ", "\n") for case in cases])
    right.set_title("Seconds to build")
    right.legend(fontsize=8)
    save(figure, path)
