#!/usr/bin/env python3
"""Writes samples/, expect.json and SOURCES.md beside this file (needs pyarrow, pandas, openpyxl, XlsxWriter)."""
import os

import fixture
import published
import sheets
import tools
import trainers
import traps

os.makedirs(os.path.join(fixture.HERE, "samples"), exist_ok=True)
published.write()
trainers.write()
tools.write()
sheets.write()
traps.write()
fixture.finish()
print(len(fixture.EXPECT), "samples")
