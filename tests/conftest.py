from pathlib import Path


def pytest_addoption(parser):
    # pytest's own --fixtures lists fixtures (as --funcargs still does); here it names a folder of golden tensors
    own = parser.optparser._option_string_actions.pop("--fixtures", None)
    if own is not None:
        own.option_strings.remove("--fixtures")
    parser.addoption("--fixtures", dest="golden", default=str(Path(__file__).parent / "fixtures"), help="a folder of golden tensors")
