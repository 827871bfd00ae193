"""Files as trainers and fine-tuning services want them."""
from fixture import *


def write():
    llama_factory()
    axolotl()
    axolotl_kto()
    ms_swift()
    nvidia()
    hh_prompts()
    medicalgpt()
    services()
    smaller_trainers()


def plain(i, prompt_name, **more):
    return {**more, prompt_name: p(i), "chosen": good(i), "rejected": bad(i)}


def llama_factory():
    rows = [{"conversations": [{"from": "system", "value": SYSTEM}, human(p(0))], "chosen": gpt(good(0)),
             "rejected": gpt(bad(0))},
            {"conversations": [human(p(1))], "chosen": gpt(good(1)), "rejected": gpt(bad(1))},
            {"conversations": [human(p(2)), gpt(good(2)), human(LATER[0])], "chosen": gpt(LATER[1]),
             "rejected": gpt(LATER[2])}]
    array("llamafactory_dpo_demo.json", rows, [pair(0), pair(1), later(2)],
          ("LLaMA-Factory sharegpt ranking", "conversations[{from, value}], chosen{}, rejected{}",
           "chosen is better; conversations may begin with a system turn",
           "hiyouga/LLaMA-Factory data/dpo_en_demo.json, data/README.md", "literal"))
    rows = [{"messages": content_first(chat(i, text)), "label": label}
            for i, text, label in ((0, good(0), True), (0, bad(0), False), (1, bad(1), False), (1, good(1), True))]
    rows.append({"messages": content_first(long_chat(2, LATER[1])), "label": True})
    rows.append({"messages": content_first(long_chat(2, LATER[2])), "label": False})
    array("llamafactory_kto_demo.json", rows, [pair(0), pair(1), later(2)],
          ("LLaMA-Factory KTO (kto_en_demo)", "messages[], label: bool",
           "label true means that the last reply is desired; rows of one conversation so far make pairs",
           "hiyouga/LLaMA-Factory data/kto_en_demo.json, data/dataset_info.json", "literal"))
    rows = [{"conversations": [human(p(i)), gpt(text)], "kto_tag": tag}
            for i, text, tag in ((0, good(0), True), (0, bad(0), False), (1, good(1), True), (1, bad(1), False))]
    array("llamafactory_kto_tag.json", rows, [pair(0), pair(1)],
          ("LLaMA-Factory KTO, sharegpt", "conversations[], kto_tag: bool", "true is desired, false is not",
           "hiyouga/LLaMA-Factory data/README.md", "literal"))
    rows = [{"conversations": [human("<image>What is on the table?")], "chosen": gpt("A bowl of plums."),
             "rejected": gpt("A lion."), "images": ["rlhf_v/0.jpg"]}]
    array("llamafactory_rlhf_v.json", rows, None,
          ("LLaMA-Factory RLHF-V", "conversations, chosen, rejected, images",
           "about an image, which a text judge cannot see: refuse",
           "hiyouga/LLaMA-Factory data/dataset_info.json (rlhf_v)", "literal"))
    rows = [{"instruction": p(0), "input": "", "chosen": good(0), "rejected": bad(0), "system": SYSTEM, "history": []},
            {"instruction": LATER[0], "input": "", "chosen": LATER[1], "rejected": LATER[2], "system": SYSTEM,
             "history": [[p(1), good(1)]]},
            {"instruction": "Answer the question.", "input": p(2), "chosen": good(2), "rejected": bad(2), "system": "",
             "history": None}]
    array("llamafactory_alpaca_history.json", rows,
          [pair(0), later(1), ["Answer the question.\n" + p(2), good(2), bad(2)]],
          ("LLaMA-Factory alpaca ranking with system and history",
           "instruction, input, history, system, chosen, rejected",
           "prompt = history turns, then instruction, a line break and input; chosen is better",
           "hiyouga/LLaMA-Factory src/llamafactory/data/converter.py", "literal"))
    array("llamafactory_old_output_list.json",
          [{"instruction": p(i), "input": "", "output": [good(i), bad(i)]} for i in range(2)], [pair(0), pair(1)],
          ("LLaMA-Factory before April 2024", "instruction, input, output[2]", "the first output is better",
           "LLaMA-Factory issue 3364", "part"))

    def value_parts(messages):
        return [{"role": m["role"], "content": [{"type": "text", "value": m["content"]}],
                 "loss_weight": float(m["role"] == "assistant")} for m in messages]

    jsonl("llamafactory_v1_pair.jsonl",
          [{"chosen_messages": value_parts([system(), *chat(i, good(i))]),
            "rejected_messages": value_parts([system(), *chat(i, bad(i))])} for i in range(2)], [pair(0), pair(1)],
          ("LLaMA-Factory v1 pair", "chosen_messages[], rejected_messages[] with content[{type, value}]",
           "chosen_messages is better; the shared turns are the prompt", "hiyouga/LLaMA-Factory data/v1_dpo_demo.jsonl",
           "literal"))


