"""Autoguidance: a diffusion model guided by a weaker version of itself (Karras et al. 2024, arXiv:2406.02507).

    python examples/autoguidance.py --pretrained_model_name_or_path outputs/digits \
        --weaker_model outputs/digits_weaker --dataset_name digits --feature_extractor digits \
        --guidance_scales 1 1.5 2 3

The weaker model makes the same mistakes, only larger: what leads away from it leads towards the data.
It can be a smaller network, one that was trained for less time, or, of the same run, an earlier or shorter average:

    python -m diffusers_ext.training.reconstruct_ema outputs/digits outputs/digits_weaker --std 0.2 --step 100

The guider below is also an example of how to write one: it works in any pipeline that takes guiders.
"""

import json
import sys
from dataclasses import dataclass

import torch
from diffusers import BaseGuidance, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.guiders.guider_utils import GuiderOutput

from diffusers_ext import ClassConditionalPipeline
from diffusers_ext.training.evaluate_pipeline import EvaluateConfig
from diffusers_ext.training.evaluation.samples import SampleEvaluator
from diffusers_ext.training.loop.accelerator import build_accelerator
from diffusers_ext.training.loop.configuration import option, parse_config
from diffusers_ext.training.loop.context import Context
from diffusers_ext.training.loop.sampling import Generation


class Autoguidance(BaseGuidance):
    """Moves the prediction away from that of `weaker_model`: `weak + guidance_scale * (main - weak)`, eq. 3."""

    _input_predictions = ["pred_main", "pred_weak"]
    weaker_model: ModelMixin | None = None

    @register_to_config
    def __init__(self, guidance_scale: float = 2.0, start: float = 0.0, stop: float = 1.0, enabled: bool = True):
        super().__init__(start, stop, enabled)

    def new(self, **changes) -> "Autoguidance":
        guider = super().new(**changes)
        guider.weaker_model = self.weaker_model
        return guider

    def prepare_inputs(self, data: dict) -> list:
        # Both models get the same inputs.
        return [self._prepare_batch(data, 0, name) for name in self._input_predictions[: self.num_conditions]]

    def prepare_models(self, denoiser: torch.nn.Module) -> None:
        super().prepare_models(denoiser)
        if self._count_prepared == 2:
            denoiser.forward = self.weaker_model.forward

    def cleanup_models(self, denoiser: torch.nn.Module) -> None:
        vars(denoiser).pop("forward", None)

    def forward(self, pred_main: torch.Tensor, pred_weak: torch.Tensor | None = None) -> GuiderOutput:
        pred = pred_main
        if pred_weak is not None:
            pred = pred_weak + self.config.guidance_scale * (pred_main - pred_weak)
        return GuiderOutput(pred=pred, pred_cond=pred_main, pred_uncond=pred_weak)

    @property
    def is_conditional(self) -> bool:
        return True

    @property
    def num_conditions(self) -> int:
        first, last = (int(end * self._num_inference_steps) for end in (self._start, self._stop))
        is_active = self._enabled and first <= self._step < last and self.config.guidance_scale != 1
        return 2 if is_active else 1


@dataclass
class AutoguidanceConfig(EvaluateConfig):
    weaker_model: str = option(help="The pipeline whose network guides: a local folder or a Hub name.")


def main() -> None:
    config = parse_config(AutoguidanceConfig, sys.argv[1:])
    accelerator = build_accelerator()
    pipe = ClassConditionalPipeline.from_pretrained(config.pretrained_model_name_or_path).to(accelerator.device)
    pipe.guider = Autoguidance()
    pipe.guider.weaker_model = (
        ClassConditionalPipeline.from_pretrained(config.weaker_model).to(accelerator.device).unet
    )
    pipe.set_progress_bar_config(disable=True)
    size = pipe.unet.config.sample_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    dataset = config.load_dataset(size, pipe.unet.config.in_channels)
    evaluator = SampleEvaluator(dataset, split=config.dataset_split, device=accelerator.device, **config.measured())
    generate = Generation(pipe, Context(accelerator), config.seed, config.evaluation_batch_size)
    rows = [row for steps in config.num_inference_steps for row in evaluator(generate, steps, config.guidance_scales)]
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
