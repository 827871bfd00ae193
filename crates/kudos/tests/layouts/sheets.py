"""Spreadsheets, data frames and other containers of the same rows."""
import datetime
import io
import zipfile

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import xlsxwriter

from fixture import *

RANKED = ["prompt", "answer", "rank"]
SHEET = "spreadsheet practice"
PROPERTIES = (b'<?xml version="1.0"?><cp:coreProperties xmlns:cp='
              b'"http://schemas.openxmlformats.org/package/2006/metadata/core-properties"/>')
ACCENTS = ("Où est née Zoë Brücke?", "À Zürich, «près du lac» – pour 5 €.", "Nulle part…")


def write():
    text_tables()
    wide_tables()
    workbooks()
    odd_workbooks()
    other_makers()
    containers()
    frames()


def ranked_rows(ranks=(2, 1, 3), count=2):
    return [[p(i), text, rank] for i in range(count) for text, rank in zip((mid(i), good(i), bad(i)), ranks)]


def rankings(count=2):
    return [row for i in range(count) for row in ranking(i)]


def source(fields, meaning, where=SHEET, seen="memory"):
    return ("spreadsheet", fields, meaning, where, seen)


def text_tables():
    table("sheet_semicolon_decimal_rank.csv", RANKED, ranked_rows(("1,5", "1,0", "2,5")), rankings(),
          source("prompt;answer;rank", "`;` between cells, decimal commas in rank; 1 is best"), separator=";",
          end="\r\n")
    table("sheet_semicolon_rating.csv", ["Prompt", "Response", "Rating"], ranked_rows(("3,5", "4,75", "1,0")),
          rankings(),
          source("Prompt;Response;Rating", "`;` and decimal commas; a higher rating is better"), separator=";",
          end="\r\n")
    table("sheet_tab.tsv", RANKED, ranked_rows(), rankings(), source("prompt TAB answer TAB rank", "1 is best"),
          separator="\t")
    put("sheet_sep_semicolon.csv", ("sep=;\r\n" + table_text(RANKED, ranked_rows(), ";", end="\r\n")).encode())
    expect("sheet_sep_semicolon.csv", rankings(), source("sep=; and then prompt;answer;rank",
                                                         "the first line is Excel's"))
    rows = [[ACCENTS[0], ACCENTS[1], 1], [ACCENTS[0], ACCENTS[2], 2], [p(0), good(0), 1], [p(0), bad(0), 2]]
    put("sheet_windows_1252.csv", table_text(RANKED, rows, ";", end="\r\n").encode("cp1252"))
    expect("sheet_windows_1252.csv", [list(ACCENTS), pair(0)], source("prompt;answer;rank", "saved as Windows-1252"))
    for name, codec, mark in (("sheet_utf16_le.txt", "utf-16-le", b"\xff\xfe"), ("sheet_utf16_be.txt", "utf-16-be",
            b"\xfe\xff")):
        put(name, mark + table_text(RANKED, rows, "\t", end="\r\n").encode(codec))
        expect(name, [list(ACCENTS), pair(0)], source("prompt TAB answer TAB rank", "UTF-16 with its mark"))
    put("sheet_utf8_bom_semicolon.csv", b"\xef\xbb\xbf" + table_text(RANKED, rows, ";", end="\r\n").encode())
    expect("sheet_utf8_bom_semicolon.csv", [list(ACCENTS), pair(0)], source("prompt;answer;rank",
                                                                            "UTF-8 with its mark"))
    table("sheet_capitals_blanks_dashes.csv", [" PROMPT ", "Response-A", "RESPONSE B", "Label "],
          [[p(0), good(0), bad(0), "A"], [p(1), bad(1), good(1), "B"], [p(2), mid(2), good(2), "Tie"]], [pair(0),
            pair(1)],
          source("PROMPT, Response-A, RESPONSE B, Label", "case, blanks and dashes do not matter; A, B, Tie"))
    table("sheet_ordinals.csv", RANKED, ranked_rows(("2nd", "1st", "3rd")), rankings(), source("rank", "1st is best"))
    table("sheet_merged_cells.csv", RANKED,
          [[p(0), good(0), 1], ["", mid(0), 2], ["", bad(0), 3], [p(1), good(1), 1], ["", bad(1), 2]],
          [*ranking(0), pair(1)], source("an empty prompt cell is the one above", "1 is best"))
    table("sheet_quoted_line_breaks.csv", RANKED,
          [[p(0), good(0) + "\n\n- slowly\n- \"gently\"", 1], [p(0), bad(0), 2]],
          [[p(0), good(0) + "\n\n- slowly\n- \"gently\"", bad(0)]], source("cells with line breaks and quotes",
                                                                           "1 is best"),
          separator=";")
    table("sheet_system_empty.csv", ["system", "prompt", "chosen", "rejected"],
          [["", *pair(0)], [SYSTEM, *pair(1)]], [pair(0), pair(1)],
          source("system, prompt, chosen, rejected", "an empty system cell is none"))


