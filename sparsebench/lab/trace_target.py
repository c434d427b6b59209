"""MODULE:CALLABLE found and built, and every mistake in it told.

The module is built and run on the meta device, where tensors have shapes and no memory, so that a network of any size
is traced on a laptop in seconds. What cannot run there (a value that is read, a tensor that is made on the CPU) is
built again and run on the CPU, on ones.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# psutil: free memory on Linux and macOS alike.
import psutil
import torch
from torch.nn.parameter import is_lazy

from sparsebench.errors import BadInput
from sparsebench.lab.trace_inputs import required
from sparsebench.units import size
from sparsebench.yaml_marks import near


@dataclass(frozen=True, slots=True)
class Target:
    """What MODULE:CALLABLE names: a module, or what makes one when it is called."""

    text: str
    found: Any

    @classmethod
    def find(cls, text: str) -> Target:
        """Import it, from the current folder too; BadInput where it is not there or cannot be called bare."""
        home, colon, path = text.partition(":")
        if not (home and colon and path):
            raise BadInput(f"trace takes MODULE:CALLABLE, found {text!r}; write for example mynet:make_model")
        found = _imported(home)
        for name in path.split("."):
            if not hasattr(found, name):
                raise BadInput(f"{home} has no {path}{near(name, [each for each in dir(found) if each[0] != '_'])}")
            found = getattr(found, name)
        if not isinstance(found, torch.nn.Module):
            _callable_bare(text, found)
        return cls(text, found)

    def build(self, device: str) -> torch.nn.Module:
        """The module on "cpu" or "meta", ready for inference; BadInput where the CPU cannot make it."""
        if device == "cpu":
            return self._made().eval()
        try:
            with torch.device("meta"):
                module = self._called()
        except Exception:  # it reads a value, or loads a file: made on the CPU, it may still run without memory
            module = self._made()
        return _on_meta(module).eval()

    def need_room(self, on_meta: str) -> None:
        """BadInput where the weights would fill more than half of the free memory; `on_meta` is what failed there."""
        try:
            with torch.device("meta"):
                module = self._called()
        except Exception:  # nobody knows then, and the user's own code has chosen the CPU
            return
        known = [parameter for parameter in module.parameters() if not is_lazy(parameter)]
        needed = sum(parameter.numel() * parameter.element_size() for parameter in known)
        if needed > (free := psutil.virtual_memory().available) / 2:
            raise BadInput(
                f"{self.text} failed on the meta device: {on_meta}; on the CPU its weights would take {size(needed)} "
                f"of {size(free)} free, so that was not tried; mend the inputs, or trace fewer of its layers"
            )

    def _made(self) -> torch.nn.Module:
        try:
            return self._called()
        except BadInput:
            raise
        except Exception as error:  # it is the user's code, and may raise anything
            raise BadInput(f"{self.text} could not be made: {told(error)}; mend it") from None

    def _called(self) -> torch.nn.Module:
        module = self.found if isinstance(self.found, torch.nn.Module) else self.found()
        if not isinstance(module, torch.nn.Module):
            raise BadInput(
                f"{self.text} must give a torch.nn.Module, found a {type(module).__name__}; return the module"
            )
        return module


def _imported(home: str) -> Any:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(home)
    except ModuleNotFoundError as error:
        if error.name and (home == error.name or home.startswith(f"{error.name}.")):
            raise BadInput(
                f"no module is called {home!r}, neither installed nor in {here}; mend the name, or go to its folder"
            ) from None
        raise BadInput(f"{home} needs the module {error.name!r}, which is not installed; install it") from None
    except (Exception, SystemExit) as error:  # it is the user's code, and may raise anything
        raise BadInput(f"{home} cannot be imported: {told(error)}; mend it") from None


def _callable_bare(text: str, found: Any) -> None:
    """BadInput where `found` cannot be called without arguments."""
    if not callable(found):
        raise BadInput(f"{text} is a {type(found).__name__}, and cannot be called; name a function, class or module")
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return
    if missing := required(signature):
        raise BadInput(
            f"{text} needs {', '.join(missing)}, and is called without arguments; write a function that returns the "
            f"module and name that: def make(): return {getattr(found, '__name__', 'it')}(...)"
        )


def _on_meta(module: torch.nn.Module) -> torch.nn.Module:
    """A copy without memory; what is shared stays shared, and the module itself as it is."""
    memo: dict[int, Any] = {
        id(parameter): torch.nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        for parameter in module.parameters()
        if not is_lazy(parameter)
    }
    others = (value for part in module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor))
    memo |= {id(tensor): tensor.detach().to("meta") for tensor in (*module.buffers(), *others)}
    return copy.deepcopy(module, memo)


def told(error: BaseException) -> str:
    """An exception on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
