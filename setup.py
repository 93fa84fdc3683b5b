"""Build script.

The wheel is pure Python with the kernels' sources, which are compiled at first use. ``BERTFT_AOT=1 pip install
--no-build-isolation .`` compiles the CPU kernels for this machine during the build instead, and ``BERTFT_AOT=portable
python -m build --no-isolation --wheel`` for other machines too (.ci/wheel).
"""

import os
import platform
import sys

from setuptools import find_namespace_packages, setup

options = {}
choice = os.environ.get("BERTFT_AOT", "0")
if choice not in ("", "0"):
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from bertft.ops.native import wheel

    options = wheel.options(wheel.targets(choice, platform.machine()))

setup(
    packages=[
        *find_namespace_packages(include=["bertft", "bertft.*"], exclude=["bertft._prebuilt"]),
        "bertft._csrc",
        "bertft._csrc.cpu",
        "bertft._csrc.cuda",
    ],
    package_dir={"bertft._csrc": "csrc"},
    package_data={
        "": ["*.pyi"],
        "bertft": [
            "py.typed",
            "models/finetuning/*.j2",
            "report/page/templates/*.*",
            "report/page/templates/sections/*",
            "study/builtin/*",
        ],
        "bertft._csrc": ["*.h", "*.cpp", "cpu/*", "cuda/*"],
    },
    **options,
)
