"""The two conditional VAEs among the generator networks, and ``build``, which makes a network of any architecture.

The architecture ``token`` has embeddings of layer and kind, heads that layers may share, and a learned prior p(z | c).
The architecture ``conv1d`` is that of the paper (ICM-LoRA, arXiv 2501.17635, section 3.3): strided 1-D convolutions
over the flattened adapter, the condition joined to the encoder's output and to z, a mirrored decoder, and N(0, I) as
the prior.

The loss is the MSE of the cores, divided by the mean square of the data so that predicting zero costs 1.0, plus
kl_weight * KL(q(z | x, c) || p(z | c)) in nats per latent number. Since the basis is orthonormal, the MSE of the cores
is that of delta-W.

Shapes: x [B, modules, R, R] normalised cores; c [B, condition]; z [B, latent].
"""

from collections.abc import Sequence

import torch
from torch import nn

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.generator.conditions import Support, pooled
from icmlora_cli.generator.diffusion import PDiff
from icmlora_cli.generator.interface import Batch, Losses, Network, NetworkConfig, Objective, TrainStep
from icmlora_cli.generator.neighbours import Gaussian, NeighbourPrior
from icmlora_cli.generator.noise import Rng, normal

Further = tuple[str, float, torch.Tensor]
"""The name, the weight and the value of a loss that is added to the others."""

START = -4.0  # log-variance of z before training; with 0, noise would drown the differences between means


def kl_divergence(posterior: Gaussian, prior: Gaussian) -> torch.Tensor:
    """Return KL(q || p) of diagonal Gaussians in nats, as a mean over the batch and the numbers of z."""
    (q_mean, q_log), (p_mean, p_log) = posterior, prior
    terms = p_log - q_log + (q_log.exp() + (q_mean - p_mean).square()) / p_log.exp() - 1.0
    return 0.5 * terms.mean()


def sample(gaussian: Gaussian, rng: Rng) -> torch.Tensor:
    """Draw z from a diagonal Gaussian by reparametrization."""
    mean, log_variance = gaussian
    return mean + normal(mean.shape, rng, mean.device) * (0.5 * log_variance).exp()


def contrast(c: torch.Tensor, temperature: float = 0.1) -> torch.Tensor:
    """Return the InfoNCE loss (van den Oord et al. 2018, arXiv 1807.03748) of pairs of conditions, in nats.

    Args:
        c: the conditions of two readings of each task, one after the other, fp32 [2 * tasks, condition].
        temperature: the number by which the cosines are divided.
    """
    unit = nn.functional.normalize(c, dim=1)
    cosines = unit[0::2] @ unit[1::2].T / temperature
    partners = torch.arange(len(cosines), device=c.device)
    return 0.5 * (nn.functional.cross_entropy(cosines, partners) + nn.functional.cross_entropy(cosines.T, partners))


