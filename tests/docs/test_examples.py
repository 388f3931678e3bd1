"""Every example in the documentation is carried out here, or where that cannot be, read by the parsers it is meant for.

A section of a document is a test: its blocks run in order and in one folder, which holds a small finished run as RUN.
In commands, `--data` gets twenty small images and training three iterations of narrow networks; the rest is as written.
"""

import ast
import functools
import glob
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import metadata
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from gan.cli import train, understood
from gan.config import LENGTHS, parse
from gan.data.sources import SOURCES
from tests.conftest import QUIET, ROOT, gan
from tests.test_style import COMMANDS as STYLE

DOCUMENTS = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "slurm/README.md")), *ROOT.glob("docs/*.md")]
ONLY_READ = {
    r"pip install .*": "it changes the environment of this very test; what it asks for must be in pyproject.toml",
    r"pytest.*": "it is this suite; the files that it names must exist",
    r"ruff .*|mypy": "tests/test_style.py does it",
    r"pre-commit .*": "it is not installed with the tests; tests/test_style.py compares the hooks with its commands",
    r"python -m benchmarks\..*": "it takes minutes; the module must exist and know the flags",
    r"sbatch .*": "tests/slurm does it, where there is a Slurm; the flags after the script are read",
    r"(gan|python train.py) --tyro-write-completion .*": "it writes into the home folder; tests/test_cli.py does it",
    r"gan doctor.*": "tests/test_doctor.py does it; here the images are fewer than a batch",
    r"gan export .* --push .*": "tests/test_export.py does it, on a hub of its own",
    r"gan evaluate .* --inception-weights .*": "tests/metrics/test_fidelity.py does it, with other weights",
}
"""Commands that are not carried out, and why."""
SMALL = ("--iterations", "3", "--batch-size", "8", "--model.width", "4", "--samples", "4", *QUIET)
RUN_IN_TEXT, NEWEST = "runs/quickstart-sprites-…", "iteration-00000002"
SBATCH = {
    *("--partition", "--nodes", "--gres", "--time", "--array", "--signal", "--cpus-per-task", "--mem"),
    *("--output", "--chdir", "--account"),
}
"""Options of sbatch that stand before a script."""
Blocks = list[tuple[str, str]]
"""Kind and text of each."""
Act = Callable[[], int]


def sections_of(path: Path) -> Iterator[tuple[str, Blocks]]:
    """The sections of a document that have code in them, with its kind and text."""
    title, blocks, text = path.stem, Blocks(), path.read_text("utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$|^#+ (.*?)$", text, re.M | re.S)
    assert text.count("```") == 2 * sum(not heading for _, _, heading in found), f"{path}: a block begins oddly"
    for kind, code, heading in found:
        if heading:
            yield title, blocks
            title, blocks = heading, []
        else:
            blocks.append((kind, code))
    yield title, blocks


def adds(blocks: Blocks) -> bool:
    """Whether its Python is meant for a file of the package."""
    return any(kind == "python" and code.startswith("# gan/") for kind, code in blocks)


ADDING = [blocks for path in DOCUMENTS for _, blocks in sections_of(path) if adds(blocks)]
SECTIONS = [
    pytest.param(blocks, id=f"{path.relative_to(ROOT)}: {title}")
    for path in sorted(DOCUMENTS)
    for title, blocks in sections_of(path)
    if blocks and not adds(blocks)
]


def commands_in(code: str) -> list[str]:
    """The commands of a block: lines put together again, chains taken apart, comments left out."""
    lines = [line.partition("  #")[0].strip() for line in code.replace("\\\n", " ").splitlines()]
    return [part for line in lines if line and not line.startswith("#") for part in line.split(" && ")]


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "RUN"
    words = ("--data", images, "--out", folder, *SMALL, "--iterations", 2, "--log-every", 1, "--checkpoint.every", 1)
    assert train([*map(str, words)]) == 0
    return folder


