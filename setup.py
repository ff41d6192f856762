"""Native modules: every ``alphapulse/_core/*.pyx``; all else is said in pyproject.toml."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

CORE = Path("alphapulse") / "_core"

extensions = [
    Extension(
        f"alphapulse._core.{source.stem}",
        [str(source)],
        depends=[str(header) for header in sorted(CORE.glob("*.h"))],
        extra_compile_args=["-std=gnu11", "-O3"],
    )
    for source in sorted(CORE.glob("*.pyx"))
]

setup(ext_modules=cythonize(extensions))
