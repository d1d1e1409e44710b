"""What the tests of the stores share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for sqlite_tools, which processes of their own import too
