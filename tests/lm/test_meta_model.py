"""The skeleton of a base is the shape of the model that is loaded."""

from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.meta_model import base_shapes, shapes_of
from icmlora_cli.registry.bases import Base


def test_the_skeleton_is_that_of_the_loaded_model(tiny_base: Base) -> None:
    bare, loaded = base_shapes(tiny_base), shapes_of(load_base(tiny_base, device="cpu").model)
    assert bare == loaded and bare.fan_in_fan_out == tiny_base.architecture.startswith("GPT2")
    kinds = {item.kind for item in bare.modules.values()}
    assert kinds == {"linear", "embedding"} | ({"conv1d"} if bare.fan_in_fan_out else set())
    assert bare.modules["lm_head"].tied and bare.modules["lm_head"].in_features == 32
