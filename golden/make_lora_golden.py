"""Makes golden/lora/<case>: PEFT adapters over tiny judges, their scores, and two trainings.

    python golden/make_lora_golden.py             write every directory again
    python golden/make_lora_golden.py --check     compare with what is committed, write nothing

golden/README.md describes the files. The bases are those of golden/judges and golden/models/bert, made in memory by the
functions that made them.
"""

import argparse
import copy
import json
import re
import shutil
import tempfile
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

import make_judge_cases as cases
import make_judges_golden as judges
import tiny

LORA = tiny.HERE / "lora"
PLAIN = dict(r=4, lora_alpha=8, lora_dropout=0.0, task_type="SEQ_CLS")
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# name: (base, settings of LoraConfig)
CASES = {
    "qwen3_plain": ("qwen3", PLAIN | dict(target_modules=["q_proj", "v_proj"])),
    "qwen3_rslora": ("qwen3", PLAIN | dict(target_modules=["k_proj", "down_proj"], use_rslora=True)),
    "qwen3_all_linear": ("qwen3", PLAIN | dict(r=2, target_modules="all-linear")),
    "qwen3_score_adapted": ("qwen3", PLAIN | dict(task_type=None, r=2, target_modules=["o_proj", "score"])),
    "qwen3_dora": ("qwen3", PLAIN | dict(target_modules=["q_proj", "o_proj"], use_dora=True)),
    "qwen3_dropout": ("qwen3", PLAIN | dict(target_modules=["up_proj"], lora_dropout=0.3)),
    "qwen3_embedding": ("qwen3", PLAIN | dict(target_modules=["embed_tokens", "q_proj"], r=2)),
    "llama_patterns": ("llama", PLAIN | dict(
        target_modules=LINEAR, r=2, rank_pattern={"q_proj": 3, "layers.1.mlp.down_proj": 1},
        alpha_pattern={"v_proj": 5, r"model\.layers\.[02]\.mlp\.up_proj": 16})),
    "llama_regex": ("llama", PLAIN | dict(target_modules=r".*\.layers\.[02]\.(self_attn\.q|mlp\.gate)_proj")),
    "llama_layers": ("llama", PLAIN | dict(target_modules=["q_proj", "down_proj"], layers_to_transform=[1])),
    "llama_excluded": ("llama", PLAIN | dict(
        target_modules=["q_proj", "v_proj"], exclude_modules=["layers.1.self_attn.q_proj"])),
    "llama_lora_bias": ("llama", PLAIN | dict(target_modules=["v_proj"], lora_bias=True)),
    "qwen2_lora_bias": ("qwen2", PLAIN | dict(target_modules=["v_proj"], lora_bias=True)),
    "llama_saved_norm": ("llama", PLAIN | dict(target_modules=["v_proj"], modules_to_save=["score", "norm"])),
    "qwen2_bias_lora_only": ("qwen2", PLAIN | dict(target_modules=["q_proj", "v_proj"], bias="lora_only")),
    "gpt2_conv1d": ("gpt2", PLAIN | dict(target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True, r=2)),
    "gpt2_dora": ("gpt2", PLAIN | dict(target_modules=["c_attn"], fan_in_fan_out=True, use_dora=True, r=2)),
    "bert_plain": ("bert", PLAIN | dict(target_modules=["query", "value"], r=2)),
    "bert_pooler": ("bert", PLAIN | dict(target_modules=["query", "dense"], r=2, exclude_modules=r".*pooler.*",
                                         modules_to_save=["classifier", "pooler"])),
    "headless_qwen3": ("headless_qwen3", PLAIN | dict(target_modules=["q_proj", "down_proj"], r=2)),
    "headless_bert": ("headless_bert", PLAIN | dict(target_modules=["query"], r=2,
                                                    modules_to_save=["classifier", "pooler"])),
    "bert_bias_all": ("bert", PLAIN | dict(target_modules=["query", "value"], r=2, bias="all")),
}
# name: (base, stream of the adapter, whether B starts at 0 as PEFT starts it, settings). A stream is chosen, of six tried, so
# that rounding moves the losses by 1e-6 instead of 1e-4.
TRAINED = PLAIN | dict(target_modules="all-linear")
TOP = TRAINED | dict(target_modules=LINEAR, layers_to_transform=[1, 2])
TRAININGS = {"train_qwen3": ("qwen3", "train_qwen3 1", False, TRAINED),
             "train_llama": ("llama", "train_llama", True, TRAINED),
             "train_llama_top": ("llama", "train_llama_top", False, TOP)}
