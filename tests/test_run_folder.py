"""A run's folder: taken by one process, rewound, set aside, and left as it was found."""

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from gan.errors import UsageError
from gan.run_folder import RunFolder


def test_a_refused_command_takes_away_no_more_than_it_made(tmp_path: Path) -> None:
    """Not the empty folders of another run, which has just begun; nothing where there is anything."""
    running, refused = (RunFolder(tmp_path / "runs" / "run") for _ in range(2))
    running.create()
    running.lock()
    refused.create()
    refused.remove_if_empty()
    assert running.checkpoints.is_dir()
    assert running.samples.is_dir()

    (running.samples / "reals.png").touch()
    running.remove_if_empty()
    assert (running.path / ".lock").exists()

    (running.samples / "reals.png").unlink()
    running.remove_if_empty()
    running.unlock()
    assert list(tmp_path.iterdir()) == [tmp_path / "runs"]
    assert list((tmp_path / "runs").iterdir()) == []


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


@pytest.mark.parametrize("fault", [errno.ENOLCK, errno.ENOSYS], ids=["NFS", "Lustre"])
def test_a_disk_without_locks_is_no_hindrance(
    fault: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does a run that was killed there leave a lock that nobody takes away."""

    def refuse(*arguments: object) -> None:
        raise OSError(fault, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    (tmp_path / "config.yaml").touch()
    for _ in range(2):
        folder = RunFolder(tmp_path)
        folder.create()
        folder.lock()
        assert not folder.restore()
        assert "knows no locks: see to it that no other run trains there" in capsys.readouterr().out
    folder.unlock()


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


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    left = [
        folder.path / ".17-status.json",
        folder.path / ".17-log.jsonl",
        folder.samples / ".4-iteration-00000500.png",
    ]
    own = [folder.path / "status.json", folder.path / ".17-report.html", folder.samples / "iteration-00000500.png"]
    for path in left + own:
        path.touch()
    folder.sweep()
    assert [path.exists() for path in left + own] == [False] * 3 + [True] * 3
