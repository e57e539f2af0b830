"""The two conditional VAEs behind the interface of all generators, and ``build``, which makes any architecture.

``token``: layer and kind embeddings, heads shared across layers, and a learned prior p(z | c). ``conv1d``: the paper's
own (ICM-LoRA, arXiv 2501.17635, section 3.3): strided 1-D convolutions over the flattened adapter, the condition joined
to the encoder's output and to z, a mirrored decoder, and N(0, I) as the prior.

Loss = MSE of the cores (which, the basis being orthonormal, is that of delta-W) divided by the mean square of the
data, so that 1.0 is what predicting zero costs; plus kl_weight * KL(q(z | x, c) || p(z | c)) in nats a latent number.

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

Further = tuple[str, float, torch.Tensor]
"""Name, weight and value of a loss."""

START = -4.0  # log-variance of z before training: with 0, noise would drown what the mean says


def kl_divergence(posterior: Gaussian, prior: Gaussian) -> torch.Tensor:
    """Return KL(q || p) of diagonal Gaussians, mean over batch and latent numbers, in nats."""
    (q_mean, q_log), (p_mean, p_log) = posterior, prior
    terms = p_log - q_log + (q_log.exp() + (q_mean - p_mean).square()) / p_log.exp() - 1.0
    return 0.5 * terms.mean()


def sample(gaussian: Gaussian, rng: torch.Generator) -> torch.Tensor:
    """Draw z from a diagonal Gaussian by reparametrization, on the CPU's stream so that devices agree."""
    mean, log_variance = gaussian
    noise = torch.randn(mean.shape, generator=rng).to(mean.device)
    return mean + noise * (0.5 * log_variance).exp()


def contrast(c: torch.Tensor, temperature: float = 0.1) -> torch.Tensor:
    """Return InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) of conditions in pairs, in nats.

    Args:
        c: fp32 [2 * tasks, condition]: two readings of each task, one after the other.
        temperature: of the cosines.
    """
    unit = nn.functional.normalize(c, dim=1)
    cosines = unit[0::2] @ unit[1::2].T / temperature
    own = torch.arange(len(cosines), device=c.device)
    return 0.5 * (nn.functional.cross_entropy(cosines, own) + nn.functional.cross_entropy(cosines.T, own))


class CVAE(Network):
    """A conditional VAE: evidence lower bound with KL warm-up, in one stage."""

    def encode(self, x: torch.Tensor, c: torch.Tensor) -> Gaussian:
        """Return q(z | x, c)."""
        raise TypeError(f"{type(self).__name__} has no encoder")

    def prior(self, c: torch.Tensor) -> Gaussian:
        """Return p(z | c); N(0, I) unless the architecture learns one."""
        zeros = c.new_zeros(c.shape[0], self.config.latent_dim)
        return zeros, zeros

    def divergence(
        self, posterior: Gaussian, c: torch.Tensor, batch: Batch, objective: Objective
    ) -> tuple[torch.Tensor, list[Further]]:
        """Return KL(q || p) in nats a latent number, and what else shapes the prior: name, weight and loss.

        Args:
            posterior: q(z | x, c).
            c: fp32 [B, condition].
            batch: whose x and support these are of.
            objective: what losses are measured with.
        """
        return kl_divergence(posterior, self.prior(c)), []

    def losses(self, batch: Batch, objective: Objective, train_step: TrainStep, rng: torch.Generator) -> Losses:
        """Return ``reconstruction``, relative to predicting zero, and ``kl``, in nats a latent number.

        With ``prior_share`` also ``from_prior``, the reconstruction with z drawn from p(z | c) as in generation: the
        hybrid objective of Sohn et al. (NIPS 2015), which closes the gap between the two.
        """
        x, c, recipe = batch.x, self.read(batch.support), objective.recipe
        posterior = self.encode(x, c)
        reconstruction = objective.reconstruction(self.decode(sample(posterior, rng), c), x)
        kl, further = self.divergence(posterior, c, batch, objective)
        first = train_step.stage == 0  # a later stage begins with what the first one has warmed up
        warm = min(1.0, (train_step.step + 1) / max(1.0, recipe.kl_warmup * train_step.steps)) if first else 1.0
        total, parts = reconstruction + recipe.kl_weight * warm * kl, {"reconstruction": reconstruction, "kl": kl}
        for name, weight, item in further:
            parts[name] = item
            total = total + weight * item
        if recipe.prior_share:
            parts["from_prior"] = objective.reconstruction(self.decode(sample(self.prior(c), rng), c), x)
            total = (1.0 - recipe.prior_share) * total + recipe.prior_share * parts["from_prior"]
        return Losses(total, parts)

    def sample_latent(self, c: torch.Tensor, rng: torch.Generator | None) -> torch.Tensor:
        """Return z drawn from p(z | c), or its mean where there is no source."""
        gaussian = self.prior(c)
        return gaussian[0] if rng is None else sample(gaussian, rng)


