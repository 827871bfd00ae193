"""Exports of annotation tools and crowd-work platforms."""
from fixture import *


def write():
    argilla_1()
    argilla_2()
    smaller_tools()
    crowds()


def argilla_1():
    record = {"external_id": None, "metadata": "{}"}
    none = {"type": None, "score": None, "agent": None}

    def ranked(user_id, ranks, status="submitted"):
        value = {"rank": list(ranks), "value": ["response1", "response2", "response3"][:len(ranks)]}
        return {"user_id": user_id, "value": value, "status": status}

    def v1(i, responses, suggestion=None):
        return {"prompt": p(i), "response1": bad(i), "response2": good(i), "response3": mid(i), "preference": responses,
                "preference-suggestion": suggestion, "preference-suggestion-metadata": none, **record}

    parquet("argilla_v1_ranking.parquet",
            [v1(0, [ranked("u1", (3, 1, 2))], {"rank": [1, 2, 3], "value": ["response1", "response2", "response3"]}),
             v1(1, [ranked("u1", (2, 1, 1))]), v1(2, [ranked("u1", (1, 2, 3), "draft")]),
             v1(3, [ranked("u1", (1, 2, 3), "discarded")])],
            [*ranking(0), [p(1), good(1), bad(1)], [p(1), mid(1), bad(1)]],
            ("Argilla v1 ranking question (format_as datasets, push_to_huggingface)",
             "QUESTION[{user_id, value{rank[], value[]}, status}], fields named in value",
             "rank 1 is best, equal ranks tie; only status submitted counts, suggestions do not",
             "HF kursathalat/ranking_ds; argilla 1.29 client/feedback/integrations/huggingface/dataset.py", "literal"))
    rows = [{"prompt": p(i), "response": text, "quality": [{"user_id": "u1", "value": value, "status": status}],
             "quality-suggestion": 3, "quality-suggestion-metadata": none, **record}
            for i, text, value, status in ((0, bad(0), 1, "submitted"), (0, good(0), 5, "submitted"),
                                           (0, mid(0), 3, "submitted"), (1, good(1), 4, "submitted"),
                                           (1, bad(1), 2, "submitted"), (1, mid(1), 5, "discarded"))]
    parquet("argilla_v1_rating_statuses.parquet", rows, [*ranking(0), pair(1)],
            ("Argilla v1 rating question", "prompt, response, QUESTION[{user_id, value, status}]",
             "higher is better; only submitted counts", "the same file", "literal"))