@pytest.mark.parametrize("blocks", SECTIONS)
def test_examples(blocks: Blocks, trained: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("RUN", RUN_IN_TEXT.replace("…", "000000")):
        shutil.copytree(trained, place)
    for kind, code in blocks:
        if kind == "bash" and "complete -o" in code:
            pass  # tests/test_cli.py runs it in a shell
        elif kind == "bash":
            for command in commands_in(code):
                shutil.rmtree("FOLDER", ignore_errors=True)
                carry_out(command, images)
        elif kind == "python":
            exec(code, {})
        elif kind == "yaml":
            name, _, settings = code.removeprefix("# ").partition("\n")
            Path(name).write_text(settings)
        else:
            assert not kind, f"nobody handles a block of {kind}"
            assert not re.search(r"^(gan|accelerate|python|pytest|pip|sbatch) ", code, re.M), "mark it as bash"


def commands_in_prose() -> list[str]:
    """Whole commands in `this type`, in running text and in tables, but for those that name no file or recipe."""
    texts = (re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.M | re.S) for path in DOCUMENTS)
    spans = {" ".join(span.split()) for text in texts for span in re.findall(r"`([^`]+)`", text)}
    whole = r"(accelerate launch .*)?(python )?train\.py .+|gan \w+ [^-].*"
    return sorted(span for span in spans if re.fullmatch(whole, span) and not re.search(r"\bNAME\b|FLAGS|--help", span))


@pytest.mark.parametrize("command", commands_in_prose())
def test_commands_in_prose_are_understood(command: str, images: Path) -> None:
    """By the launcher and by the program, recipes and configurations among the words; what they do, the blocks show."""
    reading([word for part in shlex.split(command) for word in substituted(part)], images)


def test_nothing_is_excused_that_is_not_there() -> None:
    blocks = [block for path in DOCUMENTS for _, blocks in sections_of(path) for block in blocks]
    commands = [command for kind, code in blocks if kind == "bash" for command in commands_in(code)]
    assert not [pattern for pattern in ONLY_READ if not any(re.fullmatch(pattern, command) for command in commands)]


def test_examples_that_add_to_the_code(images: Path, trained: Path, tmp_path: Path) -> None:
    """All of them at the ends of the files they name first, in a copy of the package; then their commands."""
    shutil.copytree(ROOT / "gan", tmp_path / "gan")
    shutil.copytree(trained, tmp_path / "RUN")
    calls = []
    for kind, code in itertools.chain(*ADDING):
        if kind == "python":
            with open(tmp_path / code.splitlines()[0].removeprefix("# "), "a") as file:
                file.write(f"\n\n{code}")
            continue
        for command in commands_in(code):
            program, *words = command.removeprefix("accelerate launch ").split()
            calls.append([program, *(short(words, images) if program == "train.py" else words)])
    assert len(calls) == len(ADDING) > 3
    script = (
        "import json, sys; from gan.cli import main, train; acts = {'gan': main, 'train.py': train}\n"
        "sys.exit(max(acts[program](words) for program, *words in json.load(sys.stdin)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", script], input=json.dumps(calls), cwd=tmp_path, env=environment,
                            capture_output=True, text=True, timeout=280)  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "mean-gap" in result.stdout


def carry_out(command: str, images: Path) -> None:
    """Read a command, and do what it says unless that cannot be."""
    if command.startswith("for "):
        subprocess.run(["bash", "-euc", command], check=True)
        return
    words = [word for part in shlex.split(command) for word in substituted(part)]
    for place, word in enumerate(words[1:], 1):
        known = word in SOURCES.keys() - {"sprites"} or Path(word).exists()
        if word == "FOLDER_OR_ZIP" or (words[place - 1] == "--data" and not known):
            words[place] = str(images)
    try:
        act = reading(words, images)
    except SystemExit as stop:  # it was asked for help, and has given it
        if stop.code:
            raise
        return
    if not any(re.fullmatch(pattern, command) for pattern in ONLY_READ):
        assert act is not None, f"nobody carries out {command!r}; see ONLY_READ"
        assert act() == 0, command
        for flag, name in itertools.pairwise(words):
            assert flag not in ("--each", "--out") or words[0] != "gan" or Path(name).exists(), command


