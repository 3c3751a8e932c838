"""The recurrent network of sketch-rnn, which draws sketches point by point."""

import math
from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from .gan_checks import check_positive


LSTMState = tuple[torch.Tensor, torch.Tensor]


@dataclass
class SketchRNNOutput(BaseOutput):
    """
    The distribution of each point of N sketches given the points before it, and of the latents of the sketches.

    Args:
        pen_logits (`torch.Tensor` of shape `(N, L, 3)`):
            The logits of the states of the pen after a point: down, lifted, end of the sketch.
        log_weights (`torch.Tensor` of shape `(N, L, M)`):
            The log-probabilities of the Gaussians, of which one gives the offset.
        means (`torch.Tensor` of shape `(N, L, M, 2)`):
            Their means, in standard deviations of offsets.
        log_stds (`torch.Tensor` of shape `(N, L, M, 2)`):
            The logarithms of their standard deviations.
        correlations (`torch.Tensor` of shape `(N, L, M)`):
            The correlations of the two coordinates, in (-1, 1).
        latent_mean, latent_logvar (`torch.Tensor` of shape `(N, latent_dim)`, *optional*):
            The posterior of the latents; `None` for a decoder alone.
    """

    pen_logits: torch.Tensor
    # accelerate rebuilds outputs from a dictionary, for which all but the first field need a default
    log_weights: torch.Tensor = None
    means: torch.Tensor = None
    log_stds: torch.Tensor = None
    correlations: torch.Tensor = None
    latent_mean: torch.Tensor | None = None
    latent_logvar: torch.Tensor | None = None

    def offset_log_prob(self, offsets: torch.Tensor) -> torch.Tensor:
        """
        The log-density of offsets, `(N, L)` in float32 (Graves 2013, eqs. 24 to 26, without leaving logarithms).

        Args:
            offsets (`torch.Tensor` of shape `(N, L, 2)`):
                In standard deviations of offsets.
        """
        log_stds, correlation = self.log_stds.float(), self.correlations.float()
        x, y = ((offsets.float()[:, :, None] - self.means.float()) * (-log_stds).exp()).unbind(dim=-1)
        rest = 1 - correlation.square()
        square = (x.square() + y.square() - 2 * correlation * x * y) / rest
        log_norm = math.log(2 * math.pi) + log_stds.sum(dim=-1) + 0.5 * rest.log()
        return (self.log_weights.float() - 0.5 * square - log_norm).logsumexp(dim=-1)


class LSTMLayer(nn.Module):
    """
    A layer of LSTM cells with the recurrent dropout of Semeniuta et al. 2016, which leaves the memory alone.

    Dynamo refuses [`torch.nn.LSTM`], which has no such dropout either; the operation behind it is the same.

    Args:
        input_size, hidden_size (`int`):
            The features of the input and of the state.
        recurrent_dropout (`float`):
            The probability that a new value of the memory is zeroed in training.
    """

    def __init__(self, input_size: int, hidden_size: int, recurrent_dropout: float):
        super().__init__()
        self.hidden_size, self.recurrent_dropout = hidden_size, recurrent_dropout
        # the gates are, one after the other: input, forget, new values, output
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.empty(4 * hidden_size))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)  # as torch.nn.LSTM

    def forward(self, inputs: torch.Tensor, state: LSTMState) -> tuple[torch.Tensor, LSTMState]:
        """
        The outputs `(N, L, hidden_size)` for inputs `(N, L, input_size)`, and the state after the last.

        Args:
            inputs (`torch.Tensor` of shape `(N, L, input_size)`):
                The sequence.
            state (tuple of two `torch.Tensor` of shape `(N, hidden_size)`):
                The output and the memory before the sequence.
        """
        if self.training and self.recurrent_dropout > 0:
            return self._with_dropout(inputs, state)
        weights = (self.weight_ih, self.weight_hh, self.bias, torch.zeros_like(self.bias))
        hidden, memory = (part[None].contiguous() for part in state)
        outputs, hidden, memory = torch.lstm(inputs, (hidden, memory), weights, True, 1, 0.0, False, False, True)
        return outputs, (hidden[0], memory[0])

    def _with_dropout(self, inputs: torch.Tensor, state: LSTMState) -> tuple[torch.Tensor, LSTMState]:
        hidden, memory = state
        outputs = []
        for from_input in nn.functional.linear(inputs, self.weight_ih, self.bias).unbind(dim=1):
            gates = from_input + nn.functional.linear(hidden, self.weight_hh)
            opened, kept, new, shown = gates.chunk(4, dim=1)
            new = nn.functional.dropout(new.tanh(), self.recurrent_dropout)
            memory = kept.sigmoid() * memory + opened.sigmoid() * new
            hidden = shown.sigmoid() * memory.tanh()
            outputs.append(hidden)
        return torch.stack(outputs, dim=1), (hidden, memory)


