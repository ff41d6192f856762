"""Native modules: every ``.pyx`` of the folders below; all else is said in pyproject.toml."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

PACKAGE = Path("alphapulse")
FOLDERS = (PACKAGE, *(PACKAGE / name for name in ("_core", "api", "store", "stream")))

extensions = [
    Extension(
        ".".join(source.with_suffix("").parts),
        [str(source)],
        depends=[str(header) for header in sorted(folder.glob("*.h"))],
        extra_compile_args=["-std=gnu11", "-O3"],
    )
    for folder in FOLDERS
    for source in sorted(folder.glob("*.pyx"))
]

setup(ext_modules=cythonize(extensions))
