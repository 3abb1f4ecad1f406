"""What the functions of this package ask of a model."""

from collections.abc import Mapping
from typing import Any, Protocol

from trit import archs
from trit.errors import DoesNotFitError
from trit.files._tensor import Tensor
from trit.plan import Plan

CTX = 512  # tokens of a chunk, where the user does not say and the model has as many


class Model(Protocol):
    """An open model: a `files.checkpoint.Checkpoint`, for one."""

    @property
    def path(self) -> object: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...
    @property
    def tensors(self) -> Mapping[str, Tensor]: ...


def plan_for(model: Model, ctx: int | None = None) -> Plan:
    """The plan of a model for chunks of `ctx` tokens (None: CTX, or fewer where it has fewer).

    DoesNotFitError for more than the model was made for.
    """
    plan = archs.plan(model, context=ctx or CTX)
    if (ctx or 0) > plan.context_length:
        raise DoesNotFitError(
            f"{model.path}: chunks of {ctx} tokens are asked for, the model was made for "
            f"{plan.context_length}. Choose a smaller --ctx."
        )
    return plan


def chunk_tokens(model: Model, ctx: int | None = None) -> int:
    """Tokens of a chunk; errors as for `plan_for`."""
    return ctx or min(CTX, plan_for(model).context_length)
