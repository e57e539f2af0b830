"""The two architectures of the conditional VAE, behind one interface.

``token``: a head per module and a learned prior p(z | c). ``conv1d``: the paper's own (ICM-LoRA, arXiv 2501.17635,
section 3.3): strided 1-D convolutions over the flattened adapter, the condition joined to the encoder's output and to
z, a mirrored decoder, and N(0, I) as the prior.

Shapes: x [B, modules, R, R] normalised cores; c [B, condition]; z [B, latent].
"""

from dataclasses import asdict, dataclass

import torch
from torch import nn

from icmlora_cli.errors import CorruptFile


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of a generator's networks.

    Args:
        arch: ``token`` or ``conv1d``.
        modules: modules with a LoRA.
        width: R, the size of a core.
        condition_dim: numbers in a condition.
        latent_dim: numbers in z.
        hidden_dim: width of the networks.
        code_dim: numbers between the decoder's trunk and its heads (``token`` only).
    """

    arch: str
    modules: int
    width: int
    condition_dim: int
    latent_dim: int
    hidden_dim: int
    code_dim: int

    def as_dict(self) -> dict[str, str | int]:
        """Return the JSON form."""
        return asdict(self)


Gaussian = tuple[torch.Tensor, torch.Tensor]
"""Mean and log-variance of a diagonal Gaussian, each [B, latent]."""


class CVAE(nn.Module):
    """What both architectures offer."""

    config: NetworkConfig

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config

    def encode(self, x: torch.Tensor, c: torch.Tensor) -> Gaussian:
        """Return q(z | x, c)."""
        raise TypeError(f"{type(self).__name__} has no encoder")

    def prior(self, c: torch.Tensor) -> Gaussian:
        """Return p(z | c); N(0, I) unless the architecture learns one."""
        zeros = c.new_zeros(c.shape[0], self.config.latent_dim)
        return zeros, zeros

    def decode(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Return cores, [B, modules, R, R]."""
        raise TypeError(f"{type(self).__name__} has no decoder")


def _mlp(size_in: int, hidden: int, size_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(size_in, hidden), nn.GELU(), nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU(),
        nn.Linear(hidden, size_out),
    )  # fmt: skip


class TokenCVAE(CVAE):
    """A token per module: its own projection in the encoder, its own head in the decoder."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        numbers, seen = config.width**2, 16
        self.read = nn.Parameter(torch.randn(config.modules, numbers, seen) / numbers**0.5)
        self.posterior = _mlp(config.modules * seen + config.condition_dim, config.hidden_dim, 2 * config.latent_dim)
        self.prior_net = _mlp(config.condition_dim, config.hidden_dim, 2 * config.latent_dim)
        self.trunk = _mlp(config.latent_dim + config.condition_dim, config.hidden_dim, config.code_dim)
        self.code_norm = nn.LayerNorm(config.code_dim)
        self.heads = nn.Parameter(torch.randn(config.modules, config.code_dim, numbers) * 1e-2)
        self.bias = nn.Parameter(torch.zeros(config.modules, numbers))

    def encode(self, x: torch.Tensor, c: torch.Tensor) -> Gaussian:
        """Return q(z | x, c)."""
        seen = torch.einsum("bmn,mns->bms", x.flatten(2), self.read).flatten(1)  # (B, modules * 16)
        mean, log_variance = self.posterior(torch.cat([seen, c], dim=1)).chunk(2, dim=1)
        return mean, log_variance.clamp(-12.0, 4.0)

    def prior(self, c: torch.Tensor) -> Gaussian:
        """Return the learned p(z | c)."""
        mean, log_variance = self.prior_net(c).chunk(2, dim=1)
        return mean, log_variance.clamp(-12.0, 4.0)

    def decode(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Return cores, [B, modules, R, R]."""
        code = self.code_norm(self.trunk(torch.cat([z, c], dim=1)))  # (B, code)
        flat = torch.einsum("bk,mkn->bmn", code, self.heads) + self.bias
        return flat.reshape(-1, self.config.modules, self.config.width, self.config.width)


class Conv1dCVAE(CVAE):
    """The paper's own: 12 strided convolutions down, 12 transposed convolutions up."""

    LAYERS = 12

    def __init__(self, config: NetworkConfig) -> None:
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
        self.posterior = nn.Linear(flat + config.condition_dim, 2 * config.latent_dim)
        self.expand = nn.Linear(config.latent_dim + config.condition_dim, flat)

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


def build(config: NetworkConfig) -> CVAE:
    """Return an untrained network of the given sizes.

    Raises:
        CorruptFile: if the architecture is not known.
    """
    architectures: dict[str, type[CVAE]] = {"token": TokenCVAE, "conv1d": Conv1dCVAE}
    if config.arch not in architectures:
        raise CorruptFile(f"the generator's architecture {config.arch!r} is not known")
    return architectures[config.arch](config)
