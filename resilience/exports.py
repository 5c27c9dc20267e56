"""Lets a package export names whose modules are imported on first use."""

from collections.abc import Callable, Collection, Mapping
from importlib import import_module


def exported_from(package: str, modules: Mapping[str, Collection[str]]) -> Callable[[str], object]:
    """Return a `__getattr__` for *package* (PEP 562) that imports each name on first use.

    Args:
        package: Full name of the package.
        modules: Full name of each module, and the names that the package exports from it. A
            submodule of the package is exported itself, too; it may come with no names.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def __getattr__(name: str) -> object:  # noqa: N807 - the language's name
        if name in module_of:
            value: object = getattr(import_module(module_of[name]), name)
        elif f"{package}.{name}" in modules:
            value = import_module(f"{package}.{name}")
        else:
            msg = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(msg)
        setattr(import_module(package), name, value)  # the next access finds it there
        return value

    return __getattr__
