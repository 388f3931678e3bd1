from pathlib import Path

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
