"""`caucus.py` as a program, from its bytecode: Python compiles a script anew at each start, which takes half of it.

The tests start it some thousand times; in a process that has it loaded, see nursery.py, it is called. Those about the
start itself take the script.
"""

import runpy
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)
if loaded := sys.modules.get("caucus"):
    sys.exit(loaded.main())
runpy.run_module("caucus", run_name="__main__", alter_sys=True)