ALIKE = {"adapter_config.json", "adapter_model.safetensors"}


BASES = {"bert": "../../models/bert", "headless_bert": "../../models/bert_masked_lm",
         "headless_qwen3": "../../judges/refused/missing_head"}


def base_of(name, seed=0):
    """The base as a judge, with eager attention. The head that a headless one lacks is random, by `seed`."""
    torch.manual_seed(seed)
    if name == "bert":
        return tiny.build("BertForSequenceClassification", "bert")
    if name == "headless_bert":
        model = BertForSequenceClassification(tiny.config("bert"))
        model.bert.load_state_dict(tiny.build("BertForMaskedLM", "bert_masked_lm").bert.state_dict(), strict=False)
        return model.eval()
    if name == "headless_qwen3":
        model = cases.small_model()
        model.score.reset_parameters()
        return model
    return judges.build(name)


def base_path(name):
    """Where the base is, from an adapter's directory."""
    return BASES.get(name, f"../../judges/{name}")


def texts_of(name):
    if not name.endswith("bert") and name != "headless_qwen3":
        return judges.texts(name, 0)
    random, vocab = tiny.generator(f"texts of {name} adapters"), 16 if name == "headless_qwen3" else tiny.VOCAB
    return [torch.randint(tiny.FIRST_ID, vocab, (n,), generator=random).tolist() for n in (1, 2, 7, 33, 64)]


def fill(model, name, zero_b=False):
    """Draws A and B anew, and moves everything else that is trained away from the base's values."""
    random = tiny.generator(f"adapter {name}")
    with torch.no_grad():
        for key, parameter in sorted(model.named_parameters()):
            if not parameter.requires_grad:
                continue
            noise = torch.randn(parameter.shape, generator=random)
            if re.search(r"lora_(embedding_)?A", key):
                parameter.copy_(noise / parameter.shape[1] ** 0.5)
            elif re.search(r"lora_(embedding_)?B", key):
                parameter.copy_(noise * (0.0 if zero_b else 0.3))
            elif "magnitude" in key:
                parameter.mul_(1 + 0.2 * noise)
            else:
                parameter.add_(0.2 * noise)
    return model


def adapted(name, base, settings, zero_b=False):
    """A judge with a filled adapter, in evaluation mode."""
    return fill(get_peft_model(base_of(base), LoraConfig(**copy.deepcopy(settings))), name, zero_b).eval()