def wide_tables():
    table("sheet_wide_suffix_rank.csv", ["prompt", "response_1", "response_1_rank", "response_2", "response_2_rank",
                                         "response_3", "response_3_rank"],
          [[p(0), bad(0), 3, good(0), 1, mid(0), 2], [p(1), good(1), 1, bad(1), 2, "", ""]], [*ranking(0), pair(1)],
          source("response_N, response_N_rank", "1 is best; empty cells are no response"))
    table("sheet_wide_letters.csv", ["Prompt", "A", "B", "C", "Rank A", "Rank B", "Rank C"],
          [[p(0), bad(0), good(0), mid(0), 3, 1, 2], [p(1), good(1), mid(1), bad(1), 1, 2, 2]],
          [*ranking(0), [p(1), good(1), mid(1)], [p(1), good(1), bad(1)]],
          source("A, B, C and Rank A, Rank B, Rank C", "1 is best, equal ranks tie"))
    table("sheet_wide_ratings.csv", ["Prompt", "Response 1", "Rating 1", "Response 2", "Rating 2"],
          [[p(0), bad(0), 2, good(0), 5], [p(1), good(1), 4, bad(1), 1], [p(2), good(2), 3, mid(2), 3]], [pair(0),
            pair(1)],
          source("Response N, Rating N", "higher is better, equal ratings tie"))
    table("trap_sheet_wide_scores_no_direction.csv", ["Prompt", "Answer 1", "Answer 2", "Judgement 1", "Judgement 2"],
          [[p(0), bad(0), good(0), 2, 5], [p(1), good(1), bad(1), 4, 1]], [pair(0), pair(1)],
          source("Answer N, Judgement N", "nothing says whether 1 or 5 is best: refuse or ask"))


def workbooks():
    stamp = datetime.datetime(2024, 5, 1, 10, 0)

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Rankings"
    for row in [["Prompt", "Answer", "Rank", "Judged on"], *([*row, stamp] for row in ranked_rows())]:
        sheet.append(row)
    notes = book.create_sheet("Notes", 0)
    notes.append(["Prompt", "Answer", "Rank"])
    notes.append(["Do not use", "Old", 1])
    notes.append(["Do not use", "Older", 2])
    notes.sheet_state = "hidden"
    book.active = 1
    save_openpyxl(book, "book_hidden_sheet_dates.xlsx", rankings(),
                  source("Prompt, Answer, Rank, Judged on", "the hidden sheet comes first and does not count",
                         "openpyxl"))

    book = openpyxl.Workbook()
    sheet = book.active
    for row in [RANKED, *ranked_rows()]:
        sheet.append(row)
    sheet.merge_cells("A2:A4")
    sheet.merge_cells("A5:A7")
    save_openpyxl(book, "book_merged_prompts.xlsx", rankings(),
                  source("prompt cells merged downwards", "1 is best", "openpyxl"))


