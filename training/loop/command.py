"""Running a recipe from the command line: options, set-up, and errors in one sentence."""

import diffusers_ext.training.loop.quick_help  # noqa: F401, answers --help before the other imports

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import datasets
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration

from diffusers_ext.data import UnreadableImagesError
from diffusers_ext.training.loop.accelerator import build_accelerator
from diffusers_ext.training.loop.configuration import RunConfig, parse_config
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.dry_run import rehearse, without_outputs
from diffusers_ext.training.loop.publication import PublicationError
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.loop.run_lock import only_run_in
from diffusers_ext.training.loop.trainer import NonFiniteLossError, Trainer


def run(
    build_recipe: Callable[[RunConfig, TrainingContext], Recipe],
    config_class: type[RunConfig],
    arguments: list[str] | None = None,
) -> None:
    """Parse the options of the command line, and train the recipe with them.

    Args:
        build_recipe (`Callable`): a recipe class, or a function that chooses one by the options.
        config_class (`type`): the options.
        arguments (`list[str]`, *optional*): the command line, by default this process's.
    """
    config = parse_config(config_class, sys.argv[1:] if arguments is None else arguments)
    output_dir = config.output_dir
    with ExitStack() as stack:
        with one_sentence(ValueError, TypeError, OSError, RuntimeError, ImportError, status=2):
            if config.dry_run:
                config = stack.enter_context(without_outputs(config))
            accelerator = build_accelerator(
                config.report_to,
                config.allow_tf32,
                config.cpu_threads,
                mixed_precision=config.mixed_precision,
                gradient_accumulation_steps=config.gradient_accumulation_steps,
                project_config=ProjectConfiguration(config.output_dir, logging_dir=f"{config.output_dir}/logs"),
            )
            set_up_logging(accelerator)
            # The trainer takes this lock as well, but recipes write into the folder before, for example class images.
            if accelerator.is_main_process:
                stack.enter_context(only_run_in(config.output_dir))
            # One process of a machine downloads and prepares the data; the others wait and reuse it.
            with accelerator.local_main_process_first():
                recipe = build_recipe(config, TrainingContext(accelerator))
            trainer = Trainer(recipe, accelerator)
        with one_sentence(NonFiniteLossError, UnreadableImagesError, OSError, PublicationError, status=1):
            if config.dry_run:
                report = rehearse(trainer, output_dir)
            elif trainer.train():
                report = trainer.outputs.next_steps
            else:
                return
        if accelerator.is_main_process:
            print(report)


@contextmanager
def one_sentence(*errors: type[Exception], status: int) -> Iterator[None]:
    """Replace the traceback of an error that the user can fix by one sentence, and end the process.

    Args:
        errors: the exceptions to catch; all others are bugs and keep their traceback.
        status (`int`): the exit status.
    """
    try:
        yield
    except errors as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(status)


def set_up_logging(accelerator: Accelerator) -> None:
    """Show the messages of the main process, and only the errors of other processes and of talkative libraries."""
    level = logging.INFO if accelerator.is_local_main_process else logging.ERROR
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    logging.getLogger("diffusers_ext").setLevel(level)
    datasets.utils.logging.set_verbosity_error()
    if not accelerator.is_local_main_process:
        datasets.utils.logging.disable_progress_bar()