def file_name(key):
    """The name in adapter_model.safetensors of a parameter."""
    key = key.replace(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector")
    return re.sub(r"\.(modules_to_save\.)?default(?=\.|$)", "", key).replace(".base_layer", "")


def save(model, base, directory):
    """adapter_config.json with its lists in order, adapter_model.safetensors."""
    model.save_pretrained(directory, save_embedding_layers=False)
    config = json.loads((directory / "adapter_config.json").read_text())
    config = {key: sorted(value) if isinstance(value, list) else value for key, value in sorted(config.items())}
    config["base_model_name_or_path"] = base_path(base)
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = load_file(directory / "adapter_model.safetensors")
    save_file(dict(sorted(tensors.items())), directory / "adapter_model.safetensors", metadata={"format": "pt"})
    for file in directory.iterdir():
        if file.name not in ALIKE:
            file.unlink()


def modules_of(model):
    """{module: rank, scale, and what else it has}, as PEFT has set them up."""
    found = {}
    for key, module in model.named_modules():
        if isinstance(module, LoraLayer):
            found[key.removeprefix("base_model.model.")] = {
                "r": module.r["default"], "scale": module.scaling["default"],
                "dora": bool(module.use_dora.get("default", False)),
                "transposed": bool(getattr(module, "fan_in_fan_out", False))}
    return found


def merged(model, every, scores):
    """The scores of the merged judge, or why PEFT cannot merge."""
    try:
        found = judges.scores(model.merge_and_unload(), every)
    except RuntimeError as error:
        return {"merge_error": str(error)}
    assert judges.spread(found, scores) < 1e-4, "merged differently"
    return {"merged_scores": found}


def make_case(name, directory):
    """One adapter and the scores with it, beside the base and merged into it."""
    base, settings = CASES[name]
    every, model = texts_of(base), adapted(name, base, settings)
    save(model, base, directory)
    facts = {"base": base_path(base), "texts": every, "base_scores": judges.scores(base_of(base), every),
             "scores": judges.scores(model, every), "modules": modules_of(model)}
    read = PeftModel.from_pretrained(base_of(base, seed=1), directory).eval()
    assert judges.spread(judges.scores(read, every), facts["scores"]) < 1e-5, f"{name}: read back differently"
    assert judges.spread(facts["base_scores"], facts["scores"]) > 1e-2, f"{name}: changes nothing"
    assert facts["modules"], f"{name}: nothing is adapted"
    if base.startswith("headless"):
        del facts["base_scores"]
    facts |= merged(model, every, facts["scores"])
    exact = adapted(name, base, settings).double()
    facts["float32_error"] = float(f"{judges.spread(facts['scores'], judges.scores(exact, every)):.1e}")
    tiny.write_json(directory / "expected.json", facts)
    return facts["float32_error"]


def trained(model, every):
    """(tensors by the names of the adapter file, facts, gradients of each step)"""
    loss, grads = judges.gradients(model, every, judges.PAIRS[0])
    model.zero_grad()
    facts, after, kept = judges.adamw(model, every)
    tensors = {f"grad.{file_name(key)}": value for key, value in grads.items()}
    tensors |= {f"adamw.final.{file_name(key)}": p.detach() for key, p in after.named_parameters() if p.requires_grad}
    kept = [{file_name(key): value for key, value in one.items()} for one in kept]
    return tensors, {"loss": loss, "scores": judges.scores(model, every), "adamw": facts}, kept


def make_training(name, directory):
    """An adapter, the gradients of everything that is trained, and ten AdamW steps."""
    base, stream, zero_b, settings = TRAININGS[name]
    every, model = texts_of(base), adapted(stream, base, settings, zero_b)
    save(model, base, directory)
    single, double = trained(model, every), trained(copy.deepcopy(model).double(), every)
    noise = tiny.noise(double[2], single[2])
    error = {"adamw.final": 0.0, "grad": 0.0}
    for key, value in single[0].items():
        kind = "grad" if key.startswith("grad.") else "adamw.final"
        distance = tiny.largest_difference(key.removeprefix("adamw.final."), value, double[0][key], noise)
        error[kind] = max(error[kind], distance)
    for key in ("losses", "scores_beyond_first"):
        error[f"adamw.{key}"] = judges.spread(single[1]["adamw"][key], double[1]["adamw"][key])
    facts = {"base": base_path(base), "texts": every, "pairs": judges.PAIRS, **single[1], "noise": noise,
             "float32_error": {key: float(f"{value:.1e}") for key, value in error.items()}}
    facts["adamw"]["settings"] = judges.settings()
    save_file({key: value.contiguous() for key, value in sorted(single[0].items())}, directory / "expected.safetensors")
    tiny.write_json(directory / "expected.json", facts)
    return facts["float32_error"]


def query_only():
    """The sound adapter of refused/: rank 2 on the queries of refused/sound, and the head."""
    random = tiny.generator("refused adapters")
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes = {f"{stem}.lora_A.weight": (2, 8), f"{stem}.lora_B.weight": (8, 2),
              "base_model.model.score.weight": (1, 8)}
    settings = LoraConfig(**PLAIN | dict(r=2, target_modules=["q_proj"])).to_dict()
    config = json.loads(json.dumps(settings, default=sorted))
    config |= {"modules_to_save": ["classifier", "score"], "inference_mode": True,
               "base_model_name_or_path": "../../../judges/refused/sound", "task_type": "SEQ_CLS", "peft_type": "LORA"}
    return config, {key: 0.5 * torch.randn(shape, generator=random) for key, shape in shapes.items()}


def broken(t):
    """name: (what is wrong, keys of adapter_config.json, tensors (None: removed))"""
    stem, score = "base_model.model.model.layers.0.self_attn.q_proj", "base_model.model.score.weight"
    a, b = f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"
    value = stem.replace("q_proj", "v_proj")
    headless = dict(base_model_name_or_path="../../../judges/refused/missing_head")
    nan, infinite = t[a].clone(), t[b].clone()
    nan[0, 3], infinite[1, 1] = float("nan"), float("inf")
    on_score = {score: None, "base_model.model.score.lora_A.weight": t[a],
                "base_model.model.score.lora_B.weight": t[b][:1]}
    return {
        "sound": ("nothing", {}, {}),
        "ia3": ("a peft_type other than LORA", dict(peft_type="IA3"), {}),
        "unknown_type": ("a peft_type that nobody knows", dict(peft_type="LORAX"), {}),
        "other_width": ("matrices for a base of width 12", {}, {a: torch.ones(2, 12)}),
        "other_outputs": ("B for a base with 12 outputs", {}, {b: torch.ones(12, 2)}),
        "other_layer": ("a layer that the base lacks", {}, {a: None, b: None, a.replace("layers.0", "layers.1"): t[a],
                                                             b.replace("layers.0", "layers.1"): t[b]}),
        "nan": ("a NaN in A", {}, {a: nan}),
        "infinite": ("an infinite value in B", {}, {b: infinite}),
        "missing_head": ("no head here and none in the base", headless, {score: None}),
        "score_adapted_without_score": ("an adapter of score, and no score in the base", headless | dict(
            target_modules=["q_proj", "score"], modules_to_save=None, task_type=None), on_score),
        "rank_of_config": ("r is 3 in the config and 2 in the tensors", dict(r=3), {}),
        "rank_of_matrices": ("A of rank 2, B of rank 3", {}, {b: torch.ones(8, 3)}),
        "rank_zero": ("r is 0", dict(r=0), {}),
        "without_b": ("A without B", {}, {b: None}),
        "without_a": ("B without A", {}, {a: None}),
        "alpha_missing": ("lora_alpha is null", dict(lora_alpha=None), {}),
        "regex_matches_nothing": ("target_modules matches no module", dict(target_modules=r".*\.query"), {}),
        "regex_invalid": ("target_modules is not a regular expression", dict(target_modules="(q_proj"), {}),
        "regex_runs_away": ("target_modules backtracks exponentially", dict(target_modules=r"(([a-z_.0-9])+)+!"), {}),
        "targets_disagree": ("the config adapts q_proj, the tensors v_proj", {}, {
            a: None, b: None, f"{value}.lora_A.weight": t[a], f"{value}.lora_B.weight": t[b][:4]}),
        "targets_missing": ("the config adapts v_proj too, without tensors",
                            dict(target_modules=["q_proj", "v_proj"]), {}),
        "saved_module_missing": ("modules_to_save names the norm, which is not in the file",
                                 dict(modules_to_save=["norm", "score"]), {}),
        "unknown_tensor": ("a tensor with a name that no adapter has", {}, {f"{stem}.lora_C.weight": t[a]}),
        "dora_without_magnitude": ("use_dora, and no magnitudes", dict(use_dora=True), {}),
        "magnitude_without_dora": ("magnitudes, and no use_dora", {}, {f"{stem}.lora_magnitude_vector": torch.ones(8)}),
        "pissa": ("an initialisation that changes the base", dict(init_lora_weights="pissa"), {}),
        "layer_replication": ("layers of the base used more than once", dict(layer_replication=[[0, 1], [0, 1]]), {}),
        "target_parameters": ("parameters adapted that are no modules", dict(target_parameters=["q_proj.weight"]), {}),
        "token_indices": ("single rows of the embedding trained", dict(trainable_token_indices=[3]), {}),
        "alora": ("an adapter that is on from a token of the text only", dict(alora_invocation_tokens=[3]), {}),
        "qalora": ("inputs averaged in groups before A", dict(use_qalora=True, qalora_group_size=2), {}),
        "fan_in_fan_out": ("weights said to be [in, out], in a model whose are not", dict(fan_in_fan_out=True), {}),
        "bias_unknown": ("an unknown kind of bias", dict(bias="some"), {}),
        "head_of_two": ("a head with two outputs", {}, {score: torch.ones(2, 8)}),
    }


def outcome(name, config, directory):
    """What PEFT makes of a refused adapter: the scores of a chat, or its error's first line."""
    if name == "regex_runs_away":
        return {"error": "not run: it would not end"}
    sound, tensors = cases.small_judge()
    if config["base_model_name_or_path"].endswith("missing_head"):
        tensors.pop("score.weight")
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "config.json").write_text(json.dumps(sound))
        save_file(tensors, Path(temporary) / "model.safetensors", metadata={"format": "pt"})
        try:
            torch.manual_seed(1)
            base = cases.transformers.AutoModelForSequenceClassification.from_pretrained(
                temporary, dtype=torch.float32, attn_implementation="eager")
            model = PeftModel.from_pretrained(base, directory).eval()
            score = judges.scores(model, [[1, 3, 8, 9, 10, 14, 2, 4, 11, 12, 13, 15, 2]])[0]
            return {"score": score if abs(score) < float("inf") else None}
        except Exception as error:  # whatever it is, it is what a user of PEFT would see
            first = next((line for line in str(error).splitlines() if line.strip()), "")
            first = first.replace(str(directory), "DIR")
            # Lists of names that are no lists in an order, and addresses, are cut off.
            return {"error": f"{type(error).__name__}: {re.split('[{]|0x', first)[0]}"[:160]}