def argilla_2():
    def nested(i, values, suggestion=None):
        return {"id": f"r{i}", "fields": {"prompt": p(i), "response-1": bad(i), "response-2": good(i),
                                          "response-3": mid(i)},
                "metadata": {"source": "x"}, "suggestions": suggestion or {},
                "responses": {"ranking": [{"value": value, "user_id": f"u{n}"} for n, value in enumerate(values)]},
                "vectors": {}, "status": "completed", "_server_id": f"s{i}"}

    best = ["response-2", "response-3", "response-1"]
    hint = {"ranking": {"value": best[::-1], "score": None, "agent": "m"}}
    array("argilla_v2_nested_ranking.json", [nested(0, [best], hint), nested(1, [best])], [*ranking(0), *ranking(1)],
          ("Argilla v2 to_list(), to_json()", "fields{}, responses{QUESTION[{value[], user_id}]}",
           "the first of value is best; suggestions do not count. This form has no status",
           "argilla-io/argilla argilla/src/argilla/records/_resource.py, responses.py", "literal"))

    def flat(i, values, statuses, question="ranking", fields=None):
        return {"id": f"r{i}", "status": "completed", "_server_id": f"s{i}",
                **(fields or {"prompt": p(i), "response-1": bad(i), "response-2": good(i), "response-3": mid(i)}),
                f"{question}.responses": values, f"{question}.responses.users": [f"u{n}" for n in range(len(values))],
                f"{question}.responses.status": statuses, f"{question}.suggestion": None,
                f"{question}.suggestion.score": None, f"{question}.suggestion.agent": None}

    parquet("argilla_v2_datasets_ranking.parquet",
            [flat(0, [best], ["submitted"]), flat(1, [best[::-1], best], ["draft", "submitted"]),
             flat(2, [best[::-1]], ["discarded"])], [*ranking(0), *ranking(1)],
            ("Argilla v2 to_datasets()", "QUESTION.responses[], .responses.status[], .responses.users[]",
             "parallel lists; only submitted counts; the first of a ranking is best",
             "argilla-io/argilla argilla/src/argilla/records/_io/_generic.py", "literal"))
    array("argilla_v2_flat_rating.json",
          [flat(i, [value], [status], "quality", {"prompt": p(i), "response": text})
           for i, text, value, status in ((0, bad(0), 1, "submitted"), (0, good(0), 5, "submitted"),
                                          (1, good(1), 4, "submitted"), (1, bad(1), 2, "submitted"),
                                          (1, mid(1), 5, "discarded"))], [pair(0), pair(1)],
          ("Argilla v2 to_list(flatten=True), rating question", "prompt, response, QUESTION.responses[]",
           "higher is better; only submitted counts", "the same file", "literal"))

    def labelled(i, first, second, values, statuses):
        return flat(i, values, statuses, "preference", {"prompt": p(i), "response_a": first, "response_b": second})

    array("argilla_v2_flat_label.json",
          [labelled(0, good(0), bad(0), ["response_a"], ["submitted"]),
           labelled(1, bad(1), good(1), ["response_b"], ["submitted"]),
           labelled(2, mid(2), good(2), ["tie"], ["submitted"]),
           labelled(3, bad(3), good(3), ["response_a"], ["discarded"])], [pair(0), pair(1)],
          ("Argilla v2, label question", "QUESTION.responses[] naming a field",
           "the label is the name of the better field", "the same file", "part"))
    array("trap_argilla_v2_label_a_b.json",
          [labelled(0, good(0), bad(0), ["A"], ["submitted"]), labelled(1, bad(1), good(1), ["B"], ["submitted"])],
          [pair(0), pair(1)],
          ("Argilla v2, label question with labels A and B", "preference.responses[], response_a, response_b",
           "A is response_a", "the same file", "part"))


def smaller_tools():
    def choice(i, accept, answer, options=None, **more):
        texts = options or [good(i), bad(i)]
        return {"text": p(i), "options": [{"id": n, "text": text} for n, text in enumerate(texts)],
                "_input_hash": 100 + i, "_task_hash": 200 + i, "_view_id": "choice", "accept": accept, "answer": answer,
                "config": {"choice_style": "single"}, "_timestamp": 1700000000 + i, "_annotator_id": "rlhf-ann",
                "_session_id": "rlhf-ann", **more}

    jsonl("prodigy_choice_answers.jsonl",
          [choice(0, [0], "accept"), choice(1, [1], "accept", [bad(1), good(1)]), choice(2, [1], "reject"),
           choice(3, [], "ignore"), choice(4, [], "accept"),
           choice(5, [0, 2], "accept", [good(5), bad(5), mid(5)])],
          [pair(0), pair(1), [p(5), good(5), bad(5)], [p(5), mid(5), bad(5)]],
          ("Prodigy choice", "text, options[{id, text}], accept[], answer",
           "accepted options are better than the others; answer reject or ignore means the row does not count",
           "HF space wesslen/prodigy-rlhf-ranking; explosion/prodigy-recipes README", "part"))
    jsonl("doccano_jsonl.jsonl",
          [{"id": 1, "text": p(0), "response_a": good(0), "response_b": bad(0), "label": ["A"], "Comments": []},
           {"id": 2, "text": p(1), "response_a": bad(1), "response_b": good(1), "label": ["B"], "Comments": ["ok"]},
           {"id": 3, "text": p(2), "response_a": good(2), "response_b": bad(2), "label": [], "Comments": []},
           {"id": 4, "text": p(3), "response_a": good(3), "response_b": bad(3), "label": ["A", "B"], "Comments": []}],
          [pair(0), pair(1)],
          ("doccano JSONL", "text, label[] and the columns of the import",
           "a list of one label; an empty list is unlabelled, two labels are no verdict",
           "doccano/doccano backend/data_export/tests/test_task.py", "part"))
    table("doccano.csv", ["id", "text", "label", "response_a", "response_b"],
          [[1, p(0), "A", good(0), bad(0)], [2, p(1), "B", bad(1), good(1)], [3, p(2), "", good(2), bad(2)]],
          [pair(0), pair(1)],
          ("doccano CSV", "text, label, response_a, response_b", "the label names the better response",
           "doccano/doccano backend/data_export/pipeline/writers.py", "part"))
    jsonl("potato_annotated_instances.jsonl",
          [{"id": f"i{i}", "displayed_text": f"{p(i)} A: {good(i)} B: {bad(i)}",
            "label_annotations": {"preference": {"A is better": "A is better"}}, "span_annotations": [],
            "behavioral_data": {"time_string": "Time spent: 0d 0h 0m 4s "}} for i in range(2)], None,
          ("Potato annotated_instances.jsonl", "id, displayed_text, label_annotations",
           "the responses stand only in the input file: refuse and say so",
           "davidjurgens/potato example-projects/*/annotation_output", "part"))