class SketchRNN(ModelMixin, ConfigMixin):
    r"""
    Predicts the points of sketches from those before them; with latents it is a variational autoencoder of sketches.

    "A Neural Representation of Sketch Drawings" (Ha and Eck 2017, https://huggingface.co/papers/1704.03477), as in
    https://github.com/magenta/magenta (`magenta/models/sketch_rnn`): a bidirectional LSTM encodes a sketch; an LSTM,
    whose first state and every input depend on the latents, gives a mixture of Gaussians for the next offset and the
    probabilities of the pen. The 3 logits of the pen come first in the output layer, then six blocks of M values:
    weights, means of x and y, logarithms of the standard deviations of x and y, correlations before the tanh.

    A point of a sketch ("stroke-5") is `(dx, dy, down, lifted, end)`: the offset from the point before it in standard
    deviations of offsets, and one of three states of the pen after the point. After the last point there is only
    `(0, 0, 0, 0, 1)`.

    Args:
        encoder_hidden_size (`int`, defaults to 256):
            The state of the encoder in each direction.
        decoder_hidden_size (`int`, defaults to 512):
            The state of the decoder.
        latent_dim (`int`, *optional*, defaults to 128):
            The number of latents; `None` for a decoder alone, which has no encoder.
        num_mixtures (`int`, defaults to 20):
            M, the number of Gaussians of an offset.
        recurrent_dropout (`float`, defaults to 0.1):
            The probability that a new value of an LSTM's memory is zeroed in training.
        num_classes (`int`, *optional*):
            The number of classes, which the decoder sees beside the latents.
        max_length (`int`, defaults to 250):
            The most points of a sketch.
        offset_std (`float`, defaults to 1.0):
            The standard deviation of the offsets of the training, in their own units. The network does not use it;
            it turns its offsets into those of the data.

    Raises:
        ValueError: if an argument is out of range.
    """

    @register_to_config
    def __init__(
        self,
        encoder_hidden_size: int = 256,
        decoder_hidden_size: int = 512,
        latent_dim: int | None = 128,
        num_mixtures: int = 20,
        recurrent_dropout: float = 0.1,
        num_classes: int | None = None,
        max_length: int = 250,
        offset_std: float = 1.0,
    ):
        super().__init__()
        check_positive(
            encoder_hidden_size=encoder_hidden_size,
            decoder_hidden_size=decoder_hidden_size,
            num_mixtures=num_mixtures,
            max_length=max_length,
        )
        for name, count in {"latent_dim": latent_dim, "num_classes": num_classes}.items():
            if count is not None and count < 1:
                raise ValueError(f"`{name}` must be at least 1 or `None`, but is {count}.")
        if not 0 <= recurrent_dropout < 1:
            raise ValueError(f"`recurrent_dropout` must be from 0 to below 1, but is {recurrent_dropout}.")
        if not offset_std > 0:
            raise ValueError(f"`offset_std` must be positive, but is {offset_std}.")
        condition_dim = (latent_dim or 0) + (num_classes or 0)
        if latent_dim is not None:
            self.forward_encoder = LSTMLayer(5, encoder_hidden_size, recurrent_dropout)
            self.backward_encoder = LSTMLayer(5, encoder_hidden_size, recurrent_dropout)
            self.to_mean = nn.Linear(2 * encoder_hidden_size, latent_dim)
            self.to_logvar = nn.Linear(2 * encoder_hidden_size, latent_dim)
        if condition_dim:
            self.to_state = nn.Linear(condition_dim, 2 * decoder_hidden_size)
        self.decoder = LSTMLayer(5 + condition_dim, decoder_hidden_size, recurrent_dropout)
        self.to_parameters = nn.Linear(decoder_hidden_size, 3 + 6 * num_mixtures)

    def encode(self, strokes: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        The means and the log-variances of the latents of sketches, `(N, latent_dim)` each.

        Args:
            strokes (`torch.Tensor` of shape `(N, L, 5)`):
                The sketches as stroke-5.
            lengths (`torch.Tensor` of shape `(N,)`):
                Their numbers of points, int64 from 1 to L. What comes after these points has no effect.

        Raises:
            ValueError: if the network has no encoder.
        """
        if self.config.latent_dim is None:
            raise ValueError("This SketchRNN is a decoder alone (its `latent_dim` is None), which can't encode.")
        state = strokes.new_zeros(strokes.shape[0], self.config.encoder_hidden_size)
        last = (lengths - 1)[:, None]
        steps = torch.arange(strokes.shape[1], device=strokes.device)
        order = (last - steps).clamp(min=0)[:, :, None]  # gather, because the export of take_along_dim fixes the batch
        backwards = strokes.gather(1, order.expand(-1, -1, strokes.shape[2]))
        forward_states, _ = self.forward_encoder(strokes, (state, state))
        backward_states, _ = self.backward_encoder(backwards, (state, state))
        both = torch.cat([forward_states, backward_states], dim=2)
        summary = both.gather(1, last[:, :, None].expand(-1, -1, both.shape[2]))[:, 0]
        return self.to_mean(summary), self.to_logvar(summary)

    def condition(self, latents: torch.Tensor | None, class_labels: torch.Tensor | None) -> torch.Tensor | None:
        """
        What the decoder sees beside the points, `(N, latent_dim + num_classes)`; `None` if the network has neither.

        Args:
            latents (`torch.Tensor` of shape `(N, latent_dim)`, *optional*):
                For a network with latents.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                For a network with classes, int64.

        Raises:
            ValueError: if one is missing, or given to a network without it.
        """
        config, parts = self.config, []
        given = {"latents": (latents, config.latent_dim), "class_labels": (class_labels, config.num_classes)}
        for name, (value, count) in given.items():
            if (value is None) != (count is None):
                problem = "missing" if value is None else "given, but the network has none"
                raise ValueError(f"`{name}` of the sketches are {problem}.")
        if latents is not None:
            parts.append(latents)
        if class_labels is not None:
            parts.append(nn.functional.one_hot(class_labels, config.num_classes).to(self.dtype))
        return torch.cat(parts, dim=1) if parts else None

    def decode(
        self, before: torch.Tensor, condition: torch.Tensor | None, state: LSTMState | None = None
    ) -> tuple[SketchRNNOutput, LSTMState]:
        """
        The distributions of the points that follow other points, and the state of the decoder after them.

        Args:
            before (`torch.Tensor` of shape `(N, L, 5)`):
                The points before them as stroke-5; the first one of a sketch is `(0, 0, 1, 0, 0)`.
            condition (`torch.Tensor`, *optional*):
                From `condition`.
            state (tuple of two `torch.Tensor` of shape `(N, decoder_hidden_size)`, *optional*):
                The state after earlier points; by default that of a new sketch.
        """
        if state is None and condition is None:
            zeros = before.new_zeros(before.shape[0], self.config.decoder_hidden_size)
            state = (zeros, zeros)
        elif state is None:
            # the cell of Magenta keeps the memory before the output
            memory, hidden = self.to_state(condition).tanh().chunk(2, dim=1)
            state = (hidden, memory)
        if condition is not None:
            before = torch.cat([before, condition[:, None].expand(-1, before.shape[1], -1)], dim=2)
        features, state = self.decoder(before, state)
        parameters = self.to_parameters(features)
        weights, x, y, log_std_x, log_std_y, correlations = parameters[..., 3:].chunk(6, dim=2)
        output = SketchRNNOutput(
            pen_logits=parameters[..., :3],
            log_weights=weights.log_softmax(dim=2),
            means=torch.stack([x, y], dim=3),
            log_stds=torch.stack([log_std_x, log_std_y], dim=3),
            correlations=correlations.tanh(),
        )
        return output, state

    def forward(
        self,
        strokes: torch.Tensor,
        lengths: torch.Tensor | None = None,
        class_labels: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> SketchRNNOutput | tuple:
        """
        The distribution of each point of sketches given the points before it.

        Args:
            strokes (`torch.Tensor` of shape `(N, L, 5)`):
                The sketches as stroke-5.
            lengths (`torch.Tensor` of shape `(N,)`, *optional*):
                Their numbers of points, int64 from 1 to L, for a network with latents.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                The classes, int64, for a network with classes.
            noise (`torch.Tensor` of shape `(N, latent_dim)`, *optional*):
                Standard normal noise that the latents are drawn by; by default they are the means.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`SketchRNNOutput`] instead of a tuple.

        Raises:
            ValueError: if an input is missing, or given to a network without it.
        """
        mean = logvar = latents = None
        if self.config.latent_dim is not None:
            mean, logvar = self.encode(strokes, lengths)
            latents = mean if noise is None else mean + (0.5 * logvar).exp() * noise.to(mean.dtype)
        before = torch.cat([self.start_points(strokes), strokes[:, :-1]], dim=1)
        output, _ = self.decode(before, self.condition(latents, class_labels))
        output = SketchRNNOutput(**output, latent_mean=mean, latent_logvar=logvar)
        return output if return_dict else output.to_tuple()

    @staticmethod
    def start_points(like: torch.Tensor) -> torch.Tensor:
        """The point before the first one of each sketch, `(N, 1, 5)`, for N rows of `like`, in its precision."""
        return like.new_tensor([0.0, 0.0, 1.0, 0.0, 0.0]).expand(like.shape[0], 1, 5)

    @staticmethod
    def to_stroke5(strokes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """
        Sketches as the network sees them, `(N, L, 5)`.

        Args:
            strokes (`torch.Tensor` of shape `(N, L, 3)`):
                Points as stroke-3: `(dx, dy, lifted)`, where the last entry is 1 if the pen is lifted after the point.
            lengths (`torch.Tensor` of shape `(N,)`):
                The numbers of points; those after them become ends.
        """
        offsets, lifted = strokes[..., :2], strokes[..., 2:]
        ended = (torch.arange(strokes.shape[1], device=strokes.device) >= lengths[:, None])[..., None]
        points = torch.cat([offsets, 1 - lifted, lifted, torch.zeros_like(lifted)], dim=2)
        return torch.where(ended, points.new_tensor([0.0, 0.0, 0.0, 0.0, 1.0]), points)

    @staticmethod
    def draw_points(output: SketchRNNOutput, uniforms: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """
        Draws the last points of an output, `(N, 5)` in float32.

        With a temperature, logits are divided by it and variances are multiplied by it, as in section 3.3 of the
        paper. (`sample` of Magenta multiplies the standard deviations by it.)

        Args:
            output ([`SketchRNNOutput`]):
                The distributions.
            uniforms (`torch.Tensor` of shape `(N, 4)`):
                Uniform numbers in `[0, 1)`: for the Gaussian, the pen, and two coordinates.
            temperature (`float`, defaults to 1.0):
                Above 0; the lower, the closer is a point to the most probable one.
        """
        chosen = _draw_index(output.log_weights[:, -1], uniforms[:, 0], temperature)[:, None]
        pen = _draw_index(output.pen_logits[:, -1], uniforms[:, 1], temperature)
        means, log_stds = (
            values[:, -1].float().take_along_dim(chosen[:, :, None], dim=1)[:, 0]
            for values in (output.means, output.log_stds)
        )
        correlation = output.correlations[:, -1].float().take_along_dim(chosen, dim=1)[:, 0]
        x, y = torch.special.ndtri(uniforms[:, 2:].float().clamp(min=2.0**-25)).unbind(dim=1)
        y = correlation * x + (1 - correlation.square()).sqrt() * y
        offsets = means + math.sqrt(temperature) * log_stds.exp() * torch.stack([x, y], dim=1)
        return torch.cat([offsets, nn.functional.one_hot(pen, 3).float()], dim=1)


def _draw_index(logits: torch.Tensor, uniforms: torch.Tensor, temperature: float) -> torch.Tensor:
    """An index for each row of logits `(N, K)`, by uniform numbers `(N,)`."""
    cumulative = (logits.float() / temperature).softmax(dim=1).cumsum(dim=1)
    below = cumulative[:, :-1] <= uniforms[:, None]
    return below.sum(dim=1)
