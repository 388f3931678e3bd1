"""What the documents say about the code is so: messages, flags, files, recipes."""

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

import gan
from benchmarks.settings import SETTINGS
from gan.cli import COMMANDS
from gan.config import FLAGS, total_iterations
from gan.memory import training_bytes
from gan.networks import NETWORKS
from tests.conftest import ROOT
from tests.docs.test_examples import DOCUMENTS, SBATCH, flags_of

TEXTS = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in (*DOCUMENTS, ROOT / "CHANGELOG.md")}
GROUPS = {name.partition(".")[0] for name in FLAGS if "." in name}
OTHER_FLAGS = {*SBATCH, "--batch", "--index-url", "--help"}
"""Of scancel, of pip, and of every command."""
RECIPES = {name: config for name, config in SETTINGS.items() if " " not in name}
IMAGES = {"sprites": 40_597, "about 200": 200, "any": 60_000, "none": 10_000}


@functools.cache
def templates() -> list[str]:
    """Every text in the sources that may be printed, with … where values are put in."""
    found = []
    for path in (ROOT / "gan").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    for path in (ROOT / "slurm").glob("*.sh"):
        found += [re.sub(r"\$\{?\w+\}?", "…", line) for line in path.read_text().splitlines()]
    return found


def quoted() -> Iterator[str]:
    """What is in `this type` in the first column of a table of docs/troubleshooting.md."""
    for line in TEXTS["docs/troubleshooting.md"].splitlines():
        if line.startswith("| "):
            yield from re.findall(r"`(.+?)`", line.split(" | ")[0])


def occurs(message: str) -> bool:
    """Whether the fixed parts of a message stand in one text of the sources, in this order."""
    parts = message.split("…")
    pattern = re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
    return any(all(part in text for part in parts) and pattern.search(text) for text in templates())


def test_quoted_messages_are_those_of_the_code() -> None:
    assert len({*quoted()}) > 40
    assert not [message for message in quoted() if not occurs(message)]
    assert not occurs("out of memory: … images at a time want … GiB")


@functools.cache
def known_flags() -> set[str]:
    """Those of train.py, `gan`, the launcher, the benchmarks and SLURM."""
    acts = [getattr(importlib.import_module(module), name) for module, name in COMMANDS.values()]
    of_gan = {name.replace("_", "-") for act in acts for name in inspect.signature(act).parameters}
    scripts = [*(ROOT / "benchmarks").glob("*.py"), ROOT / "tests/faults/kills.py"]
    of_launcher = launch_command_parser()._option_string_actions.keys()
    others = set[str]().union(of_launcher, OTHER_FLAGS, *map(flags_of, scripts))
    return {*(f"--{name}" for name in {*FLAGS, *of_gan}), *others}


@pytest.mark.parametrize("name", TEXTS)
def test_flags_exist(name: str) -> None:
    """In running text too; --group.… stands for all of a group."""
    prose = re.sub(r"^```.*?^```", "", TEXTS[name], flags=re.MULTILINE | re.DOTALL)
    words = {word for span in re.findall(r"`([^`]+)`", prose) for word in re.findall(r"--[\w.…-]*[\w…]", span)}
    unknown = {word for word in words if word.removeprefix("--").removesuffix(".…") not in GROUPS} - known_flags()
    assert not unknown


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", TEXTS[name]):
        path = ((ROOT / name).parent / target).resolve() if target else ROOT / name
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, anchor


def test_named_tests_exist() -> None:
    """[`test_…`](file)"""
    for name, text in TEXTS.items():
        for test, target in re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", text):
            assert f"def {test}(" in ((ROOT / name).parent / target).read_text("utf-8"), test


def rows(title: str) -> dict[str, list[str]]:
    """The table in a section of docs/recipes.md: recipe → the other cells."""
    (section,) = [part for part in TEXTS["docs/recipes.md"].split("\n## ") if part.startswith(title)]
    cells = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {first.strip("`"): rest for first, *rest in cells}


def test_every_recipe_is_described() -> None:
    listed = [rows("# Recipes"), rows("What each needs"), rows("What each gives")]
    names = [{name for row in table for name in row.replace("`", "").split(", ")} for table in listed]
    assert names == [RECIPES.keys()] * 3
    assert not [name for name in RECIPES if f"`{name}`" not in TEXTS["README.md"].partition("## Recipes")[2]]


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_recipe_needs(name: str) -> None:
    config, cells = RECIPES[name], rows("What each needs")[name]
    images, batch, length, memory, *parameters = cells
    sizes = [sum(p.numel() for p in module.parameters()) for module in NETWORKS[config.model.network](config)]
    iterations = total_iterations(config, IMAGES[re.split("[,:]", images)[0]])
    assert (batch, parameters) == (str(config.batch_size), [f"{size:,}" for size in sizes])
    assert f"{iterations:,} iterations" in length
    assert memory.split(" / ")[0] == f"{training_bytes(config, config.batch_size) / 2**30:.2f}"


def test_version_and_licence() -> None:
    assert gan.__version__ in TEXTS["CHANGELOG.md"]
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")
    assert 'license = "MIT"' in (ROOT / "pyproject.toml").read_text()
    assert Path(gan.__file__).parent == ROOT / "gan"