def odd_workbooks():
    book = openpyxl.Workbook()
    sheet = book.active
    for n, row in enumerate([RANKED, *ranked_rows(count=1)]):
        sheet.append(row if n == 0 else [row[0], row[1], f"={row[2]}*1"])
    save_openpyxl(book, "book_formulas_without_values.xlsx", None,
                  source("rank is a formula whose value was never computed", "no rank in the file: refuse", "openpyxl"))

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["Rankings of May"])
    sheet.append([])
    for row in [RANKED, *ranked_rows()]:
        sheet.append(row)
    save_openpyxl(book, "trap_book_title_rows.xlsx", rankings(),
                  source("two lines above the header", "the header is not the first row", "openpyxl"))

    book = openpyxl.Workbook()
    book.active.title = "Ann"
    other = book.create_sheet("Bob")
    for row in [RANKED, *ranked_rows(count=1)]:
        book.active.append(row)
    for row in [RANKED, [p(1), good(1), 1], [p(1), bad(1), 2]]:
        other.append(row)
    save_openpyxl(book, "trap_book_two_sheets.xlsx", [*ranking(0), pair(1)],
                  source("two visible sheets with data", "both, or say which one is meant", "openpyxl"))


def other_makers():
    stamp = datetime.datetime(2024, 5, 1, 10, 0)
    with xlsxwriter.Workbook(path("book_xlsxwriter_formulas.xlsx"), {"default_date_format": "yyyy-mm-dd"}) as book:
        book.set_properties({"created": stamp})
        sheet = book.add_worksheet("Data")
        sheet.write_row(0, 0, ["Prompt", "Answer", "Rank"])
        for n, row in enumerate(ranked_rows(), 1):
            sheet.write_row(n, 0, row[:2])
            sheet.write_formula(n, 2, f"=ROUND({row[2]}.2,0)", None, row[2])
    expect("book_xlsxwriter_formulas.xlsx", rankings(),
           source("Rank is a formula with its value", "1 is best", "XlsxWriter"))
    with xlsxwriter.Workbook(path("book_xlsxwriter_inline.xlsx"), {"constant_memory": True}) as book:
        book.set_properties({"created": stamp})
        sheet = book.add_worksheet()
        for n, row in enumerate([["prompt", "chosen", "rejected"], pair(0), pair(1)]):
            sheet.write_row(n, 0, row)
    expect("book_xlsxwriter_inline.xlsx", [pair(0), pair(1)],
           source("prompt, chosen, rejected", "texts inline instead of shared", "XlsxWriter, constant_memory"))
    frame = pd.DataFrame([{"prompt": p(i), "response_a": a, "response_b": b, "label": label}
                          for i, a, b, label in ((0, good(0), bad(0), "a"), (1, bad(1), good(1), "b"),
                                                 (2, mid(2), good(2), "tie"))])
    frame.to_excel(path("book_pandas_index.xlsx"), engine="openpyxl")
    settle("book_pandas_index.xlsx")
    expect("book_pandas_index.xlsx", [pair(0), pair(1)],
           source("an unnamed index column, then prompt, response_a, response_b, label", "a, b, tie",
                  "pandas to_excel"))


def save_openpyxl(book, name, pairs, row):
    book.properties.created = book.properties.modified = datetime.datetime(2024, 5, 1)
    book.save(path(name))
    settle(name)
    expect(name, pairs, row)


def settle(name):
    """Writes the archive again with fixed dates, so that a second run changes nothing."""
    with zipfile.ZipFile(path(name)) as old:
        parts = [(entry.filename, old.read(entry)) for entry in old.infolist()]
    with zipfile.ZipFile(path(name), "w", zipfile.ZIP_DEFLATED) as new:
        for part, data in parts:
            if part == "docProps/core.xml":
                data = PROPERTIES
            new.writestr(zipfile.ZipInfo(part, (2024, 5, 1, 0, 0, 0)), data)


