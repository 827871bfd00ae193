"""What the sample writers share: the texts, the files' formats, and the two tables (expect.json, SOURCES.md)."""
import csv
import gzip
import io
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq

HERE = os.path.dirname(os.path.abspath(__file__))
EXPECT, SOURCES = {}, []

# prompt, best, middle, worst: invented for these files
TEXTS = [
    ("How long should I boil an egg for a runny yolk?", "Six minutes from boiling, then straight into cold water.",
     "About five to eight minutes.", "An hour, with the lid off."),
    ("What can I use instead of buttermilk in pancakes?", "A spoon of lemon juice in a cup of milk; wait ten minutes.",
     "Yoghurt thinned with milk.", "Gravel."),
    ("My bike chain squeaks. What should I do?", "Wipe it clean, then one drop of oil on each link.",
     "Oil it.", "Ride faster, so that you do not hear it."),
    ("Suggest a quiet hobby for winter evenings.", "Knitting: cheap to start, and you end up with a scarf.",
     "Reading.", "Drums."),
    ("Where do I put the bins on collection day?", "On the kerb before seven, handles towards the street.",
     "Outside.", "In the neighbour's pond."),
    ("Is it safe to refreeze thawed bread?", "Yes; it only gets a little drier each time.",
     "Usually.", "Only at full moon."),
]
LATER = ("And if I am in a hurry?", "Then take half the time and watch it closely.", "Hurry less.")
SYSTEM = "Answer in one sentence."


def p(i):
    return TEXTS[i][0]


def good(i):
    return TEXTS[i][1]


def mid(i):
    return TEXTS[i][2]


def bad(i):
    return TEXTS[i][3]


def pair(i):
    return [p(i), good(i), bad(i)]


def later(i):
    """The pair of a second turn: its prompt is the whole conversation so far."""
    return [LATER[0], LATER[1], LATER[2]]


def ranking(i):
    return [[p(i), good(i), mid(i)], [p(i), good(i), bad(i)], [p(i), mid(i), bad(i)]]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text=SYSTEM):
    return {"role": "system", "content": text}


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


def chat(i, reply):
    return [user(p(i)), assistant(reply)]


def long_chat(i, reply):
    """Two turns that both sides share, then the reply."""
    return [user(p(i)), assistant(good(i)), user(LATER[0]), assistant(reply)]


def content_first(messages):
    """Hugging Face stores structs with their fields in alphabetical order in many sets."""
    return [{"content": m["content"], "role": m["role"]} for m in messages]


def path(name):
    return os.path.join(HERE, "samples", name)


def put(name, data):
    if name.endswith(".gz"):
        data = gzip.compress(data, mtime=0)
    with open(path(name), "wb") as out:
        out.write(data)


def expect(name, pairs, source):
    """`source`: set or tool | deciding fields | meaning and direction | where it was read | seen."""
    assert name not in EXPECT, name
    EXPECT[name] = pairs
    SOURCES.append((name, *source))


def jsonl(name, rows, pairs, source):
    put(name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    expect(name, pairs, source)


def array(name, rows, pairs, source, indent=2):
    put(name, (json.dumps(rows, ensure_ascii=False, indent=indent) + "\n").encode())
    expect(name, pairs, source)


def parquet(name, rows, pairs, source, schema=None):
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, path(name), compression="snappy")
    expect(name, pairs, source)


def table_text(header, rows, separator=",", quoting=csv.QUOTE_MINIMAL, end="\n"):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, quoting=quoting, lineterminator=end)
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def table(name, header, rows, pairs, source, **how):
    put(name, table_text(header, rows, **how).encode())
    expect(name, pairs, source)


