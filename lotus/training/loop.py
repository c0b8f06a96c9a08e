"""The training loop: optimiser, schedule, moving average, checkpoints, and a resume that changes nothing.

All randomness of a step comes from its number, so the state of a training is its weights, the optimiser's two
moments, the moving average and the step. It is kept as safetensors and JSON in the checkpoint's folder, which
gets its name when it is whole.

Several processes (torchrun) share a step's batches and average their gradients: the same training as one
process with as many more batches per step, up to the order of sums.
"""

import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lotus.training.config import Train
from recon.errors import InputError

STEP_NAME = re.compile(r"step_(\d+)")
STATE, WEIGHTS = "training/state.json", "training/{}.safetensors"
MOMENTS = {"first": "exp_avg", "second": "exp_avg_sq"}
log = logging.getLogger(__name__)

Numbers = dict[str, float]


@dataclass(frozen=True)
class Job:
    """What is trained."""

    module: nn.Module
    """Holds the parameters; those that need gradients are trained."""

    loss: Callable[[int], tuple[torch.Tensor, Numbers]]
    """The loss of a batch by its number, counted through all steps, and its parts for the log."""

    write: Callable[[Path], None]
    """Writes a checkpoint's networks into a folder."""

    validate: Callable[[int], Numbers]
    """Figures of held-out samples; may draw pictures."""

    shares: Mapping[str, float] = field(default_factory=dict)
    """Of the learning rate, by the first part of a parameter's name; 1 where it is not named."""

    prepare: Callable[[int], None] = lambda _: None
    """Queues the making of a batch, called while the device still works on the one before it."""

    close: Callable[[], None] = lambda: None
    """Ends the processes that make batches."""


def run(job: Job, options: Train) -> Iterator[Numbers]:
    """Trains to the last step, from the newest checkpoint in `options.out` if there is one.

    Yields:
        For every step its number, loss parts and seconds (`waiting`, part of it, for samples).

    Raises:
        InputError: The checkpoint there is of another training, or several processes are given a time.
    """
    if options.minutes and processes() > 1:  # each would stop by its own clock, and wait for the others
        raise InputError("minutes is for one process: several would not stop at the same step")
    training = Training(job, options)
    start = training.resume()
    opened = time.perf_counter()
    for step in range(start, options.steps):
        began = time.perf_counter()
        spent = (began - opened) / (60 * options.minutes) if options.minutes else 0.0
        numbers = training.step(step, spent)
        done = step + 1
        is_last = done == options.steps or spent >= 1
        numbers |= {"step": done, "seconds": time.perf_counter() - began}
        if is_first() and (done % options.validate_every == 0 or is_last):
            with training.averaged():
                numbers |= {f"held_out_{key}": value for key, value in job.validate(done).items()}
        if is_first() and (done % options.save_every == 0 or is_last):
            training.save(done)
        yield numbers
        if is_last:
            break


