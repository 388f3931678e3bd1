import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from gan.errors import UsageError
from gan.run_folder import RunFolder
from gan.telemetry.grids import grid, to_uint8, write_picture
from gan.telemetry.means import RunningMeans


def test_means_are_means_of_the_interval_alone() -> None:
    means, accelerator = RunningMeans(), Accelerator(cpu=True)
    values = torch.tensor([1.0, 2.0, 6.0])
    for value in values:
        means.add({"a": value, "b": -value})
    assert means.read(accelerator) == {"a": 3.0, "b": -3.0}
    assert values.tolist() == [1.0, 2.0, 6.0]
    means.add({"a": torch.tensor(10.0)})
    assert means.read(accelerator) == {"a": 10.0}


def test_what_is_not_finite_does_not_count() -> None:
    means, accelerator = RunningMeans(), Accelerator(cpu=True)
    for value in (1.0, float("nan"), float("inf"), 3.0):
        means.add({"a": torch.tensor(value), "b": torch.tensor(float("nan"))})
    read = means.read(accelerator)
    assert read["a"] == 2.0
    assert np.isnan(read["b"])


def test_a_grid_is_filled_row_by_row(tmp_path: Path) -> None:
    images = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 1, 2, 3)
    pixels = to_uint8(images)
    assert pixels[:, 0, 0, 0].tolist() == [0, 64, 128, 191, 255]
    picture = np.asarray(grid(pixels))
    assert picture.shape == (2 * 2, 3 * 3)
    assert picture[::2, ::3].tolist() == [[0, 64, 128], [191, 255, 255]]
    for count, shape in ((21, (3, 7)), (64, (8, 8)), (70, (7, 10)), (3, (2, 2)), (7, (3, 3)), (1, (1, 1))):
        assert np.asarray(grid(np.zeros((count, 1, 1, 3), np.uint8))).shape == (*shape, 3)
    for channels, mode in ((1, "L"), (3, "RGB"), (4, "RGBA")):
        write_picture(grid(np.zeros((2, 4, 4, channels), np.uint8)), tmp_path / "grid.png")
        with Image.open(tmp_path / "grid.png") as written:
            assert written.mode == mode
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_pixels_survive_the_way_in_and_out() -> None:
    from gan.data.batches import to_unit_range

    levels = torch.arange(256, dtype=torch.uint8).reshape(4, 8, 8, 1)
    assert (to_uint8(to_unit_range(levels, torch.float32)) == levels.numpy()).all()


def test_the_log_is_rewound_to_the_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    lines = [json.dumps({"iteration": iteration}) for iteration in (1, 2, 3)]
    folder.log.write_text("\n".join(lines) + '\n{"iteration": 4, "lo')
    folder.rewind_log(2)
    assert [json.loads(line)["iteration"] for line in folder.log.read_text().splitlines()] == [1, 2]


def test_a_former_run_is_set_aside_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create()
    (tmp_path / "checkpoints" / "iteration-00000001").mkdir()
    (tmp_path / "log.jsonl").write_text("old")
    (tmp_path / "mine.txt").write_text("not the run's")
    folder.set_aside(every=1000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "previous-1"]
    assert (tmp_path / "previous-1" / "log.jsonl").read_text() == "old"
    assert (tmp_path / "previous-1" / "checkpoints" / "iteration-00000001").is_dir()


def test_a_log_full_of_rubbish_is_rewound(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    rubbish = [b"5", b"{}", b'{"iteration": null}', b"\xff\xfe", b"[" * 100_000, b'{"iteration": 3, "los']
    folder.log.write_bytes(b"\n".join([b'{"iteration": 1}', *rubbish, b'{"iteration": 2}', b'{"iteration": 3}']))
    folder.rewind_log(2)
    assert folder.log.read_text() == '{"iteration": 1}\n{"iteration": 2}\n'


def test_a_log_without_its_checkpoints_is_set_aside(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create()
    folder.log.write_text('{"iteration": 9}\n')
    folder.set_aside(every=10)
    assert folder.log.exists(), "killed before the first checkpoint was due"
    folder.set_aside(every=9)
    assert (tmp_path / "previous-1" / "log.jsonl").read_text() == '{"iteration": 9}\n'


def test_a_lock_that_was_removed_is_taken_again_or_missed(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.create()
    first.lock()
    (tmp_path / "config.yaml").touch()
    assert not first.restore()
    (tmp_path / "config.yaml").unlink()
    assert first.restore()
    shutil.rmtree(tmp_path)
    assert first.restore()
    with pytest.raises(UsageError, match="another process is training"):
        second.lock()
    (tmp_path / ".lock").unlink()
    second.lock()
    with pytest.raises(UsageError, match="another process is training"):
        first.restore()


def test_folders_in_which_nothing_can_be_written_are_refused() -> None:
    """Looked at as an ordinary user, since root may write anywhere."""
    with tempfile.TemporaryDirectory() as scratch:
        run, me = Path(scratch), os.geteuid()
        RunFolder(run).create()
        for folder, mode in ((run, 0o777), (run / "samples", 0o777), (run / "checkpoints", 0o555)):
            os.chmod(folder, mode)
        try:
            os.seteuid(65534 if me == 0 else me)
            with pytest.raises(UsageError, match="cannot write to the run folder"):
                RunFolder(run).create()
            if me == 0:
                os.seteuid(me)
                os.chmod(run / "checkpoints", 0o777)
                os.seteuid(65534)
                RunFolder(run).create()
        finally:
            os.seteuid(me)


def test_what_cannot_be_said_is_not_said() -> None:
    code = """
import os
from gan.telemetry.console import fall_silent, say
for number in range(10_000):
    say("a line")
fall_silent()
open(os.environ["DONE"], "w").close()
"""
    for out in ("/dev/full", None):
        with tempfile.TemporaryDirectory() as scratch:
            reader, pipe = os.pipe()
            os.close(reader)
            with open(out or pipe, "w") as stdout:
                environment = os.environ | {"DONE": f"{scratch}/done"}
                result = subprocess.run(
                    [sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, env=environment
                )
            assert (result.returncode, result.stderr) == (0, b"")
            assert Path(scratch, "done").exists()