def axolotl():
    where = "axolotl docs/rlhf.qmd; src/axolotl/prompt_strategies/dpo/{}.py"
    jsonl("axolotl_argilla.jsonl",
          [{"system": SYSTEM, "instruction": p(0), "chosen_response": good(0), "rejected_response": bad(0)},
           {"system": "", "instruction": p(1), "chosen_response": good(1), "rejected_response": bad(1)}],
          [pair(0), pair(1)],
          ("Axolotl chatml.argilla, llama3.argilla", "system, instruction, chosen_response, rejected_response",
           "chosen_response is better", where.format("chatml"), "literal"))
    jsonl("axolotl_argilla_chat.jsonl",
          [{"chosen": chat(0, good(0)), "rejected": chat(0, bad(0))},
           {"chosen": [system(), *long_chat(1, LATER[1])], "rejected": [system(), *long_chat(1, LATER[2])]}],
          [pair(0), later(1)],
          ("Axolotl chatml/llama3/chat_template.argilla_chat", "chosen[], rejected[]",
           "chosen is better; the last message is the reply", where.format("chat_template"), "literal"))
    jsonl("axolotl_icr.jsonl", [plain(0, "input", system=SYSTEM), plain(1, "input", system="")], [pair(0), pair(1)],
          ("Axolotl chatml.icr, llama3.icr, bradley_terry.chat_template", "system, input, chosen, rejected",
           "chosen is better; an empty system is none", "axolotl docs/reward_modelling.qmd; " + where.format("chatml"),
           "literal"))
    jsonl("axolotl_intel.jsonl", [plain(0, "question", system=SYSTEM), plain(1, "question", system="")],
          [pair(0), pair(1)], ("Axolotl chatml.intel, llama3.intel", "system, question, chosen, rejected",
                               "chosen is better", where.format("chatml"), "literal"))
    jsonl("axolotl_prompt_pairs.jsonl", [plain(0, "prompt", system=SYSTEM), plain(1, "prompt", system="")],
          [pair(0), pair(1)], ("Axolotl chatml.prompt_pairs, user_defined.default", "system, prompt, chosen, rejected",
                               "chosen is better; system may be an empty text", where.format("chatml, user_defined"),
                               "literal"))
    jsonl("axolotl_ultra.jsonl",
          [{"system": SYSTEM, "prompt": p(0), "chosen": chat(0, good(0)), "rejected": chat(0, bad(0))},
           {"system": "", "prompt": p(1), "chosen": chat(1, good(1)), "rejected": chat(1, bad(1))}], [pair(0), pair(1)],
          ("Axolotl chatml.ultra, ORPO chat_template.argilla", "system, prompt, chosen[], rejected[]",
           "the second message is the reply; the system text is not in the lists", where.format("chatml"), "literal"))
    jsonl("axolotl_nectar.jsonl",
          [{"prompt": p(i), "answers": [{"answer": mid(i), "rank": 2}, {"answer": good(i), "rank": 1},
                                        {"answer": bad(i), "rank": 3}]} for i in range(2)], ranking(0) + ranking(1),
          ("Axolotl zephyr.nectar", "prompt, answers[{answer, rank}]",
           "rank 1 is best in the set this type is for; Axolotl's own code takes the other end",
           "HF berkeley-nest/Nectar; " + where.format("zephyr"), "literal"))
    jsonl("axolotl_chat_template_forms.jsonl",
          [{"messages": [system(), user(p(0))], "chosen": assistant(good(0)), "rejected": assistant(bad(0))},
           {"messages": long_chat(1, "")[:3], "chosen": assistant(LATER[1]), "rejected": assistant(LATER[2])},
           {"messages": [user(p(2))], "chosen": [assistant(good(2))], "rejected": [assistant(bad(2))]},
           {"messages": [user(p(3))], "chosen": good(3), "rejected": bad(3)}], [pair(0), later(1), pair(2), pair(3)],
          ("Axolotl chat_template.default", "messages, chosen, rejected as message, list or text",
           "chosen is better; of a list the last message counts", where.format("chat_template"), "literal"))

