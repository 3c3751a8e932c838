"""Two rooms of the package, `pipelines/` and `training/`, and its examples stand at the top of the repository."""

from setuptools import find_packages, setup


ROOMS_AT_THE_TOP = ("pipelines", "training")


def packages() -> list[str]:
    found = find_packages("src")
    for room in ROOMS_AT_THE_TOP:
        found += [f"diffusers_ext.{room}"] + [f"diffusers_ext.{room}.{package}" for package in find_packages(room)]
    return [*found, "diffusers_ext.examples"]


setup(
    packages=packages(),
    package_dir={"": "src", **{f"diffusers_ext.{room}": room for room in (*ROOMS_AT_THE_TOP, "examples")}},
    include_package_data=False,  # not what MANIFEST.in adds to the sdist, such as pictures
    package_data={"": ["*.pyi"], "diffusers_ext": ["py.typed"], "diffusers_ext.examples": ["*.yaml", "*/*.yaml"]},
)
