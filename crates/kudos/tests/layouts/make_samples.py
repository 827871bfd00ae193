#!/usr/bin/env python3
"""Writes samples/, expect.json and SOURCES.md beside this file (needs pyarrow, pandas, openpyxl, XlsxWriter)."""
import os

import fixture
import published
import tools
import trainers

os.makedirs(os.path.join(fixture.HERE, "samples"), exist_ok=True)
published.write()
trainers.write()
tools.write()
fixture.finish()
print(len(fixture.EXPECT), "samples")
