"""Files that are easily misread, and the same pairs in several forms."""
from fixture import *

PRACTICE = "made by hand for this purpose"


def write():
    same_pairs()
    labels()
    prompts()
    conversations()
    message_contents()
    sides_that_part_early()
    mixtures()
    people()


def trap(fields, meaning):
    return ("trap", fields, meaning, PRACTICE, "memory")


def same_pairs():
    hh = "\n\nHuman: {}\n\nAssistant: {}"
    forms = {
        "same_explicit.jsonl": lambda i: {"prompt": p(i), "chosen": good(i), "rejected": bad(i)},
        "same_messages.jsonl": lambda i: {"prompt": [user(p(i))], "chosen": [assistant(good(i))],
                                          "rejected": [assistant(bad(i))]},
        "same_hh.jsonl": lambda i: {"chosen": hh.format(p(i), good(i)), "rejected": hh.format(p(i), bad(i))},
        "same_implicit.jsonl": lambda i: {"chosen": chat(i, good(i)), "rejected": chat(i, bad(i))},
        "same_h4.jsonl": lambda i: {"prompt": p(i), "chosen": chat(i, good(i)), "rejected": chat(i, bad(i))},
    }
    for name, form in forms.items():
        jsonl(name, [form(i) for i in range(4)], [pair(i) for i in range(4)],
              ("the same four pairs", "chosen, rejected", "all of these files mean the same", PRACTICE, "memory"))


def labels():
    def compared(i, label, first, second, name="label", sides=("response_a", "response_b")):
        return {"prompt": p(i), sides[0]: first, sides[1]: second, name: label}

    def two(first_label, second_label, **names):
        return [compared(0, first_label, good(0), bad(0), **names), compared(1, second_label, bad(1), good(1), **names)]

    jsonl("labels_1_2.jsonl", two(1, 2), None,
          trap("label 1, 2", "1 may be the first or a yes for it: say the values and ask for --labels"))
    jsonl("labels_minus_1_0_1.jsonl", [*two(-1, 1), compared(2, 0, mid(2), good(2))], None,
          trap("label -1, 0, 1", "the sign has no known direction: refuse"))
    table("labels_1_2.csv", ["prompt", "response_a", "response_b", "label"],
          [[p(0), good(0), bad(0), "1"], [p(1), bad(1), good(1), "2"]], None, trap("label 1, 2 as text", "the same"))
    jsonl("trap_labels_winner_index.jsonl", two(0, 1), [pair(0), pair(1)],
          trap("label 0, 1 as the index of the winner",
               "cannot be told from a share of votes for a: refuse, or say it"))
    jsonl("trap_winner_column_0_1.jsonl", two(0, 1, name="winner", sides=("response_0", "response_1")), [pair(0),
            pair(1)],
          trap("response_0, response_1, winner 0, 1", "the index of the winner"))
    jsonl("trap_preferred_1_2.jsonl", two(1, 2, name="preferred", sides=("response_1", "response_2")), [pair(0),
            pair(1)],
          trap("response_1, response_2, preferred 1, 2", "the number of the winner"))
    jsonl("trap_label_true_false.jsonl", two(True, False), [pair(0), pair(1)],
          trap("label true, false", "true may mean that a is better: refuse or ask"))
    jsonl("trap_winner_names_model.jsonl",
          [{**compared(0, "gpt-x", good(0), bad(0), "winner"), "model_a": "gpt-x", "model_b": "llama-y"},
           {**compared(1, "gpt-x", bad(1), good(1), "winner"), "model_a": "llama-y", "model_b": "gpt-x"}],
          [pair(0), pair(1)], trap("winner is the name of a model", "model_a and model_b say which side it is"))
    jsonl("labels_outside.jsonl", [compared(0, "both fine", good(0), bad(0)), compared(1, "first one", bad(1),
            good(1))],
          None, trap("label in words that nothing defines", "refuse with the distinct values"))