def axolotl_kto():
    kto = "axolotl docs/rlhf.qmd (KTO); src/axolotl/prompt_strategies/kto/chatml.py"
    jsonl("axolotl_kto_argilla.jsonl",
          [{"system": SYSTEM, "instruction": p(i), "completion": text, "label": label}
           for i in range(2) for text, label in ((good(i), True), (bad(i), False))], [pair(0), pair(1)],
          ("Axolotl KTO chatml.argilla", "system, instruction, completion, label", "true is desired", kto, "part"))
    jsonl("axolotl_kto_intel.jsonl",
          [{"system": "", "question": p(i), "completion": text, "label": label}
           for i in range(2) for text, label in ((bad(i), False), (good(i), True))], [pair(0), pair(1)],
          ("Axolotl KTO chatml.intel", "system, question, completion, label", "true is desired", kto, "part"))
    jsonl("axolotl_kto_argilla_chat.jsonl",
          [{"completion": chat(i, text), "label": label, "rating": rating}
           for i in range(2) for text, label, rating in ((good(i), True, 5.0), (bad(i), False, 1.0))],
          [pair(0), pair(1)],
          ("Axolotl KTO chatml.argilla_chat (argilla/kto-mix-15k)", "completion[user, assistant], label",
           "true is desired; the last message is the reply", kto, "literal"))


def ms_swift():
    docs = "modelscope/ms-swift docs/source_en/Customization/Custom-dataset.md"
    jsonl("msswift_rejected_response.jsonl",
          [{"messages": [system(), *chat(0, good(0))], "rejected_response": bad(0)},
           {"messages": long_chat(1, LATER[1]), "rejected_response": LATER[2], "margin": 1.5},
           {"messages": chat(2, good(2)), "rejected_response": [assistant(bad(2))]}], [pair(0), later(1), pair(2)],
          ("ms-swift DPO and RM", "messages (the last is the better reply), rejected_response, margin",
           "rejected_response replaces the last reply; it may be a list of messages",
           docs + ", Instruction/RLHF.md", "literal"))
    jsonl("msswift_rejected_messages.jsonl",
          [{"messages": chat(0, good(0)), "rejected_messages": chat(0, bad(0))},
           {"messages": long_chat(1, LATER[1]), "rejected_messages": long_chat(1, LATER[2])}], [pair(0), later(1)],
          ("ms-swift", "messages, rejected_messages", "messages is better; shared turns are the prompt", docs,
           "literal"))
    jsonl("msswift_query_response.jsonl",
          [{"system": SYSTEM, "query": p(0), "response": good(0), "rejected_response": bad(0)},
           {"query": LATER[0], "response": LATER[1], "rejected_response": LATER[2], "history": [[p(1), good(1)]]},
           {"query": p(2), "response": good(2), "rejected_response": bad(2), "history": []}],
          [pair(0), later(1), pair(2)],
          ("ms-swift query-response", "system, history, query, response, rejected_response",
           "response is better; history is a list of [query, response]",
           docs + "; swift/dataset/preprocessor/core.py (ResponsePreprocessor)", "literal"))
    jsonl("msswift_kto.jsonl",
          [{"messages": [system(), *chat(i, text)], "label": label}
           for i in range(2) for text, label in ((bad(i), False), (good(i), True))], [pair(0), pair(1)],
          ("ms-swift KTO", "messages, label: bool", "true is desired", docs, "literal"))
    jsonl("msswift_classification.jsonl",
          [{"messages": [user("The weather is lovely.")], "label": 1}, {"messages": [user("What a bad day.")],
                                                                        "label": 0}],
          None, ("ms-swift sequence classification", "messages (user only), label: int",
                 "a class of the text, no preference: refuse", docs, "literal"))
    jsonl("msswift_images.jsonl",
          [{"messages": [user("<image>What is this?"), assistant("A kitten.")], "images": ["kitten.png"],
            "rejected_response": "A puppy."}], None,
          ("ms-swift multimodal", "messages with <image>, images, rejected_response",
           "about an image, which a text judge cannot see: refuse", docs, "literal"))


