"""Made-up records of the common tasks, in the fields that the sets are published with."""

from __future__ import annotations

from typing import Any

RECORDS: dict[str, list[dict[str, Any]]] = {
    "hellaswag": [
        {
            "ind": 1,
            "activity_label": "Baking bread",
            "ctx_a": "A woman weighs [substeps] flour.",
            "ctx_b": "she",
            "endings": ["adds water [title] Then salt.", "flies off.", "sings.", "sleeps  well."],
            "label": label,
        }
        for label in ("2", 0)
    ],
    "arc_easy": [
        {
            "id": "A1",
            "question": {
                "stem": "What melts?",
                "choices": [{"text": t, "label": v} for t, v in (("ice", "A"), ("a stone", "B"))],
            },
            "answerKey": "A",
        },
        {
            "question": "What burns?",
            "choices": {"text": ["wood", "sand", "water"], "label": ["1", "2", "3"]},
            "answerKey": "1",
        },
    ],
    "piqa": [{"goal": "To dry a shirt", "sol1": "hang it up", "sol2": "wet it", "label": 0}],
    "winogrande": [
        {
            "sentence": "Ann beat Bea since _ trained more.",
            "option1": "Ann",
            "option2": "Bea",
            "answer": "1",
        },
        {"sentence": "_ was late.", "option1": "Tom", "option2": "Al", "answer": "2"},
    ],
    "lambada_openai": [
        {"text": "The fox ran over the hill and the dog ran after the fox"},
        {"text": "He said yes, and she said yes"},
    ],
}
