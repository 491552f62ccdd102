# SPDX-License-Identifier: GPL-3.0-or-later
"""What pyproject.toml can't say: the extension module, which cffi makes over the installed header."""

from setuptools import setup

setup(cffi_modules=["build_ffi.py:ffibuilder"])