# how many messages the prompt of each pair has, in the order of expect.json, where it is more than one
TURNS = {
    "distilabel_intel_orca.parquet": [2, 2], "capybara_dpo_7k.parquet": [1, 1, 3],
    "tulu_3_preference_mixture.parquet": [1, 1, 3], "openrlhf_mixture2_and_safe_pku.parquet": [3, 3, 1],
    "skywork_reward_v02.parquet": [1, 1, 3], "ultrainteract_pair.parquet": [1, 1, 3],
    "nectar_two_turns.parquet": [1, 1, 1, 3, 3, 3], "helpsteer3_individual.jsonl.gz": [1, 1, 3],
    "arena_human_preference_140k.parquet": [1, 1, 3], "oasst1.trees.jsonl.gz": [1, 1, 1, 3, 1],
    "oasst2_messages.parquet": [1, 3, 1], "trl_lib_hh_rlhf_helpful_base.parquet": [1, 3],
    "llamafactory_dpo_demo.json": [2, 1, 3], "llamafactory_kto_demo.json": [1, 1, 3],
    "llamafactory_alpaca_history.json": [2, 4, 1], "llamafactory_v1_pair.jsonl": [2, 2],
    "axolotl_argilla.jsonl": [2, 1], "axolotl_argilla_chat.jsonl": [1, 4], "axolotl_icr.jsonl": [2, 1],
    "axolotl_intel.jsonl": [2, 1], "axolotl_prompt_pairs.jsonl": [2, 1], "axolotl_ultra.jsonl": [2, 1],
    "axolotl_chat_template_forms.jsonl": [2, 3, 1, 1], "axolotl_kto_argilla.jsonl": [2, 2],
    "msswift_rejected_response.jsonl": [2, 3, 1], "msswift_rejected_messages.jsonl": [1, 3],
    "msswift_query_response.jsonl": [2, 3, 1], "msswift_kto.jsonl": [2, 2],
    "nemo_rl_preference.jsonl": [1, 3, 2, 2, 2], "nemo_rl_binary.jsonl": [1, 3], "verl_rm_full_hh.parquet": [1, 3],
    "deepspeed_rm_static.parquet": [1, 3], "medicalgpt_old.json": [2, 3], "medicalgpt_new.jsonl": [2, 3],
    "openai_preference_turns.jsonl": [2, 3], "sheet_system_empty.csv": [1, 2], "trap_history_pairs.jsonl": [3],
    "trap_history_messages.jsonl": [3], "trap_history_objects.jsonl": [3], "trap_history_sharegpt.jsonl": [3],
    "trap_history_python_text.csv": [3], "trap_history_keeps_groups_apart.jsonl": [3, 3],
    "trap_system_keeps_groups_apart.csv": [2, 2], "trap_tool_turns_in_prompt.jsonl": [3],
    "trap_medicalgpt_tool_turns.jsonl": [3], "trap_paddlenlp_sort.jsonl": [1, 3], "hh_mark_inside_a_turn.jsonl": [3],
}


def finish():
    for name, turns in TURNS.items():
        assert len(turns) == len(EXPECT[name]), name
    with open(os.path.join(HERE, "expect_turns.json"), "w", encoding="utf-8") as out:
        out.write("{\n" + ",\n".join(f' "{name}": {turns}' for name, turns in TURNS.items()) + "\n}\n")
    with open(os.path.join(HERE, "expect.json"), "w", encoding="utf-8") as out:
        json.dump(EXPECT, out, ensure_ascii=False, indent=1)
        out.write("\n")
    left_over = set(os.listdir(os.path.join(HERE, "samples"))) - set(EXPECT)
    assert not left_over, left_over
    with open(os.path.join(HERE, "SOURCES.md"), "w", encoding="utf-8") as out:
        out.write(HEAD)
        for row in SOURCES:
            out.write("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n")


HEAD = """# Where the layouts of these samples were read

`make_samples.py` writes `samples/`, `expect.json` and this table. The texts in the samples are invented; the field
names, the types of the other columns and the direction come from the source in the last but one column.

- `expect.json` gives the pairs `[prompt, chosen, rejected]` of each sample. Of a list of messages it is the text of the
  last one. `null` means that the file must be refused.
- `expect_turns.json` gives how many messages each prompt has, where it is more than one: system, earlier turns and
  question. A prompt that is a single text counts as one. A wrong number means that context was lost.
- A sample named `trap_…` may also be refused, as its meaning cannot be known from the file alone.
- *seen*: `literal` (names and direction stand in the source), `part` (names stand there, some columns or the direction
  come from memory), `memory` (nothing was found to check it against).
- `HF x/y` is the card of the data set x/y on the Hugging Face hub. Other sources are repository and path.

| sample | set or tool | fields that decide | meaning and direction | source | seen |
|---|---|---|---|---|---|
"""
