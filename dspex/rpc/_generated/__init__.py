"""Made from `dspex.proto` by `python -m dspex.rpc.generate`; not to be changed by hand."""
