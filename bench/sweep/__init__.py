"""A health sweep over many hosts by SSH, ours and others' clients in the same rounds."""
