"""The app in the browser, and the Space folder that runs it: demo."""

from pathlib import Path
from typing import Annotated

import typer

from .common import app, told


@app.command()
def demo(
    model: Annotated[list[str], typer.Option("--model", "--image-model", "--text-model", "--clip-model", help="Hub id or folder; again for another kind.")],
    conventional: Annotated[str | None, typer.Option(help="An ordinary classifier of pictures with the same classes, to compare with.")] = None,
    examples: Annotated[Path | None, typer.Option(help="Folder of pictures, and of texts.txt and prompts.txt.")] = None,
    space: Annotated[Path | None, typer.Option(help="Write a Hugging Face Space to this folder, and do not run it.")] = None,
    port: int | None = None,
    share: Annotated[bool, typer.Option(help="Open a public tunnel.")] = False,
) -> None:
    """Explain pictures and texts in the browser: bcos-hf demo --model bcos-resnet --text-model bcos-bert (needs the extra demo)"""
    with told():
        from bcos_hf.space import serve, write_space  # here, as no other command needs gradio

        if space is None:
            serve(model, conventional, examples, port, share)
        else:
            write_space(space, model, conventional, examples)
            typer.echo(f"Saved to {space}. Run it: cd {space} && python app.py")
