"""Quantizers: one module per method of choosing codes and scales; the file name names the method.

Each defines `quantize(weights, format_name, importance=None, threads=None) -> bytes of the rows`
for GGUF's formats, or `quantize_groups(weights, bits, group, …) -> Grid` for folders, or both.
"""
