"""Data sets as they are published: two replies and a verdict."""
import pyarrow as pa

from fixture import *


def write():
    helpsteer()
    summaries_and_feedback()
    safety()
    alpaca_eval()
    pandalm()
    arena_100k()
    arena_140k()
    arena_33k()
    mt_bench()


def helpsteer():
    def strength(i, first, second, value):
        return {"split": "train", "prompt": p(i), "response_1": first, "response_2": second,
                "preference_strength": value, "preference_statement": "One is better.",
                "preference_elaboration": "It says how.",
                "three_most_similar_preferences": [{"statement": "One is better.", "elaboration": "e",
                                                    "strength": value}],
                "all_preferences_unprocessed": [{"strength": value, "statement": "s", "elaboration": "e"}]}

    jsonl("helpsteer2_preference.jsonl.gz",
          [strength(0, good(0), bad(0), -3), strength(1, bad(1), good(1), 1), strength(2, mid(2), good(2), 0),
           strength(3, bad(3), good(3), 2)], [pair(0), pair(1), pair(3)],
          ("nvidia/HelpSteer2 preference", "response_1, response_2, preference_strength",
           "-3 response_1 much better … 0 tie … 3 response_2 much better",
           "HF nvidia/HelpSteer2; a public reader's test states that positive prefers response_2", "literal"))

    def steer3(context, first, second, overall, singles):
        single = [{"score": s, "reasoning": "r", "feedback1": "f1", "feedback2": "f2"} for s in singles]
        return {"domain": "general", "language": "english", "context": context, "response1": first,
                "response2": second, "overall_preference": overall, "individual_preference": single}

    turns = [user(p(2)), assistant(good(2)), user(LATER[0])]
    jsonl("helpsteer3_individual.jsonl.gz",
          [steer3([user(p(0))], good(0), bad(0), -2, (-3, -2, 1)), steer3([user(p(1))], bad(1), good(1), 1, (1, 2, -1)),
           steer3(turns, LATER[2], LATER[1], 3, (3, 3, 2)), steer3([user(p(3))], mid(3), good(3), 0, (0, 1, -1))],
          [pair(0), pair(1), later(2)],
          ("nvidia/HelpSteer3 preference", "context, response1, response2, overall_preference",
           "below 0 response1 is better, above 0 response2, 0 tie; individual_preference is what went into it",
           "NVIDIA-NeMo/RL nemo_rl/data/datasets/preference_datasets/helpsteer3.py", "literal"))


def summaries_and_feedback():
    def summary(i, choice, first, second, news=False):
        info = {"id": f"t3_{i}", "post": None if news else p(i), "title": None if news else "A question",
                "subreddit": None if news else "AskCooking", "site": "cnn" if news else None,
                "article": p(i) if news else None}
        texts = [{"text": text, "policy": "ref", "note": None} for text in (first, second)]
        return {"info": info, "split": "train", "summaries": texts, "choice": choice, "worker": "w1", "batch": "batch3",
                "extra": {"confidence": 5}}

    jsonl("summarize_comparisons.jsonl", [summary(0, 0, good(0), bad(0)), summary(1, 1, bad(1), good(1)),
                                          summary(2, 1, bad(2), good(2), news=True)], [pair(0), pair(1), pair(2)],
          ("openai/summarize_from_feedback comparisons", "info.post or info.article, summaries[2].text, choice",
           "choice is the index of the better summary: 0 is the first", "trl examples/datasets/tldr_preference.py",
           "literal"))

    def unified(i, a, b, rate_a, rate_b):
        return {"id": f"hh_{i}", "conv_A": chat(i, a), "conv_B": chat(i, b), "conv_A_rating": rate_a,
                "conv_B_rating": rate_b, "num_turns": 1, "source": "Anthropic/hh-rlhf"}

    parquet("unified_feedback.parquet", [unified(0, good(0), bad(0), 1.0, 0.0), unified(1, bad(1), good(1), 2.0, 6.5),
                                         unified(2, mid(2), good(2), 3.0, 3.0)], [pair(0), pair(1)],
            ("llm-blender/Unified-Feedback", "conv_A, conv_B, conv_A_rating, conv_B_rating",
             "the higher rating is better; equal ratings are a tie",
             "yuchenlin/LLM-Blender to_mixinstruct_format.py; readers drop rows with equal ratings", "literal"))


