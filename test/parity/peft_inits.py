"""PEFT's initialisations of adapters: PiSSA's and OLoRA's factors, EVA's components and ranks (README.md)."""

import warnings

import torch
from peft import LoraConfig, get_peft_model, initialize_lora_eva_weights
from peft.tuners.lora.config import EvaConfig
from peft.utils import incremental_pca

import common
import llama

MODEL = "untied-llama3"
TARGETS = ["q_proj", "down_proj"]
INITS = {
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "pissa-rslora": {"init_lora_weights": "pissa", "use_rslora": True},
}
LAYER = "model.layers.1.{}"
NAMES = {"q_proj": "self_attn.q_proj", "down_proj": "mlp.down_proj"}


def svd64(matrix, full_matrices=True, *, exact=torch.linalg.svd, **_):
    """Singular vectors of close singular values mix in float32."""
    return tuple(part.float() for part in exact(matrix.double(), full_matrices=full_matrices))


def factored(name, options, tensors):
    """s·B·A and the residual weight, of two layers; and the logits, which equal the base's."""
    base = common.build(llama.folder_of(MODEL), torch.float32)
    ids, _ = llama.base_batch(MODEL)
    before = common.logits_of(base, ids)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules=TARGETS, **options)).eval()
    error = (common.logits_of(model, ids) - before).abs().max() / before.abs().max()
    assert error < 1e-5, error
    for target in TARGETS:
        layer = model.base_model.model.get_submodule(LAYER.format(NAMES[target]))
        scaling = layer.scaling["default"]
        tensors[f"{name}.{target}.product"] = scaling * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        tensors[f"{name}.{target}.residual"] = layer.base_layer.weight


def eva(tensors):
    """Ranks by layer, and A. Singular values are exact, since the random subspace differs from ours."""
    incremental_pca.IncrementalPCA._svd_fn_lowrank = incremental_pca.IncrementalPCA._svd_fn_full
    base = common.build(llama.folder_of(MODEL), torch.float32)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=3, lora_alpha=6, target_modules=["q_proj", "v_proj", "up_proj", "down_proj"],
        init_lora_weights="eva", eva_config=EvaConfig(rho=2.0, tau=0.99),
    )
    model = get_peft_model(base, config)
    batches = []
    for i in range(3):
        ids, labels = common.batch(f"eva.{i}")
        tensors[f"eva.{i}.ids"], tensors[f"eva.{i}.labels"] = ids, labels
        mask = torch.ones(ids.shape, dtype=torch.long)
        batches.append({"input_ids": common.ids_of(ids), "labels": common.ids_of(labels), "attention_mask": mask})
    initialize_lora_eva_weights(model, batches, show_progress_bar=False)
    ranks, alphas = {}, {}
    for path, layer in model.base_model.model.named_modules():
        if hasattr(layer, "lora_A") and "default" in layer.lora_A:
            ranks[path], alphas[path] = layer.r["default"], layer.lora_alpha["default"]
            tensors[f"eva.{path}"] = layer.lora_A["default"].weight
            assert layer.lora_B["default"].weight.abs().max() == 0
    assert len(set(ranks.values())) > 1, "no rank moved"
    config = model.peft_config["default"].to_dict()
    return {
        "ranks": ranks, "alphas": alphas, "rankPattern": config["rank_pattern"],
        "alphaPattern": config["alpha_pattern"], "targets": sorted(config["target_modules"]),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.linalg.svd = svd64
    tensors = {}
    for name, options in INITS.items():
        factored(name, options, tensors)
    described = eva(tensors)
    common.write_tensors(common.GOLDENS / "peft_inits.safetensors", tensors)
    common.write_json(common.GOLDENS / "peft_inits.json", {"versions": common.versions(), "eva": described})
    print(described["ranks"])
