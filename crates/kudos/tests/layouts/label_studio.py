"""Exports of Label Studio: the whole JSON, JSON_MIN and CSV."""
from fixture import *

EXPORT = "HumanSignal/label-studio docs/source/templates/generative-pairwise-human-preference.md"
CONVERTER = "HumanSignal/label-studio-sdk label_studio_sdk/converter/converter.py, exports/csv2.py, utils.py"
BEST = ["llm_2", "llm_3", "llm_1"]
BOTH = "answer1,answer2"


def write():
    pairwise()
    ranker()


def result(name, kind, value, to="answer1,answer2"):
    return {"id": "x1", "from_name": name, "to_name": to, "type": kind, "origin": "manual", "value": value}


def annotation(ident, results, by=1, cancelled=False):
    return {"id": ident, "completed_by": by, "result": results, "was_cancelled": cancelled, "ground_truth": False,
            "created_at": f"2024-05-01T10:00:0{ident % 10}.000000Z", "updated_at": "2024-05-01T10:00:09.000000Z",
            "lead_time": 4.2}


def task(i, data, annotations, predictions=()):
    return {"id": i + 1, "annotations": annotations, "file_upload": "dataset.json", "drafts": [],
            "predictions": list(predictions), "data": data, "meta": {}, "created_at": "2024-05-01T09:00:00.000000Z",
            "updated_at": "2024-05-01T10:00:00.000000Z", "inner_id": i + 1, "total_annotations": len(annotations),
            "cancelled_annotations": 0, "total_predictions": len(predictions), "project": 3}


def side(which, to="comparison"):
    return [result("comparison", "pairwise", {"selected": which}, to)]


def answers(i, first, second):
    return {"prompt": p(i), "answer1": first, "answer2": second}


def minimal(i, data, value, name):
    return {**data, "id": i + 1, name: value, "annotator": 1, "annotation_id": i + 10,
            "created_at": "2024-05-01T10:00:00.000000Z", "updated_at": "2024-05-01T10:00:09.000000Z",
            "lead_time": 4.2}


def items(i):
    return {"prompt": p(i), "items": [{"id": "llm_1", "title": "LLM 1", "body": bad(i)},
                                      {"id": "llm_2", "title": "LLM 2", "body": good(i)},
                                      {"id": "llm_3", "title": "LLM 3", "body": mid(i)}]}


def order(value):
    return [result("rank", "ranker", {"ranker": value}, "answers")]


def pairwise():
    array("labelstudio_pairwise_annotators.json",
          [task(0, answers(0, good(0), bad(0)), [annotation(1, side("left")), annotation(2, side("right"), 2, True)]),
           task(1, answers(1, bad(1), good(1)), [annotation(3, side("right"))],
                [{"id": 9, "result": side("left"), "score": 0.9, "model_version": "m"}]),
           task(2, answers(2, bad(2), good(2)), [annotation(4, side("left"), 1, True)]),
           task(3, answers(3, bad(3), good(3)), [], [{"id": 10, "result": side("left"), "score": 0.9}])],
          [pair(0), pair(1)],
          ("Label Studio Pairwise, JSON", "data.answer1, data.answer2, annotations[].result[].value.selected",
           "left = answer1 is better; cancelled ones and predictions do not count; to_name need not name the texts",
           "HumanSignal/RLHF tutorials/ls_output_data.json; " + CONVERTER, "literal"))
    array("labelstudio_pairwise_min.json",
          [minimal(0, answers(0, good(0), bad(0)), [{"selected": "left"}], "comparison"),
           minimal(1, answers(1, bad(1), good(1)), [{"selected": "right"}], "comparison")], [pair(0), pair(1)],
          ("Label Studio Pairwise, JSON_MIN", "answer1, answer2, comparison[{selected}]",
           "left = answer1 is better; the control's value stays a list of objects", CONVERTER, "literal"))
    header = ["annotation_id", "annotator", "answer1", "answer2", "comparison", "created_at", "id", "lead_time",
              "prompt",
              "updated_at"]
    table("labelstudio_pairwise.csv", header,
          [[10 + i, 1, first, second, json.dumps([{"selected": which}]), "2024-05-01T10:00:00Z", i + 1, 4.2, p(i),
            "2024-05-01T10:00:09Z"] for i, first, second, which in ((0, good(0), bad(0), "left"),
                                                                    (1, bad(1), good(1), "right"))], [pair(0), pair(1)],
          ("Label Studio Pairwise, CSV", "answer1, answer2, comparison as JSON text", "left = answer1 is better",
           CONVERTER, "literal"), quoting=csv.QUOTE_NONNUMERIC)
    array("trap_labelstudio_ratings.json",
          [task(i, answers(i, first, second),
                [annotation(i + 1, [result("rating1", "rating", {"rating": one}, "answer1"),
                                    result("rating2", "rating", {"rating": two}, "answer2")])])
           for i, first, second, one, two in ((0, good(0), bad(0), 5, 1), (1, bad(1), good(1), 2, 4))], [pair(0),
            pair(1)],
          ("Label Studio Rating of each response", "result[].to_name, value.rating", "more stars are better",
           "HumanSignal/label-studio docs/source/tags/rating.md", "memory"))
    array("labelstudio_pairwise_two_people.json",
          [task(0, answers(0, good(0), bad(0)), [annotation(1, side("left", BOTH)), annotation(2, side("left", BOTH),
            2)]),
           task(1, answers(1, bad(1), good(1)), [annotation(3, side("right", BOTH)), annotation(4, side("right",
            BOTH), 2)])],
          [pair(0), pair(0), pair(1), pair(1)],
          ("Label Studio Pairwise, two annotators who agree", "annotations[].completed_by, value.selected",
           "one vote for each annotation that was not cancelled", EXPORT, "literal"))


def ranker():
    array("labelstudio_ranker_annotators.json",
          [task(0, items(0), [annotation(1, order({"rank": BEST})), annotation(2, order({"rank": BEST[::-1]}), 2,
                                                                               True)]),
           task(1, items(1), [annotation(3, order({"rank": BEST}))],
                [{"id": 9, "result": order({"rank": BEST[::-1]}), "score": 0.5}])], [*ranking(0), *ranking(1)],
          ("Label Studio Ranker, JSON", "data.items[{id, body}], value.ranker",
           "the first id is best; cancelled annotations and predictions do not count",
           "HumanSignal/label-studio docs/source/templates/generative-llm-ranker.md", "part"))
    array("labelstudio_ranker_min.json",
          [minimal(i, items(i), [{"ranker": {"rank": BEST}}], "rank") for i in range(2)], [*ranking(0), *ranking(1)],
          ("Label Studio Ranker, JSON_MIN", "items[{id, body}], rank[{ranker}]", "the first id is best", CONVERTER,
           "part"))
    array("trap_labelstudio_ranker_buckets.json",
          [task(i, items(i), [annotation(i + 1, order({"_": ["llm_1"], "relevant_results": ["llm_2", "llm_3"],
                                                       "biased_results": []}))]) for i in range(2)],
          [[p(i), good(i), mid(i)] for i in range(2)],
          ("Label Studio Ranker with buckets", "value.ranker{BUCKET[], _[]}",
           "the order holds within a bucket; `_` is what was not ranked; no order between buckets is in the file",
           "HumanSignal/label-studio docs/source/templates/generative-llm-ranker.md", "literal"))
