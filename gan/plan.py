"""What a run would be, without running it: `train.py --dry-run`."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gan.checkpoint import optimizer_tensors
from gan.config import Config, as_yaml, images_per_iteration, total_iterations
from gan.data.batches import is_resident
from gan.data.pack import look_up
from gan.errors import RunError
from gan.evaluate import check_count
from gan.memory import amount, memory_of, training_bytes
from gan.networks import NETWORKS
from gan.optimizers import OPTIMIZERS
from gan.processes import check_batch, on_main, precision, start_processes
from gan.resume import find_checkpoint, find_source, identity_of
from gan.run import check_places
from gan.run_folder import RunFolder
from gan.telemetry.console import aligned, say
from gan.transfer import freeze_first_blocks

Layer = tuple[str, str, str, int]
"""(name, kind, shape of its output for one image, parameters)"""


def print_plan(config: Config) -> None:
    """Show settings, networks and plan of the run that the same command without --dry-run would begin or go on with.
    Nothing is trained, packed, downloaded or written. Raises the UsageError that the run would end with."""
    accelerator = start_processes(config)
    on_main(accelerator, lambda: show(config, accelerator))
    accelerator.state.destroy_process_group()


def show(config: Config, accelerator: Accelerator) -> None:
    """The main process' part."""
    folder = RunFolder(Path(str(config.out)))
    say(f"Settings, as {folder.path}/config.yaml would have them:\n\n{as_yaml(config)}")
    say(f"Networks, with the outputs for one image:\n\n{table_of(layers(config))}\n\nPlan:\n")
    for name, text in plan(config, accelerator, folder):
        say(f"{name:14}{text}")


def layers(config: Config) -> dict[str, list[Layer]]:
    """The layers of G and D, in the order in which they are computed; on tensors without content."""
    found: dict[str, list[Layer]] = {"G": [], "D": []}

    def watch(letter: str, name: str, layer: nn.Module) -> None:
        def note(layer: nn.Module, given: object, made: Tensor) -> None:
            count = sum(parameter.numel() for parameter in layer.parameters())
            found[letter].append((f"{letter}.{name}", type(layer).__name__, "×".join(map(str, made.shape[1:])), count))

        layer.register_forward_hook(note)

    with FakeTensorMode():
        players = NETWORKS[config.model.network](config)
        for letter, module in zip("GD", players, strict=True):
            for name, layer in module.named_modules():
                whole = all(child == "parametrizations" for child, _ in layer.named_children())
                if whole and "parametrizations" not in name:
                    watch(letter, name, layer)
        G, D = players
        D(G(torch.empty(2, config.model.z_dim)), torch.empty(2, D.uniforms))
    return found


def table_of(players: dict[str, list[Layer]]) -> str:
    """The layers as lines, with the sum of the parameters below each player's."""
    rows = [("layer", "kind", "output", "parameters")]
    for letter, found in players.items():
        rows += [(name, kind, shape, f"{count:,}" if count else "–") for name, kind, shape, count in found]
        rows += [(letter, "in all", "", f"{sum(count for *_, count in found):,}"), ("", "", "", "")]
    return aligned(rows, left=(0, 1, 2)).rstrip()


def plan(config: Config, accelerator: Accelerator, folder: RunFolder) -> Iterator[tuple[str, str]]:
    """Lines of (what, how much). Raises UsageError, after as much as can be said before."""
    processes, rows = accelerator.num_processes, config.batch_size // accelerator.num_processes // config.accumulation
    mixed = precision(accelerator)
    yield "processes", f"{processes} × {accelerator.device.type}, {config.dtype if mixed == 'no' else mixed}"
    need, room = training_bytes(config, rows, mixed), memory_of(accelerator.device)
    lacking = "" if need < room else ": too much; lower --batch-size, or give --accumulation"
    yield "memory", f"{amount(need)} for {rows} images at a time in each process, {amount(room)} there{lacking}"
    check_places(config, folder)
    is_resident(config.data_options.resident, accelerator.device, 0)
    count, content, where = images_of(config)
    yield "images", where
    check_batch(config, processes, config.batch_size if count is None else count)
    if config.eval.every:
        check_count([config.eval.metric], config.data, config.eval.count if count is None else count, config.eval.count)
    total = None if count is None and config.epochs is not None else total_iterations(config, count or 0)
    yield from lengths(config, total, count)
    size, free = checkpoint_bytes(config), folder.check()
    kept = config.checkpoint.keep + (config.eval.every is not None)
    kept = min(kept, len(times(total, saving_intervals(config)))) if total else kept
    yield "disk", f"{amount(size)} for a checkpoint; {kept} stay, {amount((kept + 1) * size)} while one is saved"
    yield "", f"{amount(free)} free"
    yield "run folder", state_of(config, accelerator, folder, content, total)


