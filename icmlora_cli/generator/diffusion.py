"""COND P-DIFF (Conditional LoRA Parameter Generation, Jin et al. 2024, arXiv 2408.01415): conditional latent diffusion.

It trains in two stages. The first trains an autoencoder of the flattened, normalised cores w, a 1-D CNN on both sides,
with noise added to the parameters and to the latent. The second freezes that autoencoder and trains DDPM noise
prediction in its latent space::

    z = tanh(E(w + parameter_noise * n)),    loss = mean((D(z + latent_noise * n') - w)^2) / mean(w^2)
    z_t = sqrt(a_t) z_0 + sqrt(1 - a_t) eps,  loss = mean((eps - eps_theta(z_t, t, c))^2),  a_t = prod(1 - beta)

Only the denoiser sees the condition, which is projected and added to the embedding of the time. Latents are
standardised between the stages, so that sampling can start from N(0, I) (DDIM, Song et al. 2020, arXiv 2010.02502, with
eta 0). The amplitudes of the noise and the tanh are those of p-diff (arXiv 2402.13144), on which COND P-DIFF builds.

Shapes: x [B, modules, R, R] normalised cores; c [B, condition]; z [B, latent].
"""

import math

import torch
from torch import nn

from icmlora_cli.config.train import OptimiserRecipe
from icmlora_cli.generator.interface import Batch, Losses, Network, NetworkConfig, Objective, TrainStep
from icmlora_cli.generator.noise import Rng, integers, normal

TIMES = 1000  # T, the diffusion times; beta rises linearly over them, from BETAS[0] to BETAS[1]
BETAS = (1e-4, 2e-2)
SAMPLING_STEPS = 50  # steps of DDIM for one latent
DRAWS = 8  # draws of (t, eps) for each latent of a batch: the denoiser costs little beside the rest of a step
CHANNELS = (64, 128)  # of the convolutions, from the parameters inwards; few wide layers learn much faster
STRIDES = (32, 4)  # chosen so that no layer has fewer features than there are parameters
FOLD = math.prod(STRIDES)
ENCODE_AT_ONCE = 16  # adapters that are encoded in one pass


def _layers() -> list[tuple[int, int, int]]:
    """Return (outer channels, inner channels, stride) of each convolution, from the parameters inwards."""
    return list(zip((1, *CHANNELS[:-1]), CHANNELS, STRIDES, strict=True))