def substituted(word: str) -> list[str]:
    """What stands in the place of a word of an example."""
    word = re.sub(r"iteration-\d+", NEWEST, word.replace(RUN_IN_TEXT, RUN_IN_TEXT.replace("…", "000000")))
    return [] if word == "…" else sorted(glob.glob(word)) if "*" in word and glob.glob(word) else [word]


def reading(words: list[str], images: Path) -> Act | None:
    """A command, understood by the parser it is meant for, and ready to be carried out where that is possible."""
    match words:
        case ["gan", "where", *rest]:
            parse(rest)
            return functools.partial(gan, "where", *rest)
        case ["gan" | "python", *rest] if "--tyro-write-completion" in rest:
            pass  # with the block that follows: tests/test_cli.py
        case ["gan", *rest]:
            understood(rest)
            return functools.partial(gan, *rest)
        case ["accelerate", "launch", *rest]:
            told = launch_command_parser().parse_args(rest)
            assert told.config_file is None or (ROOT / told.config_file).is_file(), told.config_file
            return reading([told.training_script, *told.training_script_args], images)
        case ["python", "train.py", "--recipe", "list"]:
            return functools.partial(train_once, *words[2:])
        case ["train.py", *rest] | ["python", "train.py", *rest]:
            parse(rest)
            return functools.partial(train_once, *short(rest, images))
        case ["pip", "install", *rest]:
            read_pip(rest)
        case ["pytest", *rest]:
            assert all((ROOT / word).exists() for word in rest if "/" in word), rest
        case ["python", "-m", module, *rest]:
            known = flags_of(ROOT / f"{module.replace('.', '/')}.py")
            assert {word for word in rest if word.startswith("--")} <= known, rest
        case ["sbatch", *rest]:
            read_sbatch(rest)
        case ["ruff" | "mypy", *_]:
            assert " ".join(words) in STYLE
        case ["pre-commit", "install"]:
            pass
        case _:
            raise AssertionError(f"nobody handles {' '.join(words)!r}")
    return None


@functools.cache
def train_once(*words: str) -> int:
    """Many examples differ in the launcher alone, which is only read."""
    return train([*words])


def short(words: list[str], images: Path) -> list[str]:
    """The flags of train.py for a run of three iterations, in a folder of its own where they name RUN."""
    kept = list(words)
    for flag in (f"--{name}" for name in LENGTHS):
        if flag in kept:
            del kept[kept.index(flag) : kept.index(flag) + 2]
    kept = ["NEW" if word == "RUN" and kept[place - 1] == "--out" else word for place, word in enumerate(kept)]
    return [*kept, *SMALL, *(() if "--data" in kept else ("--data", str(images)))]


def read_pip(words: list[str]) -> None:
    """Requirements: of this project with extras that it has, or by name."""
    for word in words:
        if word.startswith("."):
            wanted = set(word.removeprefix(".").strip("[]").split(",")) - {""}
            assert wanted <= set(metadata("gan-trainer").get_all("Provides-Extra") or ()), word
        else:
            assert word == "-e" or re.fullmatch(r"[\w-]+(>=[\d.]+)?", word), word


def read_sbatch(words: list[str]) -> None:
    """Options of sbatch, a script of ours, and what it hands to the trainer or to `gan evaluate`."""
    place = next(place for place, word in enumerate(words) if word.endswith(".sbatch"))
    script, rest = words[place], words[place + 1 :]
    assert (ROOT / script).is_file(), script
    assert {word for word in words[:place] if word.startswith("-")} <= SBATCH, words
    if script.endswith("evaluate.sbatch"):
        understood(["evaluate", *rest])
    elif script.endswith("sweep_array.sbatch"):
        for line in Path(rest[0]).read_text().splitlines():
            parse(["--out", rest[1], *rest[2:], *shlex.split(line)])
    else:
        parse(rest)


def flags_of(script: Path) -> set[str]:
    """What a script may be given: the flags among its strings, and the parameters of its `main`."""
    nodes = [*ast.walk(ast.parse(script.read_text("utf-8")))]
    strings = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    mains = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == "main"]
    parameters = {f"--{argument.arg.replace('_', '-')}" for main in mains for argument in main.args.args}
    return {*parameters, *(text for text in strings if text.startswith("--"))}