def nvidia():
    def ranked(context, *replies):
        return {"context": context,
                "completions": [{"rank": rank, "completion": [assistant(text)]} for rank, text in replies]}

    jsonl("nemo_rl_preference.jsonl",
          [ranked([user(p(0))], (1, bad(0)), (0, good(0))),
           ranked(long_chat(1, "")[:3], (0, LATER[1]), (1, LATER[2])),
           ranked([system(), user(p(2))], (0, good(2)), (2, bad(2)), (1, mid(2)))], [pair(0), later(1), *ranking(2)],
          ("NeMo RL PreferenceDataset", "context[], completions[{rank, completion[]}]",
           "the lower rank is better, from 0",
           "NVIDIA-NeMo/RL nemo_rl/data/datasets/preference_datasets/preference_dataset.py", "literal"))
    jsonl("nemo_rl_binary.jsonl",
          [{"prompt": p(0), "chosen": good(0), "rejected": bad(0)},
           {"prompt": long_chat(1, "")[:3], "chosen": LATER[1], "rejected": LATER[2]}], [pair(0), later(1)],
          ("NeMo RL BinaryPreferenceDataset", "prompt (text or messages), chosen, rejected", "chosen is better",
           "NVIDIA-NeMo/RL nemo_rl/data/datasets/preference_datasets/binary_preference_dataset.py", "literal"))
    tags = "<extra_id_0>System\n\n<extra_id_1>User\n{}\n<extra_id_1>Assistant\n"
    jsonl("nemo_aligner_dpo.jsonl",
          [{"prompt": tags.format(p(i)), "chosen_response": good(i) + "\n<extra_id_1>",
            "rejected_response": bad(i) + "\n<extra_id_1>", "chosen_reward": 4.0, "rejected_reward": 2.0}
           for i in range(2)],
          [[tags.format(p(i)), good(i) + "\n<extra_id_1>", bad(i) + "\n<extra_id_1>"] for i in range(2)],
          ("NeMo-Aligner DPO", "prompt, chosen_response, rejected_response",
           "chosen_response is better; texts as they are",
           "NVIDIA/NeMo-Aligner tests/functional/test_data/dummy-dpo.jsonl, docs/user-guide/dpo.rst", "literal"))
    jsonl("nemo_aligner_comparisons.jsonl", [{"text": tags.format(p(0)) + good(0)},
                                             {"text": tags.format(p(0)) + bad(0)}],
          None, ("NeMo-Aligner reward model comparisons", "text, better and worse in alternate lines",
                 "nothing in a row says which it is: refuse", "NVIDIA/NeMo-Aligner docs/user-guide/rlhf.rst", "part"))
    jsonl("nemo_aligner_regression.jsonl",
          [{"text": tags.format(p(0)) + reply + "\n<extra_id_2>",
            "label": [-100.0, -100.0, -100.0, -100.0, score, score, 4.0, 1.0, 1.0]}
           for reply, score in ((good(0), 4.0), (bad(0), 0.0))], None,
          ("NeMo-Aligner regression reward model", "text, label: nine numbers",
           "attributes without names, prompt and reply in one text: refuse",
           "NVIDIA/NeMo-Aligner tests/functional/test_data/test-rm.jsonl", "literal"))
    jsonl("nemo_steerlm.jsonl",
          [{"conversations": [{"value": p(0), "from": "User", "label": None},
                              {"value": good(0), "from": "Assistant", "label": "helpfulness:4,correctness:4"}],
            "system": SYSTEM, "mask": "User", "type": "VALUE_TO_TEXT"}], None,
          ("NeMo-Aligner SteerLM", "conversations[{value, from, label}], mask, type",
           "one response each, no comparison: refuse",
           "NVIDIA/NeMo-Aligner examples/nlp/data/steerlm/preprocess_helpsteer2_data.py", "literal"))