class Training:
    """The changing state of a training."""

    def __init__(self, job: Job, options: Train) -> None:
        self.job, self.options = job, options
        self.weights = {name: part for name, part in job.module.named_parameters() if part.requires_grad}
        choice = options.optimizer
        self.optimizer = torch.optim.AdamW(
            _groups(self.weights, job.shares),
            lr=choice.learning_rate,
            betas=choice.betas,
            weight_decay=choice.weight_decay,
        )
        self.average = {name: part.detach().clone() for name, part in self.weights.items()}
        self.start = {name: part.clone() for name, part in self.average.items()} if choice.start_share else {}
        device = next(iter(self.weights.values())).device.type
        self.scaler = torch.amp.GradScaler(device, enabled=options.precision == "float16")

    def step(self, step: int, spent: float = 0.0) -> Numbers:
        """Takes one step; returns the mean parts of its loss.

        Args:
            step: Its number.
            spent: Share of the training's time that is over, if it has a limit.
        """
        total: Numbers = {}
        count = self.options.accumulate
        numbers = [(step * processes() + rank()) * count + turn for turn in range(count)]
        following = [*numbers[1:], ((step + 1) * processes() + rank()) * count]
        for number, later in zip(numbers, following, strict=True):
            loss, parts = self.job.loss(number)
            self.scaler.scale(loss / count).backward()
            if later < batch_count(self.options):
                self.job.prepare(later)
            for name, value in parts.items():
                total[name] = total.get(name, 0.0) + value / count
        self._share_gradients()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.weights.values(), self.options.optimizer.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate(step, self.options, spent)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self._average(step)
        return total | {"gradient": float(norm)}

    def _share_gradients(self) -> None:
        """Gives every process the mean gradient of all."""
        if processes() == 1:
            return
        for weight in self.weights.values():
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            torch.distributed.all_reduce(weight.grad)
            weight.grad /= processes()

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Moves the average toward the weights; early it follows faster."""
        decay = min(self.options.optimizer.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), list(self.weights.values()), 1 - decay)

    def averaged(self) -> "_Averaged":
        """Returns a context in which the module holds what is saved and judged."""
        return _Averaged(self)

    def saved(self, name: str) -> torch.Tensor:
        """Returns a weight as it is saved: the moving average, mixed with the start if that is wanted."""
        average = self.average[name]
        return average.lerp(self.start[name], self.options.optimizer.start_share) if self.start else average

    def save(self, step: int) -> None:
        """Writes the checkpoint of a step, then removes old ones."""
        from safetensors.torch import save_file

        out = self.options.out
        part, place = out / f".step_{step:07d}", out / f"step_{step:07d}"
        shutil.rmtree(part, ignore_errors=True)
        (part / "training").mkdir(parents=True)
        with self.averaged():
            self.job.write(part)
        save_file(_plain(self.weights), part / WEIGHTS.format("weights"))
        save_file(_plain(self.average), part / WEIGHTS.format("average"))
        states = {name: self.optimizer.state[weight] for name, weight in self.weights.items()}
        for name, key in MOMENTS.items():
            moments = {each: state[key] for each, state in states.items() if state}
            save_file(_plain(moments), part / WEIGHTS.format(name))
        counts = {name: int(state["step"]) for name, state in states.items() if state}
        state = {"step": step, "counts": counts, "scaler": self.scaler.state_dict()}
        (part / STATE).write_text(json.dumps(state))
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
        for old in checkpoints(out)[: -self.options.keep]:
            if old != place:
                shutil.rmtree(old)

    def resume(self) -> int:
        """Takes the state of the newest checkpoint; returns the step to go on with."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        found = checkpoints(self.options.out)
        if not found:
            return 0
        folder = found[-1]
        try:
            state = json.loads((folder / STATE).read_text())
            files = {
                name: load_file(folder / WEIGHTS.format(name)) for name in ("weights", "average", *MOMENTS)
            }
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(files["weights"][name])
                    self.average[name].copy_(files["average"][name])
                    if name in state["counts"]:
                        moments = {key: files[each][name].to(weight) for each, key in MOMENTS.items()}
                        count = torch.tensor(float(state["counts"][name]))
                        self.optimizer.state[weight] = {"step": count, **moments}
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise InputError(f"{folder}: not a checkpoint of this training ({error})") from error
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        step = int(state["step"])
        if step < self.options.steps:
            log.info("going on from %s", folder)
        else:
            log.info("all %d steps are done: %s; more --steps go on from there", self.options.steps, folder)
        return step


class _Averaged:
    """Puts what is saved in the weights' place, and the weights back."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.own: dict[str, torch.Tensor] = {}

    def __enter__(self) -> None:
        for name, weight in self.training.weights.items():
            self.own[name], weight.data = weight.data, self.training.saved(name)

    def __exit__(self, *_: Any) -> None:
        for name, weight in self.training.weights.items():
            weight.data = self.own[name]


def join_processes(device: torch.device) -> None:
    """Joins the processes that torchrun started; alone, does nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")


def processes() -> int:
    """Returns how many processes train together."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def batch_count(options: Train) -> int:
    """Returns how many batches the steps of a training take, in all its processes."""
    return options.steps * options.accumulate * processes()


def own_batches(first: int, options: Train) -> Iterator[int]:
    """Yields the batches that this process trains on, from a number on."""
    numbers = range(first, batch_count(options))
    return (number for number in numbers if number // options.accumulate % processes() == rank())


def rank() -> int:
    """Returns this process's number."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def is_first() -> bool:
    """Returns True for the process that writes and draws."""
    return rank() == 0


def _groups(weights: Mapping[str, torch.Tensor], shares: Mapping[str, float]) -> list[dict[str, Any]]:
    """Returns the optimiser's groups, each with its share of the learning rate."""
    groups: dict[float, list[torch.Tensor]] = {}
    for name, weight in weights.items():
        groups.setdefault(shares.get(name.partition(".")[0], 1.0), []).append(weight)
    return [{"params": params, "share": share} for share, params in groups.items()]


def learning_rate(step: int, options: Train, spent: float = 0.0) -> float:
    """Returns the rate of a step: linear warm-up, then constant or a half cosine over steps or time."""
    choice = options.optimizer
    warm = min(1.0, (step + 1) / (choice.warmup + 1))
    if not choice.cosine:
        return choice.learning_rate * warm
    share = min(1.0, max(spent, (step - choice.warmup) / max(1, options.steps - choice.warmup)))
    fall = choice.final_share + (1 - choice.final_share) * 0.5 * (1 + math.cos(math.pi * share))
    return choice.learning_rate * warm * fall


def checkpoints(out: Path) -> list[Path]:
    """Returns the checkpoints of a training, step_ and a number, oldest first."""
    numbered = [(STEP_NAME.fullmatch(place.name), place) for place in out.glob("step_*")]
    found = [(int(match[1]), place) for match, place in numbered if match and (place / STATE).is_file()]
    return [place for _, place in sorted(found)]


def _plain(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