class CVAE(Network):
    """The common part of both conditional VAEs: the evidence lower bound, with a warm-up of its KL term."""

    def encode(self, x: torch.Tensor, c: torch.Tensor) -> Gaussian:
        """Return the posterior q(z | x, c) of normalised cores x under conditions c."""
        raise TypeError(f"{type(self).__name__} has no encoder")

    def prior(self, c: torch.Tensor) -> Gaussian:
        """Return the prior p(z | c), which is N(0, I) unless the architecture learns one."""
        zeros = c.new_zeros(c.shape[0], self.config.latent_dim)
        return zeros, zeros

    def divergence(
        self, posterior: Gaussian, c: torch.Tensor, batch: Batch, objective: Objective
    ) -> tuple[torch.Tensor, list[Further]]:
        """Return KL(q || p) in nats per latent number, and the further losses by which the prior is trained.

        Args:
            posterior: the posterior q(z | x, c) of the batch.
            c: the conditions of the batch, fp32 [B, condition].
            batch: the adapters and the supports of their tasks.
            objective: the weights and scales of the losses.
        """
        return kl_divergence(posterior, self.prior(c)), []

    def losses(self, batch: Batch, objective: Objective, train_step: TrainStep, rng: Rng) -> Losses:
        """Return the losses ``reconstruction``, relative to predicting zero, and ``kl``, in nats per latent number.

        With the recipe's ``prior_share`` there is also ``from_prior``, the reconstruction with z drawn from p(z | c) as
        in generation. This is the hybrid objective of Sohn et al. (NIPS 2015), which narrows the gap between training,
        where z comes from the posterior, and generation.
        """
        x, c, recipe = batch.x, self.read(batch.support), objective.recipe
        posterior = self.encode(x, c)
        reconstruction = objective.reconstruction(self.decode(sample(posterior, rng), c), batch)
        kl, further = self.divergence(posterior, c, batch, objective)
        first = train_step.stage == 0  # the warm-up is over when a later stage begins
        warmup = min(1.0, (train_step.step + 1) / max(1.0, recipe.kl_warmup * train_step.steps)) if first else 1.0
        total, parts = reconstruction + recipe.kl_weight * warmup * kl, {"reconstruction": reconstruction, "kl": kl}
        for name, weight, item in further:
            parts[name] = item
            total = total + weight * item
        if recipe.prior_share:
            parts["from_prior"] = objective.reconstruction(self.decode(sample(self.prior(c), rng), c), batch)
            total = (1.0 - recipe.prior_share) * total + recipe.prior_share * parts["from_prior"]
        return Losses(total, parts)

    def sample_latent(self, c: torch.Tensor, rng: torch.Generator | None) -> torch.Tensor:
        """Return z, [B, latent], drawn from p(z | c), or that prior's mean if ``rng`` is None."""
        gaussian = self.prior(c)
        return gaussian[0] if rng is None else sample(gaussian, rng)


def _mlp(size_in: int, hidden: int, size_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(size_in, hidden), nn.GELU(), nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU(),
        nn.Linear(hidden, size_out),
    )  # fmt: skip


def _start_narrow(net: nn.Sequential, latent_dim: int) -> None:
    """Set the last bias of a network of mean and log-variance so that training starts with little variance."""
    start = net[-1].bias
    assert isinstance(start, nn.Parameter)
    with torch.no_grad():
        start[latent_dim:].fill_(START)


class _Modulated(nn.Module):
    """A residual block, h + f(norm(h)), whose norm has a scale and a shift that depend on the module."""

    def __init__(self, size: int, config: NetworkConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size, elementwise_affine=False)
        self.layer = nn.Parameter(torch.randn(config.layers, 2 * size) * 0.3)
        self.kind = nn.Parameter(torch.randn(config.kinds, 2 * size) * 0.3)
        self.enter, self.leave = nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, h: torch.Tensor, layers: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        scale, shift = (self.layer[layers] + self.kind[kinds]).chunk(2, dim=1)  # (modules, size) each
        update = self.leave(nn.functional.gelu(self.enter(self.norm(h) * (1.0 + scale) + shift)))
        total: torch.Tensor = h + update
        return total


