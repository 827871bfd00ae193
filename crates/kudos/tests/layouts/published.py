"""Data sets as they are published: better and worse reply, ratings, trees, benchmarks."""
import pyarrow as pa

from fixture import *


def write():
    binarised()
    transcripts()
    unpaired()
    ratings()
    distilabel()
    stacks_and_nectar()
    trees()
    messages()
    benchmarks()
    trl_sets()


def binarised():
    rows = [{"source": "flan_v2_cot", "prompt": p(i), "chosen": content_first(chat(i, good(i))), "chosen-rating": 5.0,
             "chosen-model": "gpt-4", "rejected": content_first(chat(i, bad(i))), "rejected-rating": 2.5,
             "rejected-model": "alpaca-7b"} for i in range(3)]
    parquet("argilla_ultrafeedback_cleaned.parquet", rows, [pair(i) for i in range(3)],
            ("argilla/ultrafeedback-binarized-preferences-cleaned", "prompt, chosen, rejected; chosen-rating",
             "chosen is better; both lists repeat the prompt as their first turn",
             "axolotl docs/rlhf.qmd (chatml.ultra); HF argilla/ultrafeedback-binarized-preferences-cleaned", "part"))

    def orca(i, status, chosen, rejected, original):
        return {"system": "You are an AI assistant. You will be given a task.", "input": p(i), "chosen": chosen,
                "rejected": rejected, "generations": [chosen, rejected], "order": ["chosen", "rejected"],
                "labelling_model": "gpt-4-1106-preview",
                "labelling_prompt": [{"content": "You are an impartial judge.", "role": "system"}],
                "raw_labelling_response": "8 4", "rating": [8.0, 8.0] if status == "tie" else [9.0, 4.0],
                "rationale": "The first is more useful.", "status": status, "original_chosen": original[0],
                "original_rejected": original[1], "chosen_score": 8.0 if status == "tie" else 9.0,
                "in_gsm8k_train": False}

    rows = [orca(0, "unchanged", good(0), bad(0), (good(0), bad(0))),
            orca(1, "swapped", good(1), bad(1), (bad(1), good(1))),
            orca(2, "tie", mid(2), good(2), (mid(2), good(2)))]
    parquet("distilabel_intel_orca.parquet", rows, [pair(0), pair(1)],
            ("argilla/distilabel-intel-orca-dpo-pairs", "system, input, chosen, rejected, status",
             "chosen is better as it stands: of a `swapped` row the swap is done already; a `tie` row is no preference",
             "HF argilla/distilabel-intel-orca-dpo-pairs (README at e9890b9)", "literal"))

    rows = [{"source": "Airoboros", "conversation": [{"input": p(i), "output": good(i)}], "original_response": good(i),
             "generation_prompt": [p(i)], "raw_generation_responses": [bad(i), mid(i)],
             "new_generations": [bad(i), mid(i)], "prompt": p(i), "chosen": content_first(chat(i, good(i))),
             "rejected": content_first(chat(i, bad(i))), "rating_chosen": 5, "rating_rejected": 1,
             "chosen_model": "original", "rejected_model": "argilla/notus-7b-v1"} for i in range(2)]
    rows.append({**rows[0], "conversation": [{"input": p(2), "output": good(2)}, {"input": LATER[0],
            "output": LATER[1]}],
                 "prompt": p(2), "chosen": content_first(long_chat(2, LATER[1])),
                 "rejected": content_first(long_chat(2, LATER[2]))})
    parquet("capybara_dpo_7k.parquet", rows, [pair(0), pair(1), later(2)],
            ("argilla/distilabel-capybara-dpo-7k-binarized", "prompt, chosen, rejected; rating_chosen",
             "chosen is better; whole conversations, of which all but the last message are shared",
             "argilla-io/distilabel-workbench projects/criticon/benchmark/prepare_subset_dpo_mix.py", "part"))

    rows = [{"id": f"row_{i}", "source": "ai2-adapt-dev/ultrafeedback_cleaned_olmo2_7b", "prompt": p(i),
             "chosen": content_first(chat(i, good(i))), "rejected": content_first(chat(i, bad(i)))} for i in range(2)]
    rows.append({"id": "row_2", "source": "ai2-adapt-dev/WildChat-prefs-280824", "prompt": p(2),
                 "chosen": content_first(long_chat(2, LATER[1])), "rejected": content_first(long_chat(2, LATER[2]))})
    parquet("tulu_3_preference_mixture.parquet", rows, [pair(0), pair(1), later(2)],
            ("allenai/llama-3.1-tulu-3-8b-preference-mixture", "chosen, rejected, prompt",
             "chosen is better; all but the last message are the same on both sides",
             "NVIDIA-NeMo/RL nemo_rl/data/datasets/preference_datasets/tulu3.py", "literal"))