MTURK = ["HITId", "HITTypeId", "Title", "Description", "Keywords", "Reward", "CreationTime", "MaxAssignments",
         "RequesterAnnotation", "AssignmentDurationInSeconds", "AutoApprovalDelayInSeconds", "Expiration",
         "NumberOfSimilarHITs", "LifetimeInSeconds", "AssignmentId", "WorkerId", "AssignmentStatus", "AcceptTime",
         "SubmitTime", "AutoApprovalTime", "ApprovalTime", "RejectionTime", "RequesterFeedback", "WorkTimeInSeconds",
         "LifetimeApprovalRate", "Last30DaysApprovalRate", "Last7DaysApprovalRate"]


def crowds():
    def hit(i, worker, status, *cells):
        values = {"HITId": f"3H{i}", "HITTypeId": "3T", "Title": "Compare answers", "Description": "Two answers",
                  "Keywords": "text", "Reward": "$0.05", "CreationTime": "Wed May 01 10:00:00 PDT 2024",
                  "MaxAssignments": 3, "RequesterAnnotation": "BatchId:5;", "AssignmentDurationInSeconds": 3600,
                  "AutoApprovalDelayInSeconds": 28800, "Expiration": "Wed May 08 10:00:00 PDT 2024",
                  "AssignmentId": f"3A{i}{worker}", "WorkerId": worker, "AssignmentStatus": status,
                  "AcceptTime": "Wed May 01 10:05:00 PDT 2024", "SubmitTime": "Wed May 01 10:06:00 PDT 2024",
                  "WorkTimeInSeconds": 60, "LifetimeApprovalRate": "0% (0/0)", "Last30DaysApprovalRate": "0% (0/0)",
                  "Last7DaysApprovalRate": "0% (0/0)"}
        return [values.get(name, "") for name in MTURK] + list(cells) + ["", ""]

    source = "a public MTurk batch file (27 fixed columns, then Input.*, Answer.*, Approve, Reject)"
    names = ["Input.prompt", "Input.response_a", "Input.response_b"]
    table("mturk_three_workers.csv", [*MTURK, *names, "Answer.preference", "Answer.why", "Approve", "Reject"],
          [hit(0, "W1", "Approved", p(0), good(0), bad(0), "A", "shorter"),
           hit(0, "W2", "Submitted", p(0), good(0), bad(0), "A", ""),
           hit(0, "W3", "Rejected", p(0), good(0), bad(0), "B", "xx"),
           hit(1, "W1", "Approved", p(1), bad(1), good(1), "B", "clear"),
           hit(1, "W2", "Approved", p(1), bad(1), good(1), "tie", "")], [pair(0), pair(0), pair(1)],
          ("MTurk batch results", "Input.*, Answer.preference, AssignmentStatus",
           "one vote a row; rows with status Rejected do not count", source, "part"), quoting=csv.QUOTE_ALL)
    table("trap_mturk_two_answers.csv", [*MTURK, *names, "Answer.preference", "Answer.safer", "Approve", "Reject"],
          [hit(0, "W1", "Approved", p(0), good(0), bad(0), "A", "B"),
           hit(1, "W1", "Approved", p(1), bad(1), good(1), "B", "A")], [pair(0), pair(1)],
          ("MTurk with two verdicts", "Answer.preference, Answer.safer", "two questions: which one counts must be said",
           source, "part"), quoting=csv.QUOTE_ALL)
    radio = [json.dumps([{"preference": {"A": first, "B": not first}, "note": ""}]) for first in (True, False)]
    table("trap_mturk_task_answers_radio.csv", [*MTURK, *names, "Answer.taskAnswers", "Approve", "Reject"],
          [hit(0, "W1", "Approved", p(0), good(0), bad(0), radio[0]),
           hit(1, "W1", "Approved", p(1), bad(1), good(1), radio[1])], [pair(0), pair(1)],
          ("MTurk crowd-form, radio buttons", "Answer.taskAnswers: JSON text of one object",
           "the choice that is true", "a public reader of Input.response_a and json.loads(Answer.taskAnswers)[0]",
           "part"),
          quoting=csv.QUOTE_ALL, end="\r\n")
    table("trap_mturk_task_answers_select.csv", [*MTURK, *names, "Answer.taskAnswers", "Approve", "Reject"],
          [hit(0, "W1", "Approved", p(0), good(0), bad(0), json.dumps([{"preference": "A"}])),
           hit(1, "W1", "Rejected", p(1), bad(1), good(1), json.dumps([{"preference": "A"}])),
           hit(1, "W2", "Approved", p(1), bad(1), good(1), json.dumps([{"preference": "B"}]))], [pair(0), pair(1)],
          ("MTurk crowd-form, a selection", "Answer.taskAnswers: JSON text of one object", "A is response_a",
           "the same", "part"), quoting=csv.QUOTE_ALL, end="\r\n")
    header = ["id", "instance_id", "prompt", "model_a", "model_b", "completion_a", "completion_b",
              "completion_a_is_acceptable", "completion_b_is_acceptable", "preference", "evaluator", "timestamp"]
    table("trap_human_eval_words.csv", header,
          [[n, f"t{i}", p(i), "m1", "m2", first, second, "yes", "no", words, who, "2023-05-19 13:11:45"]
           for n, (i, first, second, words, who) in enumerate((
               (0, good(0), bad(0), "a-is-better", "yo"), (1, bad(1), good(1), "b-is-slightly-better", "yo"),
               (2, mid(2), good(2), "tie", "yu"), (3, good(3), bad(3), "", "yu")))], [pair(0), pair(1)],
          ("AI2 human evaluation sheet", "completion_a, completion_b, preference in words, evaluator",
           "a-is-better, a-is-slightly-better, tie, b-is-…; empty is no verdict",
           "allenai/open-instruct human_eval/data/eval_annotations_tulu_1.xlsx", "literal"))
    table("google_forms.csv", ["Timestamp", "Email Address", f"1. {p(0)} (A: {good(0)} B: {bad(0)})", f"2. {p(1)}"],
          [["2024/05/01 10:00:00 AM GMT+2", "ann@example.org", "A", "B"],
           ["2024/05/01 10:04:00 AM GMT+2", "bob@example.org", "A", "A"]], None,
          ("Google Forms answers", "one column a question, one row a person",
           "the responses are not in the cells: refuse", "spreadsheet export of Google Forms", "memory"))
