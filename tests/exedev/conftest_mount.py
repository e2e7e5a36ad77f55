"""What the fixtures here take over from those of tests/mount, which is a conftest.py too."""

import importlib.util
from pathlib import Path

spec = importlib.util.spec_from_file_location(
    "mount_conftest", Path(__file__).resolve().parents[1] / "mount" / "conftest.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

deadline = module.deadline
pytest_collection_modifyitems = module.pytest_collection_modifyitems
pytest_configure = module.pytest_configure
spawn = module.spawn