def transcripts():
    rows = [{"rejected": content_first(chat(i, bad(i))), "rejected_score": 1.0, "chosen": content_first(chat(i,
            good(i))),
             "chosen_score": 4.0} for i in range(3)]
    parquet("rlhflow_preference_700k.parquet", rows, [pair(i) for i in range(3)],
            ("RLHFlow preference_700K", "chosen, rejected; chosen_score, rejected_score",
             "chosen is better; no prompt column, the shared turns are the prompt", "HF hendrydong/preference_700K",
             "part"))
    rows = [{"chosen": content_first(long_chat(i, LATER[1])), "rejected": content_first(long_chat(i, LATER[2])),
             "chosen_score": 5.0, "rejected_score": 0.0} for i in range(2)]
    rows.append({"chosen": content_first(chat(2, good(2))), "rejected": content_first(chat(2, bad(2))),
                 "chosen_score": 3.5, "rejected_score": 3.0})
    parquet("openrlhf_mixture2_and_safe_pku.parquet", rows, [later(0), later(1), pair(2)],
            ("OpenRLHF/preference_dataset_mixture2_and_safe_pku", "chosen, rejected",
             "--chosen_key chosen --rejected_key rejected with the chat template: whole conversations",
             "OpenRLHF/OpenRLHF openrlhf/datasets/reward_dataset.py; examples/scripts/train_rm.sh", "literal"))

    rows = [{"chosen": content_first(chat(i, good(i))), "rejected": content_first(chat(i, bad(i))),
             "source": "magpie_ultra"} for i in range(2)]
    rows.append({"chosen": content_first(long_chat(2, LATER[1])), "rejected": content_first(long_chat(2, LATER[2])),
                 "source": "offsetbias"})
    parquet("skywork_reward_v02.parquet", rows, [pair(0), pair(1), later(2)],
            ("Skywork/Skywork-Reward-Preference-80K-v0.2", "chosen, rejected, source",
             "chosen is better; shared turns are the prompt", "HF Skywork/Skywork-Reward-Preference-80K-v0.2",
             "memory"))


def unpaired():
    def interact(i, trajectory):
        return {"task": "Math_CoT", "dataset": "gsm8k", "trajectory": trajectory, "chosen": good(i), "rejected": bad(i),
                "id": f"{i}_1", "parent_id": f"{i}_0"}

    rows = [interact(0, [{"from": "user", "value": p(0)}]), interact(1, [{"from": "user", "value": p(1)}]),
            interact(2, [{"from": "user", "value": p(2)}, {"from": "assistant", "value": mid(2)},
                         {"from": "user", "value": LATER[0]}])]
    parquet("ultrainteract_pair.parquet", rows, [pair(0), pair(1), [LATER[0], good(2), bad(2)]],
            ("openbmb/UltraInteract_pair", "trajectory[{from, value}], chosen, rejected",
             "trajectory is the conversation so far; chosen is correct, rejected is not",
             "HF openbmb/UltraInteract_pair; public code takes trajectory[0].value as the prompt", "part"))

    rows = [{"prompt": p(i), "completion": reply, "label": label, "rating": rating, "model": "m"}
            for i in range(2) for reply, label, rating in ((good(i), True, 5.0), (bad(i), False, 2.0))]
    rows.append({"prompt": p(2), "completion": good(2), "label": True, "rating": 4.5, "model": "m"})
    parquet("argilla_kto.parquet", rows, [pair(0), pair(1)],
            ("argilla/ultrafeedback-binarized-preferences-cleaned-kto", "prompt, completion (texts), label",
             "true is desired, false is not; two responses of one prompt with different labels are a pair",
             "axolotl src/axolotl/prompt_strategies/kto/chatml.py (ultra); ms-swift (process_ultrafeedback_kto)",
             "literal"))


