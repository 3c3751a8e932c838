"""The training loop of all recipes: updates, averages, logs, checkpoints, and stopping."""

import logging
import math
import statistics
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.training.loop.checkpoints import Checkpoints
from diffusers_ext.training.loop.compiling import compile_network
from diffusers_ext.training.loop.configuration import RunConfig
from diffusers_ext.training.loop.draws import Draw, seed_default_generator
from diffusers_ext.training.loop.flat_adamw import FlatAdamW
from diffusers_ext.training.loop.html_report import Progress
from diffusers_ext.training.loop.metrics_log import MetricsLog
from diffusers_ext.training.loop.optimizers import build_lr_scheduler, build_optimizer, go_to_step, keeping_options
from diffusers_ext.training.loop.outputs import Outputs
from diffusers_ext.training.loop.posthoc_ema import PostHocEMA
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.loop.reports import Reports
from diffusers_ext.training.loop.run_lock import only_run_in
from diffusers_ext.training.loop.sharding import (
    check_network,
    clip_gradients,
    is_sharding,
    shard,
    trained_weights,
)
from diffusers_ext.training.loop.share_of_time import ShareOfTime
from diffusers_ext.training.loop.signals import StopRequest
from diffusers_ext.training.loop.synchronised_batch_norm import synchronise_batch_norm
from diffusers_ext.training.loop.write_errors import writing


logger = logging.getLogger(__name__)

RESUME = "continue with --resume_from_checkpoint latest"


class NonFiniteLossError(ArithmeticError):
    """A loss or a gradient is infinite or not a number."""


