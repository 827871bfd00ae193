#!/usr/bin/env python3
"""Writes samples/, expect.json and SOURCES.md beside this file (needs pyarrow, pandas, openpyxl, XlsxWriter)."""
import os

import compared
import fixture
import label_studio
import published
import sheets
import tools
import trainers
import traps

os.makedirs(os.path.join(fixture.HERE, "samples"), exist_ok=True)
published.write()
compared.write()
trainers.write()
tools.write()
label_studio.write()
sheets.write()
traps.write()
fixture.finish()
print(len(fixture.EXPECT), "samples")