def completions(i, scores):
    def rated(text, model, score):
        rating = {"Rating": str(int(min(score, 5))), "Rationale": "Short and to the point."}
        kind = {**rating, "Rationale For Rating": "Nothing is missing.", "Type": ["1"]}
        return {"annotations": {"helpfulness": kind, "honesty": rating, "instruction_following": rating,
                                "truthfulness": kind},
                "custom_system_prompt": "As an AI assistant, be truthful.", "model": model, "principle": "truthfulness",
                "response": text, "critique": "Good start.", "overall_score": float(score * 2),
                "fine-grained_score": float(min(score, 5))}

    replies = [(bad(i), "alpaca-7b"), (good(i), "gpt-4"), (mid(i), "vicuna-33b")]
    return [rated(text, model, score) for (text, model), score in zip(replies, scores)]


def ratings():
    def ultra(i, scores):
        return {"source": "sharegpt", "instruction": p(i), "models": ["alpaca-7b", "gpt-4", "vicuna-33b"],
                "completions": completions(i, scores), "correct_answers": ["None"], "incorrect_answers": ["None"]}

    tied = ultra(2, (1, 4, 4))
    jsonl("ultrafeedback_openbmb.jsonl", [ultra(0, (1, 5, 3)), ultra(1, (2, 4, 3)), tied],
          [*ranking(0), *ranking(1), [p(2), good(2), bad(2)], [p(2), mid(2), bad(2)]],
          ("openbmb/UltraFeedback", "instruction, completions[].response, overall_score",
           "higher is better; equal scores are a tie",
           "trl examples/datasets/ultrafeedback.py; HF openbmb/UltraFeedback",
           "part"))
    rows = [ultra(0, (1, 5, 3)), ultra(1, (2, 4, 3))]
    for row in rows:
        for completion in row["completions"]:
            del completion["overall_score"], completion["critique"]
    rows[1]["completions"][0]["annotations"]["truthfulness"]["Rating"] = "N/A"
    jsonl("ultrafeedback_fine_grained.jsonl", rows, [*ranking(0), *ranking(1)],
          ("openbmb/UltraFeedback, without overall_score", "completions[].fine-grained_score or annotations.*.Rating",
           "higher is better, 1 to 5 (the mean of the aspects); a Rating is text and may be N/A",
           "trl examples/datasets/ultrafeedback.py (annotations[aspect].Rating)", "part"))

    def rate(i, text, *values):
        names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
        return {"prompt": p(i), "response": text, **dict(zip(names, values))}

    jsonl("helpsteer_1.jsonl.gz",
          [rate(0, bad(0), 0, 1, 4, 0, 1), rate(0, good(0), 4, 4, 4, 1, 1), rate(0, mid(0), 2, 3, 4, 1, 2),
           rate(1, good(1), 3, 3, 4, 1, 1), rate(1, bad(1), 1, 0, 3, 4, 4), rate(2, mid(2), 3, 4, 4, 1, 1),
           rate(2, good(2), 3, 3, 4, 1, 1)], [*ranking(0), pair(1)],
          ("nvidia/HelpSteer (1): up to four rows a prompt", "prompt, response, helpfulness (and four more)",
           "0 to 4, higher is better; equal helpfulness is a tie",
           "NVIDIA/NeMo-Aligner examples/nlp/data/steerlm/preprocess_helpsteer_data.py; HF nvidia/HelpSteer2",
           "literal"))


def distilabel():
    rows = [{"instruction": p(0), "generations": [bad(0), good(0), mid(0)], "generation_models": ["a", "b", "c"],
             "ratings": [1, 5, 3], "rationales": ["No.", "Yes.", "Partly."], "model_name": "gpt-4o",
             "distilabel_metadata": {"raw_output_ultra_feedback_0": "…"}},
            {"instruction": p(1), "generations": [good(1), bad(1), mid(1)], "generation_models": ["a", "b", "c"],
             "ratings": [4, None, 4], "rationales": ["Yes.", None, "Yes."], "model_name": "gpt-4o",
             "distilabel_metadata": {"raw_output_ultra_feedback_0": "…"}},
            {"instruction": p(2), "generations": [bad(2), good(2)], "generation_models": ["a", "b"],
             "ratings": [2, 4], "rationales": ["No.", "Yes."], "model_name": "gpt-4o",
             "distilabel_metadata": {"raw_output_ultra_feedback_0": "…"}}]
    parquet("distilabel_ultrafeedback_task.parquet", rows, [*ranking(0), pair(2)],
            ("distilabel UltraFeedback task", "instruction, generations[], ratings[]",
             "parallel lists, higher is better; null is unrated", "distilabel steps/tasks/ultrafeedback.py", "literal"))