class Encoder(nn.Module):
    """The autoencoder's first half: strided 1-D convolutions, then one linear map to the latent."""

    def __init__(self, length: int, latent_dim: int) -> None:
        """Build the layers for ``length`` padded parameters and a latent of ``latent_dim`` numbers."""
        super().__init__()
        layers: list[nn.Module] = []
        for size_in, size_out, stride in _layers():
            layers += [nn.Conv1d(size_in, size_out, stride + 2, stride=stride, padding=1), nn.LeakyReLU(0.2)]
        self.convolutions = nn.Sequential(*layers)
        self.project = nn.Linear(CHANNELS[-1] * (length // FOLD), latent_dim)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """Return the latents, [B, latent] in (-1, 1), of padded parameters, [B, length]."""
        features = self.convolutions(w[:, None]).flatten(1)
        features = nn.functional.layer_norm(features, features.shape[1:])  # else z would start far below its noise
        z: torch.Tensor = self.project(features)
        return z.tanh()  # unbounded, the encoder would grow z until noise of a fixed size no longer mattered


class Decoder(nn.Module):
    """The autoencoder's second half, a mirror image of the encoder: a linear map, then transposed 1-D convolutions."""

    def __init__(self, length: int, latent_dim: int) -> None:
        """Build the layers for ``length`` padded parameters and a latent of ``latent_dim`` numbers."""
        super().__init__()
        layers: list[nn.Module] = []
        for size_out, size_in, stride in _layers():
            up = nn.ConvTranspose1d(size_in, size_out, stride + 2, stride=stride, padding=1)
            layers = [up, nn.LeakyReLU(0.2), *layers] if layers else [up]
        self.convolutions = nn.Sequential(*layers)
        self.bottom = (CHANNELS[-1], length // FOLD)
        self.expand = nn.Linear(latent_dim, math.prod(self.bottom))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the padded parameters, [B, length], that latents, [B, latent], decode to."""
        flat: torch.Tensor = self.convolutions(self.expand(z).unflatten(1, self.bottom))[:, 0]
        return flat


class _Residual(nn.Module):
    """A residual layer of the denoiser: h + f(norm(h) + projected embedding)."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_dim)
        self.embedded = nn.Linear(hidden_dim, hidden_dim)
        self.first = nn.Linear(hidden_dim, hidden_dim)
        self.second = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, h: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        update = self.first(self.norm(h)) + self.embedded(embedding)
        total: torch.Tensor = h + self.second(nn.functional.silu(update))
        return total


class Denoiser(nn.Module):
    """The network that predicts noise: eps_theta(z_t, t, c) = sqrt(1 - a_t) z_t + sqrt(a_t) F(z_t, t, c).

    F is a stack of residual layers that are given the time and the condition. Without this form sampling fails, since
    an error of eps at large t is multiplied by 1 / sqrt(a_t), which is up to 158. F is fully connected, because the
    latent comes from a linear map: its numbers have no neighbours that a convolution could use.
    """

    LAYERS = 3
    signal: torch.Tensor

    def __init__(self, config: NetworkConfig, condition: int) -> None:
        """Build the layers for conditions of ``condition`` numbers."""
        super().__init__()
        hidden = config.hidden_dim
        self.waves = max(1, hidden // 2)
        self.time = nn.Sequential(nn.Linear(2 * self.waves, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.condition = nn.Linear(condition, hidden)
        nn.init.normal_(self.condition.weight)  # a condition's norm is about 1, too small beside the time's embedding
        self.enter = nn.Linear(config.latent_dim, hidden)
        self.layers = nn.ModuleList(_Residual(hidden) for _ in range(self.LAYERS))
        self.leave = nn.Linear(hidden, config.latent_dim)
        betas = torch.linspace(*BETAS, TIMES, dtype=torch.float64)
        self.register_buffer("signal", (1 - betas).cumprod(0).float(), persistent=False)  # a_t, [T]

    def forward(self, z_t: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Return the predicted noise, [B, latent].

        Args:
            z_t: the noisy latents, fp32 [B, latent].
            t: the time of each latent, int64 [B], 0 to T - 1.
            c: the conditions, fp32 [B, condition].
        """
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(self.waves, device=t.device) / self.waves)
        angles = t[:, None] * frequencies  # (B, half)
        embedding = self.time(torch.cat([angles.sin(), angles.cos()], dim=1)) + self.condition(c)
        embedding = nn.functional.silu(embedding)
        h = self.enter(z_t)
        for layer in self.layers:
            h = layer(h, embedding)
        signal = self.signal[t][:, None]
        noise: torch.Tensor = (1 - signal).sqrt() * z_t + signal.sqrt() * self.leave(h)
        return noise


class PDiff(Network):
    """The ``p-diff`` architecture: an autoencoder and a denoiser, trained one after the other."""

    ENCODER = ("encoder",)
    latent_mean: torch.Tensor
    latent_std: torch.Tensor
    latents: torch.Tensor

    def __init__(self, config: NetworkConfig) -> None:
        """Build all parts; the latents' statistics are mean 0 and deviation 1 until the second stage measures them."""
        super().__init__(config)
        self.numbers = config.modules * config.width**2
        self.length = math.ceil(self.numbers / FOLD) * FOLD  # the parameters are padded with zeros to this length
        self.encoder = Encoder(self.length, config.latent_dim)
        self.decoder = Decoder(self.length, config.latent_dim)
        self.denoiser = Denoiser(config, self.reader.size)
        self.register_buffer("latent_mean", torch.zeros(config.latent_dim))
        self.register_buffer("latent_std", torch.ones(config.latent_dim))
        self.register_buffer("latents", torch.empty(0), persistent=False)  # of all training adapters, standardised

    def stages(self, optimiser: OptimiserRecipe) -> tuple[int, ...]:
        """Return how many steps train the autoencoder, and how many the diffusion."""
        first = round(optimiser.autoencoder_share * optimiser.steps)
        return first, optimiser.steps - first

    @torch.no_grad()
    def begin(self, stage: int, tokens: torch.Tensor) -> None:
        """Before the second stage, encode all training adapters and take the statistics of their latents."""
        if stage == 0:
            return
        raw = torch.cat([self.encoder(self._flat(part)) for part in tokens.split(ENCODE_AT_ONCE)])
        self.latent_mean.copy_(raw.mean(0))
        self.latent_std.copy_(raw.std(0, correction=0).clamp(min=1e-4))
        self.latents = (raw - self.latent_mean) / self.latent_std

    def losses(self, batch: Batch, objective: Objective, train_step: TrainStep, rng: Rng) -> Losses:
        """Return the losses of a batch: ``reconstruction``, relative to predicting zero, in the first stage.

        In the second stage it is ``diffusion``, the mean squared error of the predicted noise.
        """
        if train_step.stage == 0:
            return self._autoencoder_loss(batch, objective, rng)
        return self._diffusion_loss(batch, rng)

    def _autoencoder_loss(self, batch: Batch, objective: Objective, rng: Rng) -> Losses:
        x, recipe = batch.x, objective.recipe
        z = self.encoder(self._flat(x + recipe.parameter_noise * normal(x.shape, rng, x.device)))
        decoded = self._cores(self.decoder(z + recipe.latent_noise * normal(z.shape, rng, z.device)))
        loss = objective.reconstruction(decoded, batch)
        return Losses(loss, {"reconstruction": loss})

    def _diffusion_loss(self, batch: Batch, rng: Rng) -> Losses:
        clean = self.latents[batch.rows].repeat(DRAWS, 1)  # (B * DRAWS, latent)
        c = self.read(batch.support).repeat(DRAWS, 1)  # (B * DRAWS, condition)
        t = integers(TIMES, len(clean), rng, clean.device, repeats=DRAWS)
        noise = normal(clean.shape, rng, clean.device, repeats=DRAWS)
        signal = self.denoiser.signal[t][:, None]
        z_t = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        loss = (self.denoiser(z_t, t, c) - noise).square().mean()
        return Losses(loss, {"diffusion": loss})

    @torch.no_grad()
    def sample_latent(self, c: torch.Tensor, rng: torch.Generator | None) -> torch.Tensor:
        """Return standardised latents [B, latent] drawn by DDIM.

        Without an ``rng`` they are drawn with seed 0, since diffusion has no mean that could be taken.
        """
        rng = torch.Generator().manual_seed(0) if rng is None else rng
        z = normal((len(c), self.config.latent_dim), rng, c.device)
        signals = self.denoiser.signal
        times = torch.linspace(TIMES - 1, 0, SAMPLING_STEPS).round().long().tolist()
        for index, time in enumerate(times):
            signal = signals[time]
            following = signals[times[index + 1]] if index + 1 < len(times) else torch.ones_like(signal)
            noise = self.denoiser(z, torch.full((len(c),), time, device=c.device), c)
            clean = (z - (1 - signal).sqrt() * noise) / signal.sqrt()
            z = following.sqrt() * clean + (1 - following).sqrt() * noise
        return z

    def decode(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Return the cores, [B, modules, R, R], that standardised latents decode to; the condition is not used."""
        return self._cores(self.decoder(z * self.latent_std + self.latent_mean))

    def _flat(self, x: torch.Tensor) -> torch.Tensor:
        """Flatten cores, [B, modules, R, R], to padded vectors, [B, length]."""
        return nn.functional.pad(x.flatten(1), (0, self.length - self.numbers))

    def _cores(self, flat: torch.Tensor) -> torch.Tensor:
        """Shape padded vectors, [B, length], as cores, [B, modules, R, R]."""
        return flat[:, : self.numbers].reshape(-1, self.config.modules, self.config.width, self.config.width)