class TokenCVAE(CVAE):
    """The ``token`` architecture: one token per module, with embeddings of the module's layer and of its kind.

    The heads, which turn the decoder's codes into cores, are shared by all layers, or each module has one. With shared
    heads the decoder's size grows with R and with the number of kinds, and each layer adds only a few vectors. The
    cores of all layers then lie in one space of ``code_dim`` dimensions. This suffices for the
    small cores of a frame, and is too little for the wide ones of a learned basis.

    With a learned prior the decoder is given z alone, so that all it knows of the condition passes through z. With
    N(0, I), as in the paper, the condition is joined to z. A learned prior is a network, or a ``NeighbourPrior`` if
    training tasks are remembered; c then has two parts: what the reader makes of a support, and the support's pooled
    slots.

    What heads give, h(code), becomes cores as mean + tanh(scale * h(code) + bias) * exp(bound), in which mean, scale
    and tanh with its bound are options, without which only h(code) + bias is left.
    """

    ENCODER = ("seen", "posterior")
    BLOCKS = 2
    layers: torch.Tensor
    kinds: torch.Tensor
    groups: torch.Tensor
    mean: torch.Tensor

    def __init__(self, config: NetworkConfig) -> None:
        """Build encoder, prior and decoder in the sizes of ``config``."""
        super().__init__(config)
        numbers, summary, condition = config.width**2, 16, self.reader.size
        self.register_buffer("layers", torch.tensor([layer for layer, _ in config.places]), persistent=False)
        self.register_buffer("kinds", torch.tensor([kind for _, kind in config.places]), persistent=False)
        for kind in range(config.kinds):  # indices: to index by a mask, the host would wait for the device
            of_kind = torch.tensor([at for at, (_, own) in enumerate(config.places) if own == kind], dtype=torch.long)
            self.register_buffer(f"of_kind_{kind}", of_kind, persistent=False)
        self.seen = nn.Parameter(torch.randn(config.modules, numbers, summary) / numbers**0.5)
        self.posterior = _mlp(config.modules * summary + condition, config.hidden_dim, 2 * config.latent_dim)
        _start_narrow(self.posterior, config.latent_dim)
        self.remembered: NeighbourPrior | None = None
        if config.learned_prior and config.remembered:
            self.remembered = NeighbourPrior(config.remembered, config.hidden, condition, config.latent_dim, START)
        elif config.learned_prior:
            self.prior_net = _mlp(condition, config.hidden_dim, 2 * config.latent_dim)
            _start_narrow(self.prior_net, config.latent_dim)
        decoder_inputs = config.latent_dim + (0 if config.learned_prior else condition)
        self.enter = nn.Linear(decoder_inputs, config.hidden_dim)
        self.blocks = nn.ModuleList(_Modulated(config.hidden_dim, config) for _ in range(self.BLOCKS))
        self.code = nn.Sequential(nn.LayerNorm(config.hidden_dim), nn.Linear(config.hidden_dim, config.code_dim))
        groups = self.kinds if config.shared_heads else torch.arange(config.modules)
        self.register_buffer("groups", groups, persistent=False)
        self.heads = nn.Parameter(torch.randn(int(groups.max()) + 1, config.code_dim, numbers) * 0.02)
        self.bias = nn.Parameter(torch.zeros(config.modules, numbers))
        if config.output_scale:
            self.scale = nn.Parameter(torch.zeros(config.modules))
        if config.bounded is not None:
            self.bound = nn.Parameter(torch.full((config.modules,), float(config.bounded)))
        if config.mean_adapter:
            self.register_buffer("mean", torch.zeros(config.modules, config.width, config.width))

    def start(self, tokens: torch.Tensor) -> None:
        """Keep the mean of the training adapters if it is part of every adapter."""
        if self.config.mean_adapter:
            self.mean.copy_(tokens.mean(0))

    def read(self, support: Support) -> torch.Tensor:
        """Return the conditions c, [B, condition], of a support; for a prior of neighbours with its pooled slots."""
        c = super().read(support)
        return c if self.remembered is None else torch.cat([c, pooled(support)], dim=1)

    def remember(self, texts: Sequence[Support], shown: Sequence[Support | None] | None = None) -> None:
        """Store what a prior of neighbours knows of the training tasks, as ``Network.remember`` says."""
        if self.remembered is None:
            return
        if shown is not None:
            self.remembered.remember_pooled(texts, shown)
        self.remembered.remember_readings(texts, self.reader)

    def encode(self, x: torch.Tensor, c: torch.Tensor) -> Gaussian:
        """Return the posterior q(z | x, c) of normalised cores x under conditions c."""
        summaries = torch.einsum("bmn,mns->bms", x.flatten(2), self.seen).flatten(1)  # (B, modules * 16)
        mean, log_variance = self.posterior(torch.cat([summaries, c[:, : self.reader.size]], dim=1)).chunk(2, dim=1)
        return mean, log_variance.clamp(-12.0, 4.0)

    def prior(self, c: torch.Tensor) -> Gaussian:
        """Return the prior p(z | c), or N(0, I) if none is learned."""
        if not self.config.learned_prior:
            return super().prior(c)
        if self.remembered is not None:
            gaussian: Gaussian = self.remembered(c)
            return gaussian
        mean, log_variance = self.prior_net(c).chunk(2, dim=1)
        return mean, log_variance.clamp(-12.0, 4.0)

    def divergence(
        self, posterior: Gaussian, c: torch.Tensor, batch: Batch, objective: Objective
    ) -> tuple[torch.Tensor, list[Further]]:
        """Return KL(q || p) and the further losses by which the prior is trained, as ``CVAE.divergence`` says.

        With a prior of neighbours the KL is that from the Gaussian of the row's own task. The loss ``choice`` is -log
        of that task's weight in the mixture; together the two bound the KL from the whole mixture. The loss
        ``neighbours`` is the error of the weighted mean of the other tasks' adapters as a guess of the task's adapter;
        it teaches the weights which tasks an unseen one should be made from.
        """
        if self.remembered is None:
            return super().divergence(posterior, c, batch, objective)
        recipe, tasks = objective.recipe, batch.tasks
        gaussian, choice = self.remembered.own(c, tasks)
        further = [("choice", recipe.choice_weight, choice)]
        if recipe.neighbour_weight and self.config.remembered > 1:
            cores = self.remembered.mean_of_others(c, tasks, batch.tokens, batch.owners)
            further.append(("neighbours", recipe.neighbour_weight, objective.reconstruction(cores, batch)))
        return kl_divergence(posterior, gaussian), further

    def sample_latent(self, c: torch.Tensor, rng: torch.Generator | None) -> torch.Tensor:
        """Return z, [B, latent], drawn from p(z | c), or that prior's mean if ``rng`` is None.

        With a prior of neighbours, z is drawn from the mixture: first a task by its weight, then z from its Gaussian.
        """
        if self.remembered is None or rng is None:
            return super().sample_latent(c, rng)
        return sample(self.remembered.sample(c, rng), rng)

    def likeliest(self, c: torch.Tensor, count: int) -> tuple[list[int], torch.Tensor] | None:
        """Return the remembered tasks that are most like a condition, as ``Network.likeliest`` says."""
        if self.remembered is None:
            return None
        weights = self.remembered.weights(c)[0]
        tasks = weights.topk(min(count, len(weights))).indices
        return tasks.tolist(), self.remembered.means[tasks]

    def decode(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Return the normalised cores, [B, modules, R, R], that latents z decode to under conditions c."""
        inputs = z if self.config.learned_prior else torch.cat([z, c], dim=1)
        h = self.enter(inputs)[:, None].expand(-1, self.config.modules, -1)
        for block in self.blocks:
            h = block(h, self.layers, self.kinds)
        code = self.code(h)  # (B, modules, code)
        if self.config.code_norm:
            code = nn.functional.normalize(code, dim=-1) * self.config.code_dim**0.5
        if not self.config.shared_heads:
            flat = torch.einsum("bmk,mkn->bmn", code, self.heads)
        else:
            flat = torch.empty(len(z), self.config.modules, self.config.width**2, device=z.device, dtype=code.dtype)
            for kind in range(self.config.kinds):
                of_kind = self.get_buffer(f"of_kind_{kind}")
                flat[:, of_kind] = code[:, of_kind] @ self.heads[kind]
        return self._cores(flat)

    def _cores(self, flat: torch.Tensor) -> torch.Tensor:
        """Return the normalised cores [B, modules, R, R] that outputs of the heads [B, modules, R * R] stand for."""
        if self.config.output_scale:
            flat = flat * self.scale[:, None]
        flat = flat + self.bias
        if self.config.bounded is not None:
            flat = flat.tanh() * self.bound.exp()[:, None]
        cores: torch.Tensor = flat.unflatten(2, (self.config.width, self.config.width))
        return cores + self.mean if self.config.mean_adapter else cores


class Conv1dCVAE(CVAE):
    """The ``conv1d`` architecture, as in the paper: 12 strided convolutions down, 12 transposed convolutions up.

    Channels, kernels and batch normalisation are those of the paper's own code. Without the normalisation, as 0.1.0 had
    it, nearly nothing of z or of the condition is left after 12 layers; such generators are still read.
    """

    ENCODER = ("down", "posterior")
    CHANNELS = (8, 16, 32, 64, 128, 256, 256, 128, 64, 32, 16, 8)

    def __init__(self, config: NetworkConfig) -> None:
        """Build encoder and decoder in the sizes of ``config``."""
        super().__init__(config)
        self.numbers = config.modules * config.width**2
        channels, lengths = self._plan()
        self.length, norm, kernel = lengths[0], config.batch_norm, 7 if config.batch_norm else 3
        downs: list[nn.Module] = []
        ups: list[nn.Module] = []
        for outer, inner, long, short in zip(channels, channels[1:], lengths, lengths[1:], strict=False):
            stride = 2 if long > 1 else 1
            spare = long - ((short - 1) * stride + 1)
            back = inner if norm and outer == 1 else outer  # one more convolution then leaves one channel
            pad, bias = kernel // 2, not norm  # a normalisation takes a bias off again, and Adam walks it at random
            down = nn.Conv1d(outer, inner, kernel, stride=stride, padding=pad, bias=bias)
            up = nn.ConvTranspose1d(inner, back, kernel, stride=stride, padding=pad, output_padding=spare, bias=bias)
            if norm:
                downs += [down, nn.BatchNorm1d(inner), nn.LeakyReLU()]
                ups = [up, nn.BatchNorm1d(back), nn.ELU(), *ups]
            else:
                downs += [down, nn.LeakyReLU(0.2)]
                ups = [up, nn.LeakyReLU(0.2), *ups] if ups else [up]
        if norm:
            ups.append(nn.Conv1d(channels[1], 1, kernel, padding=kernel // 2))
        self.down = nn.Sequential(*downs)
        self.up = nn.Sequential(*ups)
        self.bottom = (channels[-1], lengths[-1])
        flat = channels[-1] * lengths[-1]
        self.posterior = nn.Linear(flat + self.reader.size, 2 * config.latent_dim)
        self.expand = nn.Linear(config.latent_dim + self.reader.size, flat)

    @property
    def couples_rows(self) -> bool:
        """Whether the rows of a batch are normalised together."""
        return self.config.batch_norm

    def _plan(self) -> tuple[list[int], list[int]]:
        """Return the channels and the lengths before the first layer and after each one.

        With batch normalisation the cores are padded, so that every layer halves their number, and two places or more
        are left: the numbers of a channel in a batch of one row then have a variance.
        """
        channels, lengths, layers = [1], [self.numbers], len(self.CHANNELS)
        if self.config.batch_norm:
            places = max(2, -(-self.numbers // 2**layers))
            channels += [min(self.config.hidden_dim, size) for size in self.CHANNELS]
            return channels, [places * 2 ** (layers - index) for index in range(layers + 1)]
        for index in range(layers):
            channels.append(min(self.config.hidden_dim, 4 * 2 ** (index // 2 + 1)))
            lengths.append((lengths[-1] + 1) // 2 if lengths[-1] > 1 else 1)
        return channels, lengths

    def encode(self, x: torch.Tensor, c: torch.Tensor) -> Gaussian:
        """Return the posterior q(z | x, c) of normalised cores x under conditions c."""
        flat = nn.functional.pad(x.flatten(1), (0, self.length - self.numbers))
        features = self.down(flat[:, None]).flatten(1)
        mean, log_variance = self.posterior(torch.cat([features, c], dim=1)).chunk(2, dim=1)
        return mean, log_variance.clamp(-12.0, 4.0)

    def decode(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Return the normalised cores, [B, modules, R, R], that latents z decode to under conditions c."""
        features = self.expand(torch.cat([z, c], dim=1)).unflatten(1, self.bottom)
        flat: torch.Tensor = self.up(features)[:, 0, : self.numbers]
        return flat.reshape(-1, self.config.modules, self.config.width, self.config.width)


def build(config: NetworkConfig) -> Network:
    """Return an untrained network of the given architecture and sizes.

    Raises:
        CorruptFileError: If the architecture is not known.
    """
    architectures: dict[str, type[Network]] = {"token": TokenCVAE, "conv1d": Conv1dCVAE, "p-diff": PDiff}
    if config.arch not in architectures:
        raise CorruptFileError(f"the generator's architecture {config.arch!r} is not known")
    return architectures[config.arch](config)