def stacks_and_nectar():
    def stack(i, scores):
        answers = [{"answer_id": 10 * i + n, "author": "ann", "author_id": 7, "author_profile": "https://example.org/7",
                    "pm_score": score, "selected": n == 0, "text": text}
                   for n, (text, score) in enumerate(zip((good(i), mid(i), bad(i)), scores))]
        return {"qid": i, "metadata": ["https://example.org/q"], "answers": answers, "date": "2022/01/01",
                "question": p(i)}

    parquet("stack_exchange_preferences.parquet", [stack(0, (6, 2, -1)), stack(1, (3, 1, 1))],
            [*ranking(0), [p(1), good(1), mid(1)], [p(1), good(1), bad(1)]],
            ("HuggingFaceH4/stack-exchange-preferences", "question, answers[].text, answers[].pm_score",
             "higher is better (votes, plus one if accepted, below zero -1); equal is a tie",
             "HF HuggingFaceH4/stack-exchange-preferences (card with its script)", "literal"))

    def nectar(i, prompt, ranks):
        answers = [{"answer": text, "model": "m", "rank": rank}
                   for text, rank in zip((mid(i), good(i), bad(i)), ranks)]
        return {"prompt": prompt, "answers": answers, "turns": prompt.count("Human:"), "num_responses": 3,
                "source": ["sharegpt"], "good_natured": True}

    one = f"\n\nHuman: {p(0)}\n\nAssistant: "
    two = f"\n\nHuman: {p(1)}\n\nAssistant: {good(1)}\n\nHuman: {LATER[0]}\n\nAssistant: "
    parquet("nectar_two_turns.parquet", [nectar(0, one, (2.0, 1.0, 3.0)), nectar(1, two, (2.0, 1.0, 3.0))],
            [*ranking(0), *([LATER[0], a, b] for _, a, b in ranking(1))],
            ("berkeley-nest/Nectar", "prompt, answers[].answer, answers[].rank",
             "rank 1 is best; Axolotl's zephyr.nectar takes the two last of the sorted list, which is the wrong end",
             "HF berkeley-nest/Nectar; axolotl src/axolotl/prompt_strategies/dpo/zephyr.py", "literal"))


def trees():
    def node(ident, text, role, rank=None, replies=(), **more):
        ranked = {} if rank is None and ident[0] != "a" else {"rank": rank}  # exports leave null keys out
        return {"message_id": ident, "user_id": "u", "created_date": "2023-02-05T14:23:50+00:00", "text": text,
                "role": role, "lang": "en", "review_count": 3, "review_result": True, "deleted": False, **ranked,
                "synthetic": False, "emojis": {"+1": 2}, "labels": {"quality": {"value": 0.75, "count": 3}},
                "replies": list(replies), **more}

    first = node("a0", p(0), "prompter", replies=[
        node("a1", bad(0), "assistant", 2),
        node("a2", good(0), "assistant", 0, [
            node("a5", LATER[0], "prompter", replies=[node("a6", LATER[2], "assistant", 1),
                                                      node("a7", LATER[1], "assistant", 0)])]),
        node("a3", mid(0), "assistant", 1),
        node("a4", "Spam.", "assistant", None, deleted=True, review_result=False)])
    second = node("b0", p(1), "prompter", replies=[node("b1", good(1), "assistant", 0),
                                                   node("b2", bad(1), "assistant", 1),
                                                   node("b3", mid(1), "assistant", None)])
    third = node("c0", p(2), "prompter", replies=[node("c1", good(2), "assistant", None)])
    rows = [{"message_tree_id": tree["message_id"], "tree_state": state, "prompt": tree}
            for tree, state in ((first, "ready_for_export"), (second, "ready_for_export"), (third, "growing"))]
    jsonl("oasst1.trees.jsonl.gz", rows, [*ranking(0), later(0), pair(1)],
          ("OpenAssistant oasst1 trees", "prompt.replies[] with text, role, rank, deleted",
           "rank 0 is best among the replies of one message; null is unranked; the path from the root is the prompt",
           "LAION-AI/Open-Assistant oasst-data/README.md, model/model_eval/manual/data/en_100_tree.jsonl", "literal"))