def images_of(config: Config) -> tuple[int | None, str, str]:
    """How many images there are, as far as is known without decoding or downloading any; the fingerprint of their pack,
    where there is one; and both in words."""
    try:
        source, pack = look_up(config)
    except RunError:
        return None, "", f"{config.data} is downloaded when the run begins, so their number is not known yet"
    if pack is not None:
        return len(pack.images), pack.content, f"{len(pack.images):,}, packed in {pack.folder}"
    assert source is not None
    return len(source), "", f"{len(source):,} in {source.name}, not packed yet: some may turn out to be unreadable"


def lengths(config: Config, total: int | None, images: int | None) -> Iterator[tuple[str, str]]:
    """Lines about how long the run is, and what it leaves behind when."""
    each = images_per_iteration(config)
    if total is None:
        yield "length", f"{config.epochs:g} epochs; an iteration shows {each} images"
    else:
        epochs = f" = {total * each / images:,.2f} epochs" if images else ""
        yield "length", f"{total:,} iterations × {each} images = {total * each / 1000:,.3f} kimg{epochs}"
    measured = [config.eval.every] if config.eval.every else []
    for name, intervals in (
        ("log lines", [config.log_every, *measured]),
        ("sample grids", [config.sample_every]),
        ("checkpoints", saving_intervals(config)),
        ("evaluations", measured),
    ):
        if intervals:
            often = " and every ".join(f"{every:,}" for every in dict.fromkeys(intervals))
            count = f": {len(times(total, intervals)):,} in all" if total else ""
            yield name, f"every {often} iterations and at the end{count}"


def saving_intervals(config: Config) -> list[int]:
    """A checkpoint follows each evaluation too."""
    return [config.checkpoint.every, *([config.eval.every] if config.eval.every else [])]


def times(total: int, intervals: list[int]) -> set[int]:
    """The iterations after which something is done that is due at all these intervals and at the end."""
    return {total}.union(*(range(every, total, every) for every in intervals))


def checkpoint_bytes(config: Config) -> int:
    """Bytes of the tensors in a checkpoint: G, its average, D, and the state of both optimizers."""
    with FakeTensorMode():
        G, D = NETWORKS[config.model.network](config)
        freeze_first_blocks(D, config.transfer.freeze_d)
        groups = [G.state_dict(), G.state_dict(), D.state_dict()]
        for module, options in ((G, config.optim_g), (D, config.optim_d)):
            optimizer = OPTIMIZERS[options.method](module.parameters(), options, False)
            for parameter in module.parameters():
                parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
            optimizer.step()
            groups.append(optimizer_tensors(optimizer, module))
    return sum(tensor.nbytes for group in groups for tensor in group.values()) * (2 if config.dtype == "float64" else 1)


def state_of(config: Config, accelerator: Accelerator, folder: RunFolder, content: str, total: int | None) -> str:
    """Whether the run would begin, go on or do nothing. Raises UsageError where its settings do not fit."""
    now = identity_of(config, accelerator, content)
    if not content:
        del now["images"]  # not known before they are packed
    found = find_checkpoint(config, folder, now, math.inf if total is None else total)
    find_source(config, found)
    kept = found is not None and config.resume == "auto"
    aside = "; the run that is there would be set aside" * (not kept and folder.holds_run(config.checkpoint.every))
    if found is None:
        return f"{folder.path}: begins anew{aside}"
    done = found.state["iteration"]
    if total is not None and done >= total:
        return f"{folder.path}: has finished, {done:,} iterations; nothing would be done"
    left = "" if total is None else f", {total - done:,} to go"
    return f"{folder.path}: goes on from iteration {done:,}{left}{aside}"
