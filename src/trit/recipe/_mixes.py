"""The named mixes: which format each kind of tensor gets, as tables of (condition, format).

What a mix means is defined by llama.cpp's behaviour: `llama-quantize --dry-run` prints the type of
every tensor, and `scripts/mixes_golden.py` compares these tables with it. A row of a table is tried
in order and the first condition that holds decides; without one the tensor gets the mix's base.
"""

from __future__ import annotations

from trit.recipe._mix_rules import (
    Mix,
    always,
    below,
    between,
    both,
    eight,
    falcon,
    first,
    more_bits,
    shared,
    shared_or_experts,
    weighted,
    without,
)


def _few_bits(
    name: str, file_type: int, base: str, more: str, attn_output: str | None = None
) -> Mix:
    """The mixes of one and two bits; `more` is what their sensitive tensors get."""
    return Mix(
        name,
        file_type,
        base,
        attn_v=((shared_or_experts, "q4_k"), (always, more)),
        attn_v_eight="q4_k",
        attn_v_big=None,
        attn_k_eight="q4_k",
        ffn_down=((first(8), more),),
        downs_by_layer=False,
        attn_output=attn_output,
        attn_output_falcon=attn_output,
        attn_output_eight="q5_k",
        head="q5_k",
        embedding=more,
    )