def messages():
    def flat(ident, parent, text, role, rank=None, deleted=False):
        return {"message_id": ident, "parent_id": parent, "user_id": "u", "created_date": "2023-11-05T10:24:44+00:00",
                "text": text, "role": role, "lang": "en", "review_count": 3, "review_result": not deleted,
                "deleted": deleted, "rank": rank, "synthetic": False, "model_name": None,
                "detoxify": {"toxicity": 0.001, "insult": 0.0}, "message_tree_id": ident[0] + "0",
                "tree_state": "ready_for_export", "emojis": {"name": ["+1"], "count": [2]},
                "labels": {"name": ["quality"], "value": [0.75], "count": [3]}}

    rows = [flat("a0", None, p(0), "prompter"), flat("a1", "a0", bad(0), "assistant", 1),
            flat("a2", "a0", good(0), "assistant", 0), flat("a3", "a2", LATER[0], "prompter"),
            flat("a4", "a3", LATER[2], "assistant", 1), flat("a5", "a3", LATER[1], "assistant", 0),
            flat("b0", None, p(1), "prompter"), flat("b1", "b0", good(1), "assistant", 0),
            flat("b2", "b0", "Spam.", "assistant", None, True), flat("b3", "b0", bad(1), "assistant", 1)]
    fields = [("message_id", pa.string()), ("parent_id", pa.string()), ("user_id", pa.string()),
              ("created_date", pa.string()), ("text", pa.string()), ("role", pa.string()), ("lang", pa.string()),
              ("review_count", pa.int32()), ("review_result", pa.bool_()), ("deleted", pa.bool_()), ("rank",
              pa.int32()),
              ("synthetic", pa.bool_()), ("model_name", pa.string()),
              ("detoxify", pa.struct([("toxicity", pa.float64()), ("insult", pa.float64())])),
              ("message_tree_id", pa.string()), ("tree_state", pa.string()),
              ("emojis", pa.struct([("name", pa.list_(pa.string())), ("count", pa.list_(pa.int32()))])),
              ("labels", pa.struct([("name", pa.list_(pa.string())), ("value", pa.list_(pa.float64())),
                                    ("count", pa.list_(pa.int32()))]))]
    parquet("oasst2_messages.parquet", rows, [pair(0), later(0), pair(1)],
            ("OpenAssistant oasst2, flat", "message_id, parent_id, text, role, rank",
             "as in the trees: rank 0 is best; the ancestors of a reply are its prompt",
             "HF OpenAssistant/oasst2 (README at b8629ee)", "literal"), schema=pa.schema(fields))


def benchmarks():
    def bench2(i, chosen, rejected, subset):
        return {"id": str(i), "prompt": p(i), "chosen": chosen, "rejected": rejected, "num_correct": len(chosen),
                "num_incorrect": len(rejected), "total_completions": len(chosen) + len(rejected),
                "models": ["m"] * (len(chosen) + len(rejected)), "subset": subset,
                "additional_metadata": {"category": None, "method": "manual"}}

    rows = [bench2(0, [good(0)], [bad(0), mid(0)], "Factuality"), bench2(1, [good(1)], [bad(1)], "Focus"),
            bench2(2, [good(2), mid(2)], [bad(2), "Shout at it."], "Ties")]
    for row in rows:
        row["additional_metadata"] = {"category": "x", "method": "manual"}
    crossed = [[p(2), a, b] for a in (good(2), mid(2)) for b in (bad(2), "Shout at it.")]
    parquet("reward_bench_2.parquet", rows, [[p(0), good(0), bad(0)], [p(0), good(0), mid(0)], pair(1), *crossed],
            ("allenai/reward-bench-2", "prompt, chosen[], rejected[], num_correct, subset",
             "every chosen is better than every rejected; several chosen of the Ties subset are equally right",
             "allenai/reward-bench rewardbench/utils.py (num_correct, total_completions)", "part"))
    crossed = [[p(i), a, b] for i in range(2) for a in (good(i), good(i) + " Really.", f"**{good(i)}**")
               for b in (bad(i), bad(i) + " Really.", f"**{bad(i)}**")]
    array("trap_rm_bench_all_styles.json",
          [{"id": f"chat/{i}", "prompt": p(i), "chosen": [good(i), good(i) + " Really.", f"**{good(i)}**"],
            "rejected": [bad(i), bad(i) + " Really.", f"**{bad(i)}**"], "domain": "chat"} for i in range(2)], crossed,
          ("RM-Bench total_dataset.json", "prompt, chosen[3], rejected[3], domain",
           "three styles a side; the benchmark compares all nine (or `eval --suite rm-bench` only)",
           "THU-KEG/RM-Bench README.md", "part"))