def containers():
    rows = [{"prompt": p(i), "chosen": good(i), "rejected": bad(i)} for i in range(2)]
    messages = [{"chosen": content_first(chat(i, good(i))), "rejected": content_first(chat(i,
            bad(i)))} for i in range(2)]
    pairs = [pair(0), pair(1)]
    sink = io.BytesIO()
    made = pa.Table.from_pylist(messages)
    with pa.ipc.new_stream(sink, made.schema) as stream:
        stream.write_table(made)
    put("arrow_stream.arrow", sink.getvalue())
    expect("arrow_stream.arrow", pairs, ("Arrow IPC stream (datasets save_to_disk)", "chosen[], rejected[]",
                                         "chosen is better", "pyarrow", "literal"))
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, made.schema) as file:
        file.write_table(made)
    put("arrow_file.arrow", sink.getvalue())
    expect("arrow_file.arrow", pairs, ("Arrow IPC file", "chosen[], rejected[]", "chosen is better", "pyarrow",
                                       "literal"))
    pyarrow.feather.write_feather(pa.Table.from_pylist(rows), path("trap_arrow_feather_lz4.feather"), compression="lz4")
    expect("trap_arrow_feather_lz4.feather", pairs, ("Feather, compressed with LZ4", "prompt, chosen, rejected",
                                                "chosen is better; refuse if LZ4 is not supported", "pyarrow",
                                                     "literal"))
    array_of = lambda name, value, meaning, want=pairs: (
        put(name, json.dumps(value, ensure_ascii=False).encode()),
        expect(name, want, ("JSON in another shape", "prompt, chosen, rejected", meaning,
                            "pandas to_json; datasets server",
                            "literal")))
    array_of("trap_json_under_data.json", {"version": "1.0", "data": rows}, "the rows stand under `data`")
    frame = pd.DataFrame(rows)
    for orient in ("columns", "index", "split", "table"):
        array_of(f"trap_pandas_{orient}.json", json.loads(frame.to_json(orient=orient)), f"orient={orient}")
    array_of("trap_dict_of_lists.json", {key: [row[key] for row in rows] for key in rows[0]}, "a list for each column")
    listed = [{"row_idx": n, "row": row, "truncated_cells": []} for n, row in enumerate(rows)]
    features = [{"feature_idx": n, "name": key, "type": {"dtype": "string", "_type": "Value"}}
                for n, key in enumerate(rows[0])]
    server = {"features": features, "rows": listed, "num_rows_total": 2, "num_rows_per_page": 100, "partial": False}
    array_of("trap_datasets_server_rows.json", server, "each row stands under `rows[].row`")
    cut = {**server, "rows": [{**entry, "truncated_cells": ["chosen"]} for entry in listed]}
    array_of("datasets_server_truncated.json", cut, "cells are cut off (`truncated_cells`): refuse", None)


def frames():
    whole = [{"prompt": p(i), "chosen": content_first(chat(i, good(i))), "rejected": content_first(chat(i, bad(i)))}
             for i in range(2)]
    whole[1]["chosen"][1]["content"] = good(1) + " Don't stir \"too\" long.\nServe."
    want = [pair(0), [p(1), whole[1]["chosen"][1]["content"], bad(1)]]
    frame = pd.DataFrame(whole)
    for name, index, meaning in (("frame_python_repr.csv", False, "cells are the Python text of message lists"),
                                 ("frame_python_repr_index.csv", True, "the same with an index column")):
        put(name, frame.to_csv(index=index, lineterminator="\n").encode())
        expect(name, want, ("pandas to_csv of message lists", "prompt, chosen, rejected", meaning, "pandas", "literal"))
    loaded = pa.Table.from_pylist(whole).to_pandas()
    put("trap_frame_numpy_repr.csv", loaded.to_csv(index=False, lineterminator="\n").encode())
    expect("trap_frame_numpy_repr.csv", want,
           ("pandas to_csv of a loaded Parquet file", "prompt, chosen, rejected",
            "cells are NumPy's text of arrays, without commas between the messages: read or refuse, never a text",
            "pandas, pyarrow", "literal"))
    cells = [[json.dumps(row["chosen"]), json.dumps(row["rejected"])] for row in whole]
    table("frame_json_cells.csv", ["chosen", "rejected"], cells, want,
          ("CSV with message lists as JSON text", "chosen, rejected", "chosen is better", "Kudos docs/data.md",
           "literal"))
    table("trap_frame_list_of_texts.csv", ["prompt", "chosen", "rejected"],
          [[p(i), repr([good(i)]), repr([bad(i)])] for i in range(2)], [pair(0), pair(1)],
          ("CSV with lists of one text", "prompt, chosen, rejected",
           "a list in a cell is read or refused, never a text",
           "pandas", "literal"))