_ALL = (
    Mix("F32", 0, "f32"),
    Mix("F16", 1, "f16"),
    Mix("BF16", 32, "bf16"),
    # With importance data the first ffn_down of the two symmetric legacy types get a minimum too.
    Mix("Q4_0", 2, "q4_0", ffn_down=((both(weighted, first(8)), "q4_1"),)),
    Mix("Q4_1", 3, "q4_1"),
    Mix("Q5_0", 8, "q5_0", ffn_down=((both(weighted, first(8)), "q5_1"),)),
    Mix("Q5_1", 9, "q5_1"),
    Mix("Q8_0", 7, "q8_0"),
    Mix(
        "Q2_K",
        10,
        "q2_k",
        attn_v=((shared, "q4_k"), (always, "q3_k")),
        ffn_down=((always, "q3_k"),),
        attn_output="q3_k",
        attn_output_eight="q5_k",
    ),
    Mix("Q2_K_S", 21, "q2_k", attn_v=((shared, "q4_k"),), ffn_down=((first(8), "q4_k"),)),
    Mix("Q3_K_S", 11, "q3_k", attn_output_eight="q5_k"),
    Mix(
        "Q3_K_M",
        12,
        "q3_k",
        attn_v=((below(2), "q5_k"), (always, "q4_k")),
        ffn_down=(
            (first(16), "q5_k"),
            (both(falcon, without(more_bits)), "q3_k"),
            (always, "q4_k"),
        ),
        attn_output="q4_k",
        attn_output_eight="q5_k",
    ),
    Mix(
        "Q3_K_L",
        13,
        "q3_k",
        attn_v=((always, "q5_k"),),
        ffn_down=((falcon, "q4_k"), (always, "q5_k")),
        attn_output="q5_k",
        attn_output_falcon="q4_k",
    ),
    Mix(
        "Q4_K_S",
        14,
        "q4_k",
        attn_v=((below(4), "q5_k"),),
        ffn_down=((both(without(falcon), first(8)), "q5_k"),),
        attn_output_eight="q5_k",
    ),
    Mix(
        "Q4_K_M",
        15,
        "q4_k",
        attn_v=((more_bits, "q6_k"),),
        ffn_down=(
            (both(falcon, first(16)), "q6_k"),
            (both(falcon, more_bits), "q5_k"),
            (both(without(falcon), more_bits), "q6_k"),
        ),
        attn_output_eight="q5_k",
    ),
    Mix("Q5_K_S", 16, "q5_k"),
    Mix("Q5_K_M", 17, "q5_k", attn_v=((more_bits, "q6_k"),), ffn_down=((more_bits, "q6_k"),)),
    Mix("Q6_K", 18, "q6_k"),
    Mix(
        "IQ4_NL",
        25,
        "iq4_nl",
        attn_v=((shared, "q5_k"),),
        ffn_down=((both(without(weighted), first(8)), "q5_k"),),
        attn_output_eight="q5_k",
    ),
    Mix(
        "IQ4_XS",
        30,
        "iq4_xs",
        attn_v=((shared, "q5_k"),),
        ffn_down=((both(without(weighted), first(8)), "q5_k"),),
        attn_output_eight="q5_k",
    ),
    _few_bits("IQ1_S", 24, "iq1_s", "q2_k", attn_output="iq2_xxs"),
    _few_bits("IQ1_M", 31, "iq1_m", "q2_k", attn_output="iq2_xxs"),
    _few_bits("IQ2_XXS", 19, "iq2_xxs", "q2_k"),
    _few_bits("IQ2_XS", 20, "iq2_xs", "q2_k"),
    _few_bits("IQ2_S", 28, "iq2_xs", "iq3_s", attn_output="iq3_s"),
    _few_bits("IQ2_M", 29, "iq2_s", "iq3_s", attn_output="iq3_s"),
    Mix(
        "IQ3_XXS",
        23,
        "iq3_xxs",
        attn_v=((shared, "q4_k"), (without(weighted), "iq3_s")),
        attn_k="iq2_s",
        attn_q="iq2_s",
        ffn_down=(
            (both(without(weighted), first(8)), "q4_k"),
            (without(weighted), "q3_k"),
        ),
        attn_output="iq3_s",
        attn_output_eight="q5_k",
        head="q5_k",
        embedding="iq3_s",
    ),
    Mix(
        "IQ3_XS",
        22,
        "iq3_s",
        attn_v=((shared, "q4_k"),),
        attn_k="iq3_xxs",
        attn_q="iq3_xxs",
        ffn_up=((between(8), "iq3_xxs"),),
        attn_output_eight="q5_k",
    ),
    Mix("IQ3_S", 26, "iq3_s", attn_v=((shared, "q4_k"),), attn_output_eight="q5_k"),
    Mix(
        "IQ3_M",
        27,
        "iq3_s",
        attn_v=((always, "q4_k"),),
        ffn_down=((first(8), "q4_k"), (both(eight, more_bits), "q4_k")),
        attn_output="q4_k",
        attn_output_eight="q5_k",
    ),
    Mix("TQ1_0", 36, "tq1_0", embedding="q4_k"),
    Mix("TQ2_0", 37, "tq2_0", embedding="q4_k"),
    Mix("MXFP4_MOE", 38, "mxfp4", dense="q8_0"),
)

MIXES = {mix.name: mix for mix in _ALL}
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

# A row that its format's block does not divide takes the neighbour in blocks of 32; where even that
# does not fit, F16.
FALLBACKS = {
    **dict.fromkeys(("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s"), "iq4_nl"),
    **dict.fromkeys(("iq3_xxs", "iq3_s", "iq4_xs"), "iq4_nl"),
    **dict.fromkeys(("q2_0", "q2_k", "q3_k", "tq1_0", "tq2_0"), "q4_0"),
    "q4_k": "q5_0",
    "q5_k": "q5_1",
    "q6_k": "q8_0",
}

# Parts of the names of matrices that every mix leaves as they are: small, or not used in a product.
KEPT_PARTS = (
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    *(f"time_mix_{part}.weight" for part in ("w0", "w1", "w2", "v0", "v1", "v2", "a0", "a1")),
    *(f"time_mix_{part}.weight" for part in ("a2", "g1", "g2", "decay_w1", "decay_w2")),
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
)
KEPT_NAMES = ("position_embd.weight", "token_types.weight")

# Matrices that the stock converters write as F32 whatever type was asked for.
F32_PARTS = (
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_inp_shexp.weight",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "time_mix_first.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
)