def trl_sets():
    rows = [{"chosen": content_first(chat(i, good(i))), "rejected": content_first(chat(i, bad(i))), "score_chosen": 8.0,
             "score_rejected": 4.5} for i in range(3)]
    parquet("trl_lib_ultrafeedback_binarized.parquet", rows, [pair(i) for i in range(3)],
            ("trl-lib/ultrafeedback_binarized", "chosen, rejected; score_chosen, score_rejected",
             "chosen is better; the shared user turn is the prompt", "trl docs/source/dataset_formats.md", "part"))
    post = "SUBREDDIT: r/AskCooking\n\nTITLE: A question\n\nPOST: {}\n\nTL;DR:"
    parquet("trl_lib_tldr_preference.parquet",
            [{"prompt": post.format(p(i)), "chosen": good(i), "rejected": bad(i)} for i in range(2)],
            [[post.format(p(i)), good(i), bad(i)] for i in range(2)],
            ("trl-lib/tldr-preference", "prompt, chosen, rejected", "texts; chosen is better",
             "trl examples/datasets/tldr_preference.py", "literal"))
    rows = [{"prompt": [user(p(0))], "chosen": [assistant(good(0))], "rejected": [assistant(bad(0))]},
            {"prompt": long_chat(1, "")[:3], "chosen": [assistant(LATER[1])], "rejected": [assistant(LATER[2])]}]
    parquet("trl_lib_hh_rlhf_helpful_base.parquet", [{k: content_first(v) for k, v in row.items()} for row in rows],
            [pair(0), later(1)],
            ("trl-lib/hh-rlhf-helpful-base", "prompt[], chosen[], rejected[]", "messages; chosen is better",
             "trl examples/datasets/hh-rlhf-helpful-base.py", "literal"))
    parquet("trl_lib_lm_human_preferences.parquet", [{"prompt": p(i), "chosen": good(i), "rejected": bad(i)}
                                                     for i in range(2)], [pair(0), pair(1)],
            ("trl-lib/lm-human-preferences-sentiment, -descriptiveness", "prompt, chosen, rejected",
             "texts; chosen is the sample that `best` named", "trl examples/datasets/lm-human-preferences-sentiment.py",
             "literal"))
    array("lm_human_preferences_offline.json",
          [{"query": [818, 257, 1310], "sample0": [11, 262], "sample1": [290, 340], "sample2": [13, 383],
            "sample3": [355, 339], "best": 2}], None,
          ("openai/lm-human-preferences labels", "query, sample0…sample3 (token ids), best",
           "numbers of GPT-2's vocabulary, no texts: refuse", "trl examples/datasets/lm-human-preferences-sentiment.py",
           "literal"))
    parquet("trl_lib_kto_mix.parquet",
            [{"prompt": content_first([user(p(i))]), "completion": content_first([assistant(text)]), "label": label}
             for i, text, label in ((0, good(0), True), (1, bad(1), False), (2, good(2), True))], None,
            ("trl-lib/kto-mix-14k", "prompt, completion, label",
             "unpaired: here no prompt has both a true and a false response, so there is no pair",
             "trl docs/source/dataset_formats.md (unpaired preference)", "literal"))
    parquet("trl_lib_prm800k.parquet",
            [{"prompt": p(0), "completions": ["First boil the water.", "Then wait an hour."], "labels": [True, False]}],
            None, ("trl-lib/prm800k, trl-lib/math_shepherd", "prompt, completions[], labels[]",
                   "steps of one solution with a label each, not responses: refuse",
                   "trl examples/datasets/prm800k.py, math_shepherd.py", "literal"))
    png = b"\x89PNG\r\n\x1a\n"

    def seen(text, role, image=False):
        parts = [{"text": text, "type": "text"}]
        return [{"content": [{"text": None, "type": "image"}, *parts] if image else parts, "role": role}]

    parquet("trl_lib_rlaif_v.parquet",
            [{"images": [{"bytes": png, "path": "0.png"}], "prompt": seen("What is on the table?", "user", True),
              "chosen": seen("A bowl of plums.", "assistant"), "rejected": seen("A lion.", "assistant")}], None,
            ("trl-lib/rlaif-v", "images[], prompt with an image part",
             "the responses are about an image, which a text judge cannot see: refuse",
             "trl examples/datasets/rlaif-v.py",
             "literal"))
