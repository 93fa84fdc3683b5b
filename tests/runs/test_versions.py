"""Versions that records and cards name."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys

import numpy

from bertft.runs import versions as module
from bertft.runs.versions import PACKAGES, package_versions, versions


def test_versions_are_those_of_the_installed_packages():
    found = versions()
    assert found["python"] == platform.python_version() and found["numpy"] == numpy.__version__
    assert set(found) == {"python", "platform", *PACKAGES}


def test_an_absent_package_is_not_installed(monkeypatch):
    assert package_versions(["numpy", "no-such-package"])["no-such-package"] == "not installed"

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module.importlib.metadata, "version", absent)
    assert package_versions(["bertft", "torch"]) == {"bertft": "source tree", "torch": "not installed"}


def test_no_package_is_imported():
    code = "import sys; from bertft.runs.versions import versions; versions(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
