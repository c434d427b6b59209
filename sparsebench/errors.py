"""What can go wrong, as types. Every message says what was asked, what was found and what to do.

`BadInput` and its children are the user's to mend: the command line prints the message alone and exits with 2.
Anything else is ours, or a kernel's: the lab turns it into a record at one place (lab/worker.py).
"""

from __future__ import annotations


class SparsebenchError(Exception):
    """Any error this package raises on purpose."""


class BadInput(SparsebenchError):
    """A suite, matrix, network, option or folder that cannot be used as given."""


class SuiteError(BadInput):
    """A suite, network or plan file with mistakes; the message lists all of them, each as file:line:column."""


class MatrixError(BadInput):
    """A matrix or weight file that is broken; the message names the file and the line, byte or tensor."""


class PatternError(BadInput):
    """A pattern that cannot be drawn: parameters out of range, or a shape it does not fit."""


class StoreError(BadInput):
    """A results folder that cannot be read, written or locked."""


class ModelError(BadInput):
    """A prediction was asked for which no records exist. Nothing is ever left out of a sum instead."""


class FormatError(SparsebenchError):
    """A matrix that a format cannot store."""


class MachineError(BadInput):
    """A device that was asked for and is not there."""


class MissingNeed(SparsebenchError):
    """Something a kernel needs is not installed here; the message says what to install."""


class Refused(SparsebenchError):
    """A library that says no to this case; the message says what was asked, and its own words."""
