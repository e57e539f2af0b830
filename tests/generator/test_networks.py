"""Both CVAEs: shapes, gradients, what the condition and z change."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.generator.interface import NetworkConfig
from icmlora_cli.generator.networks import CVAE, Conv1dCVAE, TokenCVAE, build, kl_divergence


def config(arch: str, layers: int = 3, **options: Any) -> NetworkConfig:
    places = tuple((layer, kind) for layer in range(layers) for kind in range(2))[: 2 * layers - 1]
    sizes = {"width": 7, "hidden": 4, "latent_dim": 6, "hidden_dim": 24, "code_dim": 12}
    return NetworkConfig(arch=arch, places=places, **sizes, **options)


@pytest.mark.parametrize(("arch", "norm"), [("token", False), ("conv1d", False), ("conv1d", True)])
def test_shapes_and_gradients(arch: str, norm: bool) -> None:
    torch.manual_seed(0)
    model = build(config(arch, batch_norm=norm))
    assert isinstance(model, CVAE)
    x, c = torch.randn(3, 5, 7, 7), torch.randn(3, 10)
    mean, log_variance = model.encode(x, c)
    assert mean.shape == log_variance.shape == (3, 6)
    decoded = model.decode(mean, c)
    assert decoded.shape == x.shape
    (decoded.square().sum() + kl_divergence((mean, log_variance), model.prior(c))).backward()
    dead = [name for name, item in model.named_parameters() if item.grad is None or not item.grad.any()]
    assert dead == []


@pytest.mark.parametrize(("arch", "norm"), [("token", False), ("conv1d", False), ("conv1d", True)])
def test_condition_and_z_both_matter(arch: str, norm: bool) -> None:
    torch.manual_seed(0)
    model = build(config(arch, batch_norm=norm)).eval()
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


HEAD: dict[str, dict[str, Any]] = {
    "code_norm": {"code_norm": True},
    "output_scale": {"output_scale": True},
    "mean_adapter": {"mean_adapter": True},
    "bounded": {"bounded": -3.5},
    "all": {"code_norm": True, "output_scale": True, "mean_adapter": True, "bounded": -3.5},
}


def started(**options: Any) -> tuple[TokenCVAE, torch.Tensor]:
    """Return a network at the start of its training, and the adapters that it starts from."""
    torch.manual_seed(0)
    model = build(replace(config("token"), **options))
    assert isinstance(model, TokenCVAE)
    tokens = torch.randn(4, 5, 7, 7, generator=torch.Generator().manual_seed(2))
    model.start(tokens)
    return model, tokens


@torch.no_grad()
@pytest.mark.parametrize("name", HEAD)
def test_options_of_the_head_start_where_they_say(name: str) -> None:
    z, c = torch.randn(3, 6, generator=torch.Generator().manual_seed(1)), torch.zeros(3, 10)
    (plain, _), (model, tokens) = started(), started(**HEAD[name])
    found, today = model.decode(z, c), plain.decode(z, c)
    mean = tokens.mean(0).expand_as(found)
    assert found.shape == today.shape == (3, 5, 7, 7)
    if name == "code_norm":
        for item in model.code[1].parameters():
            item.mul_(50.0)
        assert torch.allclose(model.decode(z, c), found, atol=1e-5) and not torch.allclose(found, today)
    wanted = {"output_scale": torch.zeros_like(found), "mean_adapter": today + mean, "all": mean}
    if name in wanted:
        assert torch.equal(found, wanted[name])
    if name == "bounded":
        assert torch.allclose(found, today.tanh() * math.exp(-3.5), atol=1e-6)
        model.heads.mul_(1e4)
        assert float(model.decode(z, c).abs().max()) == pytest.approx(math.exp(-3.5), rel=1e-5)


@pytest.mark.parametrize("name", HEAD)
def test_options_of_the_head_let_every_parameter_learn(name: str) -> None:
    model, _ = started(**HEAD[name])
    x, c = torch.randn(3, 5, 7, 7), torch.randn(3, 10)
    if "output_scale" in HEAD[name]:
        model.decode(model.sample_latent(c, None), c).sum().backward()
        assert model.scale.grad is not None and model.scale.grad.all()  # or it would stay zero for ever
        with torch.no_grad():
            model.scale.add_(0.1)
        model.zero_grad()
    mean, log_variance = model.encode(x, c)
    loss = (model.decode(mean, c) - x).square().sum() + kl_divergence((mean, log_variance), model.prior(c))
    loss.backward()
    assert [key for key, item in model.named_parameters() if item.grad is None or not item.grad.any()] == []


def test_without_options_the_head_is_what_it_was() -> None:
    plain, _ = started()
    known = {"seen", "posterior", "prior_net", "enter", "blocks", "code", "heads", "bias"}
    assert {name.split(".")[0] for name in plain.state_dict()} == known
    full, _ = started(**HEAD["all"])
    assert set(full.state_dict()) - set(plain.state_dict()) == {"scale", "bound", "mean"}
    assert all(torch.equal(item, full.state_dict()[name]) for name, item in plain.state_dict().items())


def test_a_layer_more_costs_the_token_decoder_a_few_vectors() -> None:
    def size(layers: int) -> int:
        model = build(config("token", layers))
        return sum(item.numel() for name, item in model.named_parameters() if name.split(".")[0] not in model.ENCODER)

    heads = 2 * 12 * 7 * 7
    assert size(4) - size(3) == size(5) - size(4) < heads


def test_the_papers_network_has_12_strided_convolutions_each_way() -> None:
    places = tuple((layer, 0) for layer in range(60))
    model = build(NetworkConfig("conv1d", places, 16, 9, 256, 256, 64, batch_norm=True))
    assert isinstance(model, Conv1dCVAE)
    downs = [layer for layer in model.down if isinstance(layer, torch.nn.Conv1d)]
    ups = [layer for layer in model.up if isinstance(layer, torch.nn.ConvTranspose1d)]
    norms = [layer for layer in [*model.down, *model.up] if isinstance(layer, torch.nn.BatchNorm1d)]
    assert len(downs) == len(ups) == 12 and len(norms) == 24
    assert all(layer.stride == (2,) and layer.kernel_size == (7,) for layer in [*downs, *ups])
    assert [layer.out_channels for layer in downs] == [8, 16, 32, 64, 128, 256, 256, 128, 64, 32, 16, 8]
    zeros = torch.zeros(2, 20)
    mean, log_variance = model.prior(zeros)
    assert not mean.any() and not log_variance.any()


@torch.no_grad()
def test_normalised_layers_keep_what_z_and_the_condition_say() -> None:
    """Without normalisation, as 0.1.0 had it, the twelve layers leave nearly nothing of either."""
    shares = []
    for norm in (False, True):
        torch.manual_seed(0)
        model = build(replace(config("conv1d", batch_norm=norm), hidden_dim=256))
        assert isinstance(model, Conv1dCVAE)
        made = model.decode(torch.randn(4, 6), torch.randn(4, 10))
        shares.append(float(made.std(0).mean() / made.square().mean().sqrt()))
    assert shares[0] < 0.02 < 0.2 < shares[1]


def test_a_row_alone_can_be_trained_on_where_rows_are_normalised_together() -> None:
    model = build(config("conv1d", batch_norm=True))
    assert isinstance(model, CVAE) and model.couples_rows and not build(config("conv1d")).couples_rows
    x, c = torch.randn(1, 5, 7, 7), torch.randn(1, 10)
    assert model.decode(model.encode(x, c)[0], c).isfinite().all()


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