class Trainer:
    """Trains the networks of a recipe.

    A step is a function of (seed, step, samples): the order of the data, its augmentation and all noise depend on
    nothing else, in particular on nothing that a restart or another number of processes would change. So a resumed run
    continues bit for bit, and several processes train like one.

    Args:
        recipe (`Recipe`): the training job.
        accelerator (`Accelerator`): from [`~diffusers_ext.training.loop.accelerator.build_accelerator`].

    Until the end of [`~Trainer.train`], or an error, no other process trains in the output folder.

    Raises:
        ValueError, FileNotFoundError: if the options, or the checkpoint to resume from, don't fit the recipe, or if
            another run writes into the output folder.
    """

    def __init__(self, recipe: Recipe, accelerator: Accelerator):
        self.recipe, self.config, self.accelerator = recipe, recipe.config, accelerator
        with ExitStack() as lock:
            if accelerator.is_main_process:
                lock.enter_context(only_run_in(self.config.output_dir))
            self._set_up()
            self._lock = lock.pop_all()  # which train() ends

    def _set_up(self) -> None:
        recipe, accelerator = self.recipe, self.accelerator
        recipe.context.attach(self)
        self.step = self.samples_seen = 0
        self._seconds_before = 0.0
        self.batch_size = self.config.train_batch_size * accelerator.num_processes
        self.batch_size *= self.config.gradient_accumulation_steps
        self.max_train_steps = self._max_train_steps()
        self.is_sharded = is_sharding(accelerator)
        # FSDP2 divides contiguous weights only.
        self.channels_last = self.config.channels_last and not self.is_sharded
        self.draw, self.reports = Draw(self.config.seed, accelerator.device), Reports(accelerator)
        self._build_networks()
        identity = {
            "recipe": {"class": type(recipe).__name__, **recipe.identity()},
            "seed": self.config.seed,
            "use_ema": self.config.use_ema,
            "use_8bit_adam": self.config.use_8bit_adam,
            "posthoc_ema_stds": self.config.posthoc_ema_stds,
            "the data set": recipe.dataset.fingerprint(),
            "networks": {name: _architecture(network) for name, network in self.networks.items()},
        }
        self.checkpoints = Checkpoints(
            self.config.output_dir,
            accelerator,
            self.networks,
            self.optimizers,
            {
                **{f"{name}_ema": average for name, average in self.averages.items()},
                **{f"{name}_posthoc_ema": average for name, average in self.posthoc_ema.averages.items()},
                "recipe_state": recipe,
            },
            identity,
            self.config.checkpoints_total_limit,
        )
        self._resume()
        self.outputs = Outputs(recipe, accelerator, self.networks, self.averages)
        recipe.before_training()

    def _max_train_steps(self) -> int:
        if self.config.max_train_steps is not None:
            return self.config.max_train_steps
        epoch_length = self.recipe.dataset.epoch_length
        if epoch_length is None:
            raise ValueError("A streamed data set has no known length: give --max_train_steps.")
        return math.ceil(self.config.num_train_epochs * epoch_length / self.batch_size)

    def _build_networks(self) -> None:
        config = self.config
        torch.manual_seed(derive_seed(config.seed, "initial weights"))
        self.networks = self.recipe.networks()
        self.recipe.context.networks = self.networks
        self._check_networks()
        self.averages, self.optimizers, self.lr_schedulers = {}, {}, {}
        self.prepared, self.trained, self.clipped = {}, {}, {}
        for name, network in self.networks.items():
            network.train()
            if self.accelerator.num_processes > 1:
                synchronise_batch_norm(network)
            own_options = replace(config, **self.recipe.optimizer_options(name))
            if config.gradient_checkpointing and _can_checkpoint(network):
                network.enable_gradient_checkpointing()
            if self.channels_last:
                _keep_channels_innermost(network)
            optimizer = build_optimizer(network, own_options, self.accelerator, self.recipe.decays_vectors)
            self.lr_schedulers[name] = build_lr_scheduler(optimizer, own_options, self.max_train_steps)
            is_flat = isinstance(optimizer, FlatAdamW)
            if self.is_sharded:
                prepared = shard(network, optimizer, self.accelerator)
            else:
                # A flat network is on its device already and must not be moved: for Accelerate's "cpu:0", all tensors
                # on "cpu" would be copied, and would no longer be views of the flat tensor.
                placement = {"device_placement": [False, None]} if is_flat else {}
                prepared = self.accelerator.prepare(network, optimizer, **placement)
            self.prepared[name], self.optimizers[name] = prepared
            self.trained[name] = trained_weights(self.prepared[name])
            self.clipped[name] = [optimizer.flat] if is_flat else list(self.prepared[name].parameters())
            if config.compile:
                compile_network(network)
            setattr(self.recipe, name, self.prepared[name])
        averaged = {name: self.networks[name] for name in self.recipe.averaged(tuple(self.networks))}
        if config.use_ema:
            self.averages = {n: self.recipe.new_average(network, self.batch_size) for n, network in averaged.items()}
        self.posthoc_ema = PostHocEMA(config.output_dir, averaged, config.posthoc_ema_stds or [])

    def _check_networks(self) -> None:
        config = self.config
        for name, network in self.networks.items() if self.is_sharded else ():
            check_network(name, network)
        if len(self.networks) > 1 and config.mixed_precision == "fp16" and config.gradient_accumulation_steps > 1:
            # All networks share one gradient scale, which changes between the parts of an accumulated sum.
            raise ValueError(
                f"{', '.join(self.networks)} can't accumulate gradients in fp16: use --mixed_precision bf16, or "
                "--gradient_accumulation_steps 1."
            )
        if config.compile and self.accelerator.device.type == "cpu":
            raise ValueError(
                "--compile on a CPU loses gradients without an error, by a fault of PyTorch's compiler: leave it out."
            )
        # It is enough if one network can: a small discriminator may be unable to.
        if config.gradient_checkpointing and not any(map(_can_checkpoint, self.networks.values())):
            raise ValueError(f"--gradient_checkpointing is not supported by {', '.join(self.networks)}.")

    def _resume(self) -> None:
        name = self.config.resume_from_checkpoint
        path = self.checkpoints.find(name) if name else None
        if path is None:
            self.checkpoints.set_aside()
            return
        with keeping_options(self.optimizers):
            state = self.checkpoints.load(path)
        self.checkpoints.set_aside(after=state["step"])
        self.step, self.samples_seen = state["step"], state["samples_seen"]
        self._seconds_before = state["training_seconds"]
        for scheduler in self.lr_schedulers.values():
            go_to_step(scheduler, self.step)
        logger.info(f"Resuming from {path} at step {self.step}.")

    def train(self) -> bool:
        """Train until the last step, and write the results.

        Returns:
            `bool`: whether it reached the last step; `False` if it was asked to stop, and wrote a checkpoint.

        Raises:
            NonFiniteLossError: if a loss or gradient is not finite. The last checkpoint is kept.
        """
        with self._lock:
            return self._train()

    def _train(self) -> bool:
        self._started = time.perf_counter()
        self._sampling_time = ShareOfTime()
        with self._open_log() as log, StopRequest() as stop:
            finished = self._loop(log, stop)
        # The trained state is on the disk now. If the process is killed after this, resuming makes the outputs again.
        if finished:
            self.outputs.write(self.progress())
        with writing("The trackers' logs", RESUME):
            self.accelerator.end_training()
        if finished:
            self.outputs.publish()
        return finished

    def rehearse(self, count: int = 6) -> float:
        """Make a few steps, which are not kept: no checkpoint, no log, no outputs. For `--dry_run`.

        Returns:
            `float`: the seconds of a step, the median without the first one.

        Raises:
            NonFiniteLossError: if a loss or gradient is not finite.
        """
        with self._lock:
            self.start()
            seconds = []
            for _ in range(min(count, self.max_train_steps - self.step)):
                started = time.perf_counter()
                self.update()
                for step, values in self.reports.read()[0]:
                    self._check_finite(step, values)
                seconds.append(time.perf_counter() - started)
        return statistics.median(seconds[1:] or seconds or [0.0])

    def checkpoint_bytes(self) -> int:
        """About how much a checkpoint takes: the trained weights, their averages, and the state of the optimizers."""
        weights = [weight for trained in self.trained.values() for weight in trained]
        averages = [value for average in self.averages.values() for value in average.state_dict().values()]
        states = [
            value
            for optimizer in self.optimizers.values()
            for state in optimizer.state.values()
            for value in state.values()
        ]
        return sum(value.nbytes for value in [*weights, *averages, *states] if torch.is_tensor(value))

    def _training_seconds(self) -> float:
        """How long the training has taken, including the runs that this one continues."""
        return self._seconds_before + time.perf_counter() - self._started

    def _open_log(self) -> MetricsLog:
        with writing("The trackers' logs", RESUME):
            self.accelerator.init_trackers("diffusers_ext", _flat(self.recipe.config))
        return MetricsLog(self.outputs.output_dir / "logs", self.step, enabled=self.accelerator.is_main_process)

    def start(self) -> None:
        """Open the stream of batches at the first one that has not been used."""
        self.batches = self.recipe.dataset.batches(
            self.config.train_batch_size,
            seed=self.config.seed,
            start=self.samples_seen,
            process_index=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
            num_workers=self.config.dataloader_num_workers,
            run_length=self.batch_size,
        )

    def _loop(self, log: MetricsLog, stop: StopRequest) -> bool:
        config = self.config
        self.start()
        progress = tqdm(
            desc="Training",
            initial=self.step,
            total=self.max_train_steps,
            disable=not self.accelerator.is_local_main_process,
        )
        with progress:
            while self.step < self.max_train_steps:
                self.update()
                progress.update()
                # Before the checkpoint: a run that resumes from it does not repeat this step.
                complete = self.step == self.max_train_steps
                if config.posthoc_ema_stds and (complete or _is_due(self.step, config.posthoc_ema_steps)):
                    self._write_snapshot()
                if not self._is_read_now(stop):
                    continue
                reports, stopping, samples_due = self.reports.read(stop.requested, self._samples_are_due())
                for step, values in reports:
                    self._check_finite(step, values)
                    if step % config.logging_steps == 0:
                        self._log(log, step, values)
                progress.set_postfix({name: f"{value:.3g}" for name, value in reports[-1][1].items()}, refresh=False)

                last = stopping or complete
                measured = _is_due(self.step, config.evaluation_steps)
                if last or measured or _is_due(self.step, config.checkpointing_steps):
                    self._save()
                if stopping:
                    self.outputs.write_report(self.progress())
                    logger.warning(f"Stopped at step {self.step}; continue with --resume_from_checkpoint latest.")
                    return False
                if samples_due and not last:
                    with self._sampling_time.spent():
                        self.outputs.write_samples(self.step)
                if measured and not last:
                    log.write(self.step, evaluation=self.outputs.evaluate(self.step))
                if samples_due or measured:
                    self.outputs.write_report(self.progress())
        return True

    def progress(self) -> Progress:
        """How far the training is."""
        return Progress(self.step, self.max_train_steps, self._training_seconds())

    def _samples_are_due(self) -> bool:
        """Whether it is time for samples: every `--validation_steps`, or by the clock of the main process."""
        if self.config.validation_steps is not None:
            return self.config.validation_steps > 0 and _is_due(self.step, self.config.validation_steps)
        return self.accelerator.is_main_process and self._sampling_time.is_due(self._seconds_before)

    def _is_read_now(self, stop: StopRequest) -> bool:
        """Whether the reports are read after this step, which waits for the device."""
        config = self.config
        periods = (config.logging_steps, config.checkpointing_steps, config.evaluation_steps)
        periods += (config.validation_steps or None,)
        # Several processes must agree to stop, so they look for requests when they read.
        stops = stop.requested and self.accelerator.num_processes == 1
        return stops or self.step == self.max_train_steps or any(_is_due(self.step, period) for period in periods)

    def update(self) -> None:
        """Make one step. Nothing in it waits for the device; `reports` has the values to report."""
        accelerator, size = self.accelerator, self.config.train_batch_size
        self._recorded, self._gathered, self._updated = defaultdict(list), defaultdict(list), set()
        for micro_step in range(self.config.gradient_accumulation_steps):
            batch = {name: self._to_device(name, values) for name, values in next(self.batches).items()}
            first_row = (micro_step * accelerator.num_processes + accelerator.process_index) * size
            # Dropout inside of networks draws from the global generator: seeding makes it a function of the step too.
            seed_default_generator(derive_seed(self.config.seed, "network", self.step, first_row))
            # Shards add up after each part of the batch: waiting for the last one would take whole gradients.
            with accelerator.accumulate(*([] if self.is_sharded else self.prepared.values())):
                self.recipe.step(batch, self.draw.begin(self.step, range(first_row, first_row + size)))
        self.step += 1
        self.samples_seen += self.batch_size
        self._share_buffers()
        # What is recorded in it is the same on each process, and so is its mean over the processes.
        self.recipe.after_update(**{name: self._global_rows(rows) for name, rows in self._gathered.items()})
        for name, average in self.averages.items():
            if name in self._updated:
                average.update(self.step)
        self.posthoc_ema.update(self.step)
        rates = {f"{self._prefix(name)}lr": rate.get_last_lr()[0] for name, rate in self.lr_schedulers.items()}
        for scheduler in self.lr_schedulers.values():
            scheduler.step()
        self.reports.add(self.step, self._recorded, rates)

    def _share_buffers(self) -> None:
        """Average the buffers over the processes' parts of the batch. The buffers of batch norms are equal already."""
        if self.accelerator.num_processes > 1:
            buffers = [b for network in self.networks.values() for b in network.buffers() if b.is_floating_point()]
            for buffer in buffers:
                buffer.copy_(self.accelerator.reduce(buffer, "mean"))

    def _log(self, log: MetricsLog, step: int, values: dict[str, float]) -> None:
        log.write(step, **values)
        with writing("The trackers' logs", RESUME):
            self.accelerator.log(values, step=step)

    def _prefix(self, name: str) -> str:
        """The prefix of names of values to report: the network's name, if there are several networks."""
        return "" if len(self.networks) == 1 else f"{name}_"

    def _to_device(self, name: str, values: torch.Tensor) -> torch.Tensor:
        if name in self.recipe.on_host:
            return values
        if self.accelerator.device.type == "cuda":
            values = values.pin_memory()  # a copy from other memory waits for the device
        values = values.to(self.accelerator.device, non_blocking=True)
        if self.channels_last and values.ndim == 4:
            values = values.contiguous(memory_format=torch.channels_last)
        return values

    def minimise(self, names: tuple[str, ...], loss: torch.Tensor) -> None:
        """Update the networks `names` to lower the mean of `loss`; see [`Recipe.minimise`]."""
        loss = loss.mean()
        # Only for the weights of these networks: no gradients are computed for a discriminator in a generator's loss.
        self.accelerator.backward(loss, inputs=[weight for name in names for weight in self.trained[name]])
        self.record({f"{self._prefix(names[0])}loss": loss})
        for name in names:
            self._take_step(name)

    def _take_step(self, name: str) -> None:
        accelerator, optimizer = self.accelerator, self.optimizers[name]
        if accelerator.sync_gradients:
            norm = self._clip(name)
            self._updated.add(name)
        optimizer.step()
        # With fp16 a step that overflows is skipped and the scale is lowered: no error, and nothing to report.
        if accelerator.sync_gradients and not optimizer.step_was_skipped:
            self.record({f"{self._prefix(name)}grad_norm": norm})
        optimizer.zero_grad()

    def _clip(self, name: str) -> torch.Tensor:
        """Scale the gradients of a network down to `--max_grad_norm`, if it is set, and return their norm."""
        if self.is_sharded:
            return clip_gradients(self.clipped[name], self.config.max_grad_norm)
        if self.config.max_grad_norm:
            return self.accelerator.clip_grad_norm_(self.clipped[name], self.config.max_grad_norm)
        # Only the norm is needed: clipping to an infinite norm would multiply all gradients by 1.
        self.accelerator.unscale_gradients(self.optimizers[name])
        return torch.nn.utils.get_total_norm([weight.grad for weight in self.clipped[name] if weight.grad is not None])

    def record(self, values: dict[str, torch.Tensor]) -> None:
        """Add values of this step to the report; see [`Recipe.log`]."""
        for name, value in values.items():
            self._recorded[name].append(value.detach().float().mean())

    def keep_rows(self, values: dict[str, torch.Tensor]) -> None:
        """Keep rows of this step until the update is complete; see [`Recipe.gather`]."""
        for name, rows in values.items():
            self._gathered[name].append(rows.detach())

    def _global_rows(self, own: list[torch.Tensor]) -> torch.Tensor:
        """The rows of all processes in the order of the global batch, of which each process has a part."""
        rows = torch.stack(own)
        gathered = self.accelerator.gather(rows).view(self.accelerator.num_processes, *rows.shape)
        return gathered.transpose(0, 1).flatten(0, 2)

    def _check_finite(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                saved = self.checkpoints.saved()
                kept = f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint yet"
                raise NonFiniteLossError(f"The {name} is {value} at step {step}; {kept}.")

    def _save(self) -> None:
        state = {
            "samples_seen": self.samples_seen,
            "training_seconds": self._training_seconds(),
        }
        with writing(f"The checkpoint of step {self.step}", RESUME):
            self.checkpoints.save(self.step, state)

    def _write_snapshot(self) -> None:
        with writing(f"The snapshot of step {self.step}", RESUME):
            self.posthoc_ema.write_snapshot(self.step, is_main_process=self.accelerator.is_main_process)


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _keep_channels_innermost(network: torch.nn.Module) -> None:
    """As `network.to(memory_format=torch.channels_last)`, which refuses networks with convolutions over time."""
    for weight in network.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _can_checkpoint(network: torch.nn.Module) -> bool:
    """Whether the network can compute activations twice; only classes of diffusers declare that they can't."""
    return getattr(network, "_supports_gradient_checkpointing", True)


def _architecture(network: torch.nn.Module) -> dict:
    config = network.config  # of transformers' networks an object, of diffusers' a dict
    entries = config.to_diff_dict() if hasattr(config, "to_diff_dict") else config
    known = {name: value for name, value in entries.items() if not name.startswith(("_", "transformers_"))}
    return {"class": type(network).__name__, **known}


def _flat(config: RunConfig) -> dict:
    """The options in the form that trackers accept: numbers, booleans and strings."""
    plain = (int, float, str, bool)
    return {name: value if isinstance(value, plain) else str(value) for name, value in config.to_dict().items()}
