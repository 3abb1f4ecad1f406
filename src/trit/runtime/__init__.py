"""What turns an engine into a model one can talk to: text to tokens, templates, sampling."""
