"""Gradients of tiny decoders with PyTorch: golden/decoders/NAME/gradients.safetensors.

For each family: texts of several lengths, the states of their last tokens after the final norm, and the gradient of
sum(seed * states) for every parameter, where seed[i] = ((37 i mod 19) - 9) / 9. The checkpoints are those that
make_decoder_golden.py wrote. Each text is run alone, so no padding is involved.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent / "decoders"
FAMILIES = ["gemma3_text", "gpt2", "llama3", "phi", "qwen2", "qwen3"]
LENGTHS = [5, 1, 12, 3]


def main():
    for name in FAMILIES:
        model = AutoModelForCausalLM.from_pretrained(HERE / name, dtype=torch.float32, attn_implementation="eager")
        model.eval()
        vocabulary = model.get_input_embeddings().weight.shape[0]
        texts = [[(7 * i * i + 3 * n + 1) % vocabulary for i in range(n)] for n in LENGTHS]
        states = []
        for text in texts:
            output = model.base_model(input_ids=torch.tensor([text]), use_cache=False)
            states.append(output.last_hidden_state[0, -1])
        states = torch.cat(states)
        seed = torch.tensor([((i * 37 % 19) - 9) / 9 for i in range(len(states))])
        (states * seed).sum().backward()
        offsets = torch.tensor([0] + LENGTHS).cumsum(0)
        tensors = {"input_ids": torch.tensor(sum(texts, [])), "offsets": offsets, "states": states.detach()}
        for parameter, value in model.named_parameters():
            if value.grad is not None:
                tensors[f"grad.{parameter}"] = value.grad.contiguous()
        save_file(tensors, HERE / name / "gradients.safetensors")
        print(name, len(tensors))


if __name__ == "__main__":
    main()
