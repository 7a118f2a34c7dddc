"""The authors' colour explanation, from golden data."""

from bcos_hf.visualization.image import gradient_to_image


def gradient_image(golden) -> None:
    for name, case in golden.settings["cases"].items():
        weights = golden.get(f"{name}/grad")
        contributions = (golden.get(f"{name}/image") * weights).sum(0)
        golden.meets(f"{name}/contribs", contributions[None], gradient=False)
        golden.meets(f"{name}/rgba", gradient_to_image(weights, contributions, case["smooth"], case["alpha_percentile"]), gradient=False)
