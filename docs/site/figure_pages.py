"""Pages of figures: the example programs, and what the experiments have drawn."""

from __future__ import annotations

from pathlib import Path

CAPTIONS = {
    "fig2_rsa_rsa_by_layer": "Similarity to the base encoder, layer by layer (RSA)",
    "fig5_domains_rsa_domains": "Similarity on the task's own text and on Wikipedia",
    "fig1_structural_probes_probes_by_layer": "Structural probes: how much syntax can be read from each layer",
    "fig1_structural_probes_difference": "Structural probes, minus the base encoder",
    "fig3_freezing_freeze_by_k": "Score by the number of frozen blocks",
    "fig4_truncation_truncate_by_k": "Score by the number of blocks kept",
    "table1_edge_probing_edge_by_layer": "Edge probes of eight tasks, with control labels",
    "rsa_heatmap": "Every layer against every layer",
    "measures": "RSA beside CKA and Procrustes",
    "along_training": "When each layer changes",
    "weight_distance": "How far the weights of each block move",
    "noise_ceiling": "Similarity between seeds and between tasks",
    "beyond_size": "Training beside random changes of the same size",
    "lora": "Full fine-tuning beside LoRA",
    "lora_weights": "Full fine-tuning and LoRA in the weights",
    "prefix_time": "What keeping the output of frozen blocks saves",
}
"""The committed figures in the order of the page."""
SETTINGS = {
    "minilm_full": "MiniLM on whole corpora",
    "minilm": "MiniLM on subsets, three seeds",
}


def gallery(root: Path) -> str:
    """Return the figures of every setting; a figure without a caption is an error."""
    parts = []
    for setting, title in SETTINGS.items():
        folder = root / "experiments" / "results" / setting
        drawn = {path.stem for path in folder.glob("*.png")}
        if strange := sorted(drawn - set(CAPTIONS)):
            raise KeyError(f"docs/site/figure_pages.py: no caption for {folder}/{strange[0]}.png")
        parts.append(f"## {title}")
        parts += [
            f"### {caption}\n\n![{caption}](../experiments/results/{setting}/{name}.png)\n\n"
            f"{{download}}`the numbers <../experiments/results/{setting}/{table(folder, name)}>`"
            for name, caption in CAPTIONS.items()
            if name in drawn
        ]
    return "\n\n".join(parts)


def table(folder: Path, name: str) -> str:
    """Return the CSV file behind a figure: the longest name with which the figure's begins."""
    return max((path.name for path in folder.glob("*.csv") if name.startswith(path.stem)), key=len)


def programs(root: Path) -> str:
    """Return the source of every example program, under its name."""
    names = sorted(path.name for path in (root / "examples").glob("*.py"))
    return "\n\n".join(
        f"## {name}\n\n```{{literalinclude}} ../examples/{name}\n:language: python\n```" for name in names
    )
