"""The watchdog's rules, with a store in memory and another process that is only pretended."""

import threading
import time
from types import SimpleNamespace

import pytest
from torch.distributed import distributed_c10d

from gan import watchdog
from gan.watchdog import Watchdog

LIMIT_S = 0.5


class Store:
    """What the watchdog uses of torch's."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def set(self, key: str, value: str) -> None:
        self.values[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.values[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)


class Ended(Exception):
    """In place of the process' end."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    monkeypatch.setattr(distributed_c10d, "_get_default_store", lambda: made)
    monkeypatch.setattr(watchdog, "set_timeout", lambda timeout, group: None)
    return made


def watch(store: Store, monkeypatch: pytest.MonkeyPatch, beat: bool, progress: bool,
          report: object = None, came: bool = True) -> list[str]:  # fmt: skip
    """What process 0 says when it ends within four limits, while process 1 beats and gets on, or not."""
    ended = threading.Event()
    said: list[str] = []

    def leave(status: int) -> None:
        said.append(f"status {status}")
        ended.set()
        raise Ended

    monkeypatch.setattr("os._exit", leave)
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    dog = Watchdog(SimpleNamespace(process_index=0, num_processes=2), LIMIT_S, "")  # type: ignore[arg-type]
    dog.report = report if callable(report) else said.append
    with dog:
        dog.progress()
        start, number = time.monotonic(), 0
        while time.monotonic() - start < 4 * LIMIT_S and not ended.is_set():
            number += beat
            if came:
                store.set("gan/beats/1", f"{number} {number if progress else 7}")
            time.sleep(LIMIT_S / 10)
    return said


def test_a_healthy_pair_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 0 waits for process 1, which gets on: a long save, say."""
    assert watch(store, monkeypatch, beat=True, progress=True) == []


def test_a_silent_process_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.set("gan/hosts/1", "node7")
    reason, status = watch(store, monkeypatch, beat=False, progress=False)
    assert reason.startswith("process 1 on node7 no longer answers")
    assert status == "status 1"


def test_a_process_that_never_came_is_named_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (reason, _) = watch(store, monkeypatch, beat=False, progress=False, came=False)
    assert reason.startswith("process 1 on an unknown machine")


def test_nobody_gets_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    reason, _ = watch(store, monkeypatch, beat=True, progress=False)
    assert "though every process answers: process 0 is " in reason
    assert "--distributed.timeout" in reason


def test_it_ends_even_when_nothing_can_be_recorded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def report(reason: str) -> None:
        raise OSError(28, "No space left on device")

    assert watch(store, monkeypatch, beat=False, progress=False, report=report) == ["status 1"]
