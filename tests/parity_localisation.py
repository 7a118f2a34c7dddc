"""The authors' grid pointing game, from golden data: which pictures, at which place, and the share of each map."""

import torch

from bcos_hf.metrics.grid_pointing_game import grid_pointing_shares
from bcos_hf.metrics.grids import compose_grids, published_grid, published_order


def localisation(golden) -> None:
    for name, case in golden.settings["cases"].items():
        cells = case["n_imgs"]
        sampling(case, cells)
        contributions = golden.get(f"{name}/attributions")
        side = case["single_size"] * int(cells**0.5)
        assert contributions.shape[:2] == (case["samples"], cells)
        assert contributions.shape[-2:] == (side, side)
        shares = grid_pointing_shares(contributions, case["smooth"], case["neg"], transposed=True)
        golden.meets(f"{name}/metric", shares.flatten())
        pictures = torch.arange(float(cells)).view(cells, 1, 1, 1)
        golden.meets(f"{name}/grid_layout_picture_index", compose_grids(pictures, torch.arange(cells)[None], transposed=True)[0, 0])


def sampling(case, cells) -> None:
    labels = torch.tensor(case["labels"])
    confidences, predictions = torch.full(labels.shape, torch.nan, dtype=torch.float64), torch.full_like(labels, -1)
    for label, pictures in case["sorted_confs"].items():
        for index, logit in pictures:
            confidences[index], predictions[index] = logit, int(label)
    order = published_order(confidences, labels, cells, case["conf_thresh"], predictions)
    assert order == case["sorted_indices"]
    for call in case["make_multi_image_calls"]:
        indices, offset = published_grid(order, labels, cells, call["offset_in"])
        assert (labels[indices].tolist(), offset) == (call["targets"], call["offset_out"])
