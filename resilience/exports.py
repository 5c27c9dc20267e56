"""What a package exports, imported only when somebody asks for it."""

from collections.abc import Callable, Collection, Mapping
from importlib import import_module


def exported_from(package: str, modules: Mapping[str, Collection[str]]) -> Callable[[str], object]:
    """Return the `__getattr__` of *package*, as PEP 562 has it.

    Args:
        package: Full name of the package.
        modules: Names that the package exports, by the full name of their module; a module of the
            package that is exported itself has none.
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
        setattr(import_module(package), name, value)  # from now on it is found without asking here
        return value

    return __getattr__