def _mlp(size_in: int, hidden: int, size_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(size_in, hidden), nn.GELU(), nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU(),
        nn.Linear(hidden, size_out),
    )  # fmt: skip


def _start_narrow(net: nn.Sequential, latent_dim: int) -> None:
    """Let a network that says mean and log-variance begin with little variance."""
    start = net[-1].bias
    assert isinstance(start, nn.Parameter)
    with torch.no_grad():
        start[latent_dim:].fill_(START)


class _Modulated(nn.Module):
    """h + f(norm(h)), the norm's scale and shift depending on the module."""

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
    """A token per module; layer and kind are embedded, and the heads are shared across layers, or of each module.

    With shared heads the decoder's size grows with R and with the number of kinds, and each layer adds a few vectors.
    All layers' cores then lie in one space of ``code_dim`` dimensions, which is all of it in a frame of R^2 numbers a
    core, and too little for the wide cores of a learned basis.

    With a learned prior the condition speaks through z alone, which is the bottleneck. With N(0, I), as in the paper,
    it is joined to z. A learned prior is a network, or ``NeighbourPrior`` where training tasks are remembered; c then
    has two parts: what the reader makes of a support, and the support's slots, pooled.
    """

    ENCODER = ("seen", "posterior")
    BLOCKS = 2
    layers: torch.Tensor
    kinds: torch.Tensor
    groups: torch.Tensor

    def __init__(self, config: NetworkConfig) -> None:
        """Build encoder, prior and decoder in the sizes of ``config``."""
        super().__init__(config)
        numbers, seen, condition = config.width**2, 16, self.reader.size
        self.register_buffer("layers", torch.tensor([layer for layer, _ in config.places]), persistent=False)
        self.register_buffer("kinds", torch.tensor([kind for _, kind in config.places]), persistent=False)
        self.seen = nn.Parameter(torch.randn(config.modules, numbers, seen) / numbers**0.5)
        self.posterior = _mlp(config.modules * seen + condition, config.hidden_dim, 2 * config.latent_dim)
        _start_narrow(self.posterior, config.latent_dim)
        self.remembered: NeighbourPrior | None = None
        if config.learned_prior and config.remembered:
            self.remembered = NeighbourPrior(config.remembered, config.hidden, condition, config.latent_dim, START)
        elif config.learned_prior:
            self.prior_net = _mlp(condition, config.hidden_dim, 2 * config.latent_dim)
            _start_narrow(self.prior_net, config.latent_dim)
        told = config.latent_dim + (0 if config.learned_prior else condition)
        self.enter = nn.Linear(told, config.hidden_dim)
        self.blocks = nn.ModuleList(_Modulated(config.hidden_dim, config) for _ in range(self.BLOCKS))
        self.code = nn.Sequential(nn.LayerNorm(config.hidden_dim), nn.Linear(config.hidden_dim, config.code_dim))
        groups = self.kinds if config.shared_heads else torch.arange(config.modules)
        self.register_buffer("groups", groups, persistent=False)
        self.heads = nn.Parameter(torch.randn(int(groups.max()) + 1, config.code_dim, numbers) * 0.02)
        self.bias = nn.Parameter(torch.zeros(config.modules, numbers))

    def read(self, support: Support) -> torch.Tensor:
        """Return the condition c [B, condition] of a support, its pooled slots beside it for a prior of neighbours."""
        c = super().read(support)
        return c if self.remembered is None else torch.cat([c, pooled(support)], dim=1)

    def remember(self, texts: Sequence[Support], shown: Sequence[Support | None] | None = None) -> None:
        """Take over what a prior of neighbours knows of the training tasks; see ``Network``."""
        if self.remembered is None:
            return
        if shown is not None:
            self.remembered.remember_pooled(texts, shown)
        self.remembered.remember_readings(texts, self.reader)

    def encode(self, x: torch.Tensor, c: torch.Tensor) -> Gaussian:
        """Return q(z | x, c)."""
        seen = torch.einsum("bmn,mns->bms", x.flatten(2), self.seen).flatten(1)  # (B, modules * 16)
        mean, log_variance = self.posterior(torch.cat([seen, c[:, : self.reader.size]], dim=1)).chunk(2, dim=1)
        return mean, log_variance.clamp(-12.0, 4.0)

    def prior(self, c: torch.Tensor) -> Gaussian:
        """Return p(z | c), or N(0, I) where none is learned."""
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
        """Return KL(q || p), of neighbours from the own part, and what the weights learn from; see ``CVAE``.

        ``choice`` is -log of the own part's weight: with the KL from that part, a bound on the KL from the mixture.
        ``neighbours`` is the error of the own adapter as a mean of the others', by their weights: it tells which of
        them a task is to be made from that is not there itself.
        """
        if self.remembered is None:
            return super().divergence(posterior, c, batch, objective)
        recipe, tasks = objective.recipe, batch.tasks
        own, choice = self.remembered.own(c, tasks)
        further = [("choice", recipe.choice_weight, choice)]
        if recipe.neighbour_weight and self.config.remembered > 1:
            cores = self.remembered.mean_of_others(c, tasks, batch.tokens, batch.owners)
            further.append(("neighbours", recipe.neighbour_weight, objective.reconstruction(cores, batch.x)))
        return kl_divergence(posterior, own), further

    def sample_latent(self, c: torch.Tensor, rng: torch.Generator | None) -> torch.Tensor:
        """Return z drawn from p(z | c), of neighbours as the mixture that it is; its mean without a source."""
        if self.remembered is None or rng is None:
            return super().sample_latent(c, rng)
        return sample(self.remembered.sample(c, rng), rng)

    def decode(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Return cores, [B, modules, R, R]."""
        told = z if self.config.learned_prior else torch.cat([z, c], dim=1)
        h = self.enter(told)[:, None].expand(-1, self.config.modules, -1)
        for block in self.blocks:
            h = block(h, self.layers, self.kinds)
        code = self.code(h)  # (B, modules, code)
        if not self.config.shared_heads:
            flat = torch.einsum("bmk,mkn->bmn", code, self.heads)
        else:
            flat = torch.empty(len(z), self.config.modules, self.config.width**2, device=z.device, dtype=code.dtype)
            for kind in range(self.config.kinds):
                own = self.kinds == kind
                flat[:, own] = code[:, own] @ self.heads[kind]
        cores: torch.Tensor = (flat + self.bias).unflatten(2, (self.config.width, self.config.width))
        return cores


class Conv1dCVAE(CVAE):
    """The paper's own: 12 strided convolutions down, 12 transposed convolutions up."""

    ENCODER = ("down", "posterior")
    LAYERS = 12

    def __init__(self, config: NetworkConfig) -> None:
        """Build encoder and decoder in the sizes of ``config``."""
        super().__init__(config)
        self.length = config.modules * config.width**2
        channels, lengths = self._plan()
        downs: list[nn.Module] = []
        ups: list[nn.Module] = []
        for index in range(self.LAYERS):
            stride = 2 if lengths[index] > 1 else 1
            downs += [nn.Conv1d(channels[index], channels[index + 1], 3, stride=stride, padding=1), nn.LeakyReLU(0.2)]
            spare = lengths[index] - ((lengths[index + 1] - 1) * stride + 1)
            up = nn.ConvTranspose1d(
                channels[index + 1], channels[index], 3, stride=stride, padding=1, output_padding=spare
            )
            ups = [up, nn.LeakyReLU(0.2), *ups] if index else [up]
        self.down = nn.Sequential(*downs)
        self.up = nn.Sequential(*ups)
        self.bottom = (channels[-1], lengths[-1])
        flat = channels[-1] * lengths[-1]
        self.posterior = nn.Linear(flat + self.reader.size, 2 * config.latent_dim)
        self.expand = nn.Linear(config.latent_dim + self.reader.size, flat)

    def _plan(self) -> tuple[list[int], list[int]]:
        """Return the channels and lengths before and after each of the layers."""
        channels, lengths = [1], [self.length]
        for index in range(self.LAYERS):
            channels.append(min(self.config.hidden_dim, 4 * 2 ** (index // 2 + 1)))
            lengths.append((lengths[-1] + 1) // 2 if lengths[-1] > 1 else 1)
        return channels, lengths

    def encode(self, x: torch.Tensor, c: torch.Tensor) -> Gaussian:
        """Return q(z | x, c)."""
        features = self.down(x.flatten(1)[:, None]).flatten(1)
        mean, log_variance = self.posterior(torch.cat([features, c], dim=1)).chunk(2, dim=1)
        return mean, log_variance.clamp(-12.0, 4.0)

    def decode(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Return cores, [B, modules, R, R]."""
        features = self.expand(torch.cat([z, c], dim=1)).unflatten(1, self.bottom)
        flat: torch.Tensor = self.up(features)[:, 0]  # (B, modules * R * R)
        return flat.reshape(-1, self.config.modules, self.config.width, self.config.width)


def build(config: NetworkConfig) -> Network:
    """Return an untrained network of the given sizes.

    Raises:
        CorruptFileError: if the architecture is not known.
    """
    architectures: dict[str, type[Network]] = {"token": TokenCVAE, "conv1d": Conv1dCVAE, "p-diff": PDiff}
    if config.arch not in architectures:
        raise CorruptFileError(f"the generator's architecture {config.arch!r} is not known")
    return architectures[config.arch](config)
