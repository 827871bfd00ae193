"""Makes crates/kudos/tests/fixtures/data: one small table as many programs write it, and workbooks with odd cells.

    python golden/make_data_fixtures.py

`crates/kudos/tests/data_formats.rs` reads the result. Every file whose name begins with `same_` has the rows of ROWS, and
must be read as they are. The others are described where they are made. Needs what requirements-data.txt lists.
"""

import datetime
import io
import json
import pathlib
import shutil
import sys
import tempfile
from importlib.metadata import version

import datasets
import openpyxl
import pandas
import pyarrow
import pyarrow.feather
import xlsxwriter
import xlwt
from msoffcrypto.format.ooxml import OOXMLFile
from odf.opendocument import OpenDocumentSpreadsheet

VERSIONS = {
    "datasets": "5.2.0", "msoffcrypto-tool": "6.1.0", "odfpy": "1.4.1", "openpyxl": "3.1.5", "pandas": "3.1.1",
    "pyarrow": "26.0.1", "xlsxwriter": "3.3.1", "xlwt": "1.3.0",
}
OUT = pathlib.Path(__file__).parent.parent / "crates/kudos/tests/fixtures/data"
COLUMNS = ["prompt", "answer", "rank"]
ROWS = [
    ["What is a caf\u00e9?", "A place for coffee; tea, too.", 1],
    ["What is a caf\u00e9?", "A \u201cbean\u201d shop\nwith chairs", 2],
    ["Name a prime, please", "7", 1],
    ["Name a prime, please", "\u20ac9 is one\tor not", 2],
]


def texts(frame):
    """Text files, as pandas and spreadsheet programs save them."""
    for name, separator in [("comma", ","), ("semicolon", ";"), ("tab", "\t")]:
        for encoding in ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"]:
            table = frame.to_csv(index=False, sep=separator, lineterminator="\r\n")
            mark = "\ufeff" if encoding == "utf-16-be" else ""
            (OUT / f"same_{name}_{encoding}.csv").write_bytes((mark + table).encode(encoding))
    named = "sep=;\r\n" + frame.to_csv(index=False, sep=";", lineterminator="\r\n")
    (OUT / "same_named_separator.csv").write_bytes(named.encode("utf-8-sig"))
    lines = frame.to_json(orient="records", lines=True, force_ascii=False)
    (OUT / "same_utf-16.jsonl").write_bytes(lines.encode("utf-16"))
    (OUT / "same_array_utf-16.json").write_bytes(json.dumps(frame.to_dict("records"), indent=1).encode("utf-16"))


def documents(frame):
    """JSON that is not one object a line."""
    for orient in ["columns", "index", "split", "table", "records"]:
        frame.to_json(OUT / f"same_{orient}.json", orient=orient)
        frame.to_json(OUT / f"same_{orient}_indented.json", orient=orient, indent=2, force_ascii=False)
    write = lambda name, value, **how: (OUT / name).write_text(json.dumps(value, **how), encoding="utf-8")
    rows = frame.to_dict("records")
    write("same_list.json", frame.to_dict("list"))
    write("same_wrapped.json", {"version": "1.0", "data": rows}, indent=4)
    served = [{"row_idx": at, "row": row, "truncated_cells": []} for at, row in enumerate(rows)]
    features = [{"feature_idx": 0, "name": "prompt", "type": {"dtype": "string", "_type": "Value"}}]
    write("same_served.json", {"features": features, "rows": served, "num_rows_total": 4, "partial": False})
    (OUT / "same_side_by_side.json").write_text("\n".join(json.dumps(row, indent=2) for row in rows), encoding="utf-8")


def columnar(frame):
    """Arrow, as a stream and as a file."""
    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    with tempfile.TemporaryDirectory() as folder:
        datasets.Dataset.from_pandas(frame).save_to_disk(folder)
        shutil.copy(next(pathlib.Path(folder).glob("*.arrow")), OUT / "same_datasets.arrow")
    for compression in ["lz4", "zstd"]:
        pyarrow.feather.write_feather(table, OUT / f"same_{compression}.feather", compression=compression)
    prompt = table.column("prompt").dictionary_encode()
    with pyarrow.ipc.new_stream(OUT / "same_dictionary.arrows", table.set_column(0, "prompt", prompt).schema) as writer:
        for batch in table.set_column(0, "prompt", prompt).to_batches(max_chunksize=1):
            writer.write_batch(batch)


def workbooks(frame):
    """Workbooks by three libraries."""
    frame.to_excel(OUT / "same_pandas.xlsx", index=False)
    with xlsxwriter.Workbook(OUT / "same_xlsxwriter.xlsx", {"constant_memory": True}) as book:
        sheet = book.add_worksheet()
        for at, row in enumerate([COLUMNS, *ROWS]):
            sheet.write_row(at + 2, 0, row)
            # Numbers stored as text, as a table pasted from elsewhere has them.
            if at == 1:
                sheet.write_string(at + 2, 2, "1")
    odd_cells()
    xlsxwriter_formulas()


def odd_cells():
    """A hidden first sheet, merged prompts, a column without a header, and cells of every type, by openpyxl."""
    book = openpyxl.Workbook()
    book.active.title = "Lists"
    book.active.append(["prompt", "answer"])
    book.active.sheet_state = "hidden"
    sheet = book.create_sheet("Ratings")
    book.create_sheet("Notes").append(["ask Anna"])
    sheet.append(["prompt", "answer", "rank", "when", "share", "checked"])
    moment = datetime.datetime(2024, 5, 1, 13, 30)
    sheet.append(["merged", "first", 1, datetime.date(2024, 5, 1), 0.5, True])
    sheet.append([None, "second", 2, moment, 0.25, False])
    sheet["E2"].number_format = "0%"
    sheet.merge_cells("A2:A3")
    sheet.append(["error", "#N/A", 1])
    sheet.append(["formula", "=UPPER(A1)", 1])
    sheet.append([])
    sheet.append(["stray", "answer", 1])
    sheet["H7"] = "a remark"
    book.save(OUT / "odd_cells.xlsx")


def xlsxwriter_formulas():
    """Formulas for which XlsxWriter stores 0, and asks the spreadsheet program to compute them."""
    with xlsxwriter.Workbook(OUT / "formulas_xlsxwriter.xlsx") as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, COLUMNS)
        sheet.write_row(1, 0, ["p", "a"])
        sheet.write_formula(1, 2, "=1+1")


def refused(frame):
    """Formats that are named and not read."""
    plain = io.BytesIO((OUT / "same_pandas.xlsx").read_bytes())
    with open(OUT / "encrypted.xlsx", "wb") as out:
        OOXMLFile(plain).encrypt("secret", out)
    old = xlwt.Workbook()
    old.add_sheet("Sheet1").write(0, 0, "prompt")
    old.save(str(OUT / "old.xls"))
    OpenDocumentSpreadsheet().save(str(OUT / "open_document.ods"))


def main():
    found = {name: version(name) for name in VERSIONS}
    if found != VERSIONS:
        sys.exit(f"expected {VERSIONS}, found {found}")
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    frame = pandas.DataFrame(ROWS, columns=COLUMNS)
    for make in [texts, documents, columnar, workbooks, refused]:
        make(frame)


main()