def write_broken(root):
    """refused/<name>, and what there is to know of each."""
    config, tensors = query_only()
    entries = {}
    for name, (reason, keys, changed) in broken(tensors).items():
        directory, settings = root / name, config | keys
        directory.mkdir(parents=True)
        (directory / "adapter_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
        kept = {key: value.contiguous().clone() for key, value in (tensors | changed).items() if value is not None}
        save_file(dict(sorted(kept.items())), directory / "adapter_model.safetensors", metadata={"format": "pt"})
        entries[name] = {"wrong": reason, "peft": outcome(name, settings, directory)}
    return entries


def make(root, show=lambda *_: None):
    """Write everything under `root`."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name in CASES:
        show(name, make_case(name, root / name))
    for name in TRAININGS:
        show(name, make_training(name, root / name))
    tiny.write_json(root / "refused.json", write_broken(root / "refused"))


def main():
    parser = argparse.ArgumentParser(description="PEFT adapters over tiny judges, and PEFT's numbers for them.")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    arguments = parser.parse_args()
    tiny.assert_pinned("torch", "transformers", "peft", "safetensors")
    tiny.deterministic()
    warnings.simplefilter("ignore")
    if not arguments.check:
        return make(LORA, lambda *facts: print(*facts, flush=True))
    with tempfile.TemporaryDirectory() as temporary:
        make(Path(temporary) / "lora")
        found = cases.different(Path(temporary) / "lora", LORA)
    print("\n".join(found) or "all as committed")
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
