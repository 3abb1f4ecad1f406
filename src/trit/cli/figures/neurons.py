"""Neurons for people: definitions, layers, the answer; in 80 columns."""

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trit.neurons import Neurons, Pruned

WIDTH = 80
LAYER_DEFINITIONS = (("above_rms", ">RMS"), ("tenth_of_max", ">MAX/10"))


def neurons_text(found: "Neurons") -> str:
    """The answer for people; shares in percent."""
    from trit.cli._terminal import counted

    texts = "; ".join(f"{text.name} (sha256 {text.sha256[:16]}…)" for text in found.texts)
    norm = ", behind a norm" if found.sub_norm else ""
    about = [
        f"{found.model}: {counted(sum(x.neurons for x in found.layers), 'neuron')} in "
        f"{counted(len(found.layers), 'layer')}",
        f"a: the input of ffn_down, {found.activation}(gate) · up{norm}",
        f"measured on {texts}: {counted(found.chunks, 'chunk')} of {found.ctx}",
        f"{found.isa}, {counted(found.threads, 'thread')}, {found.seconds:.1f} seconds",
    ]
    return "\n".join(
        [
            *about,
            "",
            _definitions(found),
            "",
            _layers(found),
            "",
            *textwrap.wrap(
                ">RMS, >MAX/10: % of the neurons that fire so for less than 10% of the tokens. "
                "TEXT: % of the neurons that carry so much of the energy a_j²·‖W_down[:,j]‖² "
                "summed over the tokens, of which a few may outweigh all others; EVEN: with every "
                "token counted alike; TOKEN: of a single token. Cross terms are left out.",
                WIDTH,
            ),
            "",
            *textwrap.wrap(found.claim(), WIDTH),
        ]
    )


def pruned_text(pruned: "Pruned") -> str:
    """The answer for people about a pruned model."""
    from trit.cli._terminal import counted, size, table

    found = pruned.evaluation.divergence
    assert found is not None
    energy = f"{100 * pruned.energy:.2f}% of the energy, every token counted alike"
    lines = [
        f"{pruned.path}: {pruned.after:,} of {pruned.before:,} neurons in each layer, "
        f"{size(pruned.bytes)} of {size(pruned.bytes_before)}",
        f"pruned {100 * (1 - pruned.after / pruned.before):.1f}%, which had {energy}",
    ]
    if pruned.rounded:
        lines.append(
            f"ffn_down rounded a second time: error {100 * pruned.rounding_error:.2f}% of its norm"
        )
    rows = [
        ("KLD from the unpruned model", f"{found.kld.mean:.5f} ± {found.kld.stderr:.5f}"),
        (
            "PPL",
            f"{pruned.evaluation.ppl.mean:.3f} ± {pruned.evaluation.ppl.stderr:.3f}; "
            f"{found.base.mean:.3f} ± {found.base.stderr:.3f} before",
        ),
        ("same top token", f"{100 * found.same_top.mean:.2f} ± {100 * found.same_top.stderr:.2f}%"),
    ]
    about = pruned.evaluation
    lines += [
        f"measured on {_called(about.text.name)} (sha256 {about.text.sha256[:16]}…): "
        f"{counted(about.tokens, 'token')} scored",
        "",
        table(rows),
    ]
    return "\n".join(lines)


def _called(text: str) -> str:
    return "the quality card's text" if text == "(text)" else text


def _definitions(found: "Neurons") -> str:
    from trit.cli._terminal import table
    from trit.neurons import DEFINITIONS, RARE

    head = ["A NEURON FIRES WHERE", "FIRING, %", *(f"IN <{100 * y:g}%" for y in RARE)]
    rows = [
        [
            words,
            _percent(found.active(name)),
            *(_percent(found.rare(name, below)) for below in RARE),
        ]
        for name, words in DEFINITIONS.items()
    ]
    return table([head, *rows], right=frozenset(range(1, len(head))))


def _layers(found: "Neurons") -> str:
    from trit.cli._terminal import table

    head = ["LAYER", "MEAN |a|", *(label for _, label in LAYER_DEFINITIONS)]
    head += ["TEXT 50%", "90%", "99%", "EVEN 90%", "TOKEN 90%"]
    rows = [
        [
            str(layer.layer),
            f"{float(layer.magnitude.mean()):.3g}",
            *(_percent(layer.rare(name, 0.1)) for name, _ in LAYER_DEFINITIONS),
            *(_percent(layer.carry(fraction)) for fraction in (0.5, 0.9, 0.99)),
            _percent(layer.carry(0.9, even=True)),
            _percent(layer.carry_token[0.9]),
        ]
        for layer in found.layers
    ]
    rows.append(
        [
            "all",
            "",
            *(_percent(found.rare(name, 0.1)) for name, _ in LAYER_DEFINITIONS),
            *(_percent(found.carry(fraction)) for fraction in (0.5, 0.9, 0.99)),
            _percent(found.carry(0.9, even=True)),
            _percent(found.carry_token(0.9)),
        ]
    )
    return table([head, *rows], right=frozenset(range(len(head))))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
