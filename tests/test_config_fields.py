"""B-cos fields and the fields of the standard configurations are two sets of names, and older folders load under the names of now."""

import json
from dataclasses import dataclass

import pytest
from transformers import AutoConfig, AutoModel, LlamaConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from bcos_hf import bcosify
from bcos_hf.models import FAMILIES
from bcos_hf.models.configuration_bcos import RENAMED, BcosConfigMixin, BcosDecoderConfigMixin, bcos_fields
from tests.conftest import tiny


CONFIGS = [AutoConfig.for_model(f"bcos_{family}").__class__ for family in FAMILIES]


@pytest.mark.parametrize("config_class", CONFIGS, ids=lambda cls: cls.__name__)
def test_no_field_is_one_of_any_transformers_configuration(config_class):
    shared = {}
    for model_type in list(CONFIG_MAPPING):
        standard = CONFIG_MAPPING[model_type]
        if issubclass(standard, BcosConfigMixin) or model_type in FAMILIES:
            continue
        declared = {name for base in standard.__mro__ for name in getattr(base, "__annotations__", {})}
        if both := declared & bcos_fields(config_class):
            shared[model_type] = both
    assert not shared


def test_a_field_in_both_is_refused_when_the_class_is_made():
    @dataclass(repr=False, kw_only=True)
    class Mixin(BcosDecoderConfigMixin):
        hidden_size: int = 3

    with pytest.raises(TypeError, match=r"hidden_size.*rename"):
        type("Both", (Mixin, LlamaConfig), {"model_type": "both"})


@pytest.mark.parametrize("family", ["bert", "vit", "resnet"])
def test_a_conversion_inherits_no_field_of_ours_from_the_standard_configuration(family):
    standard = tiny(family)
    for name, value in {
        "b": 7.0,
        "keep_biases": True,
        "use_bias": True,
        "hidden_activation": "relu",
        "weight_norm": "none",
    }.items():
        setattr(standard.config, name, value)
    default = type(bcosify(tiny(family)).config)()
    made = bcosify(standard).config
    for name in ("b", "keep_biases", "inner_activation", "weight_norm"):
        assert getattr(made, name) == getattr(default, name), name


@pytest.mark.parametrize("family", ["bert", "resnet", "clip"])
def test_a_folder_saved_under_the_old_names_loads(family, tmp_path):
    model = bcosify(tiny(family), keep_biases=True, bcos_eps=2e-3, inner_activation="identity")
    model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    for old, new in RENAMED.items():
        values[old] = values.pop(new)
    file.write_text(json.dumps(values))
    loaded = AutoModel.from_pretrained(tmp_path)
    assert (loaded.config.keep_biases, loaded.config.bcos_eps, loaded.config.inner_activation) == (
        True,
        2e-3,
        "identity",
    )
    assert not {*RENAMED} & {*loaded.config.to_dict()}
