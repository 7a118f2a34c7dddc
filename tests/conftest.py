from pathlib import Path

import pytest
import torch
import transformers


torch.set_num_threads(1)  # models this small spend their time waiting for each other's threads


def pytest_addoption(parser):
    # pytest's own --fixtures lists fixtures (as --funcargs still does); here it names a folder of golden tensors
    own = parser.optparser._option_string_actions.pop("--fixtures", None)
    if own is not None:
        own.option_strings.remove("--fixtures")
    parser.addoption("--fixtures", dest="golden", default=str(Path(__file__).parent / "fixtures"), help="a folder of golden tensors")


TINY = dict(vocab_size=90, max_position_embeddings=40, num_labels=3)
SIZES = {
    "bert": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
    "roberta": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
    "distilbert": dict(dim=32, n_layers=2, n_heads=4, hidden_dim=64),
}
HEADS = {"sequence": "AutoModelForSequenceClassification", "token": "AutoModelForTokenClassification", "mlm": "AutoModelForMaskedLM"}


def tiny(family: str, head: str = "sequence", **fields):
    """A small standard model with random weights and biases, float64, in evaluation mode."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **{**TINY, **SIZES[family], **fields})
    model = getattr(transformers, HEADS[head]).from_config(config).eval().double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif "norm" in name.lower():
                parameter.uniform_(0.5, 1.5)
            elif "embeddings" not in name:
                parameter.normal_(0, 0.2)
    return model


@pytest.fixture(params=sorted(SIZES))
def family(request):
    return request.param


@pytest.fixture
def batch(family):
    """Three texts of 9, 5 and 7 tokens, right padded."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 90, (3, 9), generator=generator)
    mask = (torch.arange(9) < torch.tensor([9, 5, 7])[:, None]).long()
    return {"input_ids": ids.masked_fill(mask == 0, 1 if family == "roberta" else 0), "attention_mask": mask}