def safety():
    def pku(i, first, second, better, safer):
        return {"prompt": p(i), "response_0": first, "response_1": second, "is_response_0_safe": safer == 0,
                "is_response_1_safe": safer == 1, "better_response_id": better, "safer_response_id": safer}

    jsonl("pku_saferlhf_30k.jsonl", [pku(0, good(0), bad(0), 0, 0), pku(1, bad(1), good(1), 1, 0),
                                     pku(2, bad(2), good(2), 1, 1)], [pair(i) for i in range(3)],
          ("PKU-Alignment/PKU-SafeRLHF-30K and -10K", "response_0, response_1, better_response_id",
           "the id is the index of the better response; safer_response_id is a second verdict, which may differ",
           "PKU-Alignment/align-anything assets/text_to_text/preference/train.json", "literal"))
    jsonl("pku_saferlhf_single_dimension.jsonl",
          [{"prompt": p(i), "response_0": first, "response_1": second, "prompt_source": "BeaverTails",
            "response_0_source": "Alpaca-7B", "response_1_source": "Alpaca3-8B", "better_response_id": better,
            "response_0_sha256": "0a", "response_1_sha256": "1b"}
           for i, first, second, better in ((0, good(0), bad(0), 0), (1, bad(1), good(1), 1))], [pair(0), pair(1)],
          ("PKU-Alignment/PKU-SafeRLHF-single-dimension", "response_0, response_1, better_response_id",
           "0 = response_0 is better; the only verdict", "a public loader's table of the schema (train, test)",
           "literal"))
    jsonl("beavertails.jsonl.gz",
          [{"prompt": p(i), "response": text, "category": {"animal_abuse": False,
                                                           "violence,aiding_and_abetting": unsafe},
            "is_safe": not unsafe} for i, text, unsafe in ((0, good(0), False), (0, bad(0), True), (1, good(1),
            False))],
          None, ("PKU-Alignment/BeaverTails", "is_safe, category",
                 "a class of each response, no preference", "HF PKU-Alignment/BeaverTails", "memory"))


def alpaca_eval():
    array("alpaca_eval_model_outputs.json",
          [{"dataset": "helpful_base", "instruction": p(i), "output": good(i), "generator": "m", "datasplit": "eval"}
           for i in range(2)], None,
          ("AlpacaEval model_outputs.json", "instruction, output, generator", "one response each, no preference",
           "tatsu-lab/alpaca_eval results/*/model_outputs.json", "literal"))

    def judged(i, first, second, value):
        return {"instruction": p(i), "output_1": first, "generator_1": "text_davinci_003", "dataset": "helpful_base",
                "output_2": second, "generator_2": "m", "annotator": "weighted_alpaca_eval_gpt4_turbo",
                "preference": value, "raw_completion": {"finish_reason": "length", "logprobs": {"content": []}},
                "time_per_example": 0.05, "price_per_example": 0.006}

    array("alpaca_eval_annotations.json",
          [judged(0, good(0), bad(0), 1.0), judged(1, bad(1), good(1), 2.0), judged(2, bad(2), good(2), 1.9871),
           judged(3, mid(3), good(3), 1.5), judged(4, good(4), bad(4), 1.0000043), judged(5, good(5), bad(5), 0.0),
           judged(5, mid(5), bad(5), None)],
          [pair(0), pair(1), pair(2), pair(4)],
          ("AlpacaEval annotations.json", "instruction, output_1, output_2, preference",
           "1 to 2: near 1 output_1 is better, near 2 output_2; 1.5 ties, and so does 0 of version 1; null is none",
           "tatsu-lab/alpaca_eval README.md, results/text_davinci_001/alpaca_eval_gpt4/annotations.json", "literal"))


