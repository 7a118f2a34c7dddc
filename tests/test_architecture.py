"""The house: arrows point down, the flat folder stays flat, and the library keeps its habits."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

import bcos_hf


ROOT = Path(bcos_hf.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
FLAT = [path for path in FILES if path.parent.name == "models" and path.name != "__init__.py"]
ABOVE = ("training", "data", "metrics", "baselines", "visualization", "hub", "checkpoints", "reporting", "space")


def imports(path):
    """(level, module) of every import of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""
        elif isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", FLAT, ids=lambda path: path.name)
def test_flat_files_import_little(path):
    for level, module in imports(path):
        if level:
            assert level == 1 and module and "." not in module, f"{path.name}: only `from .name import X` is copied to the Hub"
        else:
            top = module.split(".")[0]
            assert top in {"torch", "transformers", "huggingface_hub", "safetensors"} or top in sys.stdlib_module_names, f"{path.name} imports {module}"


def test_no_circle_in_models():
    arrows = {path.stem: {module for level, module in imports(path) if level} for path in FLAT}
    while arrows:
        leaves = {name for name, targets in arrows.items() if not targets & arrows.keys()}
        assert leaves, f"a circle among {sorted(arrows)}"
        arrows = {name: targets for name, targets in arrows.items() if name not in leaves}


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "models"], ids=lambda path: path.name)
def test_models_know_nothing_above_them(path):
    assert not [module for _, module in imports(path) if any(module.startswith(f"bcos_hf.{name}") or module == name for name in ABOVE)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_habits(path):
    assert len(path.read_text().splitlines()) <= 250
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}: raise instead of assert"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "exec", "eval"), f"{path}:{node.lineno}"


def test_torchvision_is_absent_or_works():
    if importlib.util.find_spec("torchvision"):
        importlib.import_module("torchvision")
