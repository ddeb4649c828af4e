"""Published mechanisms as Sites values, each with its source and formula.

A preset fixes what sits at the sites and nothing else: widths, positions and training are those
of the layer around it. Where the publication does more than the sites can say, `note` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ogive.errors import unknown
from ogive.parts.sites import Sites


@dataclass(frozen=True, eq=False, repr=False)
class Preset(Sites):
    """A Sites value that names where it comes from."""

    name: str = ""
    formula: str = ""
    source: str = ""
    note: str = ""


class Presets(Mapping[str, Preset]):
    """name → Preset; an unknown name raises `UnknownName` with the names that fit."""

    def __init__(self, *presets: Preset) -> None:
        self._presets = {preset.name: preset for preset in presets}

    def __getitem__(self, name: str) -> Preset:
        if name not in self._presets:
            raise unknown("preset", str(name), self._presets)
        return self._presets[name]

    def __contains__(self, name: object) -> bool:
        return name in self._presets

    def __iter__(self) -> Iterator[str]:
        return iter(self._presets)

    def __len__(self) -> int:
        return len(self._presets)

    def __repr__(self) -> str:
        return f"Presets({', '.join(self)})"


def sites_from(text: str | Sites) -> Sites:
    """Sites from a Sites value, a preset's name, or the written form."""
    if isinstance(text, Sites):
        return text
    if isinstance(text, str) and text and "=" not in text:
        return presets[text.strip()]
    return Sites.parse(text)


_QIU = "Gated Attention for LLMs (Qiu 2025, 2505.06708)"

presets = Presets(
    Preset(
        name="vaswani2017",
        formula=r"\mathrm{softmax}(QK^\top/\sqrt{d})\,V",
        source="Attention Is All You Need (Vaswani 2017, 1706.03762)",
    ),
    Preset(
        score="additive(tanh)",
        name="bahdanau2015",
        formula=r"\mathrm{softmax}_j\bigl(v^\top \tanh(W s_i + U h_j)\bigr)",
        source="Bahdanau 2014 (1409.0473)",
        note="The published model attends from a recurrent decoder's state.",
    ),
    Preset(
        score="gat",
        mixed="elu",
        name="gat2018",
        formula=r"\mathrm{ELU}\bigl(\sum_j \mathrm{softmax}_j(\mathrm{LeakyReLU}"
        r"(a^\top[Wh_i \Vert Wh_j]))\, W h_j\bigr)",
        source="Graph Attention Networks (Velickovic 2017, 1710.10903)",
        note="The published layer shares one W among query, key and value and has no W_O.",
    ),
    Preset(
        score="gatv2",
        mixed="elu",
        name="gatv2_2022",
        formula=r"\mathrm{ELU}\bigl(\sum_j \mathrm{softmax}_j(a^\top \mathrm{LeakyReLU}"
        r"(W_l h_i + W_r h_j))\, W_r h_j\bigr)",
        source="How Attentive are Graph Attention Networks? (Brody 2021, 2105.14491)",
        note="The published layer shares W_r between key and value and has no W_O.",
    ),
    Preset(
        query="elu1",
        key="elu1",
        weight="linear(normalise=true)",
        name="linear_attention2020",
        formula=r"\phi(Q)\phi(K)^\top V / \phi(Q)\sum_j\phi(k_j),\quad \phi = \mathrm{elu} + 1",
        source="Transformers are RNNs (Katharopoulos 2020, 2006.16236)",
    ),
    Preset(
        query="conv(3)",
        key="conv(3)",
        value="conv(3)",
        name="primer_conv2021",
        formula=r"q, k, v \leftarrow \mathrm{conv}_3(xW)",
        source="multi-DConv-head attention of Primer (So 2021, 2109.08668)",
    ),
    Preset(
        score="cosine(learned=true)",
        name="qk_norm2020",
        formula=r"\mathrm{softmax}(g\,\hat Q \hat K^\top)\,V",
        source="Query-Key Normalization (Henry 2020, 2010.04245)",
        note="The paper starts g at log2(L² − L) for training length L; here it starts at 10.",
    ),
    Preset(
        weight="relu(length_power=1)",
        name="relu_attention2023",
        formula=r"\mathrm{relu}(QK^\top/\sqrt{d})\,V / n",
        source="Replacing softmax with ReLU (Wortsman 2023, 2309.08586)",
    ),
    Preset(
        query="silu",
        key="silu",
        value="silu",
        weight="silu(length_power=1)",
        mixed="layernorm,gate(silu)",
        name="hstu2024",
        formula=r"\mathrm{LN}\bigl(\mathrm{silu}(QK^\top)V/n\bigr) \odot \mathrm{silu}(xW_u)",
        source="Actions Speak Louder than Words (Zhai 2024, 2402.17152)",
        note="The published layer adds a relative bias to the score and has no FFN.",
    ),
    Preset(
        weight="sigmoid(bias=-log_n)",
        name="sigmoid_attention2025",
        formula=r"\sigma(QK^\top/\sqrt{d} - \log n)\,V",
        source="Theory, Analysis, and Best Practices for Sigmoid Self-Attention (2409.04431)",
    ),
    Preset(
        mixed="gate(sigmoid)",
        name="gated_attention2025",
        formula=r"(A V) \odot \sigma(x W_g)",
        source=f"{_QIU}, its best position, G1",
    ),
    Preset(
        mixed="gate(sigmoid)",
        name="gated_attention2025_g1",
        formula=r"(A V) \odot \sigma(x W_g)",
        source=f"{_QIU}, G1: after weights @ values",
    ),
    Preset(
        value="gate(sigmoid)",
        name="gated_attention2025_g2",
        formula=r"v \odot \sigma(x W_g)",
        source=f"{_QIU}, G2: value",
    ),
    Preset(
        key="gate(sigmoid)",
        name="gated_attention2025_g3",
        formula=r"k \odot \sigma(x W_g)",
        source=f"{_QIU}, G3: key",
    ),
    Preset(
        query="gate(sigmoid)",
        name="gated_attention2025_g4",
        formula=r"q \odot \sigma(x W_g)",
        source=f"{_QIU}, G4: query",
    ),
    Preset(
        output="gate(sigmoid)",
        name="gated_attention2025_g5",
        formula=r"(o W_O) \odot \sigma(x W_g)",
        source=f"{_QIU}, G5: after the output projection",
    ),
    Preset(
        value="glu(silu,width=match)",
        name="glu_value2025",
        formula=r"v = a \odot \mathrm{silu}(b),\quad (a, b) = x W_V",
        source="GLU Attention (Wang 2025, 2507.00022)",
    ),
    Preset(
        weight="softpick",
        name="softpick2025",
        formula=r"\max(e^{S} - 1, 0) / \sum |e^{S} - 1|",
        source="Softpick (Zuhri 2025, 2504.20966)",
    ),
    Preset(
        query="residual_mlp(gelu)",
        name="nonlinear_query2026",
        formula=r"q = \tfrac12 (x + \mathrm{LN}(\mathrm{gelu}(\mathrm{RMSNorm}(x)W_1)W_2))",
        source="Beyond Linearity in Attention Projections (Karbevski 2026, 2603.13381)",
    ),
    Preset(
        query="softplus",
        key="softplus",
        name="softplus_qk",
        formula=r"q = \log(1 + e^{xW_Q}),\quad k = \log(1 + e^{xW_K})",
        source="the magnitudes of PoPE (2025, 2509.10534)",
        note="PoPE turns these magnitudes by the position; here positions are the layer's.",
    ),
)