def hh_prompts():
    hh = "\n\nHuman: {}\n\nAssistant:"
    two = f"\n\nHuman: {p(1)}\n\nAssistant: {good(1)}\n\nHuman: {LATER[0]}\n\nAssistant:"
    parquet("verl_rm_full_hh.parquet",
            [{"prompt": hh.format(p(0)), "chosen": good(0), "rejected": bad(0)},
             {"prompt": two, "chosen": LATER[1], "rejected": LATER[2]}], [pair(0), later(1)],
            ("verl reward-model data", "prompt, chosen, rejected", "chosen is better; the prompt is a HH transcript",
             "volcengine/verl examples/data_preprocess/full_hh_rlhf.py; verl/utils/dataset/rm_dataset.py", "literal"))
    parquet("deepspeed_rm_static.parquet",
            [{"prompt": hh.format(p(0)), "response": " " + good(0), "chosen": " " + good(0), "rejected": " " + bad(0)},
             {"prompt": two, "response": " " + LATER[1], "chosen": " " + LATER[1], "rejected": " " + LATER[2]}],
            [pair(0), later(1)],
            ("DeepSpeed-Chat, Dahoas/rm-static", "prompt, response, chosen, rejected",
             "chosen is better; prompt + chosen is the transcript, so the reply begins with a blank",
             "microsoft/DeepSpeedExamples applications/DeepSpeed-Chat/dschat/utils/data/raw_datasets.py", "part"))
    parquet("deepspeed_synthetic_instruct.parquet", [{"prompt": p(i), "chosen": good(i), "rejected": bad(i)}
                                                     for i in range(2)], [pair(0), pair(1)],
            ("DeepSpeed-Chat, Dahoas/synthetic-instruct-gptj-pairwise", "prompt, chosen, rejected", "chosen is better",
             "the same file", "literal"))
    parquet("deepspeed_rlhf_reward_datasets.parquet",
            [{"prompt": f"\n\nHuman: {p(i)}\n\n", "chosen": "Assistant: " + good(i), "rejected": "Assistant: " + bad(i)}
             for i in range(2)], [pair(0), pair(1)],
            ("DeepSpeed-Chat, yitingxie/rlhf-reward-datasets", "prompt, chosen, rejected",
             "chosen is better; the mark `Assistant:` stands at the beginning of both replies", "the same file",
             "part"))
    jsonl("openrlhf_input_key.jsonl", [{**plain(i, "input"), "margin": 0.5} for i in range(2)], [pair(0), pair(1)],
          ("OpenRLHF --prompt_key input", "input, chosen, rejected, margin", "chosen is better",
           "OpenRLHF/OpenRLHF openrlhf/datasets/reward_dataset.py", "literal"))

