"""Both CVAEs: shapes, gradients, what the condition and z change."""

from dataclasses import replace

import pytest
import torch

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.generator.interface import NetworkConfig
from icmlora_cli.generator.networks import CVAE, Conv1dCVAE, build, kl_divergence


def config(arch: str, layers: int = 3) -> NetworkConfig:
    places = tuple((layer, kind) for layer in range(layers) for kind in range(2))[: 2 * layers - 1]
    return NetworkConfig(arch=arch, places=places, width=7, hidden=4, latent_dim=6, hidden_dim=24, code_dim=12)


@pytest.mark.parametrize("arch", ["token", "conv1d"])
def test_shapes_and_gradients(arch: str) -> None:
    torch.manual_seed(0)
    model = build(config(arch))
    assert isinstance(model, CVAE)
    x, c = torch.randn(3, 5, 7, 7), torch.randn(3, 10)
    mean, log_variance = model.encode(x, c)
    assert mean.shape == log_variance.shape == (3, 6)
    decoded = model.decode(mean, c)
    assert decoded.shape == x.shape
    (decoded.square().sum() + kl_divergence((mean, log_variance), model.prior(c))).backward()
    dead = [name for name, item in model.named_parameters() if item.grad is None or not item.grad.any()]
    assert dead == []


@pytest.mark.parametrize("arch", ["token", "conv1d"])
def test_condition_and_z_both_matter(arch: str) -> None:
    torch.manual_seed(0)
    model = build(config(arch))
    c = torch.randn(2, 10)
    z = model.sample_latent(c[:1], torch.Generator().manual_seed(0))
    plain = model.decode(z, c[:1])
    assert not torch.allclose(plain, model.decode(z + 1, c[:1]), atol=1e-7)
    other = model.sample_latent(c[1:], torch.Generator().manual_seed(0))
    assert not torch.allclose(plain, model.decode(other, c[1:]), atol=1e-7)


def test_with_the_standard_prior_the_decoder_hears_the_condition() -> None:
    torch.manual_seed(0)
    model = build(replace(config("token"), learned_prior=False))
    assert isinstance(model, CVAE)
    c = torch.randn(2, 10)
    mean, log_variance = model.prior(c)
    assert not mean.any() and not log_variance.any()
    z = torch.randn(1, 6)
    assert not torch.allclose(model.decode(z, c[:1]), model.decode(z, c[1:]), atol=1e-4)
    x = torch.randn(2, 5, 7, 7)
    posterior = model.encode(x, c)
    (model.decode(posterior[0], c).square().sum() + kl_divergence(posterior, model.prior(c))).backward()
    assert [name for name, item in model.named_parameters() if item.grad is None or not item.grad.any()] == []


def test_a_layer_more_costs_the_token_decoder_a_few_vectors() -> None:
    def size(layers: int) -> int:
        model = build(config("token", layers))
        return sum(item.numel() for name, item in model.named_parameters() if name.split(".")[0] not in model.ENCODER)

    heads = 2 * 12 * 7 * 7
    assert size(4) - size(3) == size(5) - size(4) < heads


def test_the_papers_network_has_12_strided_convolutions_each_way() -> None:
    model = build(NetworkConfig("conv1d", tuple((layer, 0) for layer in range(60)), 16, 9, 256, 256, 64))
    assert isinstance(model, Conv1dCVAE)
    downs = [layer for layer in model.down if isinstance(layer, torch.nn.Conv1d)]
    ups = [layer for layer in model.up if isinstance(layer, torch.nn.ConvTranspose1d)]
    assert len(downs) == len(ups) == 12
    assert all(layer.stride == (2,) for layer in downs)
    zeros = torch.zeros(2, 20)
    mean, log_variance = model.prior(zeros)
    assert not mean.any() and not log_variance.any()


def test_kl_is_zero_only_between_equals_and_matches_torch() -> None:
    q = (torch.tensor([[0.3, -1.0]]), torch.tensor([[0.2, -0.5]]))
    p = (torch.tensor([[0.0, 0.5]]), torch.tensor([[0.0, 0.7]]))
    assert float(kl_divergence(q, q)) == pytest.approx(0.0, abs=1e-7)
    normal = [torch.distributions.Normal(m, (0.5 * v).exp()) for m, v in (q, p)]
    wanted = torch.distributions.kl_divergence(normal[0], normal[1]).mean()
    assert float(kl_divergence(q, p)) == pytest.approx(float(wanted), rel=1e-5)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(CorruptFileError, match="not known"):
        build(config("magic"))
