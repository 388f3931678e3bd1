"""Where the time of an iteration goes, and what the machine is used for."""

import itertools
import mmap

import pytest
import torch

from gan.telemetry.performance import Stopwatch, resources

CPU = torch.device("cpu")


def test_time_goes_to_the_phase_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.accumulate([1.0, 0.1, 0.2, 0.3, 0.4])
    monkeypatch.setattr("gan.telemetry.performance.time.perf_counter", lambda: next(clock))
    watch = Stopwatch(CPU)
    watch.lap("before the start")
    watch.start()
    for phase in ("data", "d", "data", "g"):
        watch.lap(phase)
    assert watch.read() == pytest.approx({"perf/data_ms": 400, "perf/d_ms": 200, "perf/g_ms": 400})
    watch.lap("after the end")
    assert watch.read() == {}


def test_memory_is_that_of_the_process() -> None:
    before = resources(CPU)["perf/memory_mib"]
    with mmap.mmap(-1, 128 << 20) as held:  # from the system: the C library may still have some
        held.write(bytes(128 << 20))
        after = resources(CPU)["perf/memory_mib"]
    assert after - before == pytest.approx(128, rel=0.2)


def test_what_is_asked_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that is played here: events on a stream 7 ms apart, one wait for all of them."""
    calls: list[str] = []

    class Event:
        count = 0

        def __init__(self, enable_timing: bool):
            assert enable_timing

        def record(self) -> None:
            Event.count += 1
            self.place = Event.count

        def elapsed_time(self, end: "Event") -> float:
            assert calls == ["synchronize"], "they are read when the device has passed them"
            return 7.0 * (end.place - self.place)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append("synchronize"))
    watch = Stopwatch(torch.device("cuda"))
    watch.start()
    for phase in ("data", "d", "d"):
        watch.lap(phase)
    assert calls == []
    assert watch.read() == {"perf/data_ms": 7.0, "perf/d_ms": 14.0}

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20)
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 91)
    assert resources(torch.device("cuda")) == {"perf/memory_mib": 3, "perf/gpu_percent": 91}

    class NVMLError(Exception):
        """As nvidia-ml-py derives its own: of a card that does not tell, say."""

    errors = iter([ModuleNotFoundError("nvidia-ml-py does not seem to be installed"), NVMLError("Not Supported")])

    def untold(device: torch.device) -> int:
        raise next(errors)

    monkeypatch.setattr(torch.cuda, "utilization", untold)
    for _ in range(2):
        assert resources(torch.device("cuda")) == {"perf/memory_mib": 3}