def pandalm():
    def judged(i, first, second, *votes):
        return {"idx": i, "motivation_app": "Grammarly", "cmp_key": "a_b", "instruction": p(i), "input": "",
                "response1": first, "response2": second, **{f"annotator{n}": v for n, v in enumerate(votes, 1)}}

    array("pandalm_votes.json",
          [judged(0, good(0), bad(0), 1, 1, 1), judged(1, bad(1), good(1), 2, 2, 2),
           judged(2, True, "The statement is true.", 1, 2, 2), judged(3, mid(3), good(3), 0, 0, 0)], [pair(0), pair(1)],
          ("PandaLM test set", "response1, response2, annotator1…3",
           "0 tie, 1 and 2 the better one; three rows of the real file have `true` for a response: not usable",
           "WeOpenML/PandaLM data/testset-v1.json", "literal"))


def battle(i, a, b, winner, **more):
    return {"question_id": f"q{i}", "model_a": "m1", "model_b": "m2", "winner": winner, **more,
            "conversation_a": a, "conversation_b": b}


def arena_100k():
    def tokens(messages):
        return [{"content": m["content"], "num_tokens": len(m["content"]) // 4, "role": m["role"]} for m in messages]

    more = {"turn": 1, "anony": True, "language": "English", "tstamp": 1718000000.5,
            "conv_metadata": {"sum_user_tokens": 9, "sum_assistant_a_tokens": 12}, "is_code": False,
            "is_refusal": False,
            "dedup_tag": {"high_freq": False, "sampled": True}, "category_tag": {"math_v0.1": {"math": False}},
            "judge_hash": "a1b2"}
    rows = [battle(0, tokens(chat(0, good(0))), tokens(chat(0, bad(0))), "model_a"),
            battle(1, tokens(chat(1, bad(1))), tokens(chat(1, good(1))), "model_b"),
            battle(2, tokens(chat(2, mid(2))), tokens(chat(2, good(2))), "tie"),
            battle(3, tokens(chat(3, bad(3))), tokens(chat(3, mid(3))), "tie (bothbad)")]
    parquet("arena_human_preference_100k.parquet", [{**row, **more} for row in rows], [pair(0), pair(1)],
            ("lmarena-ai/arena-human-preference-100k", "conversation_a, conversation_b, winner",
             "model_a, model_b, tie, tie (bothbad)", "HF lmarena-ai/arena-human-preference-100k (README at 5a183e4)",
             "part"))


def arena_140k():
    def parts(messages):
        return [{"role": m["role"], "content": [{"type": "text", "text": m["content"], "image": None,
                                                 "mimeType": None}]}
                for m in messages]

    def session(i, a, b, winner):
        return {"id": f"{i:08d}-aaaa", "model_a": "m1", "model_b": "m2", "winner": winner,
                "evaluation_session_id": f"s{i}", "evaluation_order": 1, "conversation_a": parts(a),
                "conversation_b": parts(b),
                "full_conversation": [{"user": parts(a)[0], "model_side_a": parts(a)[1], "model_side_b": parts(b)[1]}],
                "conv_metadata": {"sum_user_tokens": 9, "turns": 1}, "category_tag": {"math_v0.1": {"math": False}},
                "language": "en", "is_code": False, "timestamp": "2025-05-01 10:00:00"}

    image = pa.string()
    part = pa.struct([("type", pa.string()), ("text", pa.string()), ("image", image), ("mimeType", pa.string())])
    message = pa.struct([("role", pa.string()), ("content", pa.list_(part))])
    turn = pa.struct([("user", message), ("model_side_a", message), ("model_side_b", message)])
    schema = pa.schema([("id", pa.string()), ("model_a", pa.string()), ("model_b", pa.string()), ("winner",
            pa.string()),
                        ("evaluation_session_id", pa.string()), ("evaluation_order", pa.int16()),
                        ("conversation_a", pa.list_(message)), ("conversation_b", pa.list_(message)),
                        ("full_conversation", pa.list_(turn)),
                        ("conv_metadata", pa.struct([("sum_user_tokens", pa.int64()), ("turns", pa.int64())])),
                        ("category_tag", pa.struct([("math_v0.1", pa.struct([("math", pa.bool_())]))])),
                        ("language", pa.string()), ("is_code", pa.bool_()), ("timestamp", pa.string())])
    parquet("arena_human_preference_140k.parquet",
            [session(0, chat(0, good(0)), chat(0, bad(0)), "model_a"),
             session(1, chat(1, bad(1)), chat(1, good(1)), "model_b"),
             session(2, chat(2, mid(2)), chat(2, good(2)), "tie"),
             session(3, chat(3, bad(3)), chat(3, mid(3)), "both_bad"),
             session(4, long_chat(4, LATER[2]), long_chat(4, LATER[1]), "model_b")], [pair(0), pair(1), later(4)],
            ("lmarena-ai/arena-human-preference-140k", "conversation_a/b with content parts, winner",
             "model_a, model_b, tie, both_bad; the text parts are the message",
             "a public reader of lmarena-ai/arena-human-preference-140k (docstring with the schema)", "literal"),
            schema=schema)


def arena_33k():
    rest = {"judge": "arena_user_7", "turn": 1, "anony": True, "language": "English", "tstamp": 1690000000.1,
            "openai_moderation": {"categories": {"hate": False}, "flagged": False},
            "toxic_chat_tag": {"roberta-large": {"flagged": False, "probability": 0.01}}}
    array("chatbot_arena_clean_battle_conv.json",
          [{**battle(0, chat(0, good(0)), chat(0, bad(0)), "model_a"), **rest},
           {**battle(1, chat(1, bad(1)), chat(1, good(1)), "model_b"), **rest},
           {**battle(2, chat(2, bad(2)), chat(2, mid(2)), "tie (bothbad)"), **rest}], [pair(0), pair(1)],
          ("LMSYS Chatbot Arena 33k conversations, JSON", "conversation_a, conversation_b, winner",
           "model_a, model_b, tie, tie (bothbad)", "HF lmsys/chatbot_arena_conversations", "part"))
    array("chatbot_arena_clean_battle.json",
          [{"model_a": "m1", "model_b": "m2", "winner": "model_a", "judge": "arena_user_1", "turn": 1, "anony": True,
            "language": "English", "tstamp": 1690000000.1}], None,
          ("LMSYS leaderboard battles without texts", "model_a, model_b, winner", "no responses in the file: refuse",
           "FastChat leaderboard notebooks (clean_battle_*.json)", "memory"))
    table("kaggle_llm_classification_test.csv", ["id", "prompt", "response_a", "response_b"],
          [[136060, json.dumps([p(0)]), json.dumps([good(0)]), json.dumps([bad(0)])],
           [211333, json.dumps([p(1)]), json.dumps([bad(1)]), json.dumps([good(1)])]], None,
          ("Kaggle LLM classification test.csv", "prompt, response_a, response_b", "no verdict: for scoring only",
           "Kaggle competition data page (as in lmarena-ai/arena-human-preference-55k, without winner_*)", "part"))


def mt_bench():
    def bench(i, a, b, winner, turn):
        return {"question_id": 80 + i, "model_a": "alpaca-13b", "model_b": "gpt-4", "winner": winner,
                "judge": f"expert_{i}", "conversation_a": content_first(a), "conversation_b": content_first(b),
                "turn": turn}

    def both(i, first, second):
        return [user(p(i)), assistant(first), user(LATER[0]), assistant(second)]

    parquet("mt_bench_human_turn_1.parquet",
            [bench(0, both(0, good(0), LATER[2]), both(0, bad(0), LATER[1]), "model_a", 1),
             bench(1, both(1, bad(1), LATER[1]), both(1, good(1), LATER[2]), "model_b", 1),
             bench(2, both(2, bad(2), LATER[1]), both(2, mid(2), LATER[2]), "tie", 1)], [pair(0), pair(1)],
            ("lmsys/mt_bench_human_judgments, turn 1", "conversation_a/b (both turns), winner, turn",
             "turn 1 judges the first replies alone, although the conversations have both turns",
             "HF lmsys/mt_bench_human_judgments (eee87ec); public readers filter on turn", "part"))
    parquet("trap_mt_bench_human_turn_2.parquet",
            [bench(0, both(0, good(0), LATER[1]), both(0, bad(0), LATER[2]), "model_a", 2)],
            [[p(0), "3 messages: the prompt stands twice", "3 messages: the prompt stands twice"]],
            ("lmsys/mt_bench_human_judgments, turn 2", "conversation_a/b, winner, turn",
             "the first replies differ: only the first question is shared, the rest of both sides was judged",
             "HF allenai/preference-test-sets, discussion 2", "literal"))
