"""What `convert`, `quantize` and `synth` say: of a job, of a budget, of a folder written."""