def prompts():
    for column in ("query", "context", "user_prompt", "problem", "Question", "dialogue"):
        jsonl(f"trap_prompt_named_{column.lower()}.jsonl",
              [{column: p(i), "chosen": good(i), "rejected": bad(i)} for i in range(2)], [pair(0), pair(1)],
              trap(f"{column}, chosen, rejected", "the other column is the prompt: never lose it in silence"))
    jsonl("trap_prompt_two_candidates.jsonl",
          [{"question": p(i), "instruction": "Answer politely.", "chosen": good(i),
            "rejected": bad(i)} for i in range(2)],
          None, trap("question and instruction, chosen, rejected", "two columns may be the prompt: ask"))
    said = [{"role": "user", "content": p(0)}, {"role": "assistant", "content": good(0)}]
    rest = {"prompt": LATER[0], "chosen": LATER[1], "rejected": LATER[2]}
    forms = {"pairs": [[p(0), good(0)]], "messages": said, "objects": [{"user": p(0), "assistant": good(0)}],
             "sharegpt": [human(p(0)), gpt(good(0))]}
    for name, history in forms.items():
        jsonl(f"trap_history_{name}.jsonl", [{**rest, "history": history}], [later(0)],
              trap(f"history as {name}", "history comes before the prompt, or the file is refused"))
    grouped = [{"history": [[p(0), good(0)]], "prompt": LATER[0], "answer": LATER[1], "rank": 1},
               {"history": [[p(0), good(0)]], "prompt": LATER[0], "answer": LATER[2], "rank": 2},
               {"history": [[p(1), good(1)]], "prompt": LATER[0], "answer": "Use yoghurt.", "rank": 1},
               {"history": [[p(1), good(1)]], "prompt": LATER[0], "answer": "Skip breakfast.", "rank": 2}]
    jsonl("trap_history_keeps_groups_apart.jsonl", grouped, [later(0), [LATER[0], "Use yoghurt.", "Skip breakfast."]],
          trap("history, prompt, answer, rank", "the same prompt after two histories is two prompts"))
    table("trap_system_keeps_groups_apart.csv", ["system", "prompt", "answer", "rank"],
          [["Be brief.", p(0), "Six minutes.", 1], ["Be brief.", p(0), bad(0), 2], ["Rhyme.", p(0), mid(0), 1],
           ["Rhyme.", p(0), "Boil it, don't spoil it.", 2]],
          [[p(0), "Six minutes.", bad(0)], [p(0), mid(0), "Boil it, don't spoil it."]],
          trap("system, prompt, answer, rank", "the same prompt under two systems is two prompts"))
    table("trap_history_python_text.csv", ["history", "prompt", "chosen", "rejected"],
          [[repr([[p(0), good(0)]]), *later(0)]], [later(0)], trap("history as Python text in a cell", "the same"))
    jsonl("trap_history_transcript.jsonl", [{**rest, "history": f"User: {p(0)}\nAssistant: {good(0)}"}], None,
          trap("history as one text", "its turns cannot be told: refuse"))


def conversations():
    jsonl("prompts_differ_messages.jsonl",
          [{"chosen": chat(0, good(0)), "rejected": chat(1, bad(1))},
           {"chosen": chat(2, good(2)), "rejected": chat(3, bad(3))}], None,
          trap("chosen[], rejected[]", "the two sides have different prompts: no usable row"))
    hh = "\n\nHuman: {}\n\nAssistant: {}"
    jsonl("prompts_differ_hh.jsonl", [{"chosen": hh.format(p(0), good(0)), "rejected": hh.format(p(1), bad(1))}], None,
          trap("chosen, rejected", "the two transcripts have different prompts: no usable row"))
    inside = (f"\n\nHuman: {p(0)}\n\nAssistant: Human: or by hand? I would use a timer."
              f"\n\nHuman: {LATER[0]}\n\nAssistant: ")
    jsonl("hh_mark_inside_a_turn.jsonl", [{"chosen": inside + LATER[1], "rejected": inside + LATER[2]}], [later(0)],
          ("HH-RLHF, marks inside a turn", "chosen, rejected",
           "a turn may itself begin with `Human:`; only marks after an empty line divide turns",
           "anthropics/hh-rlhf harmless-base/test.jsonl.gz (37 of 2312 rows)", "literal"))
    jsonl("prompts_differ_named.jsonl", [{"prompt": p(2), "chosen": chat(0, good(0)), "rejected": chat(0, bad(0))}],
          None,
          trap("prompt, chosen[], rejected[]", "the conversations begin with another prompt than the row names"))
    jsonl("last_speaker_user.jsonl",
          [{"chosen": [*chat(0, good(0)), user("Thanks.")], "rejected": [*chat(0, bad(0)), user("Oh.")]}], None,
          trap("chosen[], rejected[]", "the last turn is the user's: no reply to judge"))
    jsonl("last_speaker_human_hh.jsonl",
          [{"chosen": hh.format(p(0), good(0)) + "\n\nHuman: Thanks.", "rejected": hh.format(p(0),
            bad(0)) + "\n\nHuman: Oh."}],
          None, trap("chosen, rejected", "the last turn is the human's: no reply to judge"))
    jsonl("last_turn_empty_hh.jsonl",
          [{"chosen": hh.format(p(0), good(0)), "rejected": f"\n\nHuman: {p(0)}\n\nAssistant:"},
           {"chosen": hh.format(p(1), good(1)), "rejected": hh.format(p(1), bad(1))}], [pair(1)],
          trap("chosen, rejected", "a reply that is empty is reported and makes no pair"))
    jsonl("last_turn_empty_messages.jsonl",
          [{"chosen": chat(0, good(0)), "rejected": chat(0, "")}, {"chosen": chat(1, good(1)), "rejected": chat(1,
            bad(1))}],
          [pair(1)], trap("chosen[], rejected[]", "the same"))

