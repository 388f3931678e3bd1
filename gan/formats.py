"""Other formats for a trained generator. To add one: write it and name it in FORMATS."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gan.errors import RunError, UsageError
from gan.latents import numbered
from gan.telemetry.grids import to_uint8
from gan.trained import TrainedGenerator

Draw = Callable[[Tensor], Tensor]
"""z → images, as G itself."""


def write_onnx(G: nn.Module, z: Tensor, path: Path) -> Draw:
    """ONNX, for any number of images; its way back through onnxruntime."""
    try:
        import onnxruntime  # an extra
        import onnxscript  # noqa: F401 (what torch.onnx needs)
    except ImportError:
        raise UsageError("--formats onnx needs: pip install onnx onnxscript onnxruntime") from None
    program = torch.onnx.export(G, (z,), dynamo=True, dynamic_shapes=any_number(), input_names=["z"],
                                output_names=["images"], verbose=False)  # fmt: skip
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # the lines of this machine's files that it comes from
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda z: torch.from_numpy(session.run(None, {"z": z.numpy()})[0])


def write_program(G: nn.Module, z: Tensor, path: Path) -> Draw:
    """torch.export's program, for any number of images; its way back."""
    program = torch.export.export(G, (z,), dynamic_shapes=any_number())
    program.example_inputs = None  # they would be pickled
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names files of this machine
    torch.export.save(program, path)
    return torch.export.load(path).module()


def any_number() -> tuple[dict[int, Any]]:
    """The first dimension of z is free."""
    return ({0: torch.export.Dim("n")},)


FORMATS: dict[str, tuple[str, Callable[[nn.Module, Tensor, Path], Draw]]] = {
    "onnx": ("model.onnx", write_onnx),
    "torch-export": ("model.pt2", write_program),
}
"""By name: its file, and what writes it. (G, z, path) → what draws images from that file again."""


def root_of(error: BaseException) -> str:
    """The first line of the error that others were raised from. Raises KeyboardInterrupt if it was that."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, KeyboardInterrupt):
        raise error
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@torch.no_grad()
def add_format(name: str, G: TrainedGenerator, folder: Path) -> None:
    """Write G in one more format. Raises RunError where its images are not the same, to one of 256 levels."""
    file, write = FORMATS[name]
    z = numbered(0, range(5), G.z_dim).to(getattr(torch, G.config.dtype))
    try:
        again = write(copy.deepcopy(G), z[:2], folder / file)(z)
    except UsageError:
        raise
    except Exception as error:  # each library has its own
        raise RunError(f"--formats {name} cannot hold this generator: {root_of(error)}") from None
    difference = np.abs(to_uint8(again).astype(int) - to_uint8(G(z))).max()
    if difference > 1:
        raise RunError(f"--formats {name} draws other images, up to {difference} of 255 levels away; leave it out.")
