"""Where a module is: its layer and its kind tell it from all others."""

from icmlora_cli.weights.layout import Layout, ModuleShape


def layout(*names: str) -> Layout:
    return Layout(tuple(ModuleShape(name, 4, 4) for name in names))


def test_modules_of_one_kind_share_it_across_layers() -> None:
    names = [f"model.layers.{index}.self_attn.{kind}" for index in range(2) for kind in ("q_proj", "v_proj")]
    assert layout(*names).places() == ((0, 0), (0, 1), (1, 0), (1, 1))


def test_modules_whose_names_end_alike_are_told_apart() -> None:
    names = [f"transformer.h.{index}.{part}.c_proj" for index in range(2) for part in ("attn", "mlp")]
    assert layout(*names).places() == ((0, 0), (0, 1), (1, 0), (1, 1))
    experts = [f"model.layers.0.mlp.experts.{index}.up_proj" for index in range(3)]
    assert sorted(layout(*experts).places()) == [(0, 0), (0, 1), (0, 2)]