def message_contents():
    call = {"role": "assistant", "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "timer", "arguments": "{}"}}]}
    jsonl("reply_without_content.jsonl",
          [{"prompt": [user(p(0))], "chosen": [call], "rejected": [assistant(bad(0))]}], None,
          trap("content null with tool_calls", "the reply is a call of a tool, it has no text: no usable row"))
    turns = [user(p(0)), call, {"role": "tool", "tool_call_id": "c1", "content": "6 minutes"}]
    jsonl("trap_tool_turns_in_prompt.jsonl",
          [{"prompt": turns, "chosen": [assistant(good(0))], "rejected": [assistant(bad(0))]}],
          [["6 minutes", good(0), bad(0)]],
          trap("a call and a tool role in the prompt", "read with all turns, or refused; never without them"))
    picture = [{"type": "text", "text": "What is on the table?"},
               {"type": "image_url", "image_url": {"url": "https://example.org/0.png"}}]
    jsonl("image_part_in_prompt.jsonl",
          [{"prompt": [{"role": "user", "content": picture}], "chosen": [assistant("Plums.")],
            "rejected": [assistant("A lion.")]}], None,
          trap("an image among the content parts", "a text judge cannot see it: refuse"))
    parts = lambda text: [{"type": "text", "text": text}]
    jsonl("text_parts.jsonl",
          [{"prompt": [{"role": "user", "content": parts(p(i))}], "chosen": [{"role": "assistant",
                                                                              "content": parts(good(i))}],
            "rejected": [{"role": "assistant", "content": parts(bad(i))}]} for i in range(2)], [pair(0), pair(1)],
          trap("content[{type: text, text}]", "the text of the part is the message"))
    jsonl("trap_prompt_as_text_of_chat.jsonl",
          [{"prompt": f"<|im_start|>user\n{p(i)}<|im_end|>\n<|im_start|>assistant\n", "chosen": good(i) + "<|im_end|>",
            "rejected": bad(i) + "<|im_end|>"} for i in range(2)],
          [[f"<|im_start|>user\n{p(i)}<|im_end|>\n<|im_start|>assistant\n", good(i) + "<|im_end|>",
            bad(i) + "<|im_end|>"]
           for i in range(2)], trap("prompt with a chat template's marks", "kept as it is, or refused"))

def sides_that_part_early():
    jsonl("trap_diverging_first_replies.jsonl",
          [{"chosen": [user(p(0)), assistant(good(0)), user(LATER[0]), assistant(LATER[1])],
            "rejected": [user(p(0)), assistant(bad(0)), user(LATER[0]), assistant(LATER[2])]}],
          [[p(0), "3 messages: the prompt stands twice", "3 messages: the prompt stands twice"]],
          trap("chosen[], rejected[]", "only the first question is shared; both sides are three messages"))
    jsonl("trap_diverging_lengths.jsonl",
          [{"chosen": [user(p(0)), assistant(good(0)), user(LATER[0]), assistant(LATER[1])],
            "rejected": [user(p(0)), assistant(bad(0))]}],
          [[p(0), "3 messages: the prompt stands twice", bad(0)]],
          ("RLHFlow/HH-RLHF-Helpful-standard", "chosen[], rejected[]",
           "the sides part after the first question and end at "
           "different lengths", "pytorch/torchtune docs/source/basics/preference_datasets.rst", "literal"))
    cells = [json.dumps([p(0), LATER[0]]), json.dumps([good(0), LATER[1]]), json.dumps([bad(0), LATER[2]])]
    table("trap_arena_55k_two_turns.csv", ["id", "model_a", "model_b", "prompt", "response_a", "response_b",
                                           "winner_model_a", "winner_model_b", "winner_tie"],
          [[1, "m1", "m2", *cells, 1, 0, 0]],
          [[p(0), "3 messages: the prompt stands twice", "3 messages: the prompt stands twice"]],
          ("lmarena-ai/arena-human-preference-55k, two turns", "prompt, response_a, response_b as JSON lists, winner_*",
           "one element a turn; the first replies differ", "HF lmarena-ai/arena-human-preference-55k", "literal"))


def mixtures():
    jsonl("two_layouts_contradict.jsonl",
          [{"prompt": p(i), "chosen": bad(i), "rejected": good(i), "response_0": good(i), "response_1": bad(i),
            "better_response_id": 0} for i in range(2)], None,
          trap("chosen, rejected and response_0, response_1, better_response_id",
               "two layouts fit: refuse, naming both"))
    other = {"instruction": p(1), "input": "", "output_1": bad(1), "output_2": good(1), "preference": 2}
    jsonl("trap_half_of_another_layout.jsonl", [{"prompt": p(0), "chosen": good(0), "rejected": bad(0)}, other],
          [pair(0), pair(1)], trap("rows of two layouts",
                                   "both are read, or the file is refused; none is lost in silence"))
    jsonl("trap_other_types_in_layout.jsonl",
          [{"prompt": p(i), "response_0": good(i), "response_1": bad(i), "is_response_0_safe": True,
            "is_response_1_safe": False, "better_response_id": "response_0", "safer_response_id": "response_0"}
           for i in range(2)], [pair(0), pair(1)],
          trap("better_response_id is a text", "a layout's column has another type: read right, or refuse"))
    jsonl("trap_better_and_chosen_flag.jsonl",
          [{"prompt": p(i), "response": text, "is_chosen": flag} for i in range(2)
           for text, flag in ((good(i), 1), (bad(i), 0))], [pair(0), pair(1)],
          trap("prompt, response, is_chosen 0, 1", "1 is the chosen response of its prompt"))
    jsonl("trap_accepted_yes_no.jsonl",
          [{"prompt": p(i), "response": text, "accepted": flag} for i in range(2)
           for text, flag in ((good(i), "yes"), (bad(i), "no"))], [pair(0), pair(1)],
          trap("prompt, response, accepted yes, no", "yes is better than no under one prompt"))
    jsonl("trap_scores_beside_responses.jsonl",
          [{"prompt": p(i), "responses": [bad(i), good(i), mid(i)], "scores": [1.0, 5.0, 3.0]} for i in range(2)],
          [*ranking(0), *ranking(1)], trap("responses[], scores[]", "parallel lists, higher is better"))
    jsonl("trap_ratings_unlike_responses.jsonl",
          [{"instruction": p(i), "generations": [bad(i), good(i), mid(i)], "ratings": [1, 5]} for i in range(2)], None,
          trap("generations[3], ratings[2]", "the lists differ in length: refuse"))


    array("trap_llmbar_label_1_2.json",
          [{"input": p(0), "output_1": good(0), "output_2": bad(0), "label": 1},
           {"input": p(1), "output_1": bad(1), "output_2": good(1), "label": 2}], [pair(0), pair(1)],
          ("LLMBar", "input, output_1, output_2, label", "the number of the better output (or `eval --suite llmbar`)",
           "princeton-nlp/LLMBar Dataset/LLMBar/Natural/dataset.json", "literal"))


def people():
    header = ["prompt", "response_a", "response_b", "label", "annotator"]
    votes = [[p(0), good(0), bad(0), "a", "ann"], [p(0), good(0), bad(0), "a", "bob"], [p(0), good(0), bad(0), "b",
            "cy"]]
    table("trap_votes_two_to_one.csv", header, votes, [pair(0), pair(0), [p(0), bad(0), good(0)]],
          trap("label, annotator", "a vote a row; merged they are 2 of 3 for a"))
    ranked = ["prompt", "answer", "rank", "worker_id"]
    rows = [[p(0), good(0), 1, "w1"], [p(0), bad(0), 2, "w1"], [p(0), mid(0), 1, "w2"], [p(0), "No idea.", 2, "w2"]]
    table("people_with_different_answers.csv", ranked, rows, [pair(0), [p(0), mid(0), "No idea."]],
          trap("prompt, answer, rank, worker_id", "two people ranked different answers: no pair across people"))
    session = [[p(0), good(0), 1, "s1"], [p(0), bad(0), 2, "s1"], [p(0), mid(0), 1, "s2"], [p(0), "No idea.", 2, "s2"]]
    table("people_by_session.csv", ["prompt", "answer", "rank", "session"], session,
          [pair(0), [p(0), mid(0), "No idea."]], trap("prompt, answer, rank, session",
                                                      "the same with a session column"))
