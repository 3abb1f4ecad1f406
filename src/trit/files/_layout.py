"""Turn the tensor records of a GGUF header into shapes, formats and places, checking each.

The data of a file is exactly its tensors, in the order of the header, each beginning at the next
multiple of the alignment: no overlap, no hole, nothing after the last but its padding. llama.cpp
reads no other layout.
"""

from math import prod

from trit.errors import InvalidFileError, UnsupportedError
from trit.files._header import Header, TensorRecord
from trit.files._mapping import Mapping
from trit.files._tensor import Tensor, TensorInfo
from trit.formats import Format, by_type

# Types that ggml has and models hardly use: legal in a file, but there is nothing to run them with.
_UNSUPPORTED = {
    9: "q8_1", 15: "q8_k", 24: "i8", 25: "i16", 26: "i32", 27: "i64", 28: "f64",
}  # fmt: skip
_MAX_BYTES = (1 << 63) - 1


def aligned(offset: int, alignment: int) -> int:
    """The first multiple of `alignment` that is not below `offset`."""
    return -(-offset // alignment) * alignment


def place(mapping: Mapping, header: Header) -> dict[str, Tensor]:
    """The tensors of a file, in its order; InvalidFileError where they do not tile its data."""
    data_start = aligned(header.end, header.alignment)
    formats: dict[int, Format] = {}
    tensors: dict[str, Tensor] = {}
    raw = mapping.bytes
    expected = end = 0
    for record in header.records:
        where = f"tensor {record.name!r}"
        if record.ggml_type not in formats:
            formats[record.ggml_type] = _format(mapping, where, record.ggml_type)
        info = _describe(mapping, where, record, formats[record.ggml_type])
        _check_offset(mapping, where, record, expected, header.alignment)
        end = record.offset + info.nbytes
        if data_start + end > mapping.size:
            problem = (
                f"expected data to byte {data_start + end}, got a file of {mapping.size} bytes"
            )
            raise InvalidFileError(mapping.path, where, problem)
        expected = aligned(end, header.alignment)
        start = data_start + record.offset
        shape = (*info.shape[:-1], info.row_bytes)
        data = raw[start : data_start + end].reshape(shape)
        tensors[record.name] = Tensor(info.name, info.shape, info.format, data)
    _check_end(mapping, data_start + end if header.records else header.end, header.alignment)
    return tensors


def _format(mapping: Mapping, where: str, ggml_type: int) -> Format:
    if ggml_type in _UNSUPPORTED:
        raise UnsupportedError(
            f"{mapping.path}: {where} is of type {_UNSUPPORTED[ggml_type]}, which trit does not run"
        )
    try:
        return by_type(ggml_type)
    except UnsupportedError as error:
        problem = f"expected a tensor type of GGUF, got {ggml_type}, which is removed or unknown"
        raise InvalidFileError(mapping.path, where, problem) from error


def _describe(mapping: Mapping, where: str, record: TensorRecord, format: Format) -> TensorInfo:
    """Name, shape and format, once the numbers are known to make sense."""
    if any(not 0 < dim <= _MAX_BYTES for dim in record.dims):
        problem = f"expected dimensions of 1 to 2^63 - 1, got {list(record.dims)}"
        raise InvalidFileError(mapping.path, where, problem)
    if record.dims[0] % format.block_weights:
        problem = (
            f"expected rows of a multiple of {format.block_weights} weights for {format.name}, "
            f"got {record.dims[0]}"
        )
        raise InvalidFileError(mapping.path, where, problem)
    weights = prod(record.dims)
    bytes_needed = weights // format.block_weights * format.block_bytes
    if weights > _MAX_BYTES or bytes_needed > mapping.size:
        problem = (
            f"expected at most the {mapping.size} bytes of the file, "
            f"got shape {list(record.dims)} of {format.name}: {bytes_needed} bytes"
        )
        raise InvalidFileError(mapping.path, where, problem)
    return TensorInfo(record.name, record.dims[::-1], format)


def _check_offset(
    mapping: Mapping, where: str, record: TensorRecord, expected: int, alignment: int
) -> None:
    if record.offset == expected:
        return
    fault = "a hole" if record.offset > expected else "an overlap"
    if record.offset % alignment:
        fault = f"not a multiple of the alignment {alignment}"
    problem = f"expected its data at offset {expected}, got {record.offset} ({fault})"
    raise InvalidFileError(mapping.path, where, problem)


def _check_end(mapping: Mapping, end: int, alignment: int) -> None:
    """After the last tensor there may be its padding, whole or in part, and nothing else."""
    limit = aligned(end, alignment)
    if mapping.size > limit:
        problem = f"expected the file to end at byte {limit}, got {mapping.size - limit} bytes more"
        raise InvalidFileError(mapping.path, f"offset {limit}", problem)