def medicalgpt():
    array("medicalgpt_old.json",
          [{"system": SYSTEM, "history": [], "question": p(0), "response_chosen": good(0), "response_rejected": bad(0)},
           {"system": "", "history": [[p(1), good(1)]], "question": LATER[0], "response_chosen": LATER[1],
            "response_rejected": LATER[2]}], [pair(0), later(1)],
          ("MedicalGPT until 2025", "system, history, question, response_chosen, response_rejected",
           "response_chosen is better; history is a list of [question, answer]", "MedicalGPT issue 358", "part"))
    jsonl("medicalgpt_new.jsonl",
          [{"conversations": [{"from": "system", "value": SYSTEM}, human(p(0))], "chosen": good(0), "rejected": bad(0)},
           {"conversations": [human(p(1)), gpt(good(1)), human(LATER[0])], "chosen": LATER[1], "rejected": LATER[2]}],
          [pair(0), later(1)],
          ("MedicalGPT", "conversations[{from, value}], chosen text, rejected text", "chosen is better",
           "shibing624/MedicalGPT data/reward/dpo_zh_500.jsonl", "literal"))

    call = {"from": "function_call", "value": json.dumps({"name": "timer", "arguments": {}})}
    jsonl("trap_medicalgpt_tool_turns.jsonl",
          [{"conversations": [human(p(0)), call, {"from": "observation", "value": "6 minutes"}],
            "tools": json.dumps([{"name": "timer"}]), "chosen": good(0), "rejected": bad(0)}],
          [["6 minutes", good(0), bad(0)]],
          ("MedicalGPT with tools", "conversations with function_call and observation, chosen, rejected",
           "read with all turns or refused, never without them",
           "shibing624/MedicalGPT data/reward/toolcall_dpo_zh_demo.jsonl", "literal"))

def smaller_trainers():
    jsonl("trap_paddlenlp_sort.jsonl",
          [{"src": [p(0)], "tgt": [], "response": [good(0), bad(0)], "sort": [1, 0]},
           {"src": [p(1), LATER[0]], "tgt": [good(1)], "response": [LATER[2], LATER[1]], "sort": [0, 1]}],
          [pair(0), later(1)],
          ("PaddleNLP DPO", "src[], tgt[], response[2], sort[2]",
           "the larger sort is chosen: not a rank; src and tgt are the user's and the model's turns",
           "PaddlePaddle/PaddleNLP llm/docs/dpo.md", "literal"))
    array("trap_torchtune_conversations.json",
          [{"chosen_conversations": chat(i, good(i)), "rejected_conversations": chat(i, bad(i))} for i in range(2)],
          [pair(0), pair(1)],
          ("torchtune preference data", "chosen_conversations[], rejected_conversations[]",
           "whole conversations; chosen is better", "pytorch/torchtune docs/source/basics/preference_datasets.rst",
           "literal"))
    jsonl("trap_selected_rejected.jsonl",
          [{"prompt": p(i), "selected": good(i), "rejected": bad(i)} for i in range(2)], [pair(0), pair(1)],
          ("small reward-model trainers", "prompt, selected, rejected", "selected is better",
           "HarderThenHarder/transformers_tasks LLM/LLMsTrainer/data/reward_model_data", "literal"))


def services():
    def tuning(messages, better, worse):
        return {"input": {"messages": messages, "tools": [], "parallel_tool_calls": True},
                "preferred_output": [assistant(better)], "non_preferred_output": [assistant(worse)]}

    jsonl("openai_preference_turns.jsonl",
          [tuning([system(), user(p(0))], good(0), bad(0)), tuning(long_chat(1, "")[:3], LATER[1], LATER[2])],
          [pair(0), later(1)],
          ("OpenAI, Azure, Together, Fireworks preference fine-tuning", "input.messages, preferred_output, "
           "non_preferred_output", "preferred_output is better",
           "OpenAI direct preference optimisation guide; a public "
           "reader of the format (preference-tuning guide)", "part"))
    jsonl("together_preference.jsonl",
          [{"input": {"messages": [user(p(i))]}, "preferred_output": [assistant(good(i))],
            "non_preferred_output": [assistant(bad(i))]} for i in range(2)], [pair(0), pair(1)],
          ("Together, Fireworks", "input.messages, preferred_output, non_preferred_output",
           "preferred_output is better",
           "Together preference fine-tuning page", "part"))
