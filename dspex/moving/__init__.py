"""Sessions from one store to another, and to files that people read."""

from __future__ import annotations

from dspex.moving.copies import copy
from dspex.moving.documents import Imported, export_session, import_session

__all__ = ["Imported", "copy", "export_session", "import_session"]
