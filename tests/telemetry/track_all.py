"""Everything that a tracker can be given, sent to the tracker of a run that has been trained; what to do with it is
printed at the end: python -m tests.telemetry.track_all FLAGS-OF-TRAIN.PY"""

import sys
from pathlib import Path

from PIL import Image

from gan import checkpoint
from gan.config import parse
from gan.processes import start_processes
from gan.telemetry.console import say
from gan.telemetry.tracking import Tracker

IMAGES = 1_000_000
ENTRY: dict[str, float | str] = {
    "iteration": 125_000,
    "images": IMAGES,
    "epoch": 50_000.0,
    "health/diversity": 0.25,
    "verdict": "collapsing",
}


def main() -> None:
    config = parse(sys.argv[1:])
    run = Path(str(config.out))
    tracker = Tracker(start_processes(config), config, run, IMAGES)
    tracker.log(ENTRY)
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("black", "white")]
    frames[0].save(run / "progress.gif", save_all=True, append_images=frames[1:])
    tracker.log_video("progress", run / "progress.gif", IMAGES)
    tracker.log_picture("samples-8px", Image.new("L", (24, 8)), IMAGES)
    tracker.log_picture("samples-transparent", Image.new("RGBA", (24, 8)), IMAGES)
    tracker.alert("Collapse", "All samples look alike.", "warn")
    tracker.keep_generator(run, checkpoint.listed(run / "checkpoints")[0])
    tracker.finish()
    say(f"At the end, {tracker.where()}")


if __name__ == "__main__":
    main()
