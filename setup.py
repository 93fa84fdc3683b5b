"""Build script.

The wheel is pure Python with the kernels' sources, which are compiled at first use. ``BERTFT_AOT=1 pip install
--no-build-isolation .`` compiles the CPU kernels during the build instead.
"""

import os
import sys

from setuptools import find_namespace_packages, setup

options = {}
if os.environ.get("BERTFT_AOT") == "1":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from bertft.ops.native import wheel

    options = wheel.options()

setup(
    packages=[
        *find_namespace_packages(include=["bertft", "bertft.*"]),
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
